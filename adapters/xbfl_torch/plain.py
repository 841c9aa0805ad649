"""What a module must be before it is described: without its wrappers, and with tensors that hold plain numbers."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from xbackend_fl.canonical import NativeTensor
from xbackend_fl.errors import UnsupportedError

_WRAPPERS = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The module inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``: all compute what it computes."""
    inner = getattr(model, "_orig_mod", None) if type(model).__name__ == "OptimizedModule" else None
    if isinstance(model, _WRAPPERS):
        inner = model.module
    return model if inner is None else unwrapped(inner)


def check_modules(model: torch.nn.Module) -> None:
    """Refuse a module whose code or weights are not to be seen.

    Raises:
        UnsupportedError: It holds TorchScript, or layers of whole numbers.
    """
    for path, module in model.named_modules():
        where = f"the module {path!r}" if path else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedError(
                f"{where} is TorchScript, which has no Python code to read",
                hint="build it from its code, and load its weights: model.load_state_dict(script.state_dict())",
            )
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.nn.quantized")):
            raise UnsupportedError(
                f"{where} is quantized ({type(module).__name__}); its weights are rounded",
                hint="describe the model before torch.ao.quantization converts it",
            )
        if type(module).__name__ == "FullyShardedDataParallel":
            raise UnsupportedError(
                f"{where} holds a part of its weights only (FullyShardedDataParallel)",
                hint="build the model without it, and load the full state dict",
            )


def natives_of(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, NativeTensor]:
    """Shape and dtype of every parameter and buffer.

    Raises:
        UnsupportedError: One holds no plain float32 numbers, or none at all; the message names it.
    """
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        word = "parameter" if name in parameters else "buffer"
        for what, cure in _wrong(tensor, trains=name in parameters):
            raise UnsupportedError(f"{word} {name!r} {what}", hint=cure)
    return {
        name: NativeTensor(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in tensors.items()
    }


def _wrong(tensor: torch.Tensor, *, trains: bool) -> Iterator[tuple[str, str]]:
    if torch.nn.parameter.is_lazy(tensor):
        yield (
            "has no shape yet: its layer is lazy",
            "call the model once with an example before describing it",
        )
    elif tensor.device.type == "meta":
        yield (
            "is on the device 'meta' and has no numbers",
            "build the model without torch.device('meta'), or model.to_empty(device='cpu') and load its weights",
        )
    elif tensor.device.type != "cpu":
        yield f"is on the device {str(tensor.device)!r}", "describe the model before it is moved: model.cpu()"
    elif tensor.layout != torch.strided:
        yield f"is stored as {tensor.layout}; expected all its numbers", "keep it dense: tensor.to_dense()"
    elif tensor.is_quantized:
        yield f"is quantized ({tensor.dtype})", "describe the model before it is quantized"
    elif tensor.is_complex():
        yield (
            f"is {tensor.dtype}; expected float32",
            f"keep real and imaginary part as two {'parameters' if trains else 'buffers'}",
        )
    elif tensor.is_floating_point() and tensor.dtype != torch.float32:
        yield f"is {tensor.dtype}; expected float32", "call model.float() before describing it"
    elif tensor.is_inference():
        yield (
            "was made under torch.inference_mode, and can neither change nor train",
            "build the model outside of it, or take a copy there: copy.deepcopy(model)",
        )
    elif trains and not tensor.numel():
        yield (
            f"has the shape {list(tensor.shape)} and holds no number",
            "leave the layer out, or give it a width",
        )
