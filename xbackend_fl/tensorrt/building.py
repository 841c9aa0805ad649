"""Builds an engine of an ONNX model; no card is needed for one that is not refitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from xbackend_fl.errors import ConfigError, RefusedInput, UnsupportedError
from xbackend_fl.hushing import stderr_aside
from xbackend_fl.places import PLACE
from xbackend_fl.tensorrt.library import Messages, library
from xbackend_fl.text import line


@dataclass(frozen=True)
class Sizes:
    """What a free axis may be long, and what it mostly is."""

    min_size: int
    usual: int
    max_size: int

    @staticmethod
    def from_text(text: str) -> Sizes:
        """From ``1:8:64``.

        Raises:
            ConfigError: It is something else.
        """
        try:
            found = Sizes(*map(int, text.split(":")))
        except (TypeError, ValueError):
            found = Sizes(0, 0, 0)
        if not 0 < found.min_size <= found.usual <= found.max_size:
            raise ConfigError(f"{text!r} are no sizes: expected MIN:USUAL:MAX", hint="e.g. batch=1:8:64")
        return found


USUAL = {"batch": Sizes(1, 8, 64)}
"""Of axes that nobody says anything about."""


def build(model: onnx.ModelProto, sizes: Mapping[str, Sizes], *, refittable: bool = False) -> bytes:
    """A serialized engine, strongly typed and without TF32.

    Args:
        model: The model, with its weights.
        sizes: Of free axes, by name; the batch has 1 to 64 if nobody says.
        refittable: Whether its weights can be replaced, which takes a supported card already now.

    Raises:
        AdapterError: TensorRT is not installed.
        UnsupportedError: Its parser lacks an operator; the message names the node.
        RefusedInput: It cannot be built, or an axis has no sizes.
    """
    profiles = list(_profile(model, sizes))
    trt = library()
    said = Messages(trt)
    builder = trt.Builder(said.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, said.logger)
    if not parser.parse(model.SerializeToString()):
        raise _unparsed(model, [parser.get_error(index) for index in range(parser.num_errors)], said)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if refittable:
        config.set_flag(trt.BuilderFlag.REFIT)
    profile = builder.create_optimization_profile()
    for name, shapes in profiles:
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    # Some of its parts write to the terminal, whoever listens.
    with stderr_aside():
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise said.refusal(
            "TensorRT cannot build a refittable engine" if refittable else "TensorRT cannot build the engine",
            "xbfl engine build without --refittable builds anew for every round",
        )
    return bytes(plan)


def return_own(model: onnx.ModelProto) -> None:
    """Give every output a value of its own, ``NAME/returned`` where it is an input or is returned twice: TensorRT takes no other network."""
    taken = {item.name for item in model.graph.input}
    for item in model.graph.output:
        if item.name in taken:
            own = f"{item.name}/returned"
            while own in taken:
                own += "/returned"
            model.graph.node.append(onnx.helper.make_node("Identity", [item.name], [own], name=own))
            item.name = own
        taken.add(item.name)


def owner(node: str) -> str:
    """The layer of the reference that a node of our ONNX files is of."""
    return node.rpartition("/")[0] or node


def _unparsed(model: onnx.ModelProto, errors: list[Any], said: Messages) -> RefusedInput:
    places = {
        node.name: item.value
        for node in model.graph.node
        for item in node.metadata_props
        if item.key == PLACE
    }
    refused = dict.fromkeys(_reason(error, places) for error in errors if error.node_operator())
    if not refused:
        return said.refusal("TensorRT's parser refuses the file", "xbfl convert writes one that it reads")
    return UnsupportedError(
        f"TensorRT's parser has no {'; no '.join(refused)}",
        hint="say it otherwise in the model, or run model.onnx with ONNX Runtime",
    )


def _reason(error: Any, places: Mapping[str, str]) -> str:
    """What is lacking, who needs it and where; why, where the parser knows the operator and refuses it here."""
    name = str(error.node_name())
    needed = f"{error.node_operator()} as {owner(name)!r} needs it"
    if place := places.get(name):
        needed += f" (at {line(place, 80)})"
    # "Assertion failed: CONDITION: WHY", without a why where nobody knows the operator.
    why = str(error.desc()).removeprefix("Assertion failed: ").partition(": ")[2]
    return f"{needed}: {line(why, 200)}" if why else needed


def _profile(
    model: onnx.ModelProto, sizes: Mapping[str, Sizes]
) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    """Least, usual and largest shape of every input with a free axis."""
    shapes = [item.type.tensor_type.shape.dim for item in model.graph.input]
    known = {dim.dim_param for dims in shapes for dim in dims if not dim.HasField("dim_value")}
    if other := sorted(sizes.keys() - known):
        raise ConfigError(
            f"no input has a free axis {other[0]!r}",
            hint=f"--size is of {' or '.join(sorted(known))}"
            if known
            else "leave --size out: every axis is fixed",
        )
    sizes = {**USUAL, **sizes}
    for item, dims in zip(model.graph.input, shapes, strict=True):
        free = [dim.dim_param for dim in dims if not dim.HasField("dim_value")]
        unknown = [name for name in free if name not in sizes]
        if unknown:
            raise ConfigError(
                f"axis {unknown[0]!r} of input {item.name!r} is free, and nobody says how long it is",
                hint=f"--size {unknown[0]}=MIN:USUAL:MAX",
            )
        if free:
            ends = ("min_size", "usual", "max_size")
            yield (
                item.name,
                [
                    tuple(dim.dim_value or int(getattr(sizes[dim.dim_param], end)) for dim in dims)
                    for end in ends
                ],
            )
