"""The two Flower apps: the server's runs the round loop, a silo's carries a frame to the service on its machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, final

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict
from flwr.app import Message as Envelope
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from xbackend_fl.course import load_course
from xbackend_fl.deployment import service
from xbackend_fl.deployment.engine import DeploymentEngine
from xbackend_fl.deployment.message import Message
from xbackend_fl.errors import UpdateRefused, XbflError
from xbackend_fl.server import RunFolder, run_with

_STYPE = "xbfl.frame.v1"
_FRAME = "frame"
_POLL_S = 0.2

server_app = ServerApp()
client_app = ClientApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a course; what is written in the run's configuration says which, and where its folder is."""
    settings = json.loads(str(context.run_config["xbfl"]))
    failure = Path(settings["failure"])
    try:
        if settings["resume"]:
            folder = RunFolder.open(Path(settings["out"]))
            course = load_course(folder.course, settings["settings"])
            state = folder.latest()
        else:
            course, state = load_course(Path(settings["course"]), settings["settings"]), None
            folder = RunFolder.create(course, Path(settings["out"]))
        stop = Path(settings["stop"])
        with closing(DeploymentEngine(course, FlowerLink(grid))) as engine:
            run_with(engine, course, folder, state, should_stop=stop.exists)
    except XbflError as error:
        found = {
            "code": error.code,
            "exit_code": error.exit_code,
            "message": error.message,
            "hint": error.hint,
        }
        failure.write_text(json.dumps(found), encoding="utf-8")
        raise


@client_app.query()
def query(message: Envelope, context: Context) -> Envelope:
    """Carry a message to this machine's silo, and its answer back."""
    frame = _open(message.content)
    answer = service.ask(Path(str(context.node_config["socket"])), frame)
    return Envelope(_record(answer), reply_to=message)


@final
class FlowerLink:
    """Silos behind Flower's SuperLink.

    Args:
        grid: Flower's view of the nodes.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._nodes: dict[str, int] = {}

    def meet(self, names: Sequence[str], within_s: float) -> dict[str, Message]:
        """Ask new nodes who they are until all silos are there, or the time is over."""
        deadline, asked = time.monotonic() + within_s, set[int]()
        hellos: dict[str, Message] = {}
        while not set(names) <= hellos.keys() and time.monotonic() < deadline:
            new = {str(node): node for node in self._grid.get_node_ids() if node not in asked}
            asked |= set(new.values())
            requests = dict.fromkeys(new, Message("hello"))
            # With keys, Flower knows whose key a node has; a silo is nobody else.
            registered = {str(node.node_id): node.name for node in self._grid.get_nodes()}
            for node, answer in self._exchange(requests, new, deadline - time.monotonic()):
                name = str(answer.fields.get("name", ""))
                if registered.get(node) not in {None, "", name}:
                    continue
                if name in names and name not in hellos:
                    self._nodes[name], hellos[name] = int(node), answer
            time.sleep(_POLL_S)
        return hellos

    def ask(self, requests: Mapping[str, Message], within_s: float) -> Iterator[tuple[str, Message]]:
        """Answers as they come; each is pulled alone."""
        known = {name: request for name, request in requests.items() if name in self._nodes}
        return self._exchange(known, self._nodes, within_s)

    def _exchange(
        self, requests: Mapping[str, Message], nodes: Mapping[str, int], within_s: float
    ) -> Iterator[tuple[str, Message]]:
        if not requests:
            return
        records: dict[int, RecordDict] = {}
        envelopes = []
        for name, request in requests.items():
            if id(request) not in records:
                records[id(request)] = _record(request.to_bytes())
            envelopes.append(
                Envelope(
                    records[id(request)], dst_node_id=nodes[name], message_type="query", ttl=within_s + 60
                )
            )
        waiting = dict(zip(self._grid.push_messages(envelopes), requests, strict=True))
        del records, envelopes
        deadline = time.monotonic() + within_s
        while waiting and time.monotonic() < deadline:
            for identity in list(waiting):
                # One identity a call: Flower would hold every answer that is there.
                for reply in self._grid.pull_messages([identity]):
                    yield waiting[identity], _message(reply, waiting[identity])
                    del waiting[identity]
            time.sleep(_POLL_S)


def _message(reply: Envelope, name: str) -> Message:
    if reply.has_error():
        return Message("refused", {"message": f"Flower: {reply.error.reason}", "hint": None})
    try:
        return Message.of_bytes(_open(reply.content), name)
    except UpdateRefused as error:
        return Message.refusal(error)


def _record(frame: bytes) -> RecordDict:
    """A frame as Flower carries it: in an array record, which it cuts into pieces."""
    array = Array(dtype="uint8", shape=(len(frame),), stype=_STYPE, data=frame)
    return RecordDict({_FRAME: ArrayRecord({_FRAME: array}), "about": ConfigRecord({"stype": _STYPE})})


def _open(content: RecordDict) -> bytes:
    record: Any = content.array_records.get(_FRAME)
    if record is None or _FRAME not in record or record[_FRAME].stype != _STYPE:
        raise UpdateRefused("the message holds no frame")
    data: bytes = record[_FRAME].data
    return data
