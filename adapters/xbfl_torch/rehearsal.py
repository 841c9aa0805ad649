"""Calls a model in evaluation mode and in training mode, and notes what training does that no graph says.

The graph of ``torch.export`` is that of evaluation. What drops, at which rate, and what else draws random numbers,
changes tensors or computes something else, shows only when the model runs in training mode: every function of PyTorch that
it calls is seen here, in order. The model is left as it was.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from xbackend_fl.adapter.calling import Way
from xbackend_fl.canonical import TrainingEffect
from xbackend_fl.errors import UnsupportedError, XbflError, shortened
from xbfl_torch.dropping import argument, dropped, kind_of, rate_of
from xbfl_torch.modes import evaluation_mode, modes_of_training, training_modules
from xbfl_torch.undone import undone

BatchNorm = torch.nn.modules.batchnorm._BatchNorm  # noqa: SLF001  the common base has no public name
DropoutLayer = torch.nn.modules.dropout._DropoutNd  # noqa: SLF001  likewise

_PACKAGE = str(Path(torch.__file__).parent)
_CLOSE = 1e-4
"""Relative difference of outputs that rounding makes."""


@dataclass(frozen=True)
class Drop:
    """A call that drops.

    Attributes:
        kind: ``dropout``, ``feature_dropout`` or ``attention``.
        path: Module that calls.
        rate: Its rate in training.
    """

    kind: str
    path: str
    rate: float


@dataclass(frozen=True)
class Rehearsal:
    """What a run in training mode shows.

    Attributes:
        drops: Every call that drops, in order.
        training: Modules that are in training mode while the model trains.
        effects: What else training does.
        unlike: The effect that makes two runs of one step differ; ``None`` if there is none.
        notes: What else is said of it.
        error: What the model raised in evaluation mode.
    """

    drops: tuple[Drop, ...] = ()
    training: frozenset[torch.nn.Module] = frozenset()
    effects: tuple[TrainingEffect, ...] = ()
    unlike: TrainingEffect | None = None
    notes: tuple[str, ...] = ()
    error: BaseException | None = None


def rehearse(model: torch.nn.Module, way: Way, inputs: Sequence[torch.Tensor]) -> Rehearsal:
    """Run ``model`` in both modes, without dropout and with the stored statistics.

    Args:
        model: The model.
        way: How it is called.
        inputs: In its own order of inputs and axes, two examples at least.

    Raises:
        UnsupportedError: Evaluation draws random numbers, or changes the weights.
    """
    norms = {module for module in model.modules() if isinstance(module, BatchNorm)}
    active = frozenset(training_modules(model))
    with undone(model):
        with evaluation_mode(model):
            still = _Run(model, way)
            if (error := still.call(inputs)) is not None:
                return Rehearsal(training=active, error=error)
        if still.random:
            raise UnsupportedError(
                f"torch {still.random[0]} draws random numbers in evaluation mode too",
                hint="torch: pass training=self.training (functional.dropout drops unless told otherwise)",
            )
        with modes_of_training(model, norms):
            moving = _Run(model, way)
            error = moving.call(inputs)
    if error is not None:
        what = f"it cannot be called in training mode: {shortened(error)}"
        effect = TrainingEffect(
            f"torch model {type(model).__name__}", what, "torch: make it work after model.train()"
        )
        return Rehearsal(tuple(still.drops), active, (effect,), effect)
    return _compared(still, moving, active)


def _compared(still: _Run, moving: _Run, active: frozenset[torch.nn.Module]) -> Rehearsal:
    effects = [
        TrainingEffect(
            f"torch {where}",
            "draws random numbers in training",
            "torch: put nn.Identity() there for the course, or nn.Dropout, nn.Dropout2d or functional.dropout, which follow the schema",
        )
        for where in dict.fromkeys(moving.random)
    ]
    if moving.changed:
        what = f"forward changes {', '.join(moving.changed)} in training"
        effects.append(
            TrainingEffect("torch model", what, "torch: compute it outside forward, or make it constant")
        )
    pairs = zip_longest(still.drops, moving.drops)
    other = next(
        ((a, b) for a, b in pairs if a is None or b is None or (a.kind, a.path) != (b.kind, b.path)), None
    )
    if other is not None:
        path = next(drop.path for drop in other[::-1] if drop is not None)
        cure = "torch: call it in both modes, with training=self.training"
        effects.append(TrainingEffect(f"torch module {path!r}", "calls a dropout in one mode only", cure))
    unlike = effects[0] if effects else None
    if unlike is None and (error := _apart(still.outputs, moving.outputs)) > _CLOSE:
        first = next((b or a for a, b in zip_longest(still.calls, moving.calls) if a != b), "its code")
        what = f"computes something else in training mode (outputs move by {error:.1e}), first at {first}"
        effects.append(
            TrainingEffect("torch model", what, "torch: compute the same in both modes", compared=True)
        )
    drops = still.drops if other is not None else moving.drops
    return Rehearsal(tuple(drops), active, tuple(effects), unlike, tuple(_more_outputs(still, moving)))


def _more_outputs(still: _Run, moving: _Run) -> Iterator[str]:
    """A note on outputs, such as an auxiliary head's, that a model has in one mode only."""
    counts = len(still.outputs), len(moving.outputs)
    if counts[0] != counts[1]:
        yield (
            f"in training mode the model returns {counts[1]} outputs, and in evaluation mode {counts[0]}: what trains here is what it returns "
            "in evaluation, and a loss of the others is no part of it"
        )


@final
class _Run(TorchFunctionMode):
    """One call of a model, with every function of PyTorch that it calls.

    Attributes:
        drops: Calls that drop.
        random: Places of other calls that draw random numbers.
        changed: Names of tensors of the model that its forward changed.
        calls: All calls, for people.
        outputs: What it returned.
    """

    def __init__(self, model: torch.nn.Module, way: Way) -> None:
        super().__init__()
        self.drops: list[Drop] = []
        self.random: list[str] = []
        self.changed: list[str] = []
        self.calls: list[str] = []
        self.outputs: list[torch.Tensor] = []
        self._model, self._way = model, way
        self._paths: list[str] = []

    def call(self, inputs: Sequence[torch.Tensor]) -> BaseException | None:
        """Call the model; what it raised, if it did."""
        tensors = dict(self._model.named_parameters()) | dict(self._model.named_buffers())
        versions = {name: tensor._version for name, tensor in tensors.items()}  # noqa: SLF001  counts changes in place
        states = _states()
        try:
            with ExitStack() as stack, torch.no_grad():
                # Where warnings are errors, a call would end in what the user's own does not.
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                self._follow(stack)
                with self:
                    output = self._way.call(self._model, [value.clone() for value in inputs])
        except (XbflError, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  a model may raise anything
            return error
        if _states() != states:
            self.random.append(f"model {type(self._model).__name__}: random or numpy.random")
        self.changed = [name for name, tensor in tensors.items() if tensor._version != versions[name]]  # noqa: SLF001
        self.outputs = _tensors(output)
        return None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note a call, and make it without dropout."""
        del types
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        path = self._paths[-1] if self._paths else ""
        kind = kind_of(name)
        if kind is not None:
            rate = rate_of(kind, args, kwargs)
            self.drops.append(Drop(kind, path, rate))
            if rate and not self._model.training:
                self.random.append(self._place(name, path))
            return dropped(name, args, kwargs, func, 0.0)
        if name == "embedding":
            _check_embedding(path, args, kwargs)
        before = torch.random.get_rng_state()
        result = func(*args, **kwargs)
        if not torch.equal(before, torch.random.get_rng_state()):
            self.random.append(self._place(name, path))
        self.calls.append(f"{name} in module {path!r}")
        return result

    def _follow(self, stack: ExitStack) -> None:
        """Know which module calls; layers that drop inside one function do not."""
        for path, module in self._model.named_modules():
            enter = module.register_forward_pre_hook(partial(self._enter, path))
            leave = module.register_forward_hook(self._leave, always_call=True)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
            if isinstance(module, torch.nn.MultiheadAttention | torch.nn.RNNBase):
                stack.callback(setattr, module, "dropout", module.dropout)
                module.dropout = 0.0

    def _enter(self, path: str, *_: Any) -> None:
        self._paths.append(path)

    def _leave(self, *_: Any) -> None:
        self._paths.pop()

    def _place(self, name: str, path: str) -> str:
        module = self._model.get_submodule(path)
        return f"module {path!r} ({type(module).__name__}): {name}{_line()}"


def _check_embedding(path: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Refuse a lookup that changes its table."""
    if argument(args, kwargs, "max_norm", 3, None) is not None:
        raise UnsupportedError(
            f"torch layer {path!r}: max_norm shortens rows of the embedding whenever they are read, in evaluation too",
            hint=f"torch: {path}: leave max_norm out; in front of training, rows can be shortened once",
        )


def _line() -> str:
    """File and line of the user's code that calls PyTorch; empty if that is no code of the user's."""
    frame = sys._getframe(1)  # noqa: SLF001  the traceback of a call that did not fail
    while frame is not None and (
        frame.f_code.co_filename.startswith(_PACKAGE) or frame.f_code.co_filename == __file__
    ):
        if frame.f_code.co_name == "call" and frame.f_code.co_filename == __file__:
            return ""
        frame = frame.f_back  # type: ignore[assignment]
    return "" if frame is None else f" ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"


def _apart(one: Sequence[torch.Tensor], two: Sequence[torch.Tensor]) -> float:
    """Largest relative difference of outputs; what training returns beside them does not count."""
    error = 0.0
    for still, moving in zip(one, two, strict=False):
        if still.shape != moving.shape:
            return float("inf")
        if still.is_floating_point() and still.numel():
            error = max(error, float((still - moving).abs().max() / still.abs().max().clamp(min=1e-12)))
    return error


def _tensors(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    return (
        [item for item in output if isinstance(item, torch.Tensor)]
        if isinstance(output, list | tuple)
        else []
    )


def _states() -> tuple[Any, ...]:
    """States of the generators that are not PyTorch's."""
    state: dict[str, Any] = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return random.getstate(), state["key"].tobytes(), state["pos"]
