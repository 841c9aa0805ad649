"""A silo's Flower app: it carries a frame to the service on its machine, and the answer back.

Flower starts a process for every message, so this one imports as little as it can.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.app import Message as Envelope
from flwr.clientapp import ClientApp

from xbackend_fl.federation.flower.frames import take_frame, to_record
from xbackend_fl.federation.silo import service

client_app = ClientApp()


@client_app.query()
def query(message: Envelope, context: Context) -> Envelope:
    """Carry a message to this machine's silo, and its answer back."""
    frame = take_frame(message)
    answer = service.ask(Path(str(context.node_config["socket"])), frame)
    return Envelope(to_record(answer), reply_to=message)
