"""What makes training differ although outputs agree, and what is done about each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from xbackend_fl.canonical import (
    OPERATORS,
    Binding,
    Description,
    Effect,
    Kind,
    Node,
    Property,
    Schema,
    TrainingEffect,
    has,
)
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.match.match import Matching
from xbackend_fl.mapping.match.skeleton import CoreNode, Edge, Skeleton

_NEUTRAL: Mapping[str, AttributeValue] = {"ratio": 0.0, "dropout": 0.0, "padding_idx": -1, "shared_axes": ()}
"""What a place without the attribute does."""


@dataclass(frozen=True)
class TrainingReport:
    """How training of a candidate follows the schema.

    Attributes:
        notes: Differences that are carried out, one line each.
        obstacles: What is not; a course refuses them.
        switched_off: Native places that the schema does not have; training is without them.
    """

    notes: tuple[str, ...]
    obstacles: tuple[TrainingEffect, ...]
    switched_off: tuple[str, ...]


def training_report(
    schema: Schema, description: Description, binding: Binding, nodes: Mapping[str, str]
) -> TrainingReport:
    """Compare what only training sees.

    Args:
        schema: The schema.
        description: The candidate's own description.
        binding: Its binding to the schema.
        nodes: The candidate's node names to the schema's.
    """
    notes: list[str] = []
    obstacles = [*schema.training_effects, *description.schema.training_effects]
    switched_off: list[str] = []
    twins = {node.name: node for node in schema.nodes}
    met: set[str] = set()
    for node in description.schema.nodes:
        native = description.binding.nodes.get(node.name, node.name)
        twin = twins.get(nodes.get(node.name, ""))
        if twin is not None:
            met.add(twin.name)
            if _still(schema, twin):
                continue
        for attribute in _training(node, twin):
            wanted = _NEUTRAL.get(attribute) if twin is None else _value(twin, attribute)
            own, where = _value(node, attribute), "" if twin is None else f"{twin.name}: "
            if wanted == own or (attribute == "shared_axes" and twin is None):
                continue
            if attribute not in node.attributes or attribute == "shared_axes":
                if twin is not None and _drops(twin):
                    obstacles.append(_unable(binding, native, twin, attribute, wanted, own))
            elif twin is None or attribute not in twin.attributes:
                switched_off.append(native)
                notes.append(
                    f"{where}{attribute} is {own} in {native!r}, and the schema has none there: training is without"
                )
            else:
                notes.append(
                    f"{where}{attribute} is {wanted} in the schema, {own} in {native!r}; training uses the schema's"
                )
    obstacles += [
        _missing(schema, binding, node)
        for node in schema.nodes
        if node.operator == "Dropout" and node.name not in met and _drops(node)
    ]
    obstacles += _one_for_all(schema, binding)
    notes += [*_statistics(schema), *_recurrent_biases(binding)]
    # One optimizer step shows those, and the proof compares it.
    notes += [
        f"{item}; the proof compares a step with it" for item in dict.fromkeys(obstacles) if item.compared
    ]
    lasting = [item for item in dict.fromkeys(obstacles) if not item.compared]
    return TrainingReport(tuple(notes), tuple(lasting), tuple(dict.fromkeys(switched_off)))


def followed(binding: Binding, report: TrainingReport) -> tuple[Binding, tuple[str, ...]]:
    """A binding that carries a report, and the report in lines."""
    said = (f"{item}. A course refuses it; {item.cure}" for item in report.obstacles)
    binding = replace(binding, obstacles=report.obstacles, switched_off=report.switched_off)
    return binding, (*said, *report.notes)


def require_trainable(backend: str, obstacles: Iterable[TrainingEffect], *, dropout: bool) -> None:
    """Refuse a model that cannot train as the schema says.

    Args:
        backend: Its backend.
        obstacles: What it, or the reference, does that training here does not.
        dropout: Whether dropout layers drop in this course.

    Raises:
        RefusedInput: There are obstacles; the message names the layers and the hint the cures.
    """
    found = [item for item in obstacles if not item.compared and (dropout or not item.dropout)]
    if found:
        lines = "\n".join(f"  {item}" for item in found)
        raise RefusedInput(
            f"the {backend} model cannot be trained as the schema says:\n{lines}",
            hint="; ".join(dict.fromkeys(item.cure for item in found)),
        )


def pair_dropouts(
    reference: Skeleton, candidate: Skeleton, matching: Matching, schemas: tuple[Schema, Schema]
) -> dict[str, str]:
    """The candidate's dropout nodes to the reference's, where both lie between the same nodes.

    Args:
        reference: Skeleton of the schema.
        candidate: Skeleton of the candidate.
        matching: Their nodes.
        schemas: Of both; nodes that drop are paired before those whose rate is zero.
    """
    back = {j: i for i, j in matching.pairs.items()}
    pairs = [(reference.core_nodes[i], candidate.core_nodes[j]) for i, j in matching.pairs.items()]
    edges = [pair for left, right in pairs for pair in _edges(left, right, back)]
    edges += zip(reference.outputs, candidate.outputs, strict=True)
    idle = [{n.name for n in s.nodes if n.operator == "Dropout" and not _drops(n)} for s in schemas]
    found: dict[str, str] = {}
    for ours, theirs in edges:
        left = sorted(ours.dropouts, key=lambda name: name in idle[0])
        right = sorted(theirs.dropouts, key=lambda name: name in idle[1])
        for one, two in zip(left, right, strict=False):
            found.setdefault(two, one)
    return found


def common() -> tuple[str, ...]:
    """What frameworks do differently in every training, and what is done here instead."""
    return (
        (
            "optimizers: one arithmetic on every backend, epsilon outside the root, all state starting at zero "
            "(Keras starts Adagrad at 0.1 and puts Adam's epsilon elsewhere)"
        ),
        "weight decay: on every trainable parameter, biases and normalisations too; freeze what it must not touch",
    )


def _edges(left: CoreNode, right: CoreNode, back: Mapping[int, int]) -> Iterator[tuple[Edge, Edge]]:
    """Edges of two matched nodes that come from one place; of several the one with more dropouts first."""
    if not left.commutative:
        yield from zip(left.edges, right.edges, strict=True)
        return
    ours = sorted(left.edges, key=lambda e: (e.source, e.output, -len(e.dropouts)))
    theirs = sorted(right.edges, key=lambda e: (back.get(e.source, e.source), e.output, -len(e.dropouts)))
    yield from zip(ours, theirs, strict=True)


def _training(node: Node, twin: Node | None) -> list[str]:
    """Attributes of either that only training sees."""
    names = {*node.attributes, *(() if twin is None else twin.attributes)}
    return sorted(name for name in names if OPERATORS[node.operator].effect(name) is Effect.TRAINING)


def _value(node: Node, attribute: str) -> AttributeValue | None:
    return node.attributes.get(attribute, _NEUTRAL.get(attribute))


def _drops(node: Node) -> bool:
    """Whether training does something at a place that may be without dropout or a padding row."""
    return any(
        _value(node, name) != neutral
        for name, neutral in _NEUTRAL.items()
        if name in node.attributes and name != "shared_axes"
    )


def _still(schema: Schema, node: Node) -> bool:
    """Whether a normalisation keeps its statistics in training: how fast they would move does not matter."""
    name = node.parameters.get("mean")
    return name is not None and schema.by_name[name].kind is Kind.FROZEN


def _unable(
    binding: Binding,
    native: str,
    twin: Node,
    attribute: str,
    wanted: AttributeValue | None,
    own: AttributeValue | None,
) -> TrainingEffect:
    what = (
        f"{attribute} is {wanted} at {twin.name!r} in the schema, {own} here, and cannot be set from outside"
    )
    cure = f"build {native!r} with it, or take it out of the reference's {twin.name!r}"
    drops = attribute != "padding_idx"
    return TrainingEffect(f"{binding.backend} layer {native!r}", what, cure, dropout=drops)


def _missing(schema: Schema, binding: Binding, node: Node) -> TrainingEffect:
    """A dropout of the schema that the candidate has no place for."""
    producers = {value: source for source in schema.nodes for value in source.outputs}
    source = producers.get(node.inputs[0])
    while (
        source is not None and has(source.operator, Property.SHAPE_ONLY) and source.name not in binding.nodes
    ):
        source = producers.get(source.inputs[0])
    behind = "its input" if source is None else repr(binding.nodes.get(source.name, source.name))
    ratio = node.attributes["ratio"]
    return TrainingEffect(
        f"{binding.backend} model, behind {behind}",
        f"nothing drops there, and the reference's {node.name!r} drops {ratio}",
        f"put a dropout layer of rate {ratio} there, or take {node.name!r} out of the reference, or training.dropout: false",
        dropout=True,
    )


def _one_for_all(schema: Schema, binding: Binding) -> Iterator[TrainingEffect]:
    """Places of one native layer that has one rate for all of them, where the schema has several."""
    wanted: dict[tuple[str, str], dict[float, str]] = defaultdict(dict)
    for node in schema.nodes:
        for attribute in ("ratio", "dropout"):
            value = node.attributes.get(attribute)
            if node.name in binding.nodes and isinstance(value, float):
                wanted[binding.nodes[node.name], attribute].setdefault(value, node.name)
    for (native, _), places in wanted.items():
        if len(places) > 1:
            rates = ", ".join(f"{rate} at {name!r}" for rate, name in places.items())
            yield TrainingEffect(
                f"{binding.backend} layer {native!r}",
                f"it has one dropout rate for all its places, and the schema has {rates}",
                f"take {native!r} apart into layers with a dropout layer behind each, or give the reference one rate",
                dropout=True,
            )


def _statistics(schema: Schema) -> Iterator[str]:
    norms = [node for node in schema.nodes if node.operator == "BatchNormalization"]
    still = [node.name for node in norms if _still(schema, node)]
    if len(norms) > len(still):
        yield (
            f"{len(norms) - len(still)} batch normalisations: PyTorch averages the unbiased variance, Keras the biased one; "
            "training averages the biased one everywhere"
        )
    if still:
        yield f"{', '.join(still)}: frozen on both sides; training normalises with the stored statistics and keeps them"


def _recurrent_biases(binding: Binding) -> Iterator[str]:
    tensors = sorted({leaf.tensor for leaf in binding.masked})
    if tensors:
        yield (
            f"{', '.join(tensors)}: second biases and single rows, of which only the sum with what they are added to counts; "
            "they stay zero, or the sum would move twice as fast"
        )
