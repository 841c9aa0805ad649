"""How frames reach silos: one Protocol, of which Flower is one implementation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, final

from xbackend_fl.federation.protocol.signatures import Frame


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
