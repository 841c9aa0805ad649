"""A module as an ONNX file, by PyTorch's own exporter."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from xbackend_fl.errors import RefusedInput
from xbackend_fl.hushing import hushed
from xbackend_fl.places import PLACE, place_of, users_place
from xbfl_torch.describe import frames_in

HELD = "model."
"""In front of every name of the user's module in :class:`Flat`."""


class Flat(torch.nn.Module):
    """A module whose inputs are positional and whose outputs are a tuple, whatever form the user's have."""

    def __init__(self, model: torch.nn.Module, call: Callable[..., tuple[torch.Tensor, ...]]) -> None:
        super().__init__()
        self.model = model
        self._call = call

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs in their order."""
        return self._call(inputs)


def export_onnx(
    model: torch.nn.Module,
    call: Callable[..., tuple[torch.Tensor, ...]],
    inputs: Sequence[torch.Tensor],
    batch_axes: Sequence[int],
    path: Path,
) -> dict[str, str]:
    """Write ``model`` in evaluation mode.

    Args:
        model: In evaluation mode.
        call: Calls it with tensors, one for each input.
        inputs: An example, of several examples: the exporter would take a batch of one for a constant.
        batch_axes: Where each input has its batch, which alone is free.
        path: The new file.

    Returns:
        The module's tensors by the names of their initializers.

    Raises:
        RefusedInput: The exporter is not installed, or cannot write this model.
    """
    batch = torch.export.Dim("batch")
    flat = Flat(model, call).eval()
    try:
        with hushed("torch.onnx"):
            program = torch.onnx.export(
                flat,
                tuple(inputs),
                dynamo=True,
                # Optimised, normalisations are folded into the layers in front, under the names of these.
                optimize=False,
                dynamic_shapes=(tuple({axis: batch} for axis in batch_axes),),
                verbose=False,
            )
        assert program is not None
        proto = program.model_proto
    except ImportError as error:
        raise RefusedInput(
            f"PyTorch's exporter needs {error.name}", hint=f"pip install {error.name}"
        ) from error
    except Exception as error:  # whatever the exporter raises, from many packages
        raise RefusedInput(f"PyTorch's exporter cannot write it: {reason(error)}") from error
    _place(proto.graph)
    for item in (proto, *proto.functions):
        del item.metadata_props[:]
    path.write_bytes(proto.SerializeToString())
    return {tensor.name: tensor.name.removeprefix(HELD) for tensor in proto.graph.initializer}


def _place(graph: Any) -> None:
    """Call nodes after the modules that they come from, with the line of the user's file, whose folder is left out: it is of this machine."""
    places = {}
    for index, node in enumerate(graph.node):
        told = {item.key: item.value for item in node.metadata_props}
        # "['', 'model', 'model.blocks.0', 'linear']": the last one is the operation itself.
        *modules, _ = ast.literal_eval(told.get("pkg.torch.onnx.name_scopes") or "['']")
        module = modules[-1].removeprefix("model").removeprefix(".") if modules else ""
        node.name = f"{module or 'forward'}/{node.op_type}_{index}"
        places[index] = Path(users_place(frames_in(told.get("pkg.torch.onnx.stack_trace", "")))).name
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _place(inner)
    for item in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del item.metadata_props[:]
    for index, place in places.items():
        if place:
            graph.node[index].metadata_props.add(key=PLACE, value=place)


def reason(error: BaseException) -> str:
    """The first cause of an exporter's error, its first line: what wraps it says which step failed, and gives advice of pages."""
    cause: Any = error
    place = place_of(cause)
    while cause.__cause__ is not None:
        cause = cause.__cause__
        place = place or place_of(cause)
    said = str(cause).strip().splitlines()[0].rstrip(":") if str(cause).strip() else "no reason given"
    return f"{type(cause).__name__}: {said}" + (f" (at {place})" if place else "")
