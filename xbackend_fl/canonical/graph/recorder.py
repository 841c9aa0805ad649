"""Collects the nodes and layouts of one model, and makes a schema and a binding of them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, final

from xbackend_fl.canonical.binding import Axes, Binding, Description, NativeTensor
from xbackend_fl.canonical.draft import Draft
from xbackend_fl.canonical.dtypes import output_dtypes
from xbackend_fl.canonical.layout import Layout, Native, Reorder, Segment, Shape, leaves
from xbackend_fl.canonical.node import AttributeValue, Node
from xbackend_fl.canonical.ops import OPERATORS
from xbackend_fl.canonical.passes import normal_form
from xbackend_fl.canonical.row import Kind
from xbackend_fl.canonical.schema import Parameter, Port, Schema, TrainingEffect
from xbackend_fl.errors import RefusedInput, UnsupportedError

Found = TypeVar("Found")


@final
class Recorder:
    """The growing graph of one native model.

    Args:
        backend: Name of the backend.
        natives: Every native tensor of the model.
        frozen: Names of native tensors that the model does not train.

    Attributes:
        place: From where in the user's code the next nodes come, as ``FILE:LINE``; empty if nobody knows.
        notes: What was done so that the model could be described, for people.
    """

    def __init__(self, backend: str, natives: Mapping[str, NativeTensor], frozen: Iterable[str]) -> None:
        self.drafts: dict[str, Draft] = {}
        self._backend = backend
        self._natives = dict(natives)
        self._frozen = frozenset(frozen)
        self._producers: dict[str, str] = {}
        self._shapes: dict[str, Shape] = {}
        self._dtypes: dict[str, str] = {}
        self._readers: Counter[str] = Counter()
        self._names: Counter[str] = Counter()
        self._made: dict[object, tuple[str, ...]] = {}
        self._closed_values: set[str] = set()
        self.inference_only = ""
        self.one_way = ""
        self.training_effects: list[TrainingEffect] = []
        self.kept: set[str] = set()
        self._closed_layouts: set[tuple[str, Layout]] = set()
        self.location = ""
        self.notes: list[str] = []
        self._places: dict[str, str] = {}

    def input(self, name: str, shape: Shape, dtype: str) -> str:
        """Declare a data input; returns its unique name."""
        name = self.unique(name)
        self._shapes[name], self._dtypes[name] = shape, dtype
        return name

    def unique(self, name: str) -> str:
        """``name``, or ``name@2`` and so on if it is taken."""
        count = self._names[name] + 1
        # Somebody's own name may be one that is made up here.
        while count > 1 and f"{name}@{count}" in self._names:
            count += 1
        self._names[name] = count
        found = name if count == 1 else f"{name}@{count}"
        self._names.setdefault(found, 1)
        return found

    def producer(self, value: str) -> Draft | None:
        """The node that makes ``value``; ``None`` for a data input."""
        name = self._producers.get(value)
        return None if name is None else self.drafts[name]

    def shape(self, value: str) -> Shape:
        """Canonical shape of a value at the example."""
        return self._shapes[value]

    def dtype(self, value: str) -> str:
        """NumPy dtype name of a value."""
        return self._dtypes[value]

    def num_readers(self, value: str) -> int:
        """How many times nodes have read ``value`` so far."""
        return self._readers[value]

    def add(
        self,
        operator: str,
        name: str,
        reads: tuple[str, ...],
        shapes: Sequence[Shape],
        layouts: Mapping[str, Layout],
        attributes: Mapping[str, AttributeValue],
        origin: str | None,
    ) -> tuple[str, ...]:
        """Add a node; returns the names of its outputs.

        The same operation on the same values is one node, however often the code repeats the call.
        """
        row = OPERATORS[operator]
        unknown = set(attributes) - set(row.attributes)
        assert not unknown, f"{operator} has no attribute {unknown}"
        if not self._closed_values.isdisjoint(reads) or not self._closed_layouts.isdisjoint(layouts.items()):
            raise UnsupportedError(
                f"{name!r} uses dense features that are also reshaped to an image; "
                "in channels-last order they have no common canonical form"
            )
        if any(isinstance(value, float) and math.isnan(value) for value in attributes.values()):
            # No other form of it would be of use.
            raise RefusedInput(
                f"{name!r} computes with a constant that is not a number (NaN)",
                hint="NaN makes everything behind it NaN; take the number that was meant",
            )
        key = (operator, reads, frozenset(attributes.items()), frozenset(layouts.items()))
        if operator != "Dropout" and key in self._made:
            return self._made[key]
        name = self.unique(name)
        outputs = (name, *(self.unique(f"{name}:{index}") for index in range(1, len(shapes))))
        self.drafts[name] = Draft(
            name, operator, reads, outputs, dict(layouts), dict(attributes), origin or name, tuple(shapes)
        )
        if self.location:
            self._places[name] = self.location
        self._producers |= dict.fromkeys(outputs, name)
        self._shapes |= dict(zip(outputs, shapes, strict=True))
        given = [self._dtypes[value] for value in reads]
        dtypes = output_dtypes(operator, attributes, given, len(outputs), parametric=bool(layouts))
        self._dtypes |= dict(zip(outputs, dtypes, strict=True))
        self._readers.update(reads)
        self._made[key] = outputs
        return outputs

    def reorder(self, drafts: Iterable[Draft], value: str, segments: tuple[Segment, ...]) -> None:
        """Bring axis 0 of everything that ``drafts`` hold into another feature order.

        Nobody else may read ``value``, which they make, or use their parameters again: the old order is gone.
        """
        self._closed_values.add(value)
        for draft in drafts:
            self._closed_layouts.update(draft.layouts.items())
            turned = {role: Reorder(layout, 0, segments) for role, layout in draft.layouts.items()}
            self.drafts[draft.name] = replace(draft, layouts=turned)

    def build(self, inputs: Sequence[tuple[Port, Axes]], outputs: Sequence[tuple[Port, Axes]]) -> Description:
        """The finished schema and binding; what reaches no output is left out."""
        drafts = normal_form(
            tuple(self.drafts.values()),
            {port.name for port, _ in outputs},
            {port.name: (port.shape, port.dtype) for port, _ in inputs},
        )
        names: dict[tuple[str, Layout], str] = {}
        parameters: dict[str, Parameter] = {}
        layouts: dict[str, Layout] = {}
        nodes = []
        for draft in drafts:
            given: dict[str, str] = {}
            for role in draft.roles:
                layout = draft.layouts[role]
                name = names.setdefault((role, layout), f"{draft.name}.{role}")
                given[role] = name
                if name not in parameters:
                    parameters[name] = self._parameter(draft.operator, name, role, layout)
                    layouts[name] = layout
            node = Node(draft.name, draft.operator, draft.inputs, draft.outputs, given, draft.attributes)
            nodes.append(node)
        schema = Schema(
            inputs=tuple(port for port, _ in inputs),
            outputs=tuple(port for port, _ in outputs),
            nodes=tuple(nodes),
            parameters=tuple(parameters.values()),
            training_effects=tuple(
                dict.fromkeys((*self.training_effects, *self._partly_frozen(parameters, layouts)))
            ),
        )
        _check_boxes(layouts)
        shared = {leaf.tensor for layout in layouts.values() for leaf in leaves(layout)}
        binding = Binding(
            backend=self._backend,
            fingerprint=schema.fingerprint,
            parameters=layouts,
            natives=self._natives,
            local={name: "reaches no output" for name in self._natives if name not in shared},
            nodes={draft.name: draft.origin for draft in drafts},
            inputs=tuple(axes for _, axes in inputs),
            outputs=tuple(axes for _, axes in outputs),
            inference_only=self.inference_only,
            one_way=self.one_way,
        )
        return Description(schema, binding, self._places, tuple(dict.fromkeys(self.notes)))

    def _parameter(self, operator: str, name: str, role: str, layout: Layout) -> Parameter:
        slot = OPERATORS[operator].slot(role)
        tensors = [leaf.tensor for leaf in leaves(layout)]
        still = {Kind.TRAINABLE: self._frozen, Kind.STATISTIC: frozenset(self.kept)}
        kind = Kind.FROZEN if slot.kind in still and still[slot.kind].issuperset(tensors) else slot.kind
        return Parameter(
            name, operator, role, slot.formal, layout.shape, self._natives[tensors[0]].dtype, kind
        )

    def _partly_frozen(
        self, parameters: Mapping[str, Parameter], layouts: Mapping[str, Layout]
    ) -> Iterator[TrainingEffect]:
        """Parameters of which the native model trains a part: one optimizer step shows it."""
        for name, parameter in parameters.items():
            tensors = {leaf.tensor for leaf in leaves(layouts[name])}
            if parameter.kind is Kind.TRAINABLE and (still := tensors & self._frozen):
                rest = ", ".join(sorted(tensors - still))
                what = (
                    f"{', '.join(sorted(still))} does not train and {rest} does; here they are one parameter"
                )
                yield TrainingEffect(
                    f"{self._backend} parameter {name!r}", what, "train both, or none", compared=True
                )


def described_with_data(describe: Callable[[Collection[str]], Found]) -> Found:
    """A description in which tensors are data that no single layout holds.

    Args:
        describe: Describes a model; it is given the native names of the tensors that are data wherever they are used.
    """
    names: set[str] = set()
    while True:
        try:
            return describe(names)
        except TwoLayoutsError as error:
            if error.tensor in names:
                raise
            names.add(error.tensor)


def _check_boxes(layouts: Mapping[str, Layout]) -> None:
    """Every element of a native tensor that is used belongs to exactly one parameter, and none is left over."""
    owners: dict[str, dict[Native, str]] = defaultdict(dict)
    for name, layout in layouts.items():
        for leaf in leaves(layout):
            other = owners[leaf.tensor].setdefault(leaf, name)
            if other != name:
                raise _used_twice(leaf.tensor, other, name)
    for tensor, boxes in owners.items():
        for one, two in _pairs(list(boxes)):
            if _overlap(one, two):
                raise _used_twice(tensor, boxes[one], boxes[two])
        first = next(iter(boxes))
        if sum(math.prod(box.shape) for box in boxes) != math.prod(first.full_shape):
            raise TwoLayoutsError(
                tensor,
                f"only part of the tensor {tensor!r} {list(first.full_shape)} reaches an output",
                hint="store what the model uses in a tensor of its own",
            )


def _pairs(boxes: Sequence[Native]) -> Iterator[tuple[Native, Native]]:
    return ((one, two) for index, one in enumerate(boxes) for two in boxes[index + 1 :])


def _overlap(one: Native, two: Native) -> bool:
    ranges = zip(one.index, two.index, one.full_shape, strict=True)
    return all(
        max(a.indices(n)[0], b.indices(n)[0]) < min(a.indices(n)[1], b.indices(n)[1]) for a, b, n in ranges
    )


class TwoLayoutsError(UnsupportedError):
    """A tensor is used in two layouts, or in part: no layout of a layer's weights says so, and as data it may be used in any way.

    Args:
        tensor: Its native name.
        message: How it is used.
        hint: What to do about it.
    """

    def __init__(self, tensor: str, message: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.tensor = tensor


def _used_twice(tensor: str, one: str, two: str) -> TwoLayoutsError:
    return TwoLayoutsError(
        tensor,
        f"the tensor {tensor!r} is used as {one!r} and, in another layout, as {two!r}",
        hint="tie only weights that both layers read the same way",
    )
