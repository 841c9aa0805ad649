"""Whether every step of a training loop has what the algorithm adds, once: what a loop asks for is held against the steps of its optimizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from xbackend_fl.errors import UpdateRefused

_HINT = "loss = loss + task.penalty() before backward(); or task.correct_gradients() between loss.backward() and optimizer.step()"


@dataclass(frozen=True)
class _Count:
    """How often a loop asked until now.

    Attributes:
        penalties: Calls of ``task.penalty()``.
        added: How often a gradient went through what such a call returned.
        corrections: Calls of ``task.correct_gradients()``.
    """

    penalties: int = 0
    added: int = 0
    corrections: int = 0

    def since(self, other: _Count) -> _Count:
        return _Count(
            self.penalties - other.penalties,
            self.added - other.added,
            self.corrections - other.corrections,
        )


@final
class Asked:
    """What a loop has asked for, and at which steps.

    Several calls of ``task.penalty()`` before a step are those of several backward passes, whose gradients add up.

    Args:
        algorithm: The algorithm's name, for messages.
        adds: Whether it adds anything to a step.
    """

    def __init__(self, algorithm: str, *, adds: bool) -> None:
        self._algorithm, self._adds = algorithm, adds
        self._now = _Count()
        self._unseen = False
        self._steps: dict[int, tuple[object, int, _Count]] = {}

    def penalty(self) -> None:
        """``task.penalty()`` was called."""
        self._now = _Count(self._now.penalties + 1, self._now.added, self._now.corrections)

    def added(self) -> None:
        """A gradient went through what it returned."""
        self._now = _Count(self._now.penalties, self._now.added + 1, self._now.corrections)

    def corrected(self) -> None:
        """``task.correct_gradients()`` was called."""
        self._now = _Count(self._now.penalties, self._now.added, self._now.corrections + 1)

    def compiled(self) -> None:
        """It was called while a graph was made, which runs from then on without calling it."""
        self._unseen = True

    def check(self, optimizer: object) -> None:
        """Look at the step that an optimizer makes.

        Args:
            optimizer: Whose step it is: of several, each must have the term in its own.

        Raises:
            UpdateRefused: The step has not what the algorithm adds, or has it twice.
        """
        _, number, before = self._steps.get(id(optimizer), (optimizer, 0, _Count()))
        found = self._now.since(before)
        if self._adds and found.added and found.corrections:
            raise UpdateRefused(
                f"called both task.penalty() and task.correct_gradients() for step {number + 1}, and {self._algorithm} adds its term once",
                hint="leave one of them out",
            )
        if not found.added and not found.corrections and (number or self._now.penalties):
            self._refuse(f"for step {number + 1}", found)
        self.check_all()
        self._steps[id(optimizer)] = (optimizer, number + 1, self._now)

    def check_all(self) -> None:
        """Look at a loop whose steps could not be seen.

        Raises:
            UpdateRefused: It never asked.
        """
        if not self._now.added and not self._now.corrections:
            self._refuse("", self._now)

    def _refuse(self, when: str, found: _Count) -> None:
        if not self._adds or self._unseen:
            return
        every = f"{self._algorithm} adds a term to every step"
        if found.penalties:
            raise UpdateRefused(
                f"called task.penalty(){f' {when}' if when else ''}, and no gradient went through what it returned; {every}",
                hint=_HINT,
            )
        raise UpdateRefused(
            f"called neither task.penalty() nor task.correct_gradients(){f' {when}' if when else ''}, and {every}",
            hint=_HINT,
        )
