"""Questions and answers, whatever happens in between: silos come late, go away, come back with nothing, and lose answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import final

from xbackend_fl.deadline import Deadline
from xbackend_fl.errors import UpdateRefused
from xbackend_fl.federation.protocol.message import UNBOUND, Message, quoted
from xbackend_fl.federation.protocol.signatures import Frame, Signatures
from xbackend_fl.federation.transport import Link, Session

_AGAIN_S = 1.0
"""Seconds until a silo is asked again after the way there or back failed; twice as long each time."""
_MAX_BACKOFF_S = 16.0
_IDLE_S = 0.05


@dataclass(frozen=True)
class Traffic:
    """Bytes of frames, as sent.

    Attributes:
        sent: To silos.
        received: From silos.
    """

    sent: int = 0
    received: int = 0

    def since(self, before: Traffic) -> Traffic:
        """What was added."""
        return Traffic(self.sent - before.sent, self.received - before.received)


@final
class Dispatcher:
    """Asks silos and yields their answers as they come.

    A silo that was restarted is asked again, one that lost its model's binding gets it again first; asking twice is harmless, because silos
    keep their answers. Nothing here knows what is asked.

    Args:
        link: Reaches the silos.
        signatures: The server's key and those of the silos.
        max_bytes: Longest answer; a longer one is refused before it is read.
        grace_s: Seconds for which a silo that went away is waited for, although the others are enough: it may be starting again.

    Attributes:
        expected: By silo, fields that its hello must have.
        on_hello: Told what a silo says about itself; raises :class:`UpdateRefused` if it cannot be.
        binding: What a silo needs that knows no schema.
        last_errors: By silo, what went wrong on the way since its last answer.
        traffic: What went over the link so far.
    """

    def __init__(
        self,
        link: Link,
        signatures: Signatures | None = None,
        max_bytes: int = (1 << 31) - 1,
        grace_s: float = 30.0,
    ) -> None:
        self._link, self._signatures, self._grace_s = link, signatures or Signatures(), grace_s
        self._announcements: dict[str, tuple[Session, Message]] = {}
        # When silos went away that are not back yet.
        self._left: dict[str, float] = {}
        self.expected: Mapping[str, Mapping[str, object]] = {}
        self.on_hello: Callable[[str, Message], None] = lambda _, __: None
        self.max_bytes = max_bytes
        self.binding: Message | None = None
        self.last_errors: dict[str, str] = {}
        self.traffic = Traffic()

    def announcements(self) -> dict[str, Message]:
        """What the silos that are there say about themselves; a refusal for one that lies about who it is, or is not what is expected."""
        sessions, now = self._link.silos(), time.monotonic()
        for name, session in sessions.items():
            if name not in self._announcements or self._announcements[name][0] != session:
                self._announcements[name] = (
                    session,
                    self._as_expected(name, self._open(name, session.hello)),
                )
        self._left = {
            name: self._left.get(name, now) for name in self._announcements.keys() - sessions.keys()
        }
        return {name: self._announcements[name][1] for name in sessions}

    def is_available(self, name: str) -> bool:
        """Whether a silo is there and not refused, or may be back soon."""
        hello = self.announcements().get(name)
        return self._may_return(name) if hello is None else hello.kind == "hello"

    def ask(
        self,
        requests: Mapping[str, Message],
        within_s: float,
        *,
        enough: Callable[[], bool] = lambda: False,
    ) -> Generator[tuple[str, Message]]:
        """Answers one at a time; who is late is left out.

        Args:
            requests: A request by the name of its silo. Equal requests are the same object.
            within_s: Seconds until the last answer that counts.
            enough: Whether silos that are not there need not be waited for any more.
        """
        deadline = Deadline.within(within_s)
        waiting, asked = dict(requests), dict[str, str]()
        not_before, bound, again = dict[str, float](), set[str](), set[str]()
        patience = dict.fromkeys(requests, _AGAIN_S)
        try:
            while waiting and not deadline.passed:
                now = time.monotonic()
                known = self.announcements()
                there = {
                    n: s for n, s in self._link.silos().items() if n in known and known[n].kind == "hello"
                }
                if enough() and not any(name in there or self._may_return(name) for name in waiting):
                    return
                ready = [
                    name
                    for name in waiting
                    if name in there
                    and asked.get(name) != there[name].identity
                    and not_before.get(name, 0.0) <= now
                ]
                self._send({name: waiting[name] for name in ready})
                asked |= {name: there[name].identity for name in ready}
                for reply in self._link.replies():
                    name = reply.name
                    if name not in waiting:
                        continue
                    if reply.trouble:
                        self.last_errors[name] = reply.trouble
                        asked.pop(name, None)
                        not_before[name] = time.monotonic() + patience[name]
                        patience[name] = min(2 * patience[name], _MAX_BACKOFF_S)
                        continue
                    answer = self._open(name, reply.frame, count=True)
                    if answer.kind == UNBOUND and self.binding is not None and name not in bound:
                        bound.add(name)
                        self._send({name: self.binding})
                        continue
                    if answer.kind == "bound" and name in bound - again:
                        again.add(name)
                        asked.pop(name, None)
                        continue
                    del waiting[name]
                    self.last_errors.pop(name, None)
                    yield name, answer
                    del answer, reply
                time.sleep(0 if ready else _IDLE_S)
        finally:
            self._link.forget()

    def _may_return(self, name: str) -> bool:
        return time.monotonic() - self._left.get(name, -math.inf) <= self._grace_s

    def _as_expected(self, name: str, hello: Message) -> Message:
        for key, value in self.expected.get(name, {}).items():
            if hello.kind == "hello" and (found := hello.fields.get(key)) != value:
                # A text of any length, or anything that JSON can say.
                return Message.refusal(UpdateRefused(f"its {key} is {quoted(found)}, expected {value!r}"))
        try:
            if hello.kind == "hello":
                self.on_hello(name, hello)
        except UpdateRefused as error:
            return Message.refusal(error)
        return hello

    def _send(self, requests: Mapping[str, Message]) -> None:
        if not requests:
            return
        frames: dict[int, bytes] = {}
        for request in requests.values():
            if id(request) not in frames:
                frames[id(request)] = self._signatures.sign(request.to_bytes())
        sent = {name: frames[id(request)] for name, request in requests.items()}
        size = sum(len(frame) for frame in sent.values())
        self.traffic = replace(self.traffic, sent=self.traffic.sent + size)
        self._link.send(sent)

    def _open(self, name: str, sealed: Frame, *, count: bool = False) -> Message:
        if count:
            self.traffic = replace(self.traffic, received=self.traffic.received + len(sealed))
        if len(sealed) > self.max_bytes:
            return Message.refusal(
                UpdateRefused(
                    f"{name} sent {len(sealed):,} bytes, and no answer has more than {self.max_bytes:,}"
                )
            )
        try:
            return Message.from_bytes(self._signatures.verify(sealed, name), name)
        except UpdateRefused as error:
            return Message.refusal(error)
