"""Who takes part, and what happens to those who may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.federation.campaign import write_course
from tests.federation.hostile import harmless
from tests.federation.links import Altered, Away, deployed, fields, light
from tests.federation.local import LocalLink
from xbackend_fl import load_course
from xbackend_fl.canonical import Binding
from xbackend_fl.errors import MismatchError, RunFailed, UpdateRefused, XbflError
from xbackend_fl.events import ModelBound, Noted, ParticipantFailed, RoundCollected, RoundStarted
from xbackend_fl.federation import Message, Silo
from xbackend_fl.federation.server.reference import reference_of
from xbackend_fl.mapping import Proof

TORCH = ["models={torch: torch_model.py:build}", "participants={torch: 3}"]


def test_a_silo_that_does_not_come_is_named(tmp_path: Path) -> None:
    more = "deployment: {join_timeout_s: 0.3}\n"
    course = write_course(tmp_path / "course", rounds=2, silos=3, more=more)
    with pytest.raises(RunFailed, match=rf"2 of 3 silos came .*not there: {course.participants[0].name}"):
        deployed(course, LocalLink(light(course)[1:]), tmp_path / "run")


def test_another_model_is_refused_before_it_trains(digits: Path, tmp_path: Path, small: list[str]) -> None:
    other = tmp_path / "other.py"
    other.write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    course = load_course(digits / "course.yaml", [*small, *TORCH])
    theirs = load_course(digits / "course.yaml", [*small, f"models={{torch: {other}:build}}", TORCH[1]])
    names = [p.name for p in course.participants]
    silos = [
        Silo.from_course(course, names[0]),
        Silo.from_course(course, names[1]),
        Silo.from_course(theirs, names[2]),
    ]
    with pytest.raises(MismatchError, match=rf"silo '{names[2]}'"):
        deployed(course, LocalLink(silos), tmp_path / "run")


def without(name: str) -> Callable[[Message], Message]:
    return lambda answer: replace(answer, fields={k: v for k, v in answer.fields.items() if k != name})


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("hello", fields(backend="torch"), "its backend is 'torch', expected 'onnx'"),
        ("hello", lambda _: Message("refused", {"message": "no data"}), "no data"),
        ("hello", lambda _: Message("refused", {"message": 5}), "5"),
        ("hello", without("backend"), "its backend is None"),
        ("hello", without("version"), "cannot be read: version"),
        ("bound", fields(fingerprint="another"), "it bound its model to 'another'"),
        ("bound", without("notes"), "cannot be read: notes"),
        ("bound", fields(largest_error="none"), "cannot be read"),
        ("bound", lambda _: Message("refused", {"message": "another model"}), "another model"),
        ("bound", lambda _: Message("raised", {"message": "Traceback"}), "Traceback"),
    ],
)
def test_who_is_refused_ends_a_course_of_all_and_is_left_out_by_a_quorum(
    kind: str, change: Callable[[Message], Message | None], reason: str, tmp_path: Path
) -> None:
    course = write_course(tmp_path / "all", rounds=1, silos=3)
    name = course.participants[2].name
    with pytest.raises(XbflError, match=rf"(?s)silo '{name}': .*{reason}"):
        deployed(course, Altered(light(course), name, change, kind), tmp_path / "all" / "run")
    more = "deployment: {quorum: 2, join_timeout_s: 0.5, round_timeout_s: 20}\n"
    course = write_course(tmp_path / "two", rounds=2, silos=3, more=more)
    _, events = deployed(course, Altered(light(course), name, change, kind), tmp_path / "two" / "run")
    (note,) = (event.note for event in events if isinstance(event, Noted) and "left out" in event.note)
    assert name in note
    assert reason in note
    assert sum(isinstance(event, ModelBound) for event in events) == 2
    others = {participant.name for participant in course.participants[:2]}
    for event in (event for event in events if isinstance(event, RoundCollected)):
        assert others <= set(event.accepted)
        assert event.seconds < 4, "nobody waits for a silo that is left out"


@pytest.mark.parametrize(
    "change",
    [
        without("schema"),
        fields(schema="{}"),
        fields(schema=7),
        lambda answer: replace(answer, arrays={}),
        lambda answer: replace(answer, arrays={n: a for n, a in answer.arrays.items() if "inputs" not in n}),
        lambda answer: replace(answer, arrays={n: a[:1] for n, a in answer.arrays.items()}),
        lambda _: Message("raised", {"message": "Traceback"}),
    ],
)
def test_evidence_that_cannot_be_used_is_asked_of_the_next(
    change: Callable[[Message], Message], tmp_path: Path
) -> None:
    course = write_course(tmp_path / "all", rounds=1, silos=3)
    name = course.participants[0].name
    link = Altered(light(course), name, change, "evidence")
    with pytest.raises(
        RunFailed, match=rf"(?s)no silo gave the model of the reference 'onnx'.*silo '{name}': "
    ):
        deployed(course, link, tmp_path / "all" / "run")
    more = "deployment: {quorum: 2, join_timeout_s: 0.5, round_timeout_s: 5}\n"
    course = write_course(tmp_path / "two", rounds=1, silos=3, more=more)
    _, events = deployed(course, Altered(light(course), name, change, "evidence"), tmp_path / "two" / "run")
    references = [event.backend for event in events if isinstance(event, ModelBound) and event.reference]
    assert references == [f"{course.participants[1].name} (onnx)"]


def test_too_few_proven_models(tmp_path: Path) -> None:
    more = "deployment: {quorum: 3, join_timeout_s: 0.5, round_timeout_s: 5}\n"
    course = write_course(tmp_path / "course", rounds=1, silos=3, more=more)
    link = Altered(
        light(course), course.participants[1].name, lambda _: Message("refused", {"message": "no"}), "bound"
    )
    with pytest.raises(MismatchError, match=r"(?s)2 models are proven, and 3 are needed.*: no"):
        deployed(course, link, tmp_path / "run")


def test_trained_outputs_that_are_none(tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=1, silos=3)
    name = course.participants[0].name
    for index, (change, words) in enumerate(
        (
            (lambda answer: replace(answer, arrays={}), "disagree"),
            (lambda answer: replace(answer, arrays={"outputs/0": np.ones((1, 2), np.float32)}), "disagree"),
            (lambda _: Message("raised", {"message": "Traceback"}), "nobody answered"),
        )
    ):
        with pytest.raises(RunFailed, match=words):
            deployed(course, Altered(light(course), name, change, "outputs"), tmp_path / f"run{index}")


def test_a_round_with_enough_updates_does_not_wait_for_a_silo_that_is_gone(tmp_path: Path) -> None:
    more = "deployment: {quorum: 2, round_timeout_s: 20}\n"
    course = write_course(tmp_path / "course", rounds=4, silos=3, more=more)
    name = course.participants[1].name
    link = Away(light(course), name, at_round=2, seconds=1000)
    _, events = deployed(course, link, tmp_path / "run", grace_s=3)
    failed = [event for event in events if isinstance(event, ParticipantFailed)]
    assert [(event.round, event.name, event.reason) for event in failed] == [
        (number, name, "it is not there") for number in (2, 3, 4)
    ]
    seconds = [event.seconds for event in events if isinstance(event, RoundCollected)]
    assert 3 <= seconds[1] < 10, "it may have been starting again"
    assert max(seconds[2:]) < 3


@pytest.mark.one_in(2)
@pytest.mark.parametrize("quorum", ["", "quorum: 2, ", "quorum: 3, "])
def test_a_silo_that_comes_back_soon_or_is_needed_is_waited_for(quorum: str, tmp_path: Path) -> None:
    course = write_course(
        tmp_path / "course", rounds=3, silos=3, more=f"deployment: {{{quorum}round_timeout_s: 20}}\n"
    )
    name = course.participants[1].name
    link = Away(light(course), name, at_round=2, seconds=1)
    run, events = deployed(course, link, tmp_path / "run", grace_s=30 if quorum == "quorum: 2, " else 0.1)
    undisturbed, _ = deployed(course, LocalLink(light(course)), tmp_path / "undisturbed")
    assert not [event for event in events if isinstance(event, ParticipantFailed)]
    assert run.weights.digest == undisturbed.weights.digest


def test_others_train_in_the_place_of_a_silo_that_is_gone(tmp_path: Path) -> None:
    """Two of four a round, of which both are needed: one that is gone would end the course."""
    more = "deployment: {quorum: 2, join_timeout_s: 0.3, round_timeout_s: 20}\n"
    course = write_course(tmp_path / "course", rounds=8, silos=4, more=more, federate="cohort: 2, ")
    silos = light(course)
    gone = silos.pop(2).name
    _, events = deployed(course, LocalLink(silos), tmp_path / "run", grace_s=0.1)
    collected = [event for event in events if isinstance(event, RoundCollected)]
    assert [len(event.accepted) for event in collected] == [2] * 8
    assert {name for event in collected for name in event.accepted} == {silo.name for silo in silos}
    drawn = [event.round for event in events if isinstance(event, RoundStarted) and gone in event.cohort]
    assert [event.round for event in collected if event.missing == (gone,)] == drawn
    assert 0 < len(drawn) < 8
    assert max(event.seconds for event in collected) < 4


def without_weights(answer: Message) -> Message:
    return replace(answer, arrays={n: a for n, a in answer.arrays.items() if not n.startswith("weights/")})


def arrays(part: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Message], Message]:
    """Other arrays, of those whose names hold a word."""
    return lambda answer: replace(
        answer, arrays={n: change(a.copy()) if part in n else a for n, a in answer.arrays.items()}
    )


def ends_in(operator: str) -> Callable[[Message], Message]:
    """A schema whose last node is another."""
    return lambda answer: replace(
        answer,
        fields={**answer.fields, "schema": answer.fields["schema"].replace('"Gemm"', json.dumps(operator))},
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (arrays("weights/", lambda a: a * np.nan), "initial weights 'dense.weight' hold NaN"),
        (arrays("weights/", lambda a: a + np.inf), "initial weights 'dense.weight' hold NaN"),
        (
            arrays("weights/", lambda a: a * 1e33),
            "initial weights 'dense.weight' hold NaN, infinity or more than",
        ),
        (arrays("inputs", lambda a: a * np.nan), "evidence holds NaN or infinity"),
        (arrays("outputs", lambda a: a * np.nan), "evidence holds NaN or infinity"),
        (arrays("outputs", lambda a: a + 1), "ONNX Runtime finds other outputs"),
        (arrays("outputs", lambda a: -a), "ONNX Runtime finds other outputs"),
        (arrays("inputs", lambda a: a[:, ::-1].copy()), "ONNX Runtime finds other outputs"),
        (arrays("outputs", lambda a: a[:0]), "does not have the inputs and outputs"),
        (arrays("outputs", lambda a: a.astype(np.float64)), "does not have the inputs and outputs"),
        (arrays("inputs", lambda a: a[0]), "does not have the inputs and outputs"),
        (without_weights, "missing"),
        (ends_in("Softmax"), "cannot be used"),
        (ends_in("NoSuchOperator"), "cannot be used"),
        (lambda answer: replace(answer, fields={}), "cannot be used"),
        (lambda _: Message("evidence", {"schema": "x" * 3_000_000, "about": {}}), "cannot be used"),
        (fields(about={"fingerprint": "x"}), "no evidence for the schema"),
        (fields(about=[]), "cannot be used"),
    ],
)
def test_what_others_cannot_be_measured_by(
    change: Callable[[Message], Message], reason: str, tmp_path: Path
) -> None:
    course = write_course(tmp_path / "course", rounds=1, silos=1)
    answer = change(Message.from_bytes(light(course)[0].reply(Message("evidence").to_bytes()), "a silo"))
    with pytest.raises(UpdateRefused, match=reason) as caught:
        reference_of("oslo", answer)
    assert harmless(caught.value.message)


def test_a_large_reference_is_run_by_another_process(tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=1, silos=1, size="1100x1000")
    answer = Message.from_bytes(light(course)[0].reply(Message("evidence").to_bytes()), "a silo")
    assert reference_of("oslo", answer).initial.keys() == {"dense.weight", "dense.bias"}
    wrong = Message.from_bytes(arrays("outputs", lambda a: -a)(answer).to_bytes(), "a silo")
    with pytest.raises(UpdateRefused, match="ONNX Runtime finds other outputs in the probe 'one'"):
        reference_of("oslo", wrong)
    # What that process trips over is a line about the silo, too.
    odd = Message.from_bytes(ends_in("No\x1bSuch\n/home/someone/x")(answer).to_bytes(), "a silo")
    with pytest.raises(UpdateRefused, match="its evidence cannot be") as caught:
        reference_of("oslo", odd)
    assert harmless(caught.value.message)
    assert "/home" not in caught.value.message


def test_a_reference_is_looked_at_before_others_are_measured_by_it(tmp_path: Path) -> None:
    """The first one is left out as reference, with the reason, and nobody else is blamed."""
    more = "deployment: {quorum: 2, join_timeout_s: 0.5, round_timeout_s: 5}\n"
    course = write_course(tmp_path / "course", rounds=1, silos=3, more=more)
    first, second = (participant.name for participant in course.participants[:2])
    link = Altered(light(course), first, arrays("outputs", lambda a: a + 1), "evidence")
    _, events = deployed(course, link, tmp_path / "run")
    (note,) = (event.note for event in events if isinstance(event, Noted) and "not taken" in event.note)
    assert first in note
    assert "ONNX Runtime finds other outputs" in note
    bound = [event for event in events if isinstance(event, ModelBound)]
    assert [event.backend for event in bound if event.reference] == [f"{second} (onnx)"]
    assert len(bound) == 3
    assert not [event for event in events if isinstance(event, ParticipantFailed)]


def test_a_reference_by_which_nobody_is_proven_gives_way_to_the_next(tmp_path: Path) -> None:
    """Evidence of another model that agrees with itself: only the others can tell."""
    more = "deployment: {quorum: 3, join_timeout_s: 0.5, round_timeout_s: 5}\n"
    course = write_course(tmp_path / "course", rounds=1, silos=4, more=more)
    names = [participant.name for participant in course.participants]
    other = write_course(tmp_path / "other", rounds=1, silos=4, more=more, size="40x31")
    liar = light(other)[0]._learner.evidence
    silos = light(course, evidence=liar, initial=light(other)[0]._learner.initial)
    _, events = deployed(course, LocalLink(silos), tmp_path / "run")
    bound = [event for event in events if isinstance(event, ModelBound)]
    assert [event.backend for event in bound if event.reference] == [f"{names[1]} (onnx)"]
    assert {event.backend.partition(" ")[0] for event in bound} >= set(names[1:])


@pytest.mark.parametrize(
    "change",
    [
        arrays("outputs", lambda a: a + 1),
        arrays("outputs", lambda a: a.astype(np.complex64)),
        arrays("outputs", lambda a: a[:0]),
    ],
)
def test_outputs_of_one_silo_do_not_end_a_course_that_has_a_quorum(
    change: Callable[[Message], Message], tmp_path: Path
) -> None:
    more = "deployment: {quorum: 2, round_timeout_s: 20}\n"
    course = write_course(tmp_path / "course", rounds=1, silos=3, more=more)
    link = Altered(light(course), course.participants[0].name, change, "outputs")
    run, events = deployed(course, link, tmp_path / "run")
    assert run.result is not None
    assert run.result.onnx_error < 1e-5
    # It is named, in the events and on the page that sums up.
    (note,) = (event.note for event in events if isinstance(event, Noted))
    words = f"{course.participants[0].name} computes the trained model otherwise"
    assert note.startswith(f"{words} than ONNX Runtime and 2 others: by ")
    assert f"* **{words}**: by " in (tmp_path / "run" / "summary.md").read_text(encoding="utf-8")


def test_more_wrong_outputs_than_right_ones_end_the_course_by_name(tmp_path: Path) -> None:
    more = "deployment: {quorum: 1, round_timeout_s: 20}\n"
    course = write_course(tmp_path / "course", rounds=1, silos=3, more=more)
    silos = light(course)
    names = [silo.name for silo in silos]

    def other(*_: object) -> tuple[np.ndarray, ...]:
        return (np.zeros((2, 30), np.float32),)

    for silo in silos[:2]:
        silo._learner.answers = other  # type: ignore[method-assign]
        silo._learner.bind = lambda schema, _: (Binding("light", schema.fingerprint, {}, {}), Proof(()), ())  # type: ignore[method-assign]
    with pytest.raises(
        RunFailed, match=rf"disagrees about the trained model with {names[0]} \(by .*, {names[1]} \(by "
    ):
        deployed(course, Altered(silos, names[2], lambda a: a), tmp_path / "run")


def test_a_silo_that_gives_no_outputs_or_writes_no_model_is_told_of(tmp_path: Path) -> None:
    more = "deployment: {quorum: 2, round_timeout_s: 20}\n"
    course = write_course(tmp_path / "course", rounds=1, silos=3, more=more)

    def broken(*_: object) -> None:
        raise OSError("no space in /home/someone")

    _, events = deployed(course, LocalLink(light(course, answers=broken, save=broken)), tmp_path / "run")
    told = [event.note for event in events if isinstance(event, Noted)]
    name = course.participants[0].name
    assert f"silo {name!r} gave no outputs of the trained model: OSError: no space in …/someone" in told
    assert f"silo {name!r} did not write the trained model: OSError: no space in …/someone" in told
