"""Gradients of dense layers as the two factors they are products of.

The gradient of a dense layer is ``G = Y^T X``: ``Y [rows, out]`` is the gradient of its outputs, ``X [rows, in]`` its inputs. With
few rows the factors are far smaller than ``G``, which is the largest temporary of a step. It need never be stored:

* its norm is ``|G|^2 = sum((Y Y^T) * (X X^T))``, two products of ``[rows, rows]``;
* a step of SGD is ``W <- (1 - lr * decay) W - lr * scale * Y^T X``, one product that reads and writes ``W`` once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from xbackend_fl.adapter.contract import TrainConfig
from xbfl_torch import devices


@dataclass
class OuterProduct:
    """The gradient of one layer's weight.

    Attributes:
        weight: The weight, ``[out, in]``.
        rows: Gradient of the layer's outputs, ``[rows, out]``.
        columns: The layer's inputs, ``[rows, in]``.
        scale: What the gradient is multiplied with, a scalar.
    """

    weight: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    scale: torch.Tensor | None = None

    def norm(self) -> torch.Tensor:
        """Euclidean norm of the gradient, a scalar."""
        return devices.product_norm(self.rows, self.columns)

    def descend(self, lr: float, weight_decay: float) -> None:
        """One step of SGD in place."""
        devices.descend(self.weight, self.rows, self.columns, self.scale, lr, weight_decay)


def called_once(model: nn.Module, call: Any, inputs: Sequence[Any]) -> tuple[str, ...]:
    """Names of the dense layers whose weights are their own and that a forward pass calls once."""
    found = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    uses: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():  # noqa: SLF001  parameters of this module alone
            if parameter is not None:
                uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    calls: dict[int, int] = {}

    def count(module: nn.Module, _: Any, __: Any) -> None:
        calls[id(module)] = calls.get(id(module), 0) + 1

    # Without gradients, attention would take a path of its own that calls no layer.
    with ExitStack() as stack, torch.enable_grad():
        for module in found.values():
            stack.callback(module.register_forward_hook(count).remove)
        call(inputs)
    return tuple(n for n, m in found.items() if calls.get(id(m)) == 1 and uses[id(m.weight)] == 1)


def suits(config: TrainConfig) -> bool:
    """Whether a step is the gradient alone, and keeps nothing of it."""
    plain = config.optimizer.plain and config.rule is None
    return plain and config.precision == "float32"


@contextmanager
def recorded(modules: Sequence[nn.Linear]) -> Iterator[list[OuterProduct]]:
    """Inside, these layers give factors to the list when a loss is differentiated, and no gradient of the weight.

    A layer with too many rows for that gives its gradient as always.
    """
    found: list[OuterProduct] = []
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.__dict__.pop, "forward", None)
            module.__dict__["forward"] = _Forward(module, found)
        yield found


class _Forward:
    def __init__(self, module: nn.Linear, found: list[OuterProduct]) -> None:
        self._module, self._found = module, found

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        module = self._module
        flat = value.reshape(-1, value.shape[-1])
        result: torch.Tensor = _Dense.apply(flat, module.weight, module.bias, self._found)  # type: ignore[no-untyped-call]
        return result if value.ndim == 2 else result.reshape(*value.shape[:-1], -1)


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any, weight: Any, bias: Any, found: list[OuterProduct]) -> Any:
        ctx.save_for_backward(value)
        ctx.weight, ctx.found = weight, found
        return devices.dense(value, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (rows,) = grads
        (columns,) = ctx.saved_tensors
        weight = ctx.weight
        below = devices.dense_below(rows, weight) if ctx.needs_input_grad[0] else None
        bias = rows.sum(0) if ctx.needs_input_grad[2] else None
        whole = None
        if ctx.needs_input_grad[1]:
            if rows.shape[0] * sum(weight.shape) <= weight.numel():
                ctx.found.append(OuterProduct(weight, rows, columns))
            else:
                whole = rows.t() @ columns
        return below, whole, bias, None
