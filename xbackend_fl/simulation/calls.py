"""Calls of workers: a method of :class:`Worker` with its arguments, and an answer that has its type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, final

from xbackend_fl.events import Observer
from xbackend_fl.participant import Worker

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@final
@dataclass(frozen=True)
class Answer(Generic[T_co]):
    """What a call returned."""

    value: T_co


@final
class Pending(Generic[T_co]):
    """A call whose answer is on its way.

    Args:
        receive: Takes what the worker says next: tells the observer what happens, and returns the answer if it was that.
        connection: Where that comes from; without one, ``receive`` runs the call.
    """

    def __init__(
        self, receive: Callable[[Observer], Answer[T_co] | None], connection: Connection | None = None
    ) -> None:
        self._receive, self.connection = receive, connection
        self._answer: Answer[T_co] | None = None

    def receive_next(self, observer: Observer) -> bool:
        """Take what comes next; whether it was the answer."""
        self._answer = self._receive(observer)
        return self._answer is not None

    @property
    def answered(self) -> bool:
        """Whether the answer is there; one that was settled and has none was refused."""
        return self._answer is not None

    @property
    def result(self) -> T_co:
        """The answer, once it is there."""
        assert self._answer is not None
        return self._answer.value


class Handle(Protocol):
    """A worker that can be called, wherever it lives."""

    backend: str

    def submit(
        self, method: Callable[Concatenate[Worker, P], T], *arguments: P.args, **named: P.kwargs
    ) -> Pending[T]:
        """Start a call, ``submit(Worker.evaluate, weights, split)``; it is settled before the next one starts.

        Args:
            method: A method of the worker's class; events that it tells go to whoever settles the call.
            arguments: Its arguments, in order.
            named: And by name.
        """
        ...

    def close(self) -> None:
        """End the worker; safe to call twice."""
        ...


def settle(
    pending: Iterable[Pending[Any]], observer: Observer, refused: AbstractContextManager[None] | None = None
) -> None:
    """Bring the answers of calls; workers of this process run theirs now, in order.

    Args:
        pending: The calls.
        observer: Told about every event as it comes.
        refused: Gathers what workers raise, whose calls then have no answer: each is received in it. What comes first is raised if left out.
    """
    waiting: dict[Any, Pending[Any]] = {}
    kept = nullcontext() if refused is None else refused
    for call in pending:
        if call.connection is not None:
            waiting[call.connection] = call
            continue
        with kept:
            call.receive_next(observer)
    while waiting:
        for connection in wait(list(waiting)):
            over = True
            with kept:
                over = waiting[connection].receive_next(observer)
            if over:
                del waiting[connection]


def collect(pending: Sequence[Pending[T]], observer: Observer = lambda _: None) -> list[T]:
    """The answers of calls, in their order; see :func:`settle`."""
    settle(pending, observer)
    return [call.result for call in pending]
