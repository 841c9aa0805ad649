"""Courses over links that change, hold back or lose what silos say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.federation.light import Linear
from tests.federation.local import LocalLink
from xbackend_fl import Course
from xbackend_fl.events import Event
from xbackend_fl.federation import DeploymentEngine, Dispatcher, Ledger, Link, Message, Silo
from xbackend_fl.federation.transport import Reply, Session
from xbackend_fl.rounds import RoundOutcome, RunFolder, run_with


def deployed(course: Course, link: Link, out: Path, grace_s: float = 30.0) -> tuple[Any, list[Event]]:
    """Lead a course; its result, and what was told of it."""
    events: list[Event] = []
    folder = RunFolder.create(course, out)
    with closing(DeploymentEngine(course, Dispatcher(link, grace_s=grace_s), Ledger(folder))) as engine:
        return run_with(engine, course, folder, None, events.append), events


def one_round(course: Course, link: Link, out: Path) -> tuple[RoundOutcome, list[Event]]:
    """The meeting and the first round, and nothing after it; what was told of them."""
    events: list[Event] = []
    with closing(DeploymentEngine(course, Dispatcher(link), Ledger(RunFolder.create(course, out)))) as engine:
        initial = engine.prepare(events.append).initial
        names = [participant.name for participant in course.participants]
        return engine.train_round(1, initial, {}, names, events.append), events


class Passing:
    """A link that changes nothing, to be changed."""

    def __init__(self, silos: Sequence[Silo]) -> None:
        self._link = LocalLink(silos)

    def silos(self) -> Mapping[str, Session]:
        return self._link.silos()

    def send(self, frames: Mapping[str, bytes]) -> None:
        self._link.send(frames)

    def forget(self) -> None:
        self._link.forget()

    def replies(self) -> Iterator[Reply]:
        return self._link.replies()


class Altered(Passing):
    """A link on which one silo's answers of a kind are changed on their way."""

    def __init__(
        self,
        silos: Sequence[Silo],
        name: str,
        change: Callable[[Message], Message | None],
        kind: str = "trained",
    ) -> None:
        super().__init__(silos)
        self._name, self._change, self._kind = name, change, kind

    def silos(self) -> Mapping[str, Session]:
        found = dict(super().silos())
        if self._kind == "hello":
            session = found.pop(self._name)
            changed = self._change(Message.from_bytes(session.hello, self._name))
            if changed is not None:
                found[self._name] = Session(session.identity, changed.to_bytes())
        return found

    def replies(self) -> Iterator[Reply]:
        for reply in super().replies():
            answer = Message.from_bytes(reply.frame, reply.name)
            if reply.name != self._name or answer.kind != self._kind:
                yield reply
            elif (changed := self._change(answer)) is not None:
                yield Reply(reply.name, changed.to_bytes())


class Away(Passing):
    """A link on which a silo is not there from one request to train until some seconds later."""

    def __init__(self, silos: Sequence[Silo], name: str, at_round: int, seconds: float) -> None:
        super().__init__(silos)
        self._name, self._round, self._seconds = name, at_round, seconds
        self._left = self._back = 0.0

    def silos(self) -> Mapping[str, Session]:
        now = time.monotonic()
        found = dict(super().silos())
        session = found[self._name]
        if self._left and now < self._back:
            del found[self._name]
        elif self._left:
            found[self._name] = Session("2", session.hello)
        return found

    def send(self, frames: Mapping[str, bytes]) -> None:
        if not self._left and self._name in frames and self._is_time(frames[self._name]):
            self._left = time.monotonic()
            self._back = self._left + self._seconds
            frames = {name: frame for name, frame in frames.items() if name != self._name}
        super().send(frames)

    def _is_time(self, frame: bytes) -> bool:
        request = Message.from_bytes(frame, "the server")
        return request.kind == "train" and request.fields["round"] == self._round


def fields(**changes: Any) -> Callable[[Message], Message]:
    """Other fields of a message."""
    return lambda answer: replace(answer, fields={**answer.fields, **changes})


def light(course: Course, **changes: Any) -> list[Silo]:
    """Silos without a framework; ``changes`` are methods of the first one's learner."""
    learners = {p.name: Linear(p.name, course) for p in course.participants}
    first = next(iter(learners.values()))
    for name, method in changes.items():
        setattr(first, name, method)
    return [Silo(course, name, learner) for name, learner in learners.items()]
