"""Real silos: the same course, one process per participant, over Flower.

Names are imported on first use (PEP 562): Flower starts a process for every message, and that one needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbackend_fl.deployment.engine import DeploymentEngine
    from xbackend_fl.deployment.exchange import Exchange
    from xbackend_fl.deployment.ledger import Ledger
    from xbackend_fl.deployment.link import Link, LocalLink
    from xbackend_fl.deployment.message import Message
    from xbackend_fl.deployment.silo import Learner, Silo

__all__ = ["DeploymentEngine", "Exchange", "Learner", "Ledger", "Link", "LocalLink", "Message", "Silo"]

_MODULES = {"DeploymentEngine": "engine", "Learner": "silo", "LocalLink": "link"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, name.lower())}"), name)
