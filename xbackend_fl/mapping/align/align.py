"""Pairs parameters by what they do, where two graphs of one function have different forms.

Under equal weights by shape (``draw.draw_by_shape``) two models of one function have equal outputs before anything is
known about their parameters, and the gradient of a parameter tells it from all others: in real pairs the right partner is
within 1e-3 and the next beyond 0.3. So the reference's published gradients are compared with the candidate's, in every
order of axes that gives the shape. What lies between the parameters, and whether it has a canonical form, does not matter.

What is found is a proposal. The proof decides, with weights that are all different.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.contract import Trainer
from xbackend_fl.canonical import Binding, Kind, Node, Parameter, Schema, views
from xbackend_fl.canonical.layout import Layout
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping.align.feature_order import Order, feature_distance, ordered
from xbackend_fl.mapping.align.holdings import holdings
from xbackend_fl.mapping.align.recut import length_class, recut
from xbackend_fl.mapping.align.row_orders import row_orders
from xbackend_fl.mapping.match.ports import fit_outputs
from xbackend_fl.mapping.probe.draw import features
from xbackend_fl.mapping.probe.frozen import FrozenValues, without
from xbackend_fl.mapping.probe.native import SizeRefused, outputs_with
from xbackend_fl.mapping.probe.norms import norm_of
from xbackend_fl.mapping.probe.pieces import (
    binding_in_pieces,
    in_pieces,
    layouts_together,
    piece_names,
    whole_nodes,
)
from xbackend_fl.mapping.probe.probe import Evidence, alike, by_shape, cotangents, weights_of
from xbackend_fl.mapping.probe.sketch import sketch
from xbackend_fl.mapping.proof.verify import relative_error

Array = NDArray[Any]

SECONDS = 6.0
"""No further way to see a candidate's parameters is tried after so much processor time: a loaded machine finds the same."""

SAME = 1e-3
"""Largest relative difference of outputs under equal weights by shape: one function, or nearly."""

PARTNER = 0.05
"""Largest relative distance of the gradients of partners."""

_FAINT = 1e-4
"""Of a draw's largest gradient: a smaller one is rounding, and says nothing."""

_NOTHING: Array = np.empty(0)

_ORDERS = 24
"""Most orders of axes that are tried for one pair."""


@dataclass(frozen=True)
class Alignment:
    """Which parameter of a candidate is which of the reference.

    Attributes:
        binding: The candidate's binding under the reference's names.
        nodes: The candidate's node names to the reference's, as far as their parameters tell.
        tied: Parameters whose partner was one of several with equal gradients.
        reordered: Parameters whose features lie in another order.
    """

    binding: Binding
    nodes: Mapping[str, str]
    tied: tuple[str, ...]
    reordered: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Pair:
    """A candidate's parameter in one order of its axes that are longer than one, and of its features, if it has an ``axis`` of them."""

    distance: float
    ours: str
    theirs: str
    order: tuple[int, ...]
    features: Order = None
    axis: int = 0


def alignments(
    schema: Schema, trainer: Trainer, evidence: Sequence[Evidence] | None, frozen: FrozenValues | None = None
) -> Iterator[Alignment]:
    """Pair the parameters of a candidate with a reference's by gradients: the likeliest pairing first, nothing if they do not fit.

    Where gradients do not tell two nodes apart, pairings in which they trade places follow.

    Args:
        schema: The reference's schema.
        trainer: The candidate; its weights are changed.
        evidence: What the reference did, the probes by shape included.
        frozen: What both models keep as it is; everything trains or is drawn if left out.
    """
    try:
        fitted = fit_outputs(schema, trainer.description)
    except MismatchError:
        # What the graphs say of it is nearer to the cause.
        return
    # From here on parameters are pieces: a layer and a cell by hand have the same.
    published, undivided = schema, trainer.description.schema
    if frozen is not None:
        schema, undivided = without(schema, frozenset(frozen.values)), without(undivided, frozen.own)
        fitted = replace(
            fitted, parameters={n: x for n, x in fitted.parameters.items() if n not in frozen.own}
        )
    whole, schema = schema, in_pieces(schema)
    sides = schema, in_pieces(undivided), binding_in_pieces(undivided, fitted)
    until = time.process_time() + SECONDS
    seen = chain(holdings(*sides), recut(*sides, until))
    for own, binding, answers in _agreeing(trainer, seen, sides, evidence, until):
        options = _options(schema, own, answers)
        chosen = _assigned(schema, own, options)
        if chosen is None:
            continue
        near = {(pair.ours, pair.theirs): pair for pair in options if pair.distance <= PARTNER}
        for pairs in chain([chosen], _exchanged(schema, chosen, near)):
            alignment = _bound(schema, own, binding, pairs, near)
            found = _together(whole, alignment, fitted, undivided)
            yield found if frozen is None else replace(found, binding=frozen.bound(published, found.binding))


def _agreeing(
    trainer: Trainer,
    seen: Iterator[tuple[Schema, Binding]],
    sides: tuple[Schema, Schema, Binding],
    evidence: Sequence[Evidence] | None,
    until: float,
) -> Iterator[tuple[Schema, Binding, list[tuple[Evidence, Mapping[str, Array]]]]]:
    """Ways to see a candidate's parameters in which it is the reference under equal weights by shape; else rows in other orders."""
    some = False
    for own, binding in seen:
        if time.process_time() > until:
            return
        for answers in _answers(CanonicalModel(own, binding, trainer), evidence):
            some = True
            yield own, binding, answers
    reference, own, binding = sides
    if some or Counter(map(length_class, reference.parameters)) != Counter(map(length_class, own.parameters)):
        return
    for turned in row_orders(reference, own, binding):
        if time.process_time() > until:
            return
        for answers in _answers(CanonicalModel(own, turned, trainer), by_shape(evidence)):
            yield own, turned, answers


def _answers(
    model: CanonicalModel, evidence: Sequence[Evidence] | None
) -> Iterator[list[tuple[Evidence, Mapping[str, Array]]]]:
    """The candidate's gradients under equal weights by shape, as far as its outputs are the reference's.

    Behind a softmax or a sigmoid at its bound, gradients are rounding and tell nothing: quiet weights come apart from others.
    """
    for draws in (by_shape(evidence), alike(evidence)):
        some, several = False, {item.case.quiet for item in draws}
        for quiet in sorted(several):
            if quiet and not some and len(several) > 1:
                # Weights of any size would do.
                break
            asked = (_answer(model, item) for item in draws if item.gradients and item.case.quiet == quiet)
            if answers := [found for found in asked if found is not None]:
                some = True
                yield answers
        if some:
            # An order of features is looked for only where the models are not the same function without.
            return


def _exchanged(
    schema: Schema, chosen: Sequence[_Pair], near: Mapping[tuple[str, str], _Pair]
) -> Iterator[list[_Pair]]:
    """The pairing with the parameters of two nodes exchanged, for every two nodes where gradients allow it."""
    owners, by_node = _owners(schema), defaultdict(list)
    for pair in chosen:
        by_node[owners[pair.ours].name].append(pair)
    for one, two in combinations(by_node.values(), 2):
        if len(one) != len(two):
            continue
        turned = [near.get((a.ours, b.theirs)) for a, b in zip(one, two, strict=True)]
        turned += [near.get((b.ours, a.theirs)) for a, b in zip(one, two, strict=True)]
        if all(turned):
            kept = [pair for pair in chosen if pair not in one and pair not in two]
            yield [*kept, *(pair for pair in turned if pair is not None)]


def _answer(model: CanonicalModel, item: Evidence) -> tuple[Evidence, Mapping[str, Array]] | None:
    """The candidate's gradients in one draw; ``None`` where its outputs are others."""
    weights = weights_of(model.schema, item.case)
    try:
        outputs = outputs_with(model, weights, item.case.inputs)
    except SizeRefused:
        return None
    if [a.shape for a in outputs] != [a.shape for a in item.outputs]:
        return None
    if max(relative_error(a, b) for a, b in zip(outputs, item.outputs, strict=True)) > SAME:
        return None
    return item, model.gradients(item.case.inputs, cotangents(item.case, item.outputs))


def _options(
    schema: Schema, own: Schema, answers: Sequence[tuple[Evidence, Mapping[str, Array]]]
) -> list[_Pair]:
    """Every parameter of one side with every one of the other that has the same lengths of axes."""
    axes = features(schema), features(own)
    classes: dict[object, list[Parameter]] = defaultdict(list)
    for parameter in own.parameters:
        classes[length_class(parameter)].append(parameter)
    return [
        pair
        for parameter in schema.parameters
        for partner in classes[length_class(parameter)]
        for pair in _pairs(parameter, partner, _features_axis(parameter, partner, *axes), answers)
    ]


def _assigned(schema: Schema, own: Schema, options: Sequence[_Pair]) -> list[_Pair] | None:
    """The closest partner for every parameter; ``None`` if one has no partner that is close."""
    places, others = _places(schema), _places(own)
    owners, others_owners = _owners(schema), _owners(own)
    chosen: dict[str, _Pair] = {}
    taken: set[str] = set()
    nodes: dict[str, str] = {}

    def key(pair: _Pair) -> tuple[float, int, int, int, float]:
        ours, theirs = owners[pair.ours], others_owners[pair.theirs]
        beside = nodes.get(ours.name) == theirs.name
        alike = ours.operator == theirs.operator
        (turn, place), (other_turn, other) = places[pair.ours], others[pair.theirs]
        return round(pair.distance, 2), -beside, -alike, abs(turn - other_turn), abs(place - other)

    def rank(pair: _Pair) -> tuple[bool, int]:
        # What has a gradient says most, and a vector follows the matrix of its node.
        return schema.by_name[pair.ours].kind is Kind.TRAINABLE, len(pair.order)

    for level in sorted({rank(pair) for pair in options}, reverse=True):
        waiting = [pair for pair in options if rank(pair) == level]
        while waiting:
            best = min(waiting, key=key)
            if best.distance > PARTNER:
                return None
            chosen[best.ours] = best
            taken.add(best.theirs)
            nodes.setdefault(owners[best.ours].name, others_owners[best.theirs].name)
            waiting = [p for p in waiting if p.ours not in chosen and p.theirs not in taken]
    return list(chosen.values()) if len(chosen) == len(schema.parameters) else None


def _owners(schema: Schema) -> dict[str, Node]:
    """The first node that holds each parameter."""
    found: dict[str, Node] = {}
    for node in schema.nodes:
        for name in node.parameters.values():
            found.setdefault(name, node)
    return found


def _places(schema: Schema) -> dict[str, tuple[int, float]]:
    """Of every parameter, how many of its lengths come before it, and what part of all do."""
    before: Counter[object] = Counter()
    found: dict[str, tuple[int, float]] = {}
    for index, parameter in enumerate(schema.parameters):
        found[parameter.name] = before[length_class(parameter)], index / len(schema.parameters)
        before[length_class(parameter)] += 1
    return found


def _pairs(
    ours: Parameter,
    theirs: Parameter,
    axis: int | None,
    answers: Sequence[tuple[Evidence, Mapping[str, Array]]],
) -> Iterator[_Pair]:
    """The orders of axes in which one parameter may be the other, each with the distance of their gradients."""
    ((item, grads), *_) = answers
    if axis is not None and item.case.alike:
        distance, found = feature_distance(item.gradients[ours.name], grads[theirs.name], axis)
        order = tuple(range(sum(n > 1 for n in ours.shape)))
        yield _Pair(distance, ours.name, theirs.name, order, found, axis)
        return
    if item.gradients.get(ours.name, _NOTHING).ndim > 1:
        # What has features is nothing that has none.
        return
    wanted = [n for n in ours.shape if n > 1]
    short = [n for n in theirs.shape if n > 1]
    orders = [order for order in permutations(range(len(short))) if [short[axis] for axis in order] == wanted]
    for order in orders[:_ORDERS]:
        distances = [_distance(ours, theirs, short, order, *answer) for answer in answers]
        yield _Pair(max(distances), ours.name, theirs.name, order)


def _features_axis(
    ours: Parameter, theirs: Parameter, here: Mapping[str, int], there: Mapping[str, int]
) -> int | None:
    """The axis of the features that both layers read; ``None`` if these are no layers of one kind."""
    one, two = here.get(ours.name), there.get(theirs.name)
    return one if one == two and ours.shape == theirs.shape else None


def _distance(
    ours: Parameter,
    theirs: Parameter,
    short: Sequence[int],
    order: tuple[int, ...],
    item: Evidence,
    grads: Mapping[str, Array],
) -> float:
    """From 0 to 1; 0 where neither has a gradient."""
    one, two = item.gradients.get(ours.name), grads.get(theirs.name)
    if one is None or two is None:
        return 0.0
    two = sketch(np.ascontiguousarray(two.reshape(short).transpose(order)))
    faint = _FAINT * max(norm_of(array) for array in item.gradients.values())
    size = norm_of(one) + norm_of(two)
    return norm_of(one - two) / (size + faint) if size else 0.0


def _bound(
    schema: Schema,
    own: Schema,
    binding: Binding,
    pairs: Sequence[_Pair],
    near: Mapping[tuple[str, str], _Pair],
) -> Alignment:
    layouts: dict[str, Layout] = dict(binding.parameters)
    for pair in pairs:
        ours = schema.by_name[pair.ours]
        turned = _turned(layouts[pair.theirs], pair.order, ours.shape)
        layouts[pair.theirs] = ordered(turned, pair.axis, pair.features)
    owners, others = _owners(schema), _owners(own)
    nodes: dict[str, str] = {}
    for pair in pairs:
        if owners[pair.ours].operator == others[pair.theirs].operator:
            nodes.setdefault(others[pair.theirs].name, owners[pair.ours].name)
    names = {pair.theirs: pair.ours for pair in pairs}
    several = Counter(ours for ours, _ in near)
    tied = tuple(pair.ours for pair in pairs if several[pair.ours] > 1)
    reordered = tuple(pair.ours for pair in pairs if pair.features is not None)
    binding = replace(binding, parameters=layouts).renamed(names, nodes, schema)
    return Alignment(binding, nodes, tied, reordered)


def _together(schema: Schema, alignment: Alignment, fitted: Binding, own: Schema) -> Alignment:
    """An alignment of pieces as one of the parameters that they are pieces of."""
    names = piece_names(schema)
    found = alignment.binding.parameters
    layouts = layouts_together(schema, found)
    if len(names) < len(found):
        # A candidate's layer in the same pieces keeps its own layout, which says the same in fewer steps.
        own_pieces = binding_in_pieces(own, fitted).parameters
        held = {tuple(own_pieces[n] for n in parts): whole for whole, parts in piece_names(own).items()}
        for name, parts in names.items():
            same = held.get(tuple(found[part] for part in parts))
            if same is not None and fitted.parameters[same].shape == layouts[name].shape:
                layouts[name] = fitted.parameters[same]
    of = {part: name for name, parts in names.items() for part in parts}
    wholes, others = whole_nodes(schema), whole_nodes(own)
    nodes: dict[str, str] = {}
    for theirs, ours in alignment.nodes.items():
        nodes.setdefault(others[theirs], wholes[ours])
    native = {nodes[name]: place for name, place in fitted.nodes.items() if name in nodes}
    return Alignment(
        replace(alignment.binding, fingerprint=schema.fingerprint, parameters=layouts, nodes=native),
        nodes,
        tuple(dict.fromkeys(of[part] for part in alignment.tied)),
        tuple(dict.fromkeys(of[part] for part in alignment.reordered)),
    )


def _turned(layout: Layout, order: tuple[int, ...], shape: tuple[int, ...]) -> Layout:
    """A layout in another order of the axes that are longer than one."""
    if layout.shape == shape and order == tuple(range(len(order))):
        return layout
    short = tuple(n for n in layout.shape if n > 1)
    turned = views.transposed(views.reshaped(layout, short), order)
    return views.reshaped(turned, shape)
