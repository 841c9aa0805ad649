"""Matching by structure: names never matter, symmetry is recorded, differences are found."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Figure
from xbackend_fl.canonical import GraphBuilder, NativeTensor, Schema, Value
from xbackend_fl.canonical.layout import Native
from xbackend_fl.mapping.match.diagnose import differences
from xbackend_fl.mapping.match.match import match
from xbackend_fl.mapping.match.skeleton import skeleton_of

pytestmark = pytest.mark.quick

Program = list[tuple[str, tuple[int, ...]]]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Random graphs of dense layers, activations, sums and concatenations."""
    program: Program = []
    for index in range(draw(st.integers(3, 14))):
        operator = draw(st.sampled_from(["Gemm", "Relu", "Tanh", "Add", "Concat"]))
        count = 2 if operator in {"Add", "Concat"} else 1
        sources = tuple(draw(st.integers(max(-1, index - 4), index - 1)) for _ in range(count))
        program.append((operator, sources))
    return program


def build(program: Program, name: Callable[[int], str], *, flip: bool = False) -> Schema:
    """A schema of a random program; widths stay 4 by joining and projecting again."""
    weights = {f"{name(i)}.w": NativeTensor((4, 4), "float32") for i, _ in enumerate(program)}
    joins = {f"{name(i)}.j": NativeTensor((4, 8), "float32") for i, _ in enumerate(program)}
    builder = GraphBuilder("test", weights | joins)
    values: list[Value] = [builder.input(name(-1), "float32", (2, 4), (0, 1))]
    for index, (operator, sources) in enumerate(program):
        inputs = [values[source + 1] for source in sources]
        word = name(index)
        if operator == "Gemm":
            value = builder.linear(word, inputs[0], Native(f"{word}.w", (4, 4)), None)
        elif operator == "Add":
            value = builder.binary("Add", word, *(reversed(inputs) if flip else inputs))
        elif operator == "Concat":
            joined = builder.concat(word, inputs, 1)
            value = builder.linear(f"{word}.proj", joined, Native(f"{word}.j", (4, 8)), None)
        else:
            value = builder.elementwise(operator, word, inputs[0])
        values.append(value)
    total = values[-1]
    for index, value in enumerate(values[1:-1]):
        total = builder.binary("Max", f"total{name(index)}", total, value)
    builder.output(total)
    return builder.build().schema


@given(programs(), st.integers(0, 10**6))
@settings(max_examples=150)
def test_renamed_and_commuted_graphs_match(program: Program, salt: int) -> None:
    order = np.random.default_rng(salt).permutation(len(program) + 1)
    left = skeleton_of(build(program, lambda i: f"a{i}"))
    right = skeleton_of(build(program, lambda i: f"b{order[i]}", flip=True))
    matching = match(left, right)
    assert matching is not None
    assert sorted(matching.pairs.values()) == list(range(len(right.core_nodes)))
    for i, j in matching.pairs.items():
        ours, theirs = left.core_nodes[i], right.core_nodes[j]
        assert ours.node.operator == theirs.node.operator
        mapped = [(matching.pairs.get(e.source, e.source), e.output) for e in ours.edges]
        found = [(e.source, e.output) for e in theirs.edges]
        assert (sorted(mapped) == sorted(found)) if ours.commutative else (mapped == found)


@given(programs(), st.data())
@settings(max_examples=100)
def test_one_changed_operator_never_matches(program: Program, data: st.DataObject) -> None:
    places = [i for i, (operator, _) in enumerate(program) if operator in {"Relu", "Tanh"}]
    if not places:
        return
    place = data.draw(st.sampled_from(places))
    other = list(program)
    operator, sources = program[place]
    other[place] = ("Tanh" if operator == "Relu" else "Relu", sources)
    left, right = build(program, lambda i: f"a{i}"), build(other, lambda i: f"b{i}")
    operators = [sorted(node.operator for node in graph.nodes) for graph in (left, right)]
    if operators[0] == operators[1]:
        return  # the change folded away: the same operation on the same value was there already
    assert match(skeleton_of(left), skeleton_of(right)) is None


def test_interchangeable_branches_are_recorded() -> None:
    program: Program = [("Gemm", (-1,)), ("Gemm", (-1,)), ("Add", (0, 1))]
    schema = build(program, lambda i: f"n{i}")
    matching = match(skeleton_of(schema), skeleton_of(schema))
    assert matching is not None
    assert len(matching.symmetries) == 1


def test_the_order_of_a_concatenation_counts() -> None:
    one: Program = [("Gemm", (-1,)), ("Relu", (0,)), ("Concat", (0, 1))]
    two: Program = [("Gemm", (-1,)), ("Relu", (0,)), ("Concat", (1, 0))]
    left, right = (skeleton_of(build(p, lambda i: f"n{i}")) for p in (one, two))
    assert match(left, right) is None


@pytest.mark.parametrize("nesting", [((0, 1), 2), (0, (1, 2))])
def test_sums_of_three_are_one_node(nesting: Any) -> None:
    builder = GraphBuilder("test", {})
    inputs = [builder.input(f"x{i}", "float32", (2, 3), (0, 1)) for i in range(3)]

    def add(item: Any) -> Value:
        return inputs[item] if isinstance(item, int) else builder.binary("Add", "add", *map(add, item))

    builder.output(add(nesting))
    (core,) = skeleton_of(builder.build().schema).core_nodes
    assert [edge.source for edge in core.edges] == [-1, -2, -3]


def chain(length: int, name: str) -> Schema:
    """A deep network: dense layers with skips, as many nodes as asked for."""
    program: Program = [("Gemm", (-1,))]
    while len(program) < length:
        last = len(program) - 1
        program += [("Relu", (last,)), ("Gemm", (last + 1,)), ("Add", (last, last + 2))]
    weights = {f"{name}{i}.w": NativeTensor((4, 4), "float32") for i in range(len(program))}
    builder = GraphBuilder("test", weights)
    values = [builder.input("x", "float32", (2, 4), (0, 1))]
    for index, (operator, sources) in enumerate(program):
        inputs = [values[source + 1] for source in sources]
        word = f"{name}{index}"
        if operator == "Gemm":
            values.append(builder.linear(word, inputs[0], Native(f"{word}.w", (4, 4)), None))
        elif operator == "Add":
            values.append(builder.binary("Add", word, *inputs))
        else:
            values.append(builder.elementwise(operator, word, inputs[0]))
    builder.output(values[-1])
    return builder.build().schema


@pytest.mark.slow
def test_a_thousand_nodes_take_less_than_a_second_and_more_take_in_proportion(figure: Figure) -> None:
    seconds = {}
    for length in (1000, 8000):
        graphs = [skeleton_of(chain(length, name)) for name in "ab"]
        # The collector walks everything that the frameworks hold; that is not the matching's work.
        gc.disable()
        try:
            start = time.process_time()
            assert match(*graphs) is not None
            seconds[length] = time.process_time() - start
        finally:
            gc.enable()
    figure("matching 1,000 and 8,000 nodes, processor seconds", f"{seconds[1000]:.3f}, {seconds[8000]:.3f}")
    assert seconds[1000] < 1.0
    assert seconds[8000] < 20 * seconds[1000]


def test_a_wrong_choice_among_ties_is_taken_back() -> None:
    """Two cycles of two against one cycle of four: refinement alone cannot tell their nodes apart."""

    def graph(pairs: list[tuple[int, int]], name: str) -> Schema:
        weights = {f"{name}{i}.w": NativeTensor((4, 4), "float32") for i in range(8)}
        builder = GraphBuilder("test", weights)
        x = builder.input("x", "float32", (2, 4), (0, 1))
        parts = [builder.linear(f"{name}{i}", x, Native(f"{name}{i}.w", (4, 4)), None) for i in range(4)]
        sums = [builder.binary("Add", f"{name}s{a}{b}", parts[a], parts[b]) for a, b in pairs]
        squashed = [builder.elementwise("Tanh", f"{name}t{i}", value) for i, value in enumerate(sums)]
        total = squashed[0]
        for value in squashed[1:]:
            total = builder.binary("Max", f"{name}m", total, value)
        builder.output(total)
        return builder.build().schema

    square = [(0, 1), (1, 2), (2, 3), (3, 0)]
    one, two = (skeleton_of(graph(p, n)) for p, n in ((square, "a"), ([(2, 0), (0, 3), (3, 1), (1, 2)], "b")))
    matching = match(
        one, two, resemblance=lambda ours, theirs: -float(hash((ours.node.name, theirs.node.name)) % 7)
    )
    assert matching is not None
    for i, j in matching.pairs.items():
        mapped = sorted((matching.pairs.get(e.source, e.source)) for e in one.core_nodes[i].edges)
        assert mapped == sorted(e.source for e in two.core_nodes[j].edges)
    assert match(one, skeleton_of(graph([(0, 1), (1, 0), (2, 3), (3, 2)], "c"))) is None


def test_one_more_node_is_named_wherever_it_was_written() -> None:
    """The region that differs is one node, although the branches come in another order."""

    def graph(*, turned: bool, more: bool) -> Schema:
        weights = {f"{name}.w": NativeTensor((4, 4), "float32") for name in "abc"}
        builder = GraphBuilder("test", weights)
        x = builder.input("x", "float32", (2, 4), (0, 1))

        def branch(name: str, operator: str) -> Value:
            value = builder.linear(name, x, Native(f"{name}.w", (4, 4)), None)
            if more and name == "b":
                value = builder.elementwise("Sigmoid", "extra", value)
            return builder.elementwise(operator, f"{name}.{operator}", value)

        parts = [branch(*pair) for pair in [("a", "Relu"), ("b", "Tanh")][:: -1 if turned else 1]]
        total = builder.binary("Add", "sum", *parts)
        builder.output(builder.linear("c", total, Native("c.w", (4, 4)), None))
        return builder.build().schema

    found = differences(
        skeleton_of(graph(turned=False, more=False)), skeleton_of(graph(turned=True, more=True)), None
    )
    (only,) = found
    assert str(only) == "after 'b': reference has nothing, candidate has Sigmoid 'extra'"
