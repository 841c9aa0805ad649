"""Silos in this process, without any network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

from xbackend_fl.federation import Message, Silo
from xbackend_fl.federation.transport import Reply, Session


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
