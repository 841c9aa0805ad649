"""A native model asked in canonical names: outputs with given weights, and how it is to train."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from xbackend_fl.adapter.contract import Preserving, Trainer
from xbackend_fl.canonical import OPERATORS, Binding, Effect, Node, Schema
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.probe.derivatives import native

Array = NDArray[Any]


class SizeRefused(RefusedInput):
    """A model does not take inputs of a case's size."""


@contextmanager
def as_it_was(trainer: Trainer) -> Iterator[None]:
    """The model behind a trainer is afterwards what it was; one of somebody's own at least has its weights again."""
    if isinstance(trainer, Preserving):
        with trainer.preserved():
            yield
        return
    before = trainer.read()
    try:
        yield
    finally:
        trainer.write(before)


def canonical_outputs(
    trainer: Trainer, binding: Binding, weights: Mapping[str, Array], inputs: Sequence[Array]
) -> tuple[Array, ...]:
    """Outputs in evaluation mode with canonical weights, in ONNX layout.

    Raises:
        SizeRefused: The model does not accept the inputs' size.
    """
    trainer.write(binding.restore(weights, copy=False))
    raw = forward(trainer, native(binding, inputs))
    return tuple(axes.to_canonical(a) for axes, a in zip(binding.outputs, raw, strict=True))


def forward(trainer: Trainer, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Outputs of a model in its own layout.

    Raises:
        SizeRefused: It does not accept the inputs' size.
    """
    try:
        return trainer.forward(inputs)
    except RefusedInput as error:
        raise SizeRefused(error.message, hint=error.hint) from error


def training_attributes(schema: Schema, binding: Binding) -> dict[str, dict[str, float]]:
    """The schema's training attributes by native place: every backend trains with the same.

    Args:
        schema: The schema.
        binding: Names the native place of every node; places of one layer that has one value for all share a name.
    """
    result: dict[str, dict[str, float]] = {}
    for node in schema.nodes:
        native = binding.nodes.get(node.name)
        wanted = {
            name: float(value)
            for name, value in node.attributes.items()
            if OPERATORS[node.operator].effect(name) is Effect.TRAINING and isinstance(value, float | int)
        }
        if native and wanted:
            result.setdefault(native, {}).update(wanted)
    for momenta in _shared_momenta(schema, binding):
        for native, momentum in momenta.items():
            result[native]["momentum"] = momentum
    for native in binding.switched_off:
        result[native] = {"ratio": 0.0, "dropout": 0.0, "padding_idx": -1.0}
    return result


def _shared_momenta(schema: Schema, binding: Binding) -> Iterator[dict[str, float]]:
    """Momenta by native place of statistics that several calls move, where the native model makes these calls in another order.

    Each call takes a share of the average and leaves the rest to those before it, so the last one counts most. Other momenta give every
    call the share that it has in the schema's order, whenever it comes.
    """
    groups: dict[str, list[Node]] = defaultdict(list)
    for node in schema.nodes:
        if node.operator == "BatchNormalization":
            groups[node.parameters["mean"]].append(node)
    for nodes in groups.values():
        places = [binding.nodes.get(node.name, "") for node in nodes]
        if len(set(places)) < len(nodes) or places == sorted(places, key=_turn) or "" in places:
            continue
        shares: dict[str, float] = {}
        behind = 1.0
        for place, node in zip(reversed(places), reversed(nodes), strict=True):
            momentum = float(str(node.attributes["momentum"]))
            shares[place] = behind * (1.0 - momentum)
            behind *= momentum
        found, behind = {}, 1.0
        for place in sorted(places, key=_turn, reverse=True):
            found[place] = 1.0 - shares[place] / behind
            behind *= found[place]
        yield found


def _turn(place: str) -> int:
    """Which call of its layer a native place is: ``norm`` is the first, ``norm@2`` the second."""
    _, _, number = place.partition("@")
    return int(number) if number.isdigit() else 1
