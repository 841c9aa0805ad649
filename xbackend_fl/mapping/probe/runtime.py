"""ONNX Runtime as the opinion that neither framework shares."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.onnx_graph import OF_BATCH
from xbackend_fl.canonical.onnx_session import OnnxSession, SessionRefused
from xbackend_fl.errors import RefusedInput, shortened

Array = NDArray[Any]

_SIZES = (
    "a size that the model takes from its data, or a constant made for its batch, is a fixed number there: "
    "leave it to -1, to flatten and unflatten, or to broadcasting"
)

_TYPES = "there it takes float32 only: cast whole numbers in front of it, x.float() or tf.cast(x, tf.float32)"


def execute(schema: Schema, weights: Mapping[str, Array], inputs: Sequence[Array]) -> list[Array]:
    """Outputs of the canonical graph, in order."""
    return Runtime(schema).outputs(weights, inputs)


class GraphRefused(RefusedInput):
    """ONNX Runtime cannot run the canonical graph on some data.

    Args:
        what: What it cannot run.
        node: Name of the node, if it says one.
        hint: What can be done.
    """

    def __init__(self, what: str, node: str = "", hint: str = _SIZES) -> None:
        super().__init__(f"ONNX Runtime cannot run {what} of the model's graph", hint=hint)
        self.node = node

    def located(self, places: Mapping[str, str]) -> GraphRefused:
        """The same, with the line of the user's model that the node comes from."""
        place = places.get(self.node)
        if place and "(at " not in self.message:
            self.message = f"{self.message} (at {place})"
        return self


@final
class Runtime:
    """Runs one canonical graph with any weights: they are inputs, so one session serves all draws."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def outputs(self, weights: Mapping[str, Array], inputs: Sequence[Array]) -> list[Array]:
        """Outputs of the graph, in order.

        Raises:
            GraphRefused: The graph cannot run on data of this size.
        """
        return _run(self._inference, None, self._feeds(weights, inputs))

    def batch_statistics(self, weights: Mapping[str, Array], inputs: Sequence[Array]) -> dict[str, Array]:
        """Mean and biased variance of what each batch normalisation reads, by the parameter they would update.

        Of a layer that is called several times, the average over its calls.
        """
        names = self._training.outputs[len(self._schema.outputs) :]
        found: dict[str, list[Array]] = defaultdict(list)
        for name, array in zip(names, _run(self._training, names, self._feeds(weights, inputs)), strict=True):
            found[name.rpartition(OF_BATCH)[0]].append(array)
        return {name: np.mean(arrays, axis=0, dtype=arrays[0].dtype) for name, arrays in found.items()}

    @cached_property
    def _inference(self) -> OnnxSession:
        return _session(self._schema, batch_statistics=False)

    @cached_property
    def _training(self) -> OnnxSession:
        return _session(self._schema, batch_statistics=True)

    def _feeds(self, weights: Mapping[str, Array], inputs: Sequence[Array]) -> dict[str, Array]:
        data = zip((port.name for port in self._schema.inputs), inputs, strict=True)
        held = ((parameter.name, weights[parameter.name]) for parameter in self._schema.parameters)
        return {name: np.asarray(array, order="C") for name, array in (*data, *held)}


def _run(session: OnnxSession, names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
    try:
        return session.run(feeds, names)
    except SessionRefused as error:
        node = re.search(r"running (\w+) node. Name:'([^']*)'", str(error))
        what = f"{node[1]} {node[2]!r}" if node else shortened(error)
        raise GraphRefused(what, node[2] if node else "") from error


def _session(schema: Schema, *, batch_statistics: bool) -> OnnxSession:
    from xbackend_fl.canonical.onnx_export import to_onnx  # noqa: PLC0415

    try:
        return OnnxSession(to_onnx(schema, None, batch_statistics=batch_statistics))
    except SessionRefused as error:
        text = str(error)
        found = re.search(r"(?:in node|node with name) \(?'?([^')]+)", text)
        name = found[1] if found else ""
        operator = next((node.operator for node in schema.nodes if node.name == name), "")
        whole = "int" in text or "bool" in text or "NOT_IMPLEMENTED" in text
        raise GraphRefused(
            f"{operator} {name!r}" if operator else shortened(error), name, _TYPES if whole else _SIZES
        ) from error
