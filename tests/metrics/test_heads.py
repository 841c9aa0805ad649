"""Several outputs with a loss each: figures add up in any split, cross the wire, and are refused where no data have them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error

from tests.metrics.models import schema_with
from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.schema import Port
from xbackend_fl.errors import ConfigError, UpdateRefused
from xbackend_fl.losses import LOSSES, joined, parts_of
from xbackend_fl.metrics import (
    LOSS,
    Expected,
    Head,
    Heads,
    Metrics,
    Objectives,
    Reported,
    objectives_of,
    usual_metrics,
)

pytestmark = pytest.mark.quick
Array = NDArray[Any]
HUGE = 1e119


def head(name: str, loss: str, output: int | str, weight: float) -> Head:
    made = LOSSES[loss](loss)
    return Head(name, made, (LOSS, *usual_metrics(made)), output, weight, None, -100)


HEADS = Heads(
    (head("organ", "cross_entropy", 0, 1.0), head("age", "huber", 1, 0.1)), (Reported("dose", "min"),)
)


def schema(*keys: str) -> Schema:
    shapes = [(1, 4), (1, 2)]
    ports = [Port(f"out{i}", "float32", s, k) for i, (s, k) in enumerate(zip(shapes, keys, strict=True))]
    return replace(schema_with((1, 4)), outputs=tuple(ports))


def drawn(seed: int, rows: int) -> tuple[list[Array], Array]:
    draw = np.random.default_rng(seed)
    outputs = [draw.standard_normal((rows, 4)), draw.standard_normal((rows, 2))]
    organ = draw.integers(0, 4, rows)
    organ[draw.random(rows) < 0.3] = -100
    organ[0] = 1
    return outputs, joined({"organ": organ, "age": draw.standard_normal((rows, 2)).astype(np.float32)})


def read(targets: Array) -> Objectives:
    return objectives_of(schema("", ""), HEADS, targets)


def measured(rows: int = 40) -> Metrics:
    outputs, targets = drawn(0, rows)
    return read(targets).measured(outputs, targets)


def test_figures_are_those_of_every_output_and_the_weighted_sum_of_the_losses() -> None:
    outputs, targets = drawn(0, 60)
    found = read(targets).measured(outputs, targets).figures
    counted = targets["organ"] != -100
    scores = np.exp(outputs[0]) / np.exp(outputs[0]).sum(1, keepdims=True)
    entropy = log_loss(targets["organ"][counted], scores[counted], labels=range(4))
    errors = np.abs(outputs[1] - targets["age"])
    huber = float(np.where(errors < 1, errors**2 / 2, errors - 0.5).mean())
    assert found["organ/loss"] == pytest.approx(entropy)
    assert found["organ/accuracy"] == accuracy_score(targets["organ"][counted], outputs[0][counted].argmax(1))
    assert found["age/mae"] == pytest.approx(mean_absolute_error(targets["age"], outputs[1]))
    assert found["loss"] == pytest.approx(entropy + 0.1 * huber)
    assert next(iter(found)) == "loss"


@given(st.lists(st.integers(0, 40), max_size=4), st.randoms(use_true_random=False))
def test_parts_of_any_split_add_up(cuts: list[int], order: Any) -> None:
    outputs, targets = drawn(1, 40)
    objectives, edges = read(targets), sorted({0, 40, *cuts})
    parts = [objectives.measured([o[a:b] for o in outputs], targets[a:b]) for a, b in pairwise(edges)]
    order.shuffle(parts)
    whole = objectives.measured(outputs, targets).figures
    assert Metrics.total(parts).figures == pytest.approx(whole)
    each = {str(place): part for place, part in enumerate(parts)}
    assert Metrics.over(each).each.keys() == each.keys()


def test_figures_cross_the_wire_with_what_participants_report() -> None:
    found = measured().beside({"a": Metrics().reporting(HEADS.reported, {"dose": 2.0}, 9)})
    sent = json.loads(json.dumps(found.to_fields()))
    expected = Expected.from_schema(HEADS, schema("", ""), 100)
    back = expected.evaluated(sent)
    assert back == found
    assert back.figures == found.figures
    assert back.figures["dose"] == 2.0
    assert Metrics.total([back, back]).figures == pytest.approx(found.figures)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"organ/accuracy": 99}, "organ: impossible figures: accuracy is 99"),
        ({"age/mae": -1.0}, "age: impossible figures: mae"),
        ({"age/positions": 10**6}, "age: figures over 1000000 positions, and there can be 200 at most"),
        ({"organ/loss": HUGE}, "organ: impossible figures: loss is 1e+119"),
        ({"organ/loss": None}, "organ: loss is a NoneType"),
        ({"liver/loss": 1.0}, "an entry that no metric of evaluation.reported has"),
        ({"loss": 1.0}, "no metric of evaluation.reported has"),
        ({"dose": 1.0, "dose.examples": 1e9}, "dose over 1e+09 examples"),
        ({"organ/positions": "ten"}, "organ: positions is a str"),
    ],
)
def test_what_no_data_have_is_refused_by_the_head_s_name(changes: dict[str, Any], words: str) -> None:
    expected = Expected.from_schema(HEADS, schema("", ""), 100)
    with pytest.raises(UpdateRefused) as caught:
        expected.evaluated(measured().to_fields() | changes)
    assert words in caught.value.message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["organ/loss", "positions"]), inner)
        ),
    )
)
def test_anything_else_is_refused_and_nothing_else_happens(fields: Any) -> None:
    expected = Expected.from_schema(HEADS, schema("", ""), 100)
    for ask in (expected.evaluated, expected.trained):
        with pytest.raises(UpdateRefused):
            ask(fields)


def test_a_loss_of_training_is_within_the_weighted_bounds() -> None:
    expected = Expected.from_schema(HEADS, schema("", ""), 100)
    assert expected.trained({"positions": 10, "loss": 5.0}).loss == 0.5
    for loss in (-1e-9, HUGE):
        with pytest.raises(UpdateRefused, match="impossible figures: loss"):
            expected.trained({"positions": 10, "loss": loss})


def test_a_head_of_which_nothing_counts_leaves_the_sum_out() -> None:
    outputs, targets = drawn(0, 10)
    objectives = read(targets)
    targets["organ"] = -100
    found = objectives.measured(outputs, targets).figures
    assert "loss" not in found
    assert "age/loss" in found


@pytest.mark.parametrize(
    ("keys", "outputs", "expected"),
    [
        (("", ""), (0, 1), (0, 1)),
        (("", ""), ("0", "1"), (0, 1)),
        (("organ", "age"), ("organ", "age"), (0, 1)),
        (("0", "1"), (0, 1), (0, 1)),
    ],
)
def test_outputs_are_found_by_name_or_place(
    keys: tuple[str, str], outputs: tuple[Any, Any], expected: tuple[int, int]
) -> None:
    found = [
        replace(one, output=o).index_in(schema(*keys)) for one, o in zip(HEADS.each, outputs, strict=True)
    ]
    assert tuple(found) == expected
    assert head("", "huber", 0, 1.0).index_in(schema(*keys)) == 0


@pytest.mark.parametrize(
    ("keys", "output"), [(("", ""), 2), (("", ""), "organ"), (("a", "b"), 0), (("a", "b"), -1)]
)
def test_an_output_that_is_not_there_is_refused_with_those_that_are(
    keys: tuple[str, str], output: Any
) -> None:
    with pytest.raises(ConfigError, match="no output") as caught:
        replace(HEADS.each[0], output=output).index_in(schema(*keys))
    assert ("a, b" if any(keys) else "0 to 1") in caught.value.message


@pytest.mark.parametrize("output", ["organ", "orgen", "organs", 0])
def test_the_output_that_was_probably_meant_is_told(output: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(HEADS.each[0], output=output).index_in(schema("main.age", "main.organ"))
    assert "output: main.organ," in str(caught.value.hint)
    assert ("names have no order" in caught.value.message) == (output == 0)


def test_a_model_that_nobody_has_compared_yet_is_read_as_its_outputs_can_be() -> None:
    _, targets = drawn(0, 10)
    likely = partial(objectives_of, heads=HEADS, targets=targets, is_reference=False)
    turned = replace(schema("", ""), outputs=schema("", "").outputs[::-1])
    assert [r.index for r in likely(turned).each] == [1, 0]
    assert [r.index for r in likely(schema("b", "a")).each] == [0, 1]
    assert [r.index for r in likely(schema("", "")).each] == [0, 1]
    with pytest.raises(ConfigError):
        objectives_of(turned, HEADS, targets)


@pytest.mark.parametrize("sizes", [*permutations([2, 3, 4, 9])])
def test_an_output_with_too_few_classes_is_not_taken_for_another(sizes: tuple[int, ...]) -> None:
    """Outputs without a loss stand among the others, and of those that can be read some have too few classes."""
    ports = tuple(Port(f"out{i}", "float32", (1, n)) for i, n in enumerate(sizes))
    shown = replace(schema("", ""), outputs=ports)
    heads = Heads((head("a", "cross_entropy", 0, 1.0), head("b", "cross_entropy", 1, 1.0)))
    targets = joined({"a": np.array([0, 3, -100]), "b": np.array([0, 8, 1])})
    found = objectives_of(shown, heads, targets, is_reference=False)
    assert [sizes[read.index] for read in found.each] == [4, 9]
    assert found.fault(targets) is None


def test_targets_of_another_kind_are_told() -> None:
    _, targets = drawn(0, 10)
    with pytest.raises(ConfigError, match=r"one array, and training\.outputs reads organ, age"):
        read(targets["organ"])
    with pytest.raises(ConfigError, match="no targets for age"):
        read(joined({"organ": targets["organ"]}))
    alone = Heads((head("", "cross_entropy", 0, 1.0),))
    with pytest.raises(ConfigError, match=r"the parts organ, age, and training\.loss reads one"):
        objectives_of(schema("", ""), alone, targets)


def test_rows_of_joined_targets_are_rows_of_each() -> None:
    _, targets = drawn(3, 12)
    rows = np.array([3, 1, 1])
    assert {name: part.tolist() for name, part in parts_of(targets[rows]).items()} == {
        name: part[rows].tolist() for name, part in parts_of(targets).items()
    }
    assert joined({"": rows}) is rows
