"""Which gradients have what the algorithm adds, and whether a ``GradScaler`` would divide these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch.amp.grad_scaler import GradScaler

from xbackend_fl.errors import UpdateRefused


@final
class Corrected:
    """The gradients that ``task.correct_gradients()`` has changed, until their step."""

    def __init__(self) -> None:
        self._last: torch.Tensor | None = None
        self._all: list[torch.Tensor] = []

    def note(self, parameters: Sequence[torch.Tensor]) -> None:
        """The gradients of these have the term now."""
        self._all = [one.grad for one in parameters if one.grad is not None]
        self._last = self._all[0] if self._all else None

    def is_last(self, gradient: torch.Tensor | None) -> bool:
        """Whether a gradient is the first of those that were changed last, and no step was made since."""
        return gradient is not None and gradient is self._last

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer has made its step."""
        self._last = None
        own = self._of(optimizer)
        self._all = [one for one in self._all if id(one) not in own]

    def check_scale(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at the step of an optimizer that divides by a scale itself, as fused ones do.

        Raises:
            UpdateRefused: Its gradients have the term already.
        """
        if getattr(optimizer, "grad_scale", None) is not None:
            self._refuse_scaled(optimizer)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Every ``GradScaler`` is looked at inside."""
        unscale, update = GradScaler.unscale_, GradScaler.update
        GradScaler.unscale_, GradScaler.update = self._unscaled(unscale), self._updated(update)  # type: ignore[method-assign]
        try:
            yield
        finally:
            GradScaler.unscale_, GradScaler.update = unscale, update  # type: ignore[method-assign]

    def _unscaled(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def unscale_(scaler: GradScaler, optimizer: torch.optim.Optimizer) -> None:
            if scaler.is_enabled():
                self._refuse_scaled(optimizer)
            original(scaler, optimizer)

        return unscale_

    def _updated(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def update(scaler: GradScaler, *args: Any, **keys: Any) -> None:
            # A step that was left out has left them: these gradients are used no more.
            self._last, self._all = None, []
            original(scaler, *args, **keys)

        return update

    def _refuse_scaled(self, optimizer: torch.optim.Optimizer) -> None:
        own = self._of(optimizer)
        if any(id(one) in own for one in self._all):
            raise UpdateRefused(
                "called task.correct_gradients() for gradients that a GradScaler has scaled, and the scaler divides them afterwards, "
                "the algorithm's term too",
                hint="call scaler.unscale_(optimizer) before task.correct_gradients(); or add task.penalty() to the loss before scaler.scale(loss)",
            )

    def _of(self, optimizer: torch.optim.Optimizer) -> set[int]:
        """The gradients of an optimizer."""
        return {id(item.grad) for group in optimizer.param_groups for item in group["params"]}
