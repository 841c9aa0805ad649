"""Collects the nodes, parameters and layouts of one model, and makes a schema and a binding of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import final

from xbackend_fl.canonical.binding import Axes, Binding, Description, NativeTensor
from xbackend_fl.canonical.layout import Layout, Reorder, Segment, leaves
from xbackend_fl.canonical.ops import OPERATORS, Kind
from xbackend_fl.canonical.schema import AttributeValue, Node, Parameter, Port, Schema
from xbackend_fl.errors import UnsupportedError


@final
class Recorder:
    """The growing graph of one native model.

    Args:
        backend: Name of the backend.
        natives: Every native tensor of the model.
        frozen: Names of native tensors that the model does not train.
    """

    def __init__(self, backend: str, natives: Mapping[str, NativeTensor], frozen: Iterable[str]) -> None:
        self.nodes: list[Node] = []
        self._backend = backend
        self._natives = dict(natives)
        self._frozen = frozenset(frozen)
        self._parameters: dict[str, Parameter] = {}
        self._layouts: dict[str, Layout] = {}
        self._by_layout: dict[tuple[str, Layout], str] = {}
        self._names: Counter[str] = Counter()
        self._origins: dict[str, str] = {}
        self._made: dict[object, tuple[str, ...]] = {}
        self._closed: set[str] = set()

    def unique(self, name: str) -> str:
        """``name``, or ``name@2`` and so on if it is taken."""
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}@{self._names[name]}"

    def add(
        self,
        operator: str,
        name: str,
        reads: tuple[str, ...],
        num_outputs: int,
        layouts: Mapping[str, Layout],
        attributes: Mapping[str, AttributeValue],
        origin: str | None,
    ) -> tuple[str, ...]:
        """Add a node; returns the names of its outputs.

        The same operation on the same values is one node, however often the code repeats the call.
        """
        row = OPERATORS[operator]
        unknown = set(attributes) - set(row.attributes or {})
        assert not unknown, f"{operator} has no attribute {unknown}"
        if not self._closed.isdisjoint(reads):
            raise _two_orders(name)
        key = (operator, reads, frozenset(attributes.items()), frozenset(layouts.items()))
        if operator != "Dropout" and key in self._made:
            return self._made[key]
        name = self.unique(name)
        parameters = {
            slot.role: self._parameter(operator, name, slot.role, layouts[slot.role])
            for slot in row.slots
            if slot.role in layouts
        }
        outputs = (name, *(f"{name}:{index}" for index in range(1, num_outputs)))
        self.nodes.append(Node(name, operator, reads, outputs, parameters, dict(attributes)))
        self._origins[name] = origin or name
        self._made[key] = outputs
        return outputs

    def reorder(self, parameters: Iterable[str], value: str, segments: tuple[Segment, ...]) -> None:
        """Bring axis 0 of ``parameters`` into another feature order.

        Nobody else may read ``value``, which they make, or use them again: the old order is gone.
        """
        self._closed.add(value)
        for name in parameters:
            self._layouts[name] = Reorder(self._layouts[name], 0, segments)
            self._closed.add(name)

    def build(self, inputs: Sequence[tuple[Port, Axes]], outputs: Sequence[tuple[Port, Axes]]) -> Description:
        """The finished schema and binding; what reaches no output is left out."""
        nodes = self._live_nodes({port.name for port, _ in outputs})
        used = dict.fromkeys(name for node in nodes for name in node.parameters.values())
        schema = Schema(
            inputs=tuple(port for port, _ in inputs),
            outputs=tuple(port for port, _ in outputs),
            nodes=nodes,
            parameters=tuple(self._parameters[name] for name in used),
        )
        layouts = {name: self._layouts[name] for name in used}
        _check_overlap(layouts)
        shared = {leaf.tensor for layout in layouts.values() for leaf in leaves(layout)}
        binding = Binding(
            backend=self._backend,
            fingerprint=schema.fingerprint,
            parameters=layouts,
            natives=self._natives,
            local={name: "reaches no output" for name in self._natives if name not in shared},
            nodes={node.name: self._origins[node.name] for node in nodes},
            inputs=tuple(axes for _, axes in inputs),
            outputs=tuple(axes for _, axes in outputs),
        )
        return Description(schema, binding)

    def _live_nodes(self, needed: set[str]) -> tuple[Node, ...]:
        live: list[Node] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                live.append(node)
        return tuple(reversed(live))

    def _parameter(self, operator: str, node: str, role: str, layout: Layout) -> str:
        name = self._by_layout.setdefault((role, layout), f"{node}.{role}")
        if name in self._closed:
            raise _two_orders(node)
        if name in self._parameters:
            return name
        slot = OPERATORS[operator].slot(role)
        tensors = [leaf.tensor for leaf in leaves(layout)]
        frozen = slot.kind is Kind.TRAINABLE and self._frozen.issuperset(tensors)
        kind = Kind.FROZEN if frozen else slot.kind
        dtype = self._natives[tensors[0]].dtype
        self._parameters[name] = Parameter(name, operator, role, slot.formal, layout.shape, dtype, kind)
        self._layouts[name] = layout
        return name


def _two_orders(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"{name!r} uses dense features that are also reshaped to an image; "
        "in channels-last order they have no common canonical form"
    )


def _check_overlap(layouts: Mapping[str, Layout]) -> None:
    owner: dict[tuple[str, object], str] = {}
    for name, layout in layouts.items():
        for leaf in leaves(layout):
            other = owner.setdefault((leaf.tensor, leaf.part), name)
            if other != name:
                raise UnsupportedError(
                    f"the tensor {leaf.tensor!r} is used as {other!r} and, in another layout, as {name!r}",
                    hint="tie only weights that both layers read the same way",
                )
