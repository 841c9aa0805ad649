"""Real silos: the same course, one process per participant, over Flower.

Names are imported on first use (PEP 562): Flower starts a process for every message, and that one needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbackend_fl.federation.protocol.message import Message
    from xbackend_fl.federation.server.dispatcher import Dispatcher
    from xbackend_fl.federation.server.engine import DeploymentEngine
    from xbackend_fl.federation.server.ledger import Ledger
    from xbackend_fl.federation.silo.silo import Learner, Silo
    from xbackend_fl.federation.transport import Link

__all__ = ["DeploymentEngine", "Dispatcher", "Learner", "Ledger", "Link", "Message", "Silo"]

_MODULES = {
    "DeploymentEngine": "server.engine",
    "Dispatcher": "server.dispatcher",
    "Learner": "silo.silo",
    "Ledger": "server.ledger",
    "Link": "transport",
    "Message": "protocol.message",
    "Silo": "silo.silo",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
