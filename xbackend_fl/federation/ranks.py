"""The rounds of a course in a script of several processes: rank 0 takes part, and the others follow it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Never, cast, final

from xbackend_fl.adapter import Lent, Peers
from xbackend_fl.errors import ConfigError, RunFailed
from xbackend_fl.participant import Task

_WAITING_S = 30.0
"""Seconds after which those who wait for the next round hear that it takes longer: a broadcast ends after minutes."""
_PLAIN = ("participant", "round", "seed", "settings", "lr", "split", "_within")


@final
class Leading:
    """Rank 0's side.

    Args:
        peers: All processes.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers, self._said, self._over = peers, time.monotonic(), False

    def wait(self) -> None:
        """There is no round yet."""
        if time.monotonic() - self._said > _WAITING_S:
            self._tell({})

    def begin(self, task: Task) -> None:
        """A round begins, from these weights."""
        self._tell({name: getattr(task, name) for name in _PLAIN})
        self._peers.broadcast_weights(task.model)

    def fail(self, error: Exception) -> None:
        """There is no next round, for a reason."""
        self._over = True
        self._tell({"error": str(error)})

    def end(self) -> None:
        """There is no next round; safe to call twice."""
        if not self._over:
            self._over = True
            self._tell(None)

    def _tell(self, said: Any) -> None:
        self._said = time.monotonic()
        self._peers.broadcast(said)


@final
class Following:
    """The rounds of a course for the loop of rank 1 or more: the same as rank 0's, without a part in the course.

    Args:
        peers: All processes.
        model: This process's, with the layers of rank 0's.
    """

    def __init__(self, peers: Peers, model: Any) -> None:
        self._peers, self._model, self._over = peers, model, False

    def __iter__(self) -> Iterator[Task]:
        """Wait for the next round, until the course is over.

        Raises:
            RunFailed: Rank 0 can take no more part.
        """
        while (said := self._peers.broadcast(None)) is not None:
            if "error" in said:
                self._over = True
                raise RunFailed(f"rank 0 takes no part any longer: {said['error']}")
            if said:
                self._peers.broadcast_weights(self._model)
                device = self._peers.device(self._model)
                yield Task(
                    self._model,
                    device=device,
                    state={},
                    _lent=cast("Lent", _Absent()),
                    _given=_absent,
                    _batches=_absent,
                    **said,
                )

        self._over = True

    def leave(self) -> None:
        """The script goes on without the course, in every rank.

        Raises:
            RunFailed: Rank 0 goes on with it.
        """
        if not self._over and self._peers.broadcast(None) is not None:
            raise RunFailed(f"rank {self._peers.rank} has left the course, and rank 0 goes on with it")

    def report(self, num_examples: int, **figures: float) -> None:
        """Nothing: what rank 0 reports counts, for all."""


class _Absent:
    """In place of the model that the toolkit lends: its methods are rank 0's."""

    def __getattr__(self, name: str) -> Never:
        _absent(name)


def _absent(_: str = "") -> Never:
    raise ConfigError(
        "task.data, task.batches() and task.penalty() are those of rank 0, which takes part in the course",
        hint="let the script load its data in every rank, with a DistributedSampler for example",
    )
