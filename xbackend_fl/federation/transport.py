"""How frames reach silos: Protocols, of which Flower is one implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, final

from xbackend_fl.errors import RunFailed
from xbackend_fl.events import Observer
from xbackend_fl.federation.credentials import Keys
from xbackend_fl.federation.job import Job
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


MakeLink: TypeAlias = Callable[[Sequence[str], bytes], Link]
"""What the process that leads a course is given by its transport: the link to silos of such names, and the frame that asks who they are."""


class Gone(RunFailed):
    """A process that should run ended, without a reason of its own: it may run if it is started again."""


class Served(Protocol):
    """What carries a course that somebody started, and waits for.

    Attributes:
        name: What messages call it.
    """

    name: str

    def is_gone(self) -> bool:
        """Whether it carries nothing any more."""
        ...

    def has_ended(self) -> bool:
        """Whether the process that was to lead the course ended, as far as it knows; it may take seconds to answer."""
        ...

    def log(self) -> str:
        """The end of what it wrote."""
        ...


class Transport(Protocol):
    """One machine's end of the way between a server and its silos.

    Attributes:
        keys: This machine's keys; none on a way that needs none.
    """

    keys: Keys | None

    def serve(
        self, job: Job, observer: Observer, should_stop: Callable[[], bool]
    ) -> AbstractContextManager[Served]:
        """Start a process that leads a job (:func:`~xbackend_fl.federation.server.lead.lead`), where silos reach it; all ends with the block.

        Args:
            job: What the process is told; files may be put into its ``home``.
            observer: Hears what is waited for.
            should_stop: Asked while something is.

        Raises:
            Gone: Something ended that may run if it is started again.
            RunFailed: It cannot be started.
        """
        ...

    def connect(
        self, silo: Silo, patience_s: float, observer: Observer, should_stop: Callable[[], bool]
    ) -> None:
        """Let a silo answer the server until the course is over.

        Args:
            silo: Answers.
            patience_s: Seconds without a server after which to give up.
            observer: Hears of what happens.
            should_stop: Asked all the time.

        Raises:
            RefusedInput: The server is not whom the keys say.
            RunFailed: It was out of reach for too long.
        """
        ...
