"""A module as a program of ExecuTorch, by PyTorch's own exporter, with XNNPACK's kernels where it has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xbackend_fl.adapter.contract import LiteModel
from xbackend_fl.errors import AdapterError, RefusedInput, shortened
from xbackend_fl.hushing import Aside, hushed, stderr_aside
from xbackend_fl.places import users_place
from xbfl_torch.describe import frames_in, frames_of
from xbfl_torch.exporting import HELD, Flat, reason

Call = Callable[..., tuple[torch.Tensor, ...]]

_INSTEAD = "say it otherwise in the model, or run model.onnx with ONNX Runtime"


def export_lite(
    model: torch.nn.Module,
    call: Call,
    inputs: Sequence[torch.Tensor],
    batch_axes: Sequence[int],
    path: Path,
) -> LiteModel:
    """Write a module in evaluation mode. ExecuTorch plans memory for the most examples that it may see, which are the example's.

    Args:
        model: In evaluation mode.
        call: Calls it with tensors, one for each input.
        inputs: An example, of the most examples that the program takes.
        batch_axes: Where each input has its batch.
        path: The new file.

    Raises:
        AdapterError: ExecuTorch is not installed.
        RefusedInput: ExecuTorch cannot write this module, or cannot open the file.
    """
    try:
        with stderr_aside(), hushed("torch"):
            from executorch.exir import to_edge_transform_and_lower
            from executorch.runtime import Runtime

            kernels = _xnnpack()
    except ImportError as error:
        raise AdapterError(
            f"ExecuTorch cannot be imported: {shortened(error)}", hint="pip install 'xbackend-fl[executorch]'"
        ) from error
    flat, count = Flat(model, call).eval(), inputs[0].shape[batch_axes[0]]
    program, examples = None, (1, count)
    with stderr_aside(), hushed("torch"):
        try:
            program = _exported(flat, inputs, batch_axes, count)
        except RefusedInput:
            program, examples = _exported(flat, inputs, batch_axes, 1), (count, count)
        try:
            edge = to_edge_transform_and_lower(program, partitioner=[kernels])
            written = edge.to_executorch().buffer
        except Exception as error:  # whatever ExecuTorch raises, from many packages
            raise _unwritten(flat, program, error) from error
    path.write_bytes(written)
    said = Aside()
    try:
        with stderr_aside() as said:
            method = Runtime.get().load_program(path).load_method("forward")
    except RuntimeError as error:
        raise _unopened(program, said, error) from error

    def run(arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        said = Aside()
        try:
            with stderr_aside() as said:
                found = method.execute([torch.from_numpy(np.array(array)) for array in arrays])
        except RuntimeError as error:
            raise _unopened(program, said, error) from error
        return tuple(np.array(output) for output in found)

    return LiteModel(f"ExecuTorch {version('executorch')}", (), examples, run)


def _xnnpack() -> Any:
    """XNNPACK's kernels, but for GELU by tanh: ExecuTorch 1.5.1 takes its kernel of the exact GELU for it, and outputs are 5e-4 apart."""
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS, GeluConfig
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    class ExactGelu(GeluConfig):  # type: ignore[misc]
        def check_constraints(self, node: Any, ep: Any) -> bool:
            exact = node.kwargs.get("approximate", "none") == "none"
            return exact and bool(super().check_constraints(node, ep))

    configs = [ExactGelu if config is GeluConfig else config for config in ALL_PARTITIONER_CONFIGS]
    return XnnpackPartitioner(configs=configs)


def _exported(flat: Flat, inputs: Sequence[torch.Tensor], batch_axes: Sequence[int], count: int) -> Any:
    free = None
    if count > 1:
        batch = torch.export.Dim("batch", min=1, max=count)
        free = (tuple({axis: batch} for axis in batch_axes),)
    try:
        return torch.export.export(flat, tuple(inputs), dynamic_shapes=free, strict=False)
    except Exception as error:  # whatever the exporter raises
        raise RefusedInput(f"PyTorch's exporter cannot write it: {reason(error)}") from error


def _unwritten(flat: Flat, program: Any, error: Exception) -> RefusedInput:
    said = str(error)
    if lacking := re.findall(r"Operator torch\._ops\.(\w+)\.(\w+)\.\w+ is not in Core ATen", said):
        return _lacking(program, ["::".join(found) for found in lacking])
    if refused := re.search(r"Operator: <EdgeOpOverload: (\w+)\.(\w+)\.\w+>(.*)", said, re.DOTALL):
        name, frames = f"{refused[1]}::{refused[2]}", frames_in(refused[3])
        return RefusedInput(
            f"ExecuTorch takes no {name} {_needed(program, name, frames)}: {reason(error)}", hint=_INSTEAD
        )
    quoted = [name.removeprefix(HELD) for name, _ in flat.named_modules() if '"' in name]
    if isinstance(error, SyntaxError) and quoted:
        return RefusedInput(
            f"ExecuTorch takes no double quotes in the names of layers, as in {quoted[0]!r}",
            hint="call the layer otherwise",
        )
    return RefusedInput(f"ExecuTorch cannot write it: {reason(error)}")


def _unopened(program: Any, said: Aside, error: Exception) -> RefusedInput:
    """The runtime says on stderr what it lacks, and raises a number."""
    lacking = re.findall(r"Missing operator: \[\d+\] (\w+::\w+)", said.text)
    if lacking:
        return _lacking(program, lacking)
    failed = re.search(r"(Check failed .*)", said.text)
    return RefusedInput(
        f"ExecuTorch cannot run what PyTorch wrote: {shortened(error)}{f': {failed[1]}' if failed else ''}"
    )


def _lacking(program: Any, names: Sequence[str]) -> RefusedInput:
    needs = (f"{name} {_needed(program, name)}".rstrip() for name in dict.fromkeys(names))
    return RefusedInput(
        f"ExecuTorch has no {', no '.join(needs)}",
        hint=_INSTEAD,
    )


def _needed(program: Any, name: str, frames: Sequence[tuple[str, int]] = ()) -> str:
    """Who needs an operation: the module, and the line of the user's code; of several, who made the calls ``frames``."""
    found = [
        node for node in _nodes(program) if getattr(getattr(node.target, "_schema", None), "name", "") == name
    ]
    if not found:
        return ""
    node = next((node for node in found if frames and frames_of(node) == frames), found[0])
    modules = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    module, place = modules[-1] if modules else "", users_place(frames_of(node))
    return f"as {f'{module}.'.removeprefix(HELD).rstrip('.') or 'the model'!r} needs it" + (
        f" (at {place})" if place else ""
    )


def _nodes(program: Any) -> Iterator[Any]:
    """What the user's code calls, and what that is made of: a determinant is another operation by then."""
    yield from program.graph.nodes
    yield from program.run_decompositions().graph.nodes
