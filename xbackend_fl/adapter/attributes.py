"""How a native model is to train: what the schema says that only training sees, by the model's own places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from xbackend_fl.canonical import OPERATORS, Binding, Effect, Node, Schema


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
