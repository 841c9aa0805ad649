"""The processes of one distributed script, as its framework knows them: one of them takes part in a course, and the others follow it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


class Peers(Protocol):
    """All processes of a script; every call is made in each of them, in the same order.

    Attributes:
        rank: Which one this is, from 0; rank 0 speaks.
    """

    rank: int

    def broadcast(self, said: Any) -> Any:
        """What rank 0 says, in every process: plain data. The others give ``None``."""
        ...

    def broadcast_weights(self, model: Any) -> None:
        """Let every process's model, with the same layers, hold what rank 0's holds."""
        ...

    def device(self, model: Any) -> str:
        """Where this process's model lies, as the framework calls that place."""
        ...


@runtime_checkable
class Distributed(Protocol):
    """An adapter of a framework that trains one model in several processes."""

    def peers(self) -> Peers | None:
        """The processes that the script has joined; ``None`` if this is the only one."""
        ...
