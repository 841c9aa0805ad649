"""How frames reach silos: one Protocol, over Flower or in one process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

from xbackend_fl.federation.protocol.message import Message
from xbackend_fl.federation.protocol.signatures import Frame
from xbackend_fl.federation.silo.silo import Silo


@final
@dataclass(frozen=True)
class Session:
    """A silo that can be asked.

    Attributes:
        identity: Another one after it went away and came back: what it was asked before is lost.
        hello: The frame with which it said who it is.
    """

    identity: str
    hello: Frame = field(repr=False)


@final
@dataclass(frozen=True)
class Reply:
    """What came back from one silo.

    Attributes:
        name: The silo.
        frame: Its answer; empty if the way there or back failed.
        trouble: What failed.
    """

    name: str
    frame: Frame = field(default=b"", repr=False)
    trouble: str = ""


class Link(Protocol):
    """Carries frames to silos and brings theirs. It looks into none but a hello, and forgets nothing that it was not told to."""

    def silos(self) -> Mapping[str, Session]:
        """Who can be asked now."""
        ...

    def send(self, frames: Mapping[str, bytes]) -> None:
        """Ask silos that are there; equal frames are the same object, and are sent once."""
        ...

    def replies(self) -> Iterator[Reply]:
        """What has come since, each pulled alone and held by nobody else; waits a moment if there is nothing."""
        ...

    def forget(self) -> None:
        """Nobody waits for what was asked so far."""
        ...


@final
class LocalLink:
    """Silos in this process, asked in turn; frames are made and read as on a network.

    Args:
        silos: The silos.
        hello: The frame that asks who they are.
    """

    def __init__(self, silos: Sequence[Silo], hello: bytes | None = None) -> None:
        self._silos = {silo.name: silo for silo in silos}
        self._hello = hello or Message("hello").to_bytes()
        self._sessions: dict[str, Session] = {}
        self._waiting: dict[str, bytes] = {}

    def silos(self) -> Mapping[str, Session]:
        """Those that exist."""
        if not self._sessions:
            replies = {name: silo.reply(self._hello) for name, silo in self._silos.items()}
            self._sessions = {name: Session("1", hello) for name, hello in replies.items()}
        return self._sessions

    def send(self, frames: Mapping[str, bytes]) -> None:
        """Keep them until somebody looks for replies."""
        self._waiting |= frames

    def replies(self) -> Iterator[Reply]:
        """Answers in the order of the requests."""
        while self._waiting:
            name = next(iter(self._waiting))
            yield Reply(name, self._silos[name].reply(self._waiting.pop(name)))

    def forget(self) -> None:
        """Drop what was not answered."""
        self._waiting.clear()
