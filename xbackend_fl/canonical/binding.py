"""A binding: which native tensors of one model make up each canonical parameter, and how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from xbackend_fl.canonical.dtypes import HALVES
from xbackend_fl.canonical.layout import (
    Array,
    Constant,
    Layout,
    Native,
    Shape,
    backward,
    forward,
    inverse,
    leaves,
    masked,
)
from xbackend_fl.canonical.schema import Schema, TrainingEffect
from xbackend_fl.errors import SchemaError

_Item = TypeVar("_Item")

_SAME_CONSTANT = 1e-4
"""Largest difference, in parts of the largest value, of a constant and a weight that is the same."""


@dataclass(frozen=True)
class NativeTensor:
    """Shape and dtype of a native tensor.

    Attributes:
        shape: Native shape.
        dtype: NumPy dtype name.
    """

    shape: Shape
    dtype: str


@dataclass(frozen=True)
class Axes:
    """Axis order of a data input or output: native axis ``i`` is canonical axis ``perm[i]``.

    Attributes:
        perm: The order; the identity when both sides agree.
        note: How it was found out, for people.
        trailing: 1 where the native array has one axis more, of length one, at its end; -1 where it lacks its last axis,
            which has length one; else 0.
    """

    perm: tuple[int, ...]
    note: str = ""
    trailing: int = 0

    def to_native(self, array: Array) -> Array:
        """Bring an array from ONNX layout to the model's own (a view)."""
        return _trailed(array.transpose(self.perm), self.trailing)

    def to_canonical(self, array: Array) -> Array:
        """Bring an array from the model's own layout to ONNX layout (a view)."""
        return _trailed(array, -self.trailing).transpose(inverse(self.perm))

    def without(self, axis: int | None) -> Axes:
        """The order of an array that lacks an axis of the canonical one; the same if it lacks none."""
        kept = [one for one in self.perm if one != axis]
        return replace(self, perm=tuple(sorted(kept).index(one) for one in kept))

    def native_shape(self, shape: Shape) -> Shape:
        """Shape in the model's own layout of an array that has ``shape`` in ONNX layout."""
        turned = tuple(shape[axis] for axis in self.perm)
        return (*turned, 1) if self.trailing > 0 else turned[: len(turned) + self.trailing]


def _trailed(array: Array, trailing: int) -> Array:
    if trailing > 0:
        return array[..., None]
    return array[..., 0] if trailing < 0 else array


@dataclass(frozen=True)
class Binding:
    """The map between one schema and one native model.

    Attributes:
        backend: Backend of the native model.
        fingerprint: Fingerprint of the schema.
        parameters: Canonical name to layout, in the schema's order.
        natives: Every native tensor of the model by name.
        local: Native tensors without a canonical counterpart (never shared), with the reason.
        nodes: Schema node name to the name of the native layer or module; ``@2`` marks its second call.
        inputs: Axis order of each data input, in the order in which the native model takes them.
        outputs: Axis order of each output.
        inference_only: Why the native model cannot be trained as the schema says; empty if it can.
        one_way: Why weights cannot be written back into the user's own model; empty if they can.
        switched_off: Native places of dropout, or of a padding row, that the schema does not have: training is without them.
        obstacles: What one of both models does in training that training here does not do; a course refuses them.
        order: The native model's input ``i`` is the schema's input ``order[i]``; empty where both take them in one order.
    """

    backend: str
    fingerprint: str
    parameters: Mapping[str, Layout]
    natives: Mapping[str, NativeTensor]
    local: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Axes, ...] = ()
    outputs: tuple[Axes, ...] = ()
    inference_only: str = ""
    one_way: str = ""
    switched_off: tuple[str, ...] = ()
    obstacles: tuple[TrainingEffect, ...] = ()
    order: tuple[int, ...] = ()

    def native_inputs(self, inputs: Sequence[Array]) -> list[Array]:
        """Data as the native model takes them (views).

        Args:
            inputs: One array per input of the schema, in its order and in ONNX layout.

        Returns:
            One per input of the native model, in its order of inputs and axes.
        """
        return [
            axes.to_native(array) for axes, array in zip(self.inputs, self.in_own_order(inputs), strict=True)
        ]

    def in_own_order(self, items: Sequence[_Item]) -> list[_Item]:
        """Something of every input of the schema, in the order in which the native model takes its inputs."""
        return [items[index] for index in self.order] if self.order else list(items)

    @cached_property
    def owners(self) -> dict[str, str]:
        """Shared native tensor to the canonical parameter it first belongs to."""
        result: dict[str, str] = {}
        for name, layout in self.parameters.items():
            for leaf in leaves(layout):
                result.setdefault(leaf.tensor, name)
        return result

    def storage(self, name: str) -> str:
        """NumPy dtype name of the half precision in which the model holds all of a parameter; empty if it is none.

        Args:
            name: Canonical name.
        """
        found = {self.natives[leaf.tensor].dtype for leaf in leaves(self.parameters[name])}
        return found.pop() if len(found) == 1 and found <= HALVES.keys() else ""

    @cached_property
    def masked(self) -> tuple[Native, ...]:
        """Parts of native tensors that stay zero: the second biases of PyTorch's recurrent layers, a row that is added to every row of a table."""
        return tuple(leaf for layout in self.parameters.values() for leaf in masked(layout))

    def subset(self, names: Container[str]) -> Binding:
        """The map of some parameters only: :meth:`export` and :meth:`restore` then know no others.

        Args:
            names: Canonical names.
        """
        return replace(self, parameters={n: layout for n, layout in self.parameters.items() if n in names})

    def export(self, natives: Mapping[str, Array], *, copy: bool = True) -> dict[str, Array]:
        """Canonical arrays from native ones, contiguous.

        Args:
            natives: Native arrays by name.
            copy: Whether the result is never memory of ``natives``.
        """
        make = np.array if copy else partial(np.asarray, order="C")
        return {name: make(forward(layout, natives)) for name, layout in self.parameters.items()}

    def restore(self, canonical: Mapping[str, Array], *, copy: bool = True) -> dict[str, Array]:
        """Native arrays from canonical ones: every shared native tensor.

        The dtype follows ``canonical``, so sums and gradients convert as weights do.

        Args:
            canonical: Canonical arrays by name.
            copy: Whether the result is never memory of ``canonical``.

        Raises:
            SchemaError: A parameter that is a constant of this model has other values.
        """
        self._check_constants(canonical)
        same = {} if copy else self._unchanged
        result = {
            tensor: canonical[owner]
            if same.get(owner) == tensor
            else np.zeros(self.natives[tensor].shape, canonical[owner].dtype)
            for tensor, owner in self.owners.items()
        }
        for name, layout in self.parameters.items():
            if name not in same:
                backward(layout, canonical[name], result)
        return result

    def _check_constants(self, canonical: Mapping[str, Array]) -> None:
        for name, layout in self.parameters.items():
            if not isinstance(layout, Constant) or canonical[name].dtype.kind != "f":
                continue
            own, given = layout.array, canonical[name]
            apart = float(np.abs(own - given).max(initial=0.0))
            if not apart <= _SAME_CONSTANT * max(float(np.abs(own).max(initial=0.0)), 1e-30):
                raise SchemaError(
                    f"{name!r} is a constant of the {self.backend} model, and the weights hold other values of it: they differ by {apart:.1e}",
                    hint="keep it in the model as a weight that does not train, which takes any values",
                )

    @cached_property
    def _unchanged(self) -> dict[str, str]:
        """Parameters that are a whole native tensor as it is, and which; no other parameter shares it."""
        uses = Counter(leaf.tensor for layout in self.parameters.values() for leaf in leaves(layout))
        return {
            name: layout.tensor
            for name, layout in self.parameters.items()
            if isinstance(layout, Native)
            and uses[layout.tensor] == 1
            and layout.shape == self.natives[layout.tensor].shape
        }

    def renamed(self, parameters: Mapping[str, str], nodes: Mapping[str, str], schema: Schema) -> Binding:
        """The same native model under another schema's names.

        Args:
            parameters: This binding's canonical name to the other schema's.
            nodes: This binding's node name to the other schema's.
            schema: The other schema.
        """
        by_new_name = {parameters[name]: layout for name, layout in self.parameters.items()}
        return replace(
            self,
            fingerprint=schema.fingerprint,
            parameters={parameter.name: by_new_name[parameter.name] for parameter in schema.parameters},
            nodes={nodes[name]: native for name, native in self.nodes.items() if name in nodes},
        )

    def to_json(self) -> str:
        """Serialise; :meth:`from_json` is the inverse."""
        return _ADAPTER.dump_json(self, indent=1).decode()

    @staticmethod
    def from_json(text: str | bytes) -> Binding:
        """Read a binding.

        Raises:
            SchemaError: The text is not a binding.
        """
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            raise SchemaError(f"not a binding: {error.errors()[0]['msg']}") from error


_ADAPTER: TypeAdapter[Binding] = TypeAdapter(Binding)


def json_schema() -> dict[str, object]:
    """JSON Schema of the binding file, as published in ``schemas/``."""
    return _ADAPTER.json_schema()


@dataclass(frozen=True)
class Description:
    """What an adapter says about a native model.

    Attributes:
        schema: Its own schema.
        binding: The binding to it.
        places: ``FILE:LINE`` of the user's code that a node comes from, by node name, where it is known. It stays on this machine.
        notes: What was done to the model so that it could be described, for people.
    """

    schema: Schema
    binding: Binding
    places: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def stored_in(self, dtypes: Mapping[str, str]) -> Description:
        """The same model, which holds some of its tensors in other dtypes than those that it was described with.

        Args:
            dtypes: NumPy dtype names by native name.
        """
        natives = {
            name: replace(tensor, dtype=dtypes.get(name, tensor.dtype))
            for name, tensor in self.binding.natives.items()
        }
        binding = replace(self.binding, natives=natives)
        schema = replace(
            self.schema,
            parameters=tuple(replace(p, storage=binding.storage(p.name)) for p in self.schema.parameters),
        )
        return replace(self, schema=schema, binding=binding)

    def with_outputs(self, order: Sequence[int]) -> Description:
        """The same model with its outputs in another order.

        Args:
            order: The new output ``i`` is this one's output ``order[i]``.
        """
        schema = replace(self.schema, outputs=tuple(self.schema.outputs[index] for index in order))
        outputs = tuple(self.binding.outputs[index] for index in order)
        binding = replace(self.binding, outputs=outputs, fingerprint=schema.fingerprint)
        return replace(self, schema=schema, binding=binding)

    def with_inputs(self, order: Sequence[int]) -> Description:
        """The same model behind a schema that takes its inputs in another order.

        Args:
            order: The new schema's input ``i`` is this one's input ``order[i]``.
        """
        count = len(order)
        if [*order] == [*range(count)]:
            return self
        schema = replace(self.schema, inputs=tuple(self.schema.inputs[index] for index in order))
        own = [[*order].index(index) for index in self.binding.order or range(count)]
        placed = () if own == [*range(count)] else tuple(own)
        binding = replace(self.binding, order=placed, fingerprint=schema.fingerprint)
        return replace(self, schema=schema, binding=binding)
