"""Flower's own round, without this project: what a round over it costs at least.

The server's app sends nothing, and then an array of a model's size, to every node, which sends nothing or another one back; it waits with Flower's own
``send_and_receive``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

server_app = ServerApp()
client_app = ClientApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Time rounds, and write the seconds down."""
    job: dict[str, Any] = json.loads(str(context.run_config["xbfl"]))
    while len(nodes := list(grid.get_node_ids())) < job["silos"]:
        time.sleep(0.5)
    seconds: dict[str, list[float]] = {"empty": [], "model": []}
    # Of values that differ: Flower sends equal chunks once.
    values = np.random.default_rng(0).standard_normal(job["values"], np.float32)
    model = ArrayRecord({"w": Array(values)})
    contents = {
        "empty": RecordDict({"c": ConfigRecord({"nothing": 0})}),
        "model": RecordDict({"arrays": model}),
    }
    for _ in range(job["rounds"]):
        for kind, content in contents.items():
            began = time.monotonic()
            messages = [Message(content, dst_node_id=node, message_type="query") for node in nodes]
            replies = list(grid.send_and_receive(messages))
            assert len(replies) == job["silos"]
            assert not any(reply.has_error() for reply in replies)
            seconds[kind].append(time.monotonic() - began)
    Path(job["out"]).write_text(json.dumps(seconds), encoding="utf-8")


@client_app.query()
def query(message: Message, context: Context) -> Message:
    """Send back what came, changed: Flower would not send again what it has."""
    content = RecordDict({"c": ConfigRecord({"nothing": 0})})
    if "arrays" in message.content:
        array = message.content.array_records["arrays"]["w"].numpy() + np.float32(context.node_id % 1009)
        content = RecordDict({"arrays": ArrayRecord({"w": Array(array)})})
    return Message(content, reply_to=message)
