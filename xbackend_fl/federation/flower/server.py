"""The server's Flower app: it runs the round loop, and reaches silos through Flower's grid."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import final

import httpx
from flwr.app import Context, RecordDict
from flwr.app import Message as Envelope
from flwr.serverapp import Grid, ServerApp

from xbackend_fl.errors import UpdateRefused, shortened
from xbackend_fl.federation.flower.frames import take_frame, to_record
from xbackend_fl.federation.job import Job
from xbackend_fl.federation.protocol.message import Message, public
from xbackend_fl.federation.protocol.signatures import Frame, Signatures
from xbackend_fl.federation.server.lead import lead
from xbackend_fl.federation.transport import Reply, Session

_LOG = logging.getLogger("xbfl")
_POLL_S = 0.2
_LOOK_S = 1.0

server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a course; what is written in the run's configuration says which, and where its folder is."""
    job = Job.read(str(context.run_config["xbfl"]))
    # What is imported stays: collections then look at what a message left only.
    gc.freeze()
    lead(job, partial(FlowerLink, grid))


@final
class FlowerLink:
    """Silos behind Flower's SuperLink.

    Args:
        grid: Flower's view of the nodes.
        names: The silos of the course.
        hello: The frame that asks a node who it is.
    """

    def __init__(self, grid: Grid, names: Sequence[str], hello: bytes) -> None:
        self._grid, self._names, self._hello = grid, frozenset(names), hello
        self._looked = 0.0
        self._sessions: dict[str, Session] = {}
        self._nodes: dict[str, int] = {}
        # By message: the node that was asked who it is, and its session.
        self._greeted: dict[str, tuple[int, str]] = {}
        self._known: set[str] = set()
        self._waiting: dict[str, str] = {}
        self._failed: list[Reply] = []

    def silos(self) -> Mapping[str, Session]:
        """Nodes that said who they are and did not go away since; new ones are asked."""
        if time.monotonic() - self._looked < _LOOK_S:
            return self._sessions
        # An activation is a new one after a node's process started again, even with the same key and so the same node.
        nodes = {f"{node.node_id}@{node.last_activated_at}": node for node in self._grid.get_nodes()}
        new = {identity: node for identity, node in nodes.items() if identity not in self._known}
        if new:
            envelopes = self._envelopes(
                dict.fromkeys(new, self._hello), {i: n.node_id for i, n in new.items()}
            )
            asked = {}
            for sent, identity in zip(self._grid.push_messages(envelopes), new, strict=False):
                if sent:
                    asked[identity] = self._greeted[sent] = (new[identity].node_id, identity)
            nodes = {i: node for i, node in nodes.items() if i in asked or i not in new}
        self._known = set(nodes)
        # One at a time: what a node says its answer is an answer to, only the node knows.
        for sent in list(self._greeted):
            reply = self._pulled("", sent)
            if reply is None:
                continue
            node, identity = self._greeted.pop(sent)
            name, frame = _hello(reply)
            if not name:
                # It is asked again: its silo may not have been ready.
                self._known.discard(identity)
            # With keys, Flower knows whose key a node has; a silo is nobody else.
            if name in self._names and identity in nodes and nodes[identity].name in {"", name}:
                self._nodes[name], self._sessions[name] = node, Session(identity, frame)
        self._sessions = {name: s for name, s in self._sessions.items() if s.identity in nodes}
        self._looked = time.monotonic()
        return self._sessions

    def send(self, frames: Mapping[str, bytes]) -> None:
        """Push a message a silo; Flower stores equal content once."""
        if not frames:
            return
        pushed = list(self._grid.push_messages(self._envelopes(frames, self._nodes)))
        gc.collect()
        # Flower gives no identity for a message that it did not take: its node went away, or all are too large.
        for name, identity in zip_longest(frames, pushed):
            if identity:
                self._waiting[identity] = name
            else:
                self._failed.append(Reply(name, trouble="Flower did not take the message"))

    def replies(self) -> Iterator[Reply]:
        """What has come; one identity a call, since Flower would hold every answer that is there."""
        while self._failed:
            yield self._failed.pop()
        for identity in list(self._waiting):
            reply = self._pulled(self._waiting[identity], identity)
            if reply is not None:
                del self._waiting[identity]
                yield reply
                del reply
                # Requests and responses of Flower's refer to each other, each with a piece of the frame.
                gc.collect()
        time.sleep(_POLL_S)

    def forget(self) -> None:
        """Answers that are still on their way stay with Flower until their time is over."""
        self._waiting.clear()
        self._failed.clear()

    def _pulled(self, name: str, identity: str) -> Reply | None:
        """What came back for a message, if something did. It may be anything, and Flower raises anything when it cannot put it together."""
        try:
            for reply in self._grid.pull_messages([identity]):
                return Reply(name, take_frame(reply))
        except httpx.HTTPError:
            # The way to the SuperLink, not what came over it.
            raise
        except UpdateRefused as error:
            return Reply(name, trouble=error.message)
        except Exception as error:  # noqa: BLE001  a stranger's bytes, in another's parser
            return Reply(
                name, trouble=f"Flower cannot read what came: {type(error).__name__}: {shortened(error)}"
            )
        return None

    def _envelopes(self, frames: Mapping[str, bytes], nodes: Mapping[str, int]) -> list[Envelope]:
        records: dict[int, RecordDict] = {}
        for frame in frames.values():
            if id(frame) not in records:
                records[id(frame)] = to_record(frame)
        return [
            Envelope(records[id(frame)], dst_node_id=nodes[name], message_type="query")
            for name, frame in frames.items()
        ]


def _hello(reply: Reply) -> tuple[str, Frame]:
    """Who a node says it is, not yet proven, and what it sent; nothing if that cannot be read."""
    trouble = reply.trouble
    if not trouble:
        try:
            content = Signatures().verify(reply.frame, "a node")
            return str(Message.from_bytes(content, "a node").fields.get("name", "")), reply.frame
        except UpdateRefused as error:
            trouble = error.message
    _LOG.warning("a node did not say who it is: %s", public(trouble))
    return "", b""
