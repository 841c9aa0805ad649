"""Real silos: the same course, one process per participant, over Flower."""

from xbackend_fl.deployment.engine import DeploymentEngine
from xbackend_fl.deployment.link import Link, LocalLink
from xbackend_fl.deployment.message import Message
from xbackend_fl.deployment.silo import Silo

__all__ = ["DeploymentEngine", "Link", "LocalLink", "Message", "Silo"]
