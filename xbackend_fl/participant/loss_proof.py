"""Tries a loss of the user's own in this backend, before the course begins, and holds it against what other backends make of the same draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Judging, TrainConfig
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.optimizers.kinds.sgd import SGD
from xbackend_fl.errors import RefusedInput
from xbackend_fl.losses import NativeLoss, OwnLoss
from xbackend_fl.losses.own import NUMPY
from xbackend_fl.losses.proof import (
    Answer,
    Draw,
    Question,
    check_alone,
    check_equal,
    check_numpy,
    check_slope,
    draws,
)
from xbackend_fl.metrics import OF, Objective, Objectives, Read

Array = NDArray[Any]


class Tried(NamedTuple):
    """What the loss made of a draw."""

    draw: Draw
    answer: Answer


def try_losses(model: CanonicalModel, objectives: Objectives) -> dict[str, tuple[Tried, ...]]:
    """What losses of the user's own make of every draw, by head; nothing for a loss of the toolkit's, or where nothing trains.

    Args:
        model: Its outputs are replaced.
        objectives: How the losses read them.

    Raises:
        RefusedInput: One raised, gave another shape, NaN or no gradient; or it is not its own formula in float64.
    """
    return {read.head.name: _try_loss(model, read) for read in objectives.each}


def _try_loss(model: CanonicalModel, read: Read) -> tuple[Tried, ...]:
    objective = read.objective
    loss = objective.loss
    if not isinstance(loss, OwnLoss | NativeLoss) or not isinstance(model.trainer, Judging):
        return ()
    what = _called(objective, model.binding.backend)
    asked = Question(loss, objective.output, objective.class_axis, objective.ignore_index)
    tried = []
    for draw in draws(asked):
        ignored = asked.ignore_index if draw.ignoring else None
        config = replace(read.told(TrainConfig(SGD())), ignore_index=ignored)
        value, gradient = model.judge(draw.outputs, draw.targets, config)
        if gradient is None:
            raise _without_gradient(what)
        answer = Answer(value, gradient)
        check_alone(what, draw, answer)
        if isinstance(loss, OwnLoss) or NUMPY in loss.backends:
            check_numpy(what, asked, draw, answer)
        else:
            check_slope(what, draw, answer, _value(model, draw, config))
        tried.append(Tried(draw, answer))
    if not any(one.answer.gradient.any() for one in tried):
        raise _without_gradient(what)
    return tuple(tried)


def _value(model: CanonicalModel, draw: Draw, config: TrainConfig) -> Callable[[Array], float]:
    """What a loss makes of other outputs and the same targets."""
    return lambda outputs: model.judge(outputs, draw.targets, config)[0]


def packed(tried: Mapping[str, Sequence[Tried]]) -> dict[str, Array]:
    """As arrays by name, for evidence."""
    return {
        f"{_prefix(head)}{place}.{key}": np.asarray(value, np.float64 if key == "value" else np.float32)
        for head, each in tried.items()
        for place, one in enumerate(each)
        for key, value in one.answer._asdict().items()
    }


def check_against(
    tried: Mapping[str, Sequence[Tried]],
    evidence: Mapping[str, Array],
    objectives: Objectives,
    here: str,
    there: str,
) -> None:
    """Hold what losses made of the draws against what they made of them elsewhere.

    Args:
        tried: Here, by head.
        evidence: There, as :func:`packed` gives it.
        objectives: How the losses read outputs.
        here: The backend that tried them here.
        there: The one that tried them there.

    Raises:
        MismatchError: They are two losses.
        RefusedInput: The evidence is of other draws.
    """
    for read in objectives.each:
        what, other = (_called(read.objective, backend) for backend in (here, there))
        for place, one in enumerate(tried[read.head.name]):
            names = (f"{_prefix(read.head.name)}{place}.{key}" for key in Answer._fields)
            value, gradient = map(evidence.get, names)
            if value is None or gradient is None:
                # Data that have no target that does not count have one draw less.
                continue
            if gradient.shape != one.answer.gradient.shape or value.size != 1:
                raise RefusedInput(
                    f"{what}: the draws have outputs {list(one.answer.gradient.shape)}, and {other} tried {list(gradient.shape)}"
                )
            check_equal(what, other, one.draw, one.answer, Answer(value.item(), gradient))


def _prefix(head: str) -> str:
    return f"{head}{OF}" if head else ""


def _called(objective: Objective, backend: str) -> str:
    """What messages call a loss in a backend."""
    loss = objective.loss
    return (
        loss.called(backend)
        if isinstance(loss, OwnLoss | NativeLoss)
        else f"the loss {loss.name} in {backend}"
    )


def _without_gradient(what: str) -> RefusedInput:
    return RefusedInput(
        f"{what} has no gradient: what it gives does not depend on the outputs, or by steps only",
        hint="argmax, round, comparisons, detach, stop_gradient and numpy() have none: compute with the outputs themselves",
    )
