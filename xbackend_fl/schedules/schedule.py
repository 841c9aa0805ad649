"""The settings of a schedule, and its factor: one class a file in ``kinds``, found by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from xbackend_fl.registry import Registered


@dataclass(frozen=True)
class Schedule(Registered):
    """A factor of the learning rate. The fields of a kind are the keys of ``training.schedule``.

    Attributes:
        name: What courses call it: the name of its file.
        per: What it counts: rounds of the course, or steps of a participant in a round, each from 0.
    """

    name: str
    per: Literal["round", "step"] = "round"

    def factor(self, index: int) -> float:
        """What multiplies the learning rate in round or step ``index``, from 0."""
        raise NotImplementedError


@runtime_checkable
class Watching(Protocol):
    """A schedule whose factor follows from figures."""

    @property
    def metric(self) -> str | None:
        """The validation figure that it watches; ``None`` for the one that chooses the best weights."""
        ...

    def reached(self, losses: Sequence[float]) -> float:
        """The factor of the next round.

        Args:
            losses: What is watched, one value a round so far, lower is better; NaN is no improvement.
        """
        ...
