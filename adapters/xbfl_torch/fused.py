"""Dense layers that take their step of plain SGD inside the backward pass.

The gradient of a large dense layer is the largest temporary of a step. ``W -= lr * dY^T X`` in one product never stores
it: one model's memory less, and two passes over memory fewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from xbackend_fl.adapter.contract import TrainConfig


def fusable(model: nn.Module, call: Any, inputs: Sequence[Any]) -> list[nn.Linear]:
    """Dense layers whose weights are their own and that are called once in a forward pass.

    A layer that is called twice would be changed by its second call's backward pass before the first one needs it.
    """
    found = [module for module in model.modules() if type(module) is nn.Linear]
    uses: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():  # noqa: SLF001  parameters of this module alone
            if parameter is not None:
                uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    calls: dict[int, int] = {}

    def count(module: nn.Module, _: Any, __: Any) -> None:
        calls[id(module)] = calls.get(id(module), 0) + 1

    with ExitStack() as stack:
        for module in found:
            stack.callback(module.register_forward_hook(count).remove)
        call(inputs)
    return [
        module
        for module in found
        if calls.get(id(module)) == 1
        and all(uses[id(p)] == 1 and p.requires_grad for p in module.parameters(recurse=False))
    ]


def suits(config: TrainConfig) -> bool:
    """Whether the step of a layer depends on nothing but its own gradient."""
    rule = config.optimizer
    return rule.name == "sgd" and not rule.weight_decay and config.clip_norm is None


@contextmanager
def fused(modules: Sequence[nn.Linear], lr: float) -> Iterator[None]:
    """Inside, the layers step by themselves when a loss is differentiated."""
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.__dict__.pop, "forward", None)
            module.__dict__["forward"] = _Step(module, lr)
        yield


class _Step:
    def __init__(self, module: nn.Linear, lr: float) -> None:
        self._module, self._lr = module, lr

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = _Dense.apply(value, self._module.weight, self._module.bias, self._lr)  # type: ignore[no-untyped-call]
        return result


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any, weight: Any, bias: Any, lr: float) -> Any:
        ctx.save_for_backward(value)
        ctx.weight, ctx.bias, ctx.lr = weight, bias, lr
        return functional.linear(value, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        (value,) = ctx.saved_tensors
        below = grad.matmul(ctx.weight) if ctx.needs_input_grad[0] else None
        rows, columns = grad.reshape(-1, grad.shape[-1]), value.reshape(-1, value.shape[-1])
        ctx.weight.addmm_(rows.t(), columns, alpha=-ctx.lr)
        if ctx.bias is not None:
            ctx.bias.add_(rows.sum(0), alpha=-ctx.lr)
        return below, None, None, None
