"""How messages reach silos: one Protocol, over Flower or in one process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, final

from xbackend_fl.deployment.message import Message
from xbackend_fl.deployment.silo import Silo


class Link(Protocol):
    """Carries requests to silos and brings their answers."""

    def meet(self, names: Sequence[str], within_s: float) -> dict[str, Message]:
        """Wait until the silos are there; what those that came say about themselves."""
        ...

    def ask(self, requests: Mapping[str, Message], within_s: float) -> Iterator[tuple[str, Message]]:
        """Answers one at a time as they come, each held by nobody else; who is late is left out.

        Args:
            requests: A request by the name of its silo. Equal requests are the same object, and are sent once.
            within_s: Seconds until the last answer that counts.
        """
        ...


@final
class LocalLink:
    """Silos in this process, asked in turn; frames are made and read as on a network.

    Args:
        silos: The silos.
    """

    def __init__(self, silos: Sequence[Silo]) -> None:
        self._silos = {silo.name: silo for silo in silos}

    def meet(self, names: Sequence[str], within_s: float) -> dict[str, Message]:
        """Those that exist."""
        return dict(self.ask(dict.fromkeys(names, Message("hello")), within_s))

    def ask(self, requests: Mapping[str, Message], within_s: float) -> Iterator[tuple[str, Message]]:
        """Answers in the order of the requests."""
        del within_s
        for name, request in requests.items():
            if name in self._silos:
                answer = self._silos[name].answer(Message.of_bytes(request.to_bytes(), "the server"))
                yield name, Message.of_bytes(answer.to_bytes(), name)
