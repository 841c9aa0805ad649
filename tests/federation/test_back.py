"""An update of moderate size that ruins the model is found by the next round: the round is merged again without it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.federation.campaign import write_course
from tests.federation.fragile import Bad, fragile, is_ruined, killed_at, led
from tests.federation.light import Linear
from tests.federation.links import Altered, deployed
from xbackend_fl.course import Course
from xbackend_fl.errors import Diverged, RunFailed
from xbackend_fl.events import Event, Noted, ParticipantFailed, RoundCollected
from xbackend_fl.federation import Ledger, Message, Silo
from xbackend_fl.rounds import RunFolder
from xbackend_fl.weights import load_weights

pytestmark = pytest.mark.quick

_QUORUM = "deployment: {quorum: 2, round_timeout_s: 20}\n"


def course_of(folder: Path, rounds: int = 4, silos: int = 4, **changes: Any) -> Course:
    return write_course(folder, rounds, silos, **{"more": _QUORUM, "rule": "fedavg", **changes})


def notes(events: list[Event]) -> list[str]:
    return [event.note for event in events if isinstance(event, Noted)]


def again(events: list[Event]) -> list[str]:
    return [note for note in notes(events) if "is merged again without" in note]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("at", "rule", "cohort"),
    [
        (1, "fedavg", ""),
        (2, "fedavgm", ""),
        (4, "fedavg", ""),
        (2, "fedavgm", "cohort: 3, "),
        (4, "fedavg", "cohort: 3, "),
        pytest.param(1, "fedavgm", "cohort: 3, ", marks=pytest.mark.slow),
        pytest.param(2, "fedavg", "cohort: 3, ", marks=pytest.mark.slow),
    ],
)
def test_the_course_is_what_it_is_without_that_update(
    at: int, rule: str, cohort: str, tmp_path: Path
) -> None:
    """In the first round, in another, and in the last one, with all silos in a round and with some."""
    course = course_of(tmp_path / "course", rule=rule, federate=cohort)
    link = Bad(fragile(course), {})
    deployed(course, link, tmp_path / "whole")
    name = next(name for name, number in link.sent if number == at)

    def without(answer: Message) -> Message | None:
        return Message("refused") if answer.fields["round"] == at else answer

    expected, _ = deployed(course, Altered(fragile(course), name, without), tmp_path / "without")
    bad = Bad(fragile(course), {name: range(at, at + 1)})
    run, events = deployed(course, bad, tmp_path / "run")
    assert run.weights.digest == expected.weights.digest
    assert load_weights(tmp_path / "run" / "last.safetensors").digest == run.weights.digest
    best = [load_weights(tmp_path / which / "best.safetensors").digest for which in ("run", "without")]
    assert best[0] == best[1]
    (note,) = again(events)
    assert note.startswith(
        f"round {at} is merged again without the update of {name}: it changes the weights by 3.2e+02"
    )
    assert "other silos cannot" in note
    assert "nan" in note
    assert len(note.splitlines()) == 1
    assert [entry.loss for entry in run.history] == [entry.loss for entry in expected.history]
    with closing(Ledger(RunFolder(tmp_path / "run"))) as ledger:
        history = {entry.silo: entry for entry in ledger.participation()}
    assert history[name].refused == 1
    assert sum(entry.refused for entry in history.values()) == 1, (
        "the others are not blamed for what they found"
    )


@pytest.mark.parametrize(
    "rule",
    ["fedadam", *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("fedyogi", "fedadagrad"))],
)
def test_a_server_optimizers_state_goes_back_too(rule: str, tmp_path: Path) -> None:
    server = f"{rule}, lr: 0.5, tau: 0.001"
    course = course_of(tmp_path / "course", rule=server, precision="float64")
    name = course.participants[1].name
    refused = Altered(fragile(course), name, lambda a: Message("refused") if a.fields["round"] == 2 else a)
    expected, _ = deployed(course, refused, tmp_path / "without")
    run, events = deployed(course, Bad(fragile(course), {name: range(2, 3)}), tmp_path / "run")
    if again(events):
        assert run.weights.digest == expected.weights.digest
    else:
        assert not is_ruined(run.weights)


def test_who_did_it_once_does_not_cost_a_round_each_time(tmp_path: Path) -> None:
    course = course_of(tmp_path / "course", rounds=6)
    name = course.participants[2].name
    run, events = deployed(course, Bad(fragile(course), {name: range(1, 7)}), tmp_path / "run")
    assert len(again(events)) == 1
    refused = [e for e in events if isinstance(e, ParticipantFailed) and "was taken out" in e.reason]
    assert [(event.name, event.round) for event in refused] == [(name, number) for number in range(2, 7)]
    assert all("its update of round 1 was taken out" in event.reason for event in refused)
    assert not is_ruined(run.weights)


def test_whoever_came_back_to_reason_is_merged(tmp_path: Path) -> None:
    course = course_of(tmp_path / "course", rounds=3)
    name = course.participants[2].name
    _, events = deployed(course, Bad(fragile(course), {name: range(1, 2)}), tmp_path / "run")
    collected = [event for event in events if isinstance(event, RoundCollected)]
    assert name in collected[-1].accepted


@pytest.mark.parametrize("both", [[2, 2], [2, 3], [2, 4]])
def test_two_that_are_bad(both: list[int], tmp_path: Path) -> None:
    """Of five, in the same round or in others; with other magnitudes."""
    course = course_of(tmp_path / "course", silos=5)
    names = [course.participants[index].name for index in (1, 3)]
    rounds = {name: range(at, at + 1) for name, at in zip(names, both, strict=True)}
    bad = Bad(fragile(course), rounds, {names[0]: 12.0, names[1]: 9.5})
    run, events = deployed(course, bad, tmp_path / "run")
    assert not is_ruined(run.weights)
    assert len(again(events)) == 2
    assert [name in note for name, note in zip(names, again(events), strict=True)] == [True, True]


def test_two_bad_of_four_have_no_say_about_it(tmp_path: Path) -> None:
    """They train from anything: two of four that can, and both are those that stood out."""
    course = course_of(tmp_path / "course")
    silos = fragile(course)
    names = [course.participants[index].name for index in (0, 3)]
    for index, silo in enumerate(silos):
        if silo.name in names:
            silos[index] = Silo(course, silo.name, Linear(silo.name, course))
    run, events = deployed(course, Bad(silos, dict.fromkeys(names, range(2, 3))), tmp_path / "run")
    assert len(again(events)) == 2
    assert not is_ruined(run.weights)


def test_one_that_says_nan_takes_nobody_out(tmp_path: Path) -> None:
    """Neither alone, nor if another's update only stands out."""
    course = course_of(tmp_path / "course")
    liar, other = course.participants[0].name, course.participants[1].name
    silos = fragile(course)

    def lies(number: int, weights: Any, name: str) -> Any:
        del weights, name
        raise Diverged(f"the training loss of round {number} is nan")

    silos[0]._learner.step = lies  # type: ignore[attr-defined]
    _, events = deployed(course, Bad(silos, {other: range(2, 3)}, {other: 0.5}), tmp_path / "run")
    assert any(f"{other} stands out" in note for note in notes(events))
    assert not again(events)
    failed = {event.name for event in events if isinstance(event, ParticipantFailed)}
    assert failed == {liar}


def test_without_a_quorum_the_course_ends_with_the_reason_and_goes_on_with_one(tmp_path: Path) -> None:
    course = course_of(tmp_path / "course", more="deployment: {round_timeout_s: 20}\n")
    name = course.participants[1].name
    with pytest.raises(RunFailed) as caught:
        led(course, tmp_path, {name: range(2, 3)})
    said = str(caught.value)
    assert "round 2: 3 updates, and the quorum is 4" in said
    assert f"silo '{name}': taken out again: it changes the weights by 3.2e+02" in said
    assert "deployment.quorum" in said
    state = RunFolder(tmp_path / "run").latest()
    assert state is not None
    assert state.round == 1
    assert load_weights(tmp_path / "run" / "last.safetensors").digest == state.weights.digest
    # Of the keys that may change.
    course = replace_quorum(course, 3)
    events: list[Event] = []
    digest = led(course, tmp_path, {}, events.append)
    refused = Altered(fragile(course), name, lambda a: Message("refused") if a.fields["round"] == 2 else a)
    assert digest == deployed(course, refused, tmp_path / "without")[0].weights.digest


def replace_quorum(course: Course, quorum: int) -> Course:
    rules = course.deployment.model_copy(update={"quorum": quorum})
    return course.model_copy(update={"deployment": rules})


def test_if_nobody_stood_out_the_reason_is_the_rate(tmp_path: Path) -> None:
    """A server optimizer that makes every step a thousand times as long."""
    course = course_of(tmp_path / "course", rule="fedavg, lr: 1000.0")
    with pytest.raises(RunFailed) as caught:
        led(course, tmp_path, {})
    said = str(caught.value)
    assert "4 of 4 silos cannot train from the weights of round 1, and no update of round 1 stood out" in said
    assert "federate.server.lr" in said


def test_a_checkpoint_that_is_gone_is_said(tmp_path: Path) -> None:
    course = course_of(tmp_path / "course")
    name = course.participants[1].name

    def lose(event: Event) -> None:
        if isinstance(event, ParticipantFailed) and event.round == 3:
            (tmp_path / "run" / "checkpoints" / "round-00001.safetensors").unlink(missing_ok=True)

    with pytest.raises(RunFailed, match="no checkpoint has the weights before that round") as caught:
        led(course, tmp_path, {name: range(2, 3)}, lose)
    assert "cannot train from the weights of round 2" in str(caught.value)


@pytest.mark.parametrize("keep", [1, 3])
def test_space_is_bounded(keep: int, tmp_path: Path) -> None:
    """The updates of two rounds, and as many checkpoints as are kept, two at least, with those of the best rounds."""
    course = course_of(tmp_path / "course", rounds=12).model_copy(update={"keep_checkpoints": keep})
    most = [0, 0]

    def look(_: Event) -> None:
        run = tmp_path / "run"
        for index, (place, which) in enumerate((("spool*", "*.xbf"), ("checkpoints", "round-*.safetensors"))):
            most[index] = max(most[index], sum(1 for folder in run.glob(place) for _ in folder.glob(which)))

    led(course, tmp_path, {course.participants[0].name: range(5, 6)}, look)
    assert most[0] <= 2 * 4
    assert most[1] <= max(keep, 2) + 3 + 1


@pytest.mark.parametrize("at", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_kill_at_any_line_of_going_back_changes_no_bit(at: int, tmp_path: Path, *, thorough: bool) -> None:
    """A round in the middle, and the last one, whose evaluation finds it."""
    course = course_of(tmp_path / "course", rounds=3, rule="fedavgm")
    bad = {course.participants[1].name: range(at, at + 1)}
    assert not killed_at(course, tmp_path / "whole", bad, 0)
    lines = int((tmp_path / "whole" / "lines").read_text(encoding="utf-8"))
    assert lines > 100
    expected = load_weights(tmp_path / "whole" / "run" / "last.safetensors").digest
    best = load_weights(tmp_path / "whole" / "run" / "best.safetensors").digest
    step = 1 if thorough else lines // 3
    for line in range(1 + at, lines, step):
        folder = tmp_path / str(line)
        assert killed_at(course, folder, bad, line)
        assert led(course, folder, bad) == expected, line
        assert load_weights(folder / "run" / "last.safetensors").digest == expected, line
        assert load_weights(folder / "run" / "best.safetensors").digest == best, line
        with closing(sqlite3.connect(folder / "run" / "ledger.sqlite")) as rows:
            found = rows.execute("SELECT round, silo FROM taken_out").fetchall()
        assert found == [(at, course.participants[1].name)], line
