"""Gradient steps: differentiate, mask, clip, update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

import torch

from xbackend_fl.adapter.contract import TrainConfig
from xbackend_fl.adapter.optimizers import Optimizer, StepNumbers
from xbfl_torch import devices, outer_product
from xbfl_torch.outer_product import OuterProduct

State = list[tuple[torch.Tensor, ...]]


@final
class LocalStepper:
    """Steps on some tensors of a model.

    Args:
        trainable: The tensors by native name.
        model: The model.
        dense: Names of its dense layers whose gradients may stay factors.
        config: Optimizer, learning rates, clipping, an algorithm's rule, and what is masked.
    """

    def __init__(
        self,
        trainable: Mapping[str, torch.Tensor],
        model: torch.nn.Module,
        dense: Sequence[str],
        config: TrainConfig,
    ) -> None:
        masks = masks_of(config, trainable)
        self._optimizer, self._limit, self._rule = config.optimizer, config.clip_norm, config.rule
        self._rates = config.rates
        self._values = list(trainable.values())
        self._masks = [masks.get(name) for name in trainable]
        free = {id(value) for name, value in trainable.items() if name not in masks}
        layers = [model.get_submodule(name) for name in dense] if outer_product.suits(config) else []
        self._dense = [m for m in layers if isinstance(m, torch.nn.Linear) and id(m.weight) in free]
        self._state: State = [
            tuple(torch.zeros_like(v) for _ in range(self._optimizer.num_slots)) for v in self._values
        ]
        self._constants = [_constants(config, name, value) for name, value in trainable.items()]
        self._found: list[OuterProduct] = []
        self._number = 0

    @property
    def dense(self) -> int:
        """How many layers may give factors instead of a gradient."""
        return len(self._dense)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Forward passes belong inside."""
        with outer_product.recorded(self._dense) as self._found:
            yield

    def step(self, output: torch.Tensor, cotangent: torch.Tensor | None = None) -> None:
        """One step against the gradient of a loss, or of ``sum(output * cotangent)``."""
        self._number += 1
        if not self._values or not output.requires_grad:
            # Nothing trains, or nothing that trains reaches the output.
            return
        whole = torch.autograd.grad(output, self._values, cotangent, allow_unused=True)
        found = [*self._found]
        self._found.clear()
        given = {id(item.weight) for item in found}
        values, grads = [], []
        with torch.no_grad():
            for value, grad, mask in zip(self._values, whole, self._masks, strict=True):
                if id(value) not in given:
                    values.append(value)
                    grads.append(
                        torch.zeros_like(value) if grad is None else grad if mask is None else grad * mask
                    )
            del whole
            _clip(grads, found, self._limit)
            if self._rule is not None:
                # Then no layer has given factors.
                rows = zip(grads, values, self._constants, strict=True)
                grads = [
                    grad if slots is None else self._rule.gradient(grad, value, slots)
                    for grad, value, slots in rows
                ]
            rate = self._rates[self._number - 1] if self._rates else None
            numbers = self._optimizer.numbers(self._number, rate)
            self._state = _update(values, grads, self._state, self._optimizer, numbers)
            for item in found:
                item.descend(numbers.lr, self._optimizer.weight_decay)


def _clip(grads: list[torch.Tensor], found: list[OuterProduct], limit: float | None) -> None:
    """Scale gradients to a global norm of at most ``limit``."""
    if limit is None or not (grads or found):
        return
    norms = [*(torch._foreach_norm(grads) if grads else ()), *(item.norm() for item in found)]  # noqa: SLF001  public by its documentation
    scale = devices.clip_scale(torch.stack(norms), limit)
    if grads:
        torch._foreach_mul_(grads, scale)
    for item in found:
        item.scale = scale


def _update(
    values: list[torch.Tensor],
    grads: list[torch.Tensor],
    state: State,
    rule: Optimizer,
    numbers: StepNumbers,
) -> State:
    """One step in place; returns the new state."""
    if rule.plain:
        if values and rule.weight_decay:
            torch._foreach_add_(grads, values, alpha=rule.weight_decay)
        if values:
            torch._foreach_add_(values, grads, alpha=-numbers.lr)
        return state
    kept = []
    for value, grad, slots in zip(values, grads, state, strict=True):
        new, after = rule.update(value, grad, slots, numbers, torch.sqrt)
        value.copy_(new)
        kept.append(after)
    return kept


def _constants(config: TrainConfig, name: str, value: torch.Tensor) -> tuple[torch.Tensor, ...] | None:
    """What the algorithm's rule reads for a tensor; ``None`` if it leaves this one alone."""
    if config.rule is None or any(name not in config.slots[slot] for slot in config.rule.slots):
        return None
    return tuple(torch.from_numpy(config.slots[slot][name]).to(value) for slot in config.rule.slots)


def masks_of(config: TrainConfig, trainable: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Zeros where a tensor stays silent, ones elsewhere."""
    masks: dict[str, torch.Tensor] = {}
    for leaf in config.masked:
        if leaf.tensor in trainable:
            mask = masks.setdefault(leaf.tensor, torch.ones_like(trainable[leaf.tensor]))
            mask[leaf.index] = 0
    return masks
