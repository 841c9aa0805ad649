"""Lends a module to a training loop that is not the toolkit's."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, final

import numpy as np
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from xbackend_fl.adapter.asking import Asked
from xbackend_fl.adapter.contract import Array, TrainConfig
from xbackend_fl.adapter.optimizers import Optimizer
from xbackend_fl.adapter.preserve import settings_kept
from xbackend_fl.errors import UpdateRefused
from xbfl_torch.describe import tensors_of
from xbfl_torch.preserve import modules_kept, places_kept
from xbfl_torch.scaling import Corrected
from xbfl_torch.settings import SETTINGS
from xbfl_torch.steps import training_mode


@contextmanager
def lent(
    model: torch.nn.Module,
    names: Sequence[str],
    device: str,
    config: TrainConfig,
    calls: Sequence[str] | None,
    algorithm: str,
) -> Iterator[LentModule]:
    """A module in training mode, or in evaluation mode, whose optimizers are watched; afterwards all but its weights is as it was before.

    Args:
        model: The module.
        names: Its tensors that train.
        device: Where it lies, now and afterwards.
        config: Native: attributes, masked parts, the rule and its slots; its optimizer is compared.
        calls: Native place of every call that drops, where attributes of modules do not say all rates; ``None`` for evaluation mode.
        algorithm: Whose rule it is, for messages.
    """
    with ExitStack() as stack:
        stack.enter_context(places_kept(model))
        stack.enter_context(settings_kept(SETTINGS))
        stack.enter_context(modules_kept(model))
        if calls is None:
            model.eval()
        else:
            stack.enter_context(training_mode(model, config, calls))
        for name in config.frozen & dict(model.named_parameters()).keys():
            model.get_parameter(name).requires_grad_(False)  # noqa: FBT003  it takes no name
        stack.enter_context(torch.enable_grad())
        found = LentModule(model, names, device, config, algorithm)
        stack.enter_context(found.watched())
        yield found


@final
class LentModule:
    """See :class:`~xbackend_fl.adapter.lending.Lent`."""

    def __init__(
        self, model: torch.nn.Module, names: Sequence[str], device: str, config: TrainConfig, algorithm: str
    ) -> None:
        self.model, self.device, self.asked = model, device, Asked(algorithm, adds=config.rule is not None)
        self._names, self._config = names, config
        self._built = _structure(model)
        self._steps: dict[int, tuple[torch.optim.Optimizer, int]] = {}
        self._unlike = ""
        self._corrected = Corrected()
        rule = config.rule
        self._constants = {
            name: tuple(torch.from_numpy(config.slots[slot][name]) for slot in rule.slots)
            for name in names
            if rule is not None and all(name in config.slots[slot] for slot in rule.slots)
        }

    def tensor(self, array: Array) -> torch.Tensor:
        """A copy on the model's device."""
        return torch.tensor(array, device=self.device)

    def array(self, value: object) -> Array | None:
        """A tensor's values, on the processor."""
        if not isinstance(value, torch.Tensor):
            return None
        found: Array = value.detach().cpu().numpy()
        return found.copy()

    def penalty(self) -> Any:
        """See :meth:`~xbackend_fl.adapter.lending.Lent.penalty`."""
        rule, now = self._config.rule, tensors_of(self.model)
        self._called(self.asked.penalty)
        if rule is None:
            return torch.zeros((), device=self.device)
        terms = [
            rule.term(now[name], [slot.to(now[name]) for slot in slots]).sum()
            for name, slots in self._constants.items()
        ]
        term: Any = torch.stack(terms).sum()
        if term.requires_grad and not torch.compiler.is_compiling():
            term.register_hook(lambda _: self.asked.added())
        elif torch.is_grad_enabled():
            # Nothing that has a term trains now.
            self._called(self.asked.added)
        return term

    def _called(self, note: Callable[[], None]) -> None:
        # What is compiled runs without this from then on.
        (self.asked.compiled if torch.compiler.is_compiling() else note)()

    def corrected(self, gradients: Any) -> None:
        """Change what ``backward()`` has left in the parameters."""
        if gradients is not None:
            raise UpdateRefused(
                "called task.correct_gradients() with gradients, and with PyTorch it takes none: it changes those that backward() leaves in the parameters",
                hint="call task.correct_gradients() between loss.backward() and optimizer.step()",
            )
        rule, now = self._config.rule, tensors_of(self.model)
        self._called(self.asked.corrected)
        if rule is None:
            return
        trains = [now[name] for name in self._constants if now[name].requires_grad]
        found = next((tensor.grad for tensor in trains if tensor.grad is not None), None)
        if trains and found is None:
            raise UpdateRefused(
                "called task.correct_gradients() where no parameter has a gradient: before backward(), or behind zero_grad()",
                hint="call it between loss.backward() and optimizer.step()",
            )
        if self._corrected.is_last(found):
            raise UpdateRefused(
                "called task.correct_gradients() for gradients that have its term already",
                hint="call it once a step, behind the last backward()",
            )
        with torch.no_grad():
            for name, slots in self._constants.items():
                value = now[name]
                grad = torch.zeros_like(value) if value.grad is None else value.grad
                value.grad = rule.gradient(grad, value, [slot.to(value) for slot in slots])
        self._corrected.note(trains)

    @property
    def steps(self) -> int | None:
        """Of the optimizer that made most: two may each train a part."""
        return max((count for _, count in self._steps.values()), default=None)

    @property
    def unlike(self) -> str:
        """See :attr:`~xbackend_fl.adapter.lending.Lent.unlike`."""
        return self._unlike

    def read(self) -> dict[str, Array]:
        """Copies of all tensors of a module that has its layers still."""
        found = _structure(self.model)
        changed = sorted(
            name for name in self._built.keys() | found.keys() if self._built.get(name) != found.get(name)
        )
        if changed:
            first = changed[0]
            raise UpdateRefused(
                f"has changed the model: {first or 'the model itself'} was {self._built.get(first, 'not there')}, "
                f"and is {found.get(first, 'not there any more')}",
                hint="every participant of a course trains the model that was proven: keep layers and shapes as they are",
            )
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors_of(self.model).items()}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Masked parts have no gradient inside, and steps on the module's tensors are counted."""
        now = tensors_of(self.model)
        handles: list[Any] = []
        for leaf in self._config.masked:
            if leaf.tensor in self._names:
                mask = torch.ones_like(now[leaf.tensor])
                mask[leaf.index] = 0
                watched: Any = now[leaf.tensor]
                handles.append(watched.register_hook(mask.__mul__))
        handles += [
            register_optimizer_step_pre_hook(self._before),
            register_optimizer_step_post_hook(self._after),
        ]
        try:
            with self._corrected.watched():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: Any) -> None:
        if not _has_closure(args, kwargs):
            self._check(optimizer)

    def _after(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: Any) -> None:
        if _has_closure(args, kwargs):
            # It went backward within the step.
            self._check(optimizer)
        self._corrected.stepped(optimizer)
        if self._is_ours(optimizer):
            before = self._steps.get(id(optimizer))
            self._steps[id(optimizer)] = (optimizer, 1 if before is None else before[1] + 1)
            self._unlike = self._unlike or _unlike(optimizer, self._config.optimizer)

    def _check(self, optimizer: torch.optim.Optimizer) -> None:
        if self._trains(optimizer, self._constants):
            self._corrected.check_scale(optimizer)
            self.asked.check(optimizer)

    def _is_ours(self, optimizer: torch.optim.Optimizer) -> bool:
        return self._trains(optimizer, dict(self.model.named_parameters()))

    def _trains(self, optimizer: torch.optim.Optimizer, names: Container[str]) -> bool:
        """Whether an optimizer has some of the model's tensors."""
        ours = {id(tensor) for name, tensor in self.model.named_parameters() if name in names}
        return any(id(item) in ours for group in optimizer.param_groups for item in group["params"])


def _has_closure(args: tuple[Any, ...], kwargs: Any) -> bool:
    """Whether an optimizer's step computes gradients itself; the first argument is the optimizer."""
    return (args[1] if len(args) > 1 else kwargs.get("closure")) is not None


def _structure(model: torch.nn.Module) -> dict[str, str]:
    """The class of every module and the shape of every tensor, by its place."""
    found = {name: f"{type(m).__module__}.{type(m).__qualname__}" for name, m in model.named_modules()}
    return found | {
        n: f"{list(t.shape)} of {t.dtype}{' without values' if t.is_meta else ''}"
        for n, t in tensors_of(model).items()
    }


def _unlike(optimizer: torch.optim.Optimizer, wanted: Optimizer) -> str:
    """How an optimizer differs from plain steps of the course's; empty if it does not, or if these are not plain."""
    if not wanted.plain:
        return ""
    plain = {"lr": wanted.lr, "weight_decay": wanted.weight_decay, "momentum": 0.0}
    for group in optimizer.param_groups:
        if not isinstance(optimizer, torch.optim.SGD):
            return f"{type(optimizer).__name__} instead of SGD"
        for name, value in plain.items():
            if not np.isclose(float(group[name]), value, rtol=1e-6, atol=0):
                return f"SGD with {name} {float(group[name]):g} instead of {value:g}"
    return ""
