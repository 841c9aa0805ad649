"""Who of a cohort trains in which worker: by the work of each, from counts alone, so that a course repeats its bits."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import final

from xbackend_fl.adapter import balance, balance_lockstep, largest_share
from xbackend_fl.course import Course


@final
class Balance:
    """Shares of cohorts, each for a worker.

    Args:
        course: The course.
        sizes: Examples of every participant.
        lockstep: Backends whose workers train their shares in lockstep.
    """

    def __init__(self, course: Course, sizes: Mapping[str, int], lockstep: Collection[str]) -> None:
        self._backends = {participant.name: participant.backend for participant in course.participants}
        trainings = course.trainings
        # In lockstep a step costs what it costs, with however many examples; elsewhere examples are what is paid for.
        self._work = {
            name: trainings[name].num_steps(size)
            if self._backends[name] in lockstep
            else trainings[name].num_seen(size)
            for name, size in sizes.items()
        }
        self._lockstep = lockstep

    def assign(self, cohort: Sequence[str], teams: Mapping[str, int]) -> dict[tuple[str, int], list[str]]:
        """The participants of every worker that has some, by its backend and its place in the team; in the order in which their sums are added.

        Args:
            cohort: Who trains.
            teams: Workers of each backend.
        """
        found: dict[tuple[str, int], list[str]] = {}
        for backend, count in teams.items():
            work = {name: self._work[name] for name in sorted(cohort) if self._backends[name] == backend}
            share = balance_lockstep if backend in self._lockstep else balance
            found |= {(backend, index): names for index, names in enumerate(share(work, count)) if names}
        return found


def usual_share(course: Course, backend: str, workers: int) -> int:
    """How many participants a worker that trains in lockstep gets at most, but for a few cohorts in a thousand: the backend's part of a cohort is drawn.

    Args:
        course: The course.
        backend: The backend.
        workers: Of this backend.
    """
    everybody = len(course.participants)
    drawn = min(course.federate.cohort or everybody, everybody)
    mine = sum(participant.backend == backend for participant in course.participants)
    part = mine / everybody
    # Of a hypergeometric distribution.
    deviation = math.sqrt(drawn * part * (1 - part) * (everybody - drawn) / max(everybody - 1, 1))
    return largest_share(min(drawn, mine, math.ceil(drawn * part + 3 * deviation)), workers)
