"""Messages that no honest silo sends, through the whole path: frame, message, dispatcher, engine, ledger, events, console.

``python -m tests.federation.hostile --count 100000`` lets one of three silos answer with mutations of what it should say. Whatever it says, the server goes
on with the other two, and everything that it writes can be read.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sqlite3
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tests.federation.campaign import write_course
from tests.federation.light import Linear
from tests.weights.mutations import mutate, resealed
from xbackend_fl.cli.console import echo
from xbackend_fl.events import Event, from_line, jsonl, to_line
from xbackend_fl.federation import DeploymentEngine, Dispatcher, Ledger, Message, Silo
from xbackend_fl.federation.protocol.message import PROTOCOL
from xbackend_fl.federation.transport import Reply, Session
from xbackend_fl.formats.kinds import wire
from xbackend_fl.report import describe
from xbackend_fl.rounds import RunFolder
from xbackend_fl.weights import Weights

Fields = dict[str, Any]
Arrays = dict[str, Any]
RAW = "\0raw:"
"""In front of JSON that the ``json`` module would not write."""

TEXTS = [
    "",
    "\x00",
    "\x1b[2J\x1b]0;t\x07",
    "\u202e\u200b\u2028\ufeff",
    "\x9b2J",
    "a" * 60_000,
    "[" * 30_000,
    '{"a":' * 5_000,
    "../../../etc/passwd",
    "/tmp/x\x00y",
    'Traceback (most recent call last):\n  File "/home/someone/net.py", line 1\nValueError: \x1b[31m',
    "NaN",
    "1e999",
    "'; DROP TABLE accepted; --",
    "ß" * 500,
]
VALUES: list[Any] = [
    *TEXTS,
    None,
    True,
    False,
    0,
    -1,
    1.5,
    -0.0,
    1e308,
    -1e308,
    5e-324,
    2.4e306,
    2**31,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63),
    10**400,
    [],
    {},
    [[[[]]]],
    {"a": {"b": {"c": []}}},
    [1] * 1000,
    {str(i): i for i in range(1000)},
    RAW + "NaN",
    RAW + "Infinity",
    RAW + "-Infinity",
    RAW + "1e999",
    RAW + '"\\ud800"',
    RAW + '"\\ud83d\\ude00"',
    RAW + "9" * 5000,
    RAW + "[" * 30_000,
    RAW + "[" * 500 + "]" * 500,
    RAW + '{"a":' * 900 + "1" + "}" * 900,
    RAW + '{"a":1,"a":2}',
    RAW + "[" + "[]," * 300_000 + "[]]",
    RAW + "",
]
ARRAYS: list[Callable[[Any], Any]] = [
    lambda a: a * np.float32(np.nan),
    lambda a: np.where(np.arange(a.size).reshape(a.shape) == a.size - 1, np.float32(np.inf), a),
    lambda a: np.full_like(a, 1e33),
    lambda a: np.full_like(a, -3.4e38),
    lambda a: np.full_like(a, 1e30),
    lambda a: np.full_like(a, 1e19),
    lambda a: np.full_like(a, 1e-42),
    lambda a: a * np.float32(1e6),
    lambda a: a * -1,
    lambda a: a.astype(">f4"),
    lambda a: a.astype(np.float64),
    lambda a: a.astype(np.float16),
    lambda a: a.astype(ml_dtypes.bfloat16),
    lambda a: a.astype(ml_dtypes.float8_e5m2),
    lambda a: a.astype(np.complex64),
    lambda a: a.real.astype(np.int64),
    lambda a: a > 0,
    lambda a: a.reshape(-1)[:-1],
    lambda a: a[None],
    lambda a: a.T,
    lambda a: np.empty((0, *a.shape[1:]), a.dtype),
    lambda _: np.zeros((), np.float32),
    lambda _: np.zeros((1 << 40, 0), np.float32),
    lambda _: np.zeros(1 << 18, np.float32),
]
NAMES = [
    "x",
    "a\x1b[2J",
    "../x",
    "",
    "n" * 600,
    "values/dense.weight",
    "weights/x",
    "0/inputs/9",
    "x/outputs/0",
    "9/9",
    "\u202e",
]
STEPS = {"hello": 3, "evidence": 1, "bound": 4, "trained": 10, "metrics": 3, "outputs": 2}
"""What the hostile silo is asked, and how often."""

ASKS = {
    "evidence": "evidence",
    "bind": "bound",
    "train": "trained",
    "evaluate": "metrics",
    "outputs": "outputs",
}
ASKED = {answer: request for request, answer in ASKS.items()}
"""What brings an answer."""


def frame_of(kind: Any, fields: str, arrays: Mapping[str, Any], about: Mapping[str, str]) -> bytes:
    """A frame with any text where a message has its fields."""
    head = {"kind": kind, "protocol": PROTOCOL, "fields": fields, **about}
    return b"".join(wire.encode(arrays, {k: v for k, v in head.items() if v is not None}))


def plain_json(value: Any) -> str:
    """JSON, with raw pieces as they are."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{plain_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(plain_json, value)) + "]"
    if isinstance(value, str) and value.startswith(RAW):
        return value.removeprefix(RAW)
    return json.dumps(value)


def mutant(frame: bytes, draw: np.random.Generator) -> bytes:
    """Another message, from a valid one: other bytes, other text, other fields, or other arrays."""
    how = draw.random()
    if how < 0.2:
        changed = mutate(frame, draw)
        return resealed("x.xbf", changed) if draw.random() < 0.7 else changed
    message = Message.from_bytes(frame, "a silo")
    fields, arrays, about = json.loads(json.dumps(message.fields)), dict(message.arrays), {}
    kind: Any = message.kind
    text = ""
    for _ in range(int(draw.integers(1, 3))):
        match int(draw.integers(0, 10)):
            case 0 | 1 | 2 | 3:
                _change_field(fields, draw)
            case 4 | 5 | 6:
                _change_array(arrays, draw)
            case 7:
                kind = pick(
                    ["hello", "bound", "trained", "refused", "raised", "unbound", "", "\x1b[2J" * 99, None],
                    draw,
                )
                fields |= pick([{}, {"message": pick(VALUES, draw), "hint": pick(VALUES, draw)}], draw)
            case 8:
                about |= {pick(["protocol", "kind", "zzz", "\x1b"], draw): pick(TEXTS, draw)}
            case _:
                content = mutate(plain_json(fields).encode(), draw)
                text = content.decode("utf-8", "replace")
    fields_text = text or plain_json(fields)
    return frame_of(kind, fields_text, arrays, about)


def _change_field(fields: Fields, draw: np.random.Generator) -> None:
    inner: Fields = fields
    key = pick(sorted(inner) or ["x"], draw)
    while isinstance(inner.get(key), dict) and inner[key] and draw.random() < 0.7:
        inner = inner[key]
        key = pick(sorted(inner), draw)
    match int(draw.integers(0, 6)):
        case 0:
            inner.pop(key, None)
        case 1:
            inner[pick(TEXTS, draw)] = deepcopy(pick(VALUES, draw))
        case 2:
            inner[pick([*sorted(inner), "extra"], draw)] = deepcopy(inner.get(key))
        case _:
            # Copies: the next change may be inside, and the values are for all messages.
            inner[key] = deepcopy(pick(VALUES, draw))


def _change_array(arrays: Arrays, draw: np.random.Generator) -> None:
    name = pick([*sorted(arrays), "x"], draw)
    array = arrays.get(name, np.zeros(3, np.float32))
    match int(draw.integers(0, 5)):
        case 0:
            arrays.pop(name, None)
        case 1:
            arrays[pick(NAMES, draw)] = array
        case _:
            with np.errstate(all="ignore"):
                arrays[name] = pick(ARRAYS, draw)(array)


def pick(values: Any, draw: np.random.Generator) -> Any:
    return values[int(draw.integers(0, len(values)))]


class Scripted:
    """A link whose silos answer with frames that were made before; every look at them is another session.

    Args:
        answers: By silo and kind of request, a frame.
    """

    def __init__(self, answers: dict[str, dict[str, bytes]]) -> None:
        self.answers = answers
        self.sessions = 0
        self._waiting: dict[str, str] = {}

    def silos(self) -> Mapping[str, Session]:
        return {name: Session(str(self.sessions), frames["hello"]) for name, frames in self.answers.items()}

    def send(self, frames: Mapping[str, bytes]) -> None:
        # A request to several is one object, and is read once.
        kinds = {id(frame): frame for frame in frames.values()}
        found = {key: Message.from_bytes(frame, "the server").kind for key, frame in kinds.items()}
        self._waiting |= {name: found[id(frame)] for name, frame in frames.items()}

    def replies(self) -> Iterator[Reply]:
        while self._waiting:
            name, kind = self._waiting.popitem()
            yield Reply(name, self.answers[name][kind])

    def forget(self) -> None:
        self._waiting.clear()


class Trial:
    """A server with two honest silos and one that is not; the first one is the reference if it is believed.

    Args:
        folder: Empty; sqlite syncs every row, so that memory is the place for many.
        payload: How updates travel.
    """

    def __init__(self, folder: Path, payload: str = "float32", rule: str = "fedadam") -> None:
        more = f"deployment: {{quorum: 1, join_timeout_s: 1.0e-6, payload: {payload}}}\n"
        self.course = write_course(
            folder / "course", rounds=9, silos=3, size="5x3", more=more, precision="float32", rule=rule
        )
        names = [participant.name for participant in self.course.participants]
        self.hostile, self.honest = names[0], names[1:]
        self._folder = RunFolder.create(self.course, folder / "run")
        self._ledger = Ledger(self._folder)
        silos = {name: Silo(self.course, name, Linear(name, self.course)) for name in names}
        hello = Message("hello").to_bytes()
        self._link = Scripted({name: {"hello": silo.reply(hello)} for name, silo in silos.items()})
        self._engine = DeploymentEngine(self.course, Dispatcher(self._link), self._ledger)
        self._answers = self._link.answers
        self._answer(silos, Message("evidence"), "evidence")
        evidence = Message.from_bytes(self._answers[self.hostile]["evidence"], "")
        bind = {n: a for n, a in evidence.arrays.items() if not n.startswith("weights/")}
        self._answer(silos, Message("bind", evidence.fields, bind), "bind")
        self.events: list[Event] = []
        self._prepare()
        self.initial = silos[self.hostile]._learner.initial()
        about = {"fingerprint": self.initial.fingerprint}
        sent = {"kind": payload, "share": 0.01}
        train = {
            "run": self._ledger.run,
            "round": 2,
            "base": self.initial.digest,
            "receipts": {},
            "payload": sent,
        }
        self._answer(
            silos, Message("train", {**about, **train, "evaluate": "validation"}, self.initial), "train"
        )
        self._answer(
            silos,
            Message(
                "evaluate",
                {**about, "run": train["run"], "receipts": {}, "splits": ["validation", "test"]},
                self.initial,
            ),
            "evaluate",
        )
        probes = {f"inputs/{i}": array for i, array in enumerate(self._engine._probe)}
        self._answer(silos, Message("outputs", about, {**self.initial, **probes}), "outputs")
        self.valid = dict(self._answers[self.hostile])
        self.alone = self._train(without=True)
        self.console = io.StringIO()

    def _answer(self, silos: Mapping[str, Silo], request: Message, kind: str) -> None:
        for name, silo in silos.items():
            self._answers[name][kind] = silo.reply(request.to_bytes())

    def _prepare(self) -> None:
        self._link.sessions += 1
        self._engine.prepare(self.events.append)

    def _train(self, *, without: bool = False) -> Weights:
        for silo in (self.hostile, *self.honest):
            self._ledger.forget(2, silo)
        cohort = self.honest if without else [self.hostile, *self.honest]
        self.outcome = self._engine.train_round(2, self.initial, {}, cohort, self.events.append)
        return self.outcome.mean.result().model

    def try_one(self, step: str, frame: bytes) -> str:
        """Let the hostile silo answer a step with a frame; what came of it.

        Raises:
            AssertionError: An honest silo suffers, or something is written that cannot be read.
        """
        self.events.clear()
        self.console = io.StringIO()
        request = ASKED.get(step, step)
        self._answers[self.hostile] = self.valid | {request: frame}
        if step in {"hello", "evidence", "bound"}:
            self._prepare()
            bound = {event.backend.partition(" ")[0] for event in self.events if event.event == "model_bound"}
            assert bound.issuperset(self.honest), bound
            outcome = "taken" if self.hostile in bound else "left out"
        elif step == "trained":
            mean = self._train()
            assert self.outcome.mean.count >= len(self.honest)
            taken = self.hostile not in self.outcome.failed
            for array in mean.values():
                assert np.isfinite(array).all()
            if not taken:
                assert mean.digest == self.alone.digest
            outcome = "taken" if taken else "left out"
        elif step == "metrics":
            self._engine._evaluated = {}
            for split in ("validation", "test"):
                found = self._engine.evaluate(self.initial, split)
                assert np.isfinite(list(found.figures.values())).all()
            outcome = "answered"
        else:
            self._engine.outputs(self.initial, "test", 1)
            outcome = "answered"
        self._look_at_events()
        return outcome

    def _look_at_events(self) -> None:
        record = jsonl(self._folder.events)
        for event in self.events:
            written = to_line(event)
            assert from_line(written) == event
            assert harmless(written), ascii(written)
            assert len(written) < 20_000
            record(event)
            with contextlib.redirect_stdout(self.console):
                echo(describe(event))
        shown = self.console.getvalue()
        assert all(harmless(part) and "/home/" not in part for part in shown.split("\n")), ascii(shown)

    def close(self) -> None:
        """What was written is whole, by the word of those who did not write it."""
        self._engine.close()
        with closing(sqlite3.connect(self._folder.ledger)) as rows:
            assert rows.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            for (reason,) in rows.execute("SELECT reason FROM missed"):
                assert harmless(reason)
                assert len(reason) <= 1000
        for text in self._folder.events.read_text(encoding="utf-8").splitlines():
            json.loads(text)
        names = {path.name for path in self._folder.path.rglob("*") if path.is_file()}
        assert all(name.endswith(".xbf") or name in _FILES for name in names), names


_FILES = {
    ".run",
    "course.yaml",
    ".course.yaml",
    "events.jsonl",
    "ledger.sqlite",
    "ledger.sqlite-wal",
    "ledger.sqlite-shm",
}


def harmless(text: str) -> bool:
    """By Unicode's own table: nothing moves a cursor, turns a direction or hides."""
    return text.isprintable() or all(
        unicodedata.category(char)[0] not in "CZ" or char == " " for char in text
    )


def run(count: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Try ``count`` messages; what became of them, and what should not have."""
    steps = [step for step, often in STEPS.items() for _ in range(often)]
    found: Counter[str] = Counter()
    wrong: list[str] = []
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        payloads = ("float32", "int8", "top-k", "float16")
        for index, payload in enumerate(payloads):
            trial = Trial(Path(name) / payload, payload)
            for number in range(index, count, len(payloads)):
                draw = np.random.default_rng([seed, number])
                step = pick(steps, draw)
                request = ASKED.get(step, step)
                try:
                    outcome = trial.try_one(step, mutant(trial.valid[request], draw))
                except Exception as error:  # noqa: BLE001  that is what is looked for
                    outcome = "wrong"
                    wrong.append(
                        f"{step}, message {number} of seed {seed}, {payload}: {type(error).__name__}: {ascii(str(error))[:300]}"
                    )
                found[f"{step}: {outcome}"] += 1
            trial.close()
    return found, wrong


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found, wrong = run(options.count, options.seed)
    print(json.dumps(dict(sorted(found.items())), indent=1))
    print(f"{options.count} messages, {len(wrong)} wrong")
    for text in wrong[:20]:
        print(text)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
