"""The learning rate of every step."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xbackend_fl.schedules.schedule import Schedule, Watching


def factor_over_rounds(schedules: Sequence[Schedule], number: int, watched: float) -> float:
    """What multiplies the learning rate in all of a round.

    Args:
        schedules: Those of a participant.
        number: The round, from 1.
        watched: Factor of the schedules that follow figures.
    """
    over_rounds = [s for s in schedules if s.per == "round" and not isinstance(s, Watching)]
    return prod(
        (s.factor(number - 1) for s in over_rounds),
        start=watched if any(isinstance(s, Watching) for s in schedules) else 1.0,
    )


def factor_over_steps(schedules: Sequence[Schedule], step: int) -> float:
    """What multiplies the learning rate of a round in one step.

    Args:
        schedules: Those of a participant; those over rounds are left out.
        step: The step in the round, from 0.
    """
    return prod(schedule.factor(step) for schedule in schedules if schedule.per == "step")


def rates(
    schedules: Sequence[Schedule], lr: float, number: int, steps: int, watched: float
) -> tuple[float, ...] | None:
    """The learning rate of every step of a participant in a round, float64; ``None`` if no schedule changes it.

    Args:
        schedules: Those of the participant.
        lr: What they multiply.
        number: The round, from 1.
        steps: How many steps there are.
        watched: Factor of the schedules that follow figures.
    """
    if not schedules:
        return None
    base = lr * factor_over_rounds(schedules, number, watched)
    return tuple(base * factor_over_steps(schedules, step) for step in range(steps))
