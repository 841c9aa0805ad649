"""A canonical graph as plain ONNX nodes: every value in it can be read, and every node replaced by another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.onnx_session import OnnxSession, SessionRefused

Array = NDArray[Any]

SILENT = frozenset(
    {"Transpose", "Reshape", "Expand", "Cast", "Shape", "Identity", "Unsqueeze", "Squeeze", "Flatten"}
)
"""ONNX operators that move values: nobody is told of them, but of what reads them."""


@dataclass(frozen=True)
class Step:
    """One ONNX node.

    Attributes:
        operator: ONNX operator.
        inputs: Names of what it reads: data, parameters and constants; empty where an optional one is left out.
        outputs: Names of what it makes.
        attributes: ONNX attributes by name.
        owner: The schema's node that it is a part of.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    owner: str


@dataclass(frozen=True)
class Graph:
    """The steps of a canonical graph in execution order.

    Attributes:
        schema: The graph.
        steps: What it computes.
        constants: Constant arrays by name.
    """

    schema: Schema
    steps: tuple[Step, ...]
    constants: Mapping[str, Array]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the model returns."""
        return tuple(port.name for port in self.schema.outputs)

    def values(self, weights: Mapping[str, Array], inputs: Sequence[Array]) -> dict[str, Array] | None:
        """Everything that is computed, the inputs and the parameters besides; ``None`` if the graph cannot run on this data.

        Args:
            weights: Canonical arrays by parameter name.
            inputs: One array per input, in ONNX layout.
        """
        given = {port.name: array for port, array in zip(self.schema.inputs, inputs, strict=True)}
        given |= {item.name: weights[item.name] for item in self.schema.parameters}
        made = [name for step in self.steps for name in step.outputs if name]
        found = _run(self.steps, {**given, **self.constants}, list(dict.fromkeys([*made, *self.outputs])))
        return None if found is None else {**given, **found}

    def before(self, name: str) -> set[str]:
        """Everything that a value is computed from."""
        found = {name}
        for step in reversed(self.steps):
            if not found.isdisjoint(step.outputs):
                found |= set(step.inputs)
        return found

    def also_read(self, name: str) -> bool:
        """Whether a parameter that a value is computed from is read on another way to the outputs too."""
        parameters = {item.name for item in self.schema.parameters}
        others = [step for step in self.steps if name not in step.outputs]
        read = {one for step in _needed(others, self.outputs) for one in step.inputs}
        return bool(parameters & read & self.before(name))

    def left_out(self, index: int, new: Step) -> tuple[Step, ...]:
        """The steps that nothing reads any more with another one in the place of one."""
        steps = [*self.steps[:index], new, *self.steps[index + 1 :]]
        kept = {id(step) for step in _needed(steps, self.outputs)}
        was = {id(step) for step in _needed(self.steps, self.outputs)}
        return tuple(step for step in self.steps if id(step) in was - kept and step is not self.steps[index])

    def erases(
        self, values: Mapping[str, Array], index: int, new: Sequence[Step], constants: Mapping[str, Array]
    ) -> bool:
        """Whether a step makes one number everywhere with other steps in its place, and several as it is.

        Args:
            values: What was computed.
            index: The step.
            new: What stands in its place.
            constants: Constants that these read besides.
        """
        name = self.steps[index].outputs[0]
        found = _run(new, {**values, **self.constants, **constants}, [name])
        if found is None or not values[name].size:
            return False
        return bool((found[name] == found[name].flat[0]).all()) and not bool(
            (values[name] == values[name].flat[0]).all()
        )

    def changed(
        self,
        values: Mapping[str, Array],
        new: Mapping[int, Sequence[Step]],
        constants: Mapping[str, Array],
    ) -> dict[str, Array] | None:
        """Outputs with some steps replaced; ``None`` if that cannot run.

        Args:
            values: What was computed before.
            new: What stands in the place of a step, by its index.
            constants: Constants that the new steps read besides.
        """
        touched: set[str] = set()
        steps: list[Step] = []
        for index, step in enumerate(self.steps):
            if index in new:
                steps += new[index]
                touched |= set(step.outputs)
            elif not touched.isdisjoint(step.inputs):
                steps.append(step)
                touched |= set(step.outputs)
        wanted = [name for name in self.outputs if name in touched]
        found = _run(_needed(steps, wanted), {**values, **self.constants, **constants}, wanted)
        return None if found is None else {name: found.get(name, values[name]) for name in self.outputs}


def _needed(steps: Sequence[Step], wanted: Iterable[str]) -> list[Step]:
    """The steps that some values follow from."""
    found: list[Step] = []
    names = set(wanted)
    for step in reversed(steps):
        if not names.isdisjoint(step.outputs):
            found.append(step)
            names |= set(step.inputs)
    return found[::-1]


def graph_of(schema: Schema) -> Graph | None:
    """A canonical graph in steps; ``None`` if a part of it has no ONNX form."""
    from onnx import helper, numpy_helper  # noqa: PLC0415

    from xbackend_fl.canonical.onnx_export import to_onnx  # noqa: PLC0415

    if schema.opaque:
        return None
    proto = to_onnx(schema, None).graph
    makers = {value: node.name for node in schema.nodes for value in node.outputs}
    constants: dict[str, Array] = {}
    steps: list[Step] = []
    for node in reversed(proto.node):
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            continue
        # What a node is expanded to stands in front of what makes its value.
        owner = next((makers[value] for value in node.output if value in makers), "")
        owner = owner or (steps[-1].owner if steps else "")
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        steps.append(Step(node.op_type, tuple(node.input), tuple(node.output), attributes, owner))
    return Graph(schema, tuple(reversed(steps)), constants)


def _run(steps: Sequence[Step], known: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array] | None:
    """Values by name, by ONNX Runtime; ``None`` if it cannot run these steps."""
    from onnx import helper, numpy_helper  # noqa: PLC0415

    from xbackend_fl.canonical.onnx_opset import OPSET, ir_version  # noqa: PLC0415

    made = {name for step in steps for name in step.outputs}
    read = dict.fromkeys(name for step in steps for name in step.inputs if name and name not in made)
    if not made.issuperset(wanted) or not known.keys() >= read.keys():
        return None
    graph = helper.make_graph(
        [helper.make_node(step.operator, step.inputs, step.outputs, **step.attributes) for step in steps],
        "xbackend_fl",
        [],
        [helper.make_empty_tensor_value_info(name) for name in wanted],
        [numpy_helper.from_array(np.asarray(known[name], order="C"), name) for name in read],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=ir_version(OPSET)
    )
    try:
        # Many graphs run once each: nothing is gained by what takes longer than a run.
        found = OnnxSession(model, optimized=False).run({}, wanted)
    except SessionRefused:
        return None
    return dict(zip(wanted, found, strict=True))
