"""What comes through Flower: any record, any object, anything that its parser trips over, ends in a line about the silo that sent it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict
from flwr.app import Message as Envelope
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from tests.federation.hostile import TEXTS, harmless, pick
from tests.weights.mutations import mutate
from xbackend_fl.errors import UpdateRefused
from xbackend_fl.federation import Message
from xbackend_fl.federation.flower.frames import take_frame, to_record
from xbackend_fl.federation.flower.server import FlowerLink

HELLO = Message("hello", {"name": "oslo", "backend": "onnx", "num_examples": 5}).to_bytes()


@pytest.fixture(autouse=True)
def _of_a_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Flower's messages are of a run, and of a process of it; and what is imported is not looked at after every message, as in the server's process."""
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1, raising=False)
    gc.freeze()
    yield
    gc.unfreeze()


def envelope(record: RecordDict) -> Envelope:
    return Envelope(record, dst_node_id=1, message_type="query")


def array(data: bytes = b"x", **changes: Any) -> Array:
    return Array(
        **{"dtype": "uint8", "shape": (len(data),), "stype": "xbfl.frame.v1", "data": data, **changes}
    )


def arrays(**several: Array) -> ArrayRecord:
    record = ArrayRecord()
    for name, item in several.items():
        record[name] = item
    return record


NO_FRAME: list[RecordDict] = [
    RecordDict(),
    RecordDict({"frame": ConfigRecord({"a": 1})}),
    RecordDict({"frame": MetricRecord({"a": 1.0})}),
    RecordDict({"frame": ArrayRecord()}),
    RecordDict({"other": arrays(a=array())}),
    RecordDict({"frame": arrays(a=array(stype="numpy.ndarray"))}),
    RecordDict({"frame": arrays(a=array(), b=array(stype=""))}),
    RecordDict({"frame": ArrayRecord([np.zeros(3)])}),
]


@pytest.mark.parametrize("record", NO_FRAME)
def test_records_that_hold_no_frame(record: RecordDict) -> None:
    with pytest.raises(UpdateRefused, match="the message holds no frame"):
        take_frame(envelope(record))


@pytest.mark.parametrize(
    "changes", [{"dtype": "float64"}, {"shape": (1 << 40,)}, {"shape": ()}, {"dtype": "\x1b"}]
)
def test_what_an_array_says_of_itself_is_not_asked(changes: dict[str, Any]) -> None:
    """Its bytes are."""
    assert bytes(take_frame(envelope(RecordDict({"frame": arrays(a=array(b"xyz", **changes))})))) == b"xyz"
    several = arrays(b=array(b"2"), a=array(b"1"), **{"\x1b": array(b"0")})
    assert bytes(take_frame(envelope(RecordDict({"frame": several})))) == b"012"
    assert bytes(take_frame(envelope(RecordDict({"frame": arrays(a=array(b""))})))) == b""


class Grid:
    """Flower's grid of one node, whose answers are made from the bytes of objects by Flower's own reader."""

    def __init__(self, answers: list[Callable[[], Iterable[Any]]]) -> None:
        self._answers, self.sent = answers, 0

    def get_nodes(self) -> list[Any]:
        return [SimpleNamespace(node_id=1, last_activated_at="now", name="")]

    def push_messages(self, messages: Iterable[Envelope]) -> list[str]:
        found = []
        for _ in messages:
            found.append(f"m{self.sent}")
            self.sent += 1
        return found

    def pull_messages(self, identities: list[str]) -> Iterable[Any]:
        (identity,) = identities
        return self._answers[int(identity[1:])]()


def answer(
    frame: bytes, change: Callable[[dict[str, bytes], str], str] = lambda _, top: top
) -> Callable[[], Iterable[Any]]:
    """What Flower makes of an answer's objects after something happened to them."""

    def pulled() -> Iterable[Any]:
        message = envelope(to_record(frame))
        message.metadata.__dict__["_message_id"] = ""
        objects = get_all_nested_objects(message)
        contents = {identity: item.deflate() for identity, item in objects.items()}
        return [inflate_object_from_contents(change(contents, message.object_id), contents)]

    return pulled


def link_of(*answers: Callable[[], Iterable[Any]]) -> FlowerLink:
    return FlowerLink(Grid([answer(HELLO), *answers]), ["oslo"], b"hello")  # type: ignore[arg-type]


def asked(link: FlowerLink, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("xbackend_fl.federation.flower.server._POLL_S", 0)
    assert list(link.silos()) == ["oslo"]
    link.send({"oslo": b"question"})
    (reply,) = link.replies()
    assert not list(link.replies()), "nobody waits for it any more"
    return reply


def test_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bytes(asked(link_of(answer(b"abc")), monkeypatch).frame) == b"abc"


def failing(error: Exception) -> Callable[[], Iterable[Any]]:
    def pulled() -> Iterable[Any]:
        raise error

    return pulled


def failed(reason: str) -> Callable[[], Iterable[Any]]:
    return lambda: [Envelope(Error(code=1, reason=reason), reply_to=envelope(RecordDict()))]


@pytest.mark.parametrize(
    "given",
    [
        *(lambda record=record: [envelope(record)] for record in NO_FRAME),
        lambda: [object()],
        lambda: [None],
        failing(ValueError("\x1b[2J")),
        failing(KeyError("x")),
        failing(RecursionError()),
        failed("Traceback\n \x1b[2J\u202e /home/someone/x.py"),
    ],
)
def test_what_flower_cannot_read_is_a_trouble_of_that_silo(
    given: Callable[[], Iterable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = asked(link_of(given), monkeypatch)
    assert reply.name == "oslo"
    assert reply.trouble
    assert not reply.frame
    # A hello like that is no hello, and the node is asked again.
    link = FlowerLink(Grid([given, answer(HELLO)]), ["oslo"], b"hello")  # type: ignore[arg-type]
    monkeypatch.setattr("xbackend_fl.federation.flower.server._LOOK_S", -1)
    assert dict(link.silos()) == {}
    assert list(link.silos()) == ["oslo"]


def test_objects_of_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's own reader, over objects that were changed: a frame, or a trouble."""
    outcomes = {"trouble": 0, "frame": 0}
    for seed in range(300):
        draw = np.random.default_rng(seed)

        def change(contents: dict[str, bytes], top: str, draw: np.random.Generator = draw) -> str:
            name = pick(sorted(contents), draw)
            match int(draw.integers(0, 4)):
                case 0:
                    del contents[name]
                case 1:
                    # An object of another kind where the message is expected.
                    return str(name)
                case 2:
                    contents[name] = pick(TEXTS, draw).encode()
                case _:
                    contents[name] = mutate(contents[name], draw)
            return top

        reply = asked(link_of(answer(HELLO, change)), monkeypatch)
        outcomes["trouble" if reply.trouble else "frame"] += 1
        assert harmless(repr(reply.trouble))
    assert min(outcomes.values()) > 20, outcomes
