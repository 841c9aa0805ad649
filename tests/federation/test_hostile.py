"""What a silo sends, whatever it is, ends in a line about that silo; the course goes on with the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Figure
from tests.federation import hostile
from tests.federation.campaign import write_course
from tests.federation.hostile import RAW, Trial, frame_of, harmless, plain_json
from tests.federation.light import Linear
from tests.federation.links import Altered, deployed, light
from xbackend_fl.events import Noted, ParticipantFailed, RoundCollected
from xbackend_fl.federation import Message, Silo
from xbackend_fl.federation.server import collect
from xbackend_fl.metrics import Metrics


def test_whatever_one_silo_says_the_others_go_on(figure: Figure, *, thorough: bool) -> None:
    count = 100_000 if thorough else 400
    found, wrong = hostile.run(count)
    figure(f"messages of {count} after which the course went on", count - len(wrong))
    assert not wrong, wrong[:10]
    # The mutator does not only make noise, nor only harmless changes.
    assert found["trained: left out"] > count / 5
    assert found["trained: taken"] > count / 50


def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The campaign itself can fail: a server that trips over a figure is reported."""

    def trips(_: str) -> str:
        raise IndexError("planted")

    monkeypatch.setattr(collect, "public", trips)
    _, wrong = hostile.run(60)
    assert wrong


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    found = Trial(tmp_path_factory.mktemp("trial"))
    yield found
    found.close()


def reason_of(trial: Trial, step: str, frame: bytes) -> str:
    """Why the hostile silo is left out."""
    assert trial.try_one(step, frame) == "left out"
    said = [event.reason for event in trial.events if isinstance(event, ParticipantFailed)]
    said += [event.note for event in trial.events if isinstance(event, Noted) and "left out" in event.note]
    (reason,) = said
    assert harmless(reason)
    return reason


def with_fields(trial: Trial, step: str, **changes: Any) -> bytes:
    message = Message.from_bytes(trial.valid[hostile.ASKED.get(step, step)], "a silo")
    return frame_of(message.kind, plain_json({**message.fields, **changes}), message.arrays, {})


@pytest.mark.parametrize("step", ["hello", "bound", "trained"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 30_000, "not JSON"),
        ('{"a":' * 30_000, "not JSON"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "deeper than 16"),
        ('{"a": "\\ud800"}', "half of a character"),
        ('{"\\udfff": 1}', "half of a character"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": 1e999}', "hold inf"),
        ('{"a": ' + "9" * 400 + "}", "a number of 1329 bits"),
        ('{"a": ' + "9" * 5000 + "}", "4300 digits"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[1]", "list"),
        ("", "not JSON"),
        ('{"a": [' + "1," * 250_000 + "1]}", "more than 200,000 values"),
    ],
)
def test_text_that_is_no_message(trial: Trial, step: str, text: str, words: str) -> None:
    message = Message.from_bytes(trial.valid[hostile.ASKED.get(step, step)], "a silo")
    frame = frame_of(message.kind, text, message.arrays, {})
    assert words in reason_of(trial, step, frame)


GOOD = {"positions": 4, "loss": 1.5}
BOTH = {"positions": 4, "loss": 1.5, "accuracy": 3}
WRONG: list[tuple[str, Any]] = [
    ("loss", 10**400),
    ("loss", -0.5),
    ("loss", 1e308),
    ("loss", True),
    ("loss", "1.5"),
    ("loss", [1.5]),
    ("loss", None),
    ("loss", RAW + "NaN"),
    ("positions", -4),
    ("positions", 2**63),
    ("positions", 2**64),
    ("positions", 4.0),
    ("extra", 1),
    ("\x1b[2J" * 20_000, 1),
]


@pytest.mark.parametrize(
    ("name", "value"), [*WRONG, ("accuracy", 5), ("accuracy", 2.4e306), ("accuracy", -1)]
)
def test_figures_that_no_data_have(trial: Trial, name: str, value: Any) -> None:
    reason_of(trial, "trained", with_fields(trial, "trained", before={**BOTH, name: value}))
    if name != "accuracy":
        reason_of(trial, "trained", with_fields(trial, "trained", metrics={**GOOD, name: value}))


@pytest.mark.parametrize("positions", [10_000_001, 2**53])
def test_figures_over_more_than_a_silo_can_have(trial: Trial, positions: int) -> None:
    """One silo would be the whole mean."""
    figures = {"positions": positions, "loss": 0.0, "accuracy": 0}
    answer = with_fields(trial, "trained", before=figures)
    assert "there can be 10000000 at most" in reason_of(trial, "trained", answer)
    trial.try_one("metrics", with_fields(trial, "metrics", validation=figures, test=figures))
    for split in ("validation", "test"):
        assert trial._engine.evaluate(trial.initial, split).positions < 10_000


@pytest.mark.parametrize("value", [0, -1, 2**63, 2**64, 10**400, 1e6, True, "9", None, [9], RAW + "NaN"])
def test_a_weight_that_is_none(trial: Trial, value: Any) -> None:
    reason_of(trial, "trained", with_fields(trial, "trained", num_examples=value))


@pytest.mark.parametrize("value", [RAW + "NaN", 2.0, -1e-9, 10**300, True, "0", None])
def test_a_proof_that_is_none(trial: Trial, value: Any) -> None:
    reason_of(trial, "bound", with_fields(trial, "bound", largest_error=value))


@pytest.mark.parametrize("key", ["round", "run", "base", "silo"])
@pytest.mark.parametrize("value", [True, 2.0, [2], "\x1b[2J" * 20_000, {"a": 1}, None])
def test_an_update_of_something_else(trial: Trial, key: str, value: Any) -> None:
    assert len(reason_of(trial, "trained", with_fields(trial, "trained", **{key: value}))) < 300


@pytest.mark.parametrize("kind", ["refused", "raised", "\x1b[2J\u202e", "x" * 60_000])
def test_a_reason_is_one_line(trial: Trial, kind: str) -> None:
    text = 'Traceback (most recent call last):\n  File "/home/someone/net.py", line 3\nOSError: /srv/data/x.npz\x1b[2J'
    for message in (text, "a" * 60_000, ["\u2028", {"b": "\x00"}], 5, None):
        found = reason_of(
            trial, "trained", frame_of(kind, json.dumps({"message": message, "hint": message}), {}, {})
        )
        assert len(found) <= 1000
        assert "/home" not in found
        assert "/srv" not in found
        if message is text and kind == "raised":
            assert found == r"OSError: …/x.npz\x1b[2J"


@pytest.mark.parametrize(
    ("precision", "rule"),
    [
        ("float32", "fedavg"),
        ("float32", "fedadam"),
        ("float32", "fedadagrad"),
        ("float64", "fedyogi"),
        ("exact", "fedavgm"),
    ],
)
def test_one_silo_cannot_make_the_model_infinite(precision: str, rule: str, tmp_path: Path) -> None:
    """With values that are finite one by one, and as many examples as a silo may claim: the others' model is what it is without that silo."""
    more = "deployment: {quorum: 2, round_timeout_s: 5}\n"
    course = write_course(
        tmp_path / "course", rounds=2, silos=3, size="6x4", more=more, precision=precision, rule=rule
    )
    name = course.participants[1].name
    expected, _ = deployed(
        course, Altered(light(course), name, lambda _: Message("refused")), tmp_path / "without"
    )
    for index, value in enumerate((1e33, -1e19)):

        def huge(answer: Message, value: float = value) -> Message:
            arrays = {n: np.full_like(a, value) for n, a in answer.arrays.items()}
            return replace(answer, arrays=arrays)

        silos = light(course)
        silos[1]._learner.num_examples = lambda: {name: 10_000_000}  # type: ignore[method-assign]
        run, events = deployed(course, Altered(silos, name, huge), tmp_path / str(index))
        assert run.weights.digest == expected.weights.digest
        failed = [event for event in events if isinstance(event, ParticipantFailed)]
        assert [(event.name, event.round) for event in failed] == [(name, 1), (name, 2)]
        assert all(
            "larger than" in event.reason or "too large for an exact sum" in event.reason for event in failed
        )
        assert "| onnx-2 | 0 | 2 |" in (tmp_path / str(index) / "summary.md").read_text(encoding="utf-8")


def test_a_silo_that_says_that_it_is_bound_whatever_it_is_asked(tmp_path: Path) -> None:
    """It was asked again and again until the round's deadline."""
    more = "deployment: {quorum: 2, round_timeout_s: 60}\n"
    course = write_course(tmp_path / "course", rounds=1, silos=3, more=more)
    name = course.participants[1].name
    for kind in ("bound", "unbound"):
        link = Altered(light(course), name, lambda _, kind=kind: Message(kind))  # type: ignore[misc]
        _, events = deployed(course, link, tmp_path / kind)
        (failed,) = (event for event in events if isinstance(event, ParticipantFailed))
        assert failed.name == name
        (collected,) = (event for event in events if isinstance(event, RoundCollected))
        assert collected.seconds < 20


Change = Callable[[Message], Message]


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "../../../outside"},
        {"run": "/tmp/outside"},
        {"run": "a/b"},
        {"run": "a\x00b"},
        {"run": ".."},
        {"run": ""},
        {"run": "a" * 300},
        {"run": "a\n"},
        {"run": 5},
        {"round": 0},
        {"round": -1},
        {"round": True},
        {"round": 2**31},
        {"round": "1"},
        {"base": "../x"},
        {"evaluate": "__class__"},
        {"evaluate": "train"},
        {"receipts": {"a": "../../x"}},
        {"receipts": [1]},
        {"payload": {"kind": "zip", "share": 0.1}},
        {"payload": {"kind": "top-k", "share": 2.0}},
        {"payload": {"kind": "float32"}},
        {"extra": 1},
        {"fingerprint": None},
    ],
)
def test_a_server_cannot_reach_beyond_a_silos_folder(changes: dict[str, Any], tmp_path: Path) -> None:
    """The silo refuses in a line, and writes nothing."""
    course = write_course(tmp_path / "course", rounds=1, silos=1)
    name = course.participants[0].name
    learner = Linear(name, course)
    silo = Silo(course, name, learner, out=tmp_path / "silo")
    evidence = silo.answer(Message("evidence"))
    bind = Message("bind", evidence.fields, {n: a for n, a in evidence.arrays.items() if n[0] == "0"})
    assert silo.answer(Message.from_bytes(bind.to_bytes(), "")).kind == "bound"
    base = learner.initial()
    asked = {
        "run": "r",
        "round": 1,
        "base": base.digest,
        "fingerprint": base.fingerprint,
        "receipts": {},
        "payload": {"kind": "int8", "share": 0.1},
        "evaluate": None,
    }
    before = sorted(tmp_path.rglob("*"))
    answer = silo.answer(Message("train", {**asked, **changes}, base))
    assert answer.kind == "refused"
    assert harmless(answer.reason)
    assert sorted(tmp_path.rglob("*")) == before
    assert learner.trained == 0
    assert silo.answer(Message("train", asked, base)).kind == "trained"
    for kind, said in (
        ("evaluate", {"splits": ["__class__"]}),
        ("evaluate", {"splits": "test"}),
        ("save", {"receipts": {"a": 5}}),
    ):
        answer = silo.answer(Message(kind, {"fingerprint": base.fingerprint, **said}, base))
        assert answer.kind == "refused"
    assert silo.answer(Message("\x1b[2J", {}, {})).reason == rf"{name} does not know the request '\x1b[2J'"
    bad = Message("bind", {"schema": 5, "about": []}, {})
    assert silo.answer(bad).kind == "refused"


def test_a_long_description_of_a_model_arrives() -> None:
    """A schema of a hundred layers is longer than 64 KiB, which the reader of frames took for an attack."""
    text = "x" * 500_000
    found = Message.from_bytes(Message("evidence", {"schema": text}).to_bytes(), "a silo")
    assert found.fields["schema"] == text


def stretched(times: float) -> Change:
    """An update whose change is so many times as long."""

    def change(answer: Message) -> Message:
        base = Linear("onnx-1", _COURSE[0]).initial()
        arrays = {
            n: (base[n] + np.float32(times) * (a - base[n])).astype(np.float32)
            for n, a in answer.arrays.items()
        }
        return replace(answer, arrays=arrays)

    return change


_COURSE: list[Any] = []


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (300.0, "3.1e+02 times the median"),
        (-300.0, "3.1e+02 times the median"),
        (30.0, "3.1e+01 times"),
        (-1.0, "against"),
        (1.0, ""),
    ],
)
def test_an_update_unlike_the_others_is_said(times: float, words: str, tmp_path: Path) -> None:
    """All train towards the same point here, so that one that goes the other way is seen."""
    course = write_course(
        tmp_path / "course", rounds=1, silos=4, size="8x6", precision="float64", rule="fedavg"
    )
    _COURSE[:] = [course]

    def towards(_: int, weights: Any, name: str) -> Any:
        drift = np.random.default_rng(ord(name[-1])).standard_normal
        moved = {n: (a - 0.1 + 0.02 * drift(a.shape)).astype(np.float32) for n, a in weights.items()}
        return weights.like(moved), Metrics(4, {"loss": 1.5})

    silos = light(course)
    for silo in silos:
        silo._learner.step = towards  # type: ignore[attr-defined]
    name = course.participants[2].name
    run, events = deployed(course, Altered(silos, name, stretched(times)), tmp_path / "run")
    notes = [event.note for event in events if isinstance(event, Noted)]
    assert bool(notes) == bool(words)
    assert all(note.startswith(f"round 1: the update of {name} stands out") for note in notes)
    assert words in "".join(notes)
    assert not [event for event in events if isinstance(event, ParticipantFailed)], "it is said, not refused"
    assert np.isfinite(run.weights["dense.weight"]).all()
