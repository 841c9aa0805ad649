"""What this room is for others: a transport, the thin app for ``flwr run``, and a rehearsal."""

from xbackend_fl.federation.flower.app import write_flower_app
from xbackend_fl.federation.flower.rehearsal import rehearse
from xbackend_fl.federation.flower.transport import Flower

__all__ = ["Flower", "rehearse", "write_flower_app"]
