"""How much a silo says that it has, and what it sends: nobody is nearly the whole model without a word, and nobody leaves nothing of it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.federation.campaign import write_course
from tests.federation.links import Altered, deployed, fields, light, one_round
from xbackend_fl import Course
from xbackend_fl.canonical import Kind, Parameter, Port, Schema
from xbackend_fl.errors import RunFailed, UpdateRefused
from xbackend_fl.events import Event, Noted, ParticipantFailed
from xbackend_fl.federation import Message, Silo
from xbackend_fl.federation.server.outliers import Change, outliers, ruinous, unlike
from xbackend_fl.federation.server.reference import reference_of
from xbackend_fl.metrics import Metrics
from xbackend_fl.weights import Weights

QUORUM = "deployment: {quorum: 2, join_timeout_s: 0.5, round_timeout_s: 20}\n"


def notes(events: list[Event]) -> list[str]:
    return [event.note for event in events if isinstance(event, Noted)]


def failures(events: list[Event]) -> list[tuple[int, str, str]]:
    return [(e.round, e.name, e.reason) for e in events if isinstance(e, ParticipantFailed)]


def without(course: Course, name: str, out: Path, silos: list[Silo] | None = None) -> Any:
    """What the others make of the round."""
    link = Altered(silos or light(course), name, lambda _: Message("refused"))
    return one_round(course, link, out)[0].mean.result().model


def claiming(silos: list[Silo], name: str, size: int) -> None:
    """Let a silo say, from the first, that it has so many examples."""
    (silo,) = (silo for silo in silos if silo.name == name)
    silo._learner.num_examples = lambda: {name: size}  # type: ignore[method-assign]


@pytest.mark.parametrize("size", [1_000, 10_000_000])
def test_who_would_be_nearly_the_whole_mean_is_told_of(size: int, tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=2, silos=4, more=QUORUM)
    silos = light(course)
    others = [silo._learner.num_examples()[silo.name] for silo in silos[1:]]
    claiming(silos, silos[0].name, size)
    _, events = one_round(course, Altered(silos, silos[0].name, lambda a: a), tmp_path / "run")
    (note,) = notes(events)
    assert note.startswith(f"silo {silos[0].name!r} says that it has {size:,} training examples: ")
    assert f"{100 * size / (size + sum(others)):.1f} % of all" in note
    assert not failures(events), "a large silo is no offence"


def test_silos_of_like_sizes_are_not_told_of(tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=2, silos=4)
    silos = light(course)
    claiming(silos, silos[0].name, 150)
    _, events = one_round(course, Altered(silos, silos[0].name, lambda a: a), tmp_path / "run")
    assert notes(events) == []


@pytest.mark.parametrize("size", [10_000_000, 1_000])
def test_an_update_stands_for_no_more_than_its_silo_said_at_first(size: int, tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=2, silos=3, more=QUORUM)
    name = course.participants[1].name
    expected = without(course, name, tmp_path / "without")
    link = Altered(light(course), name, fields(num_examples=size))
    found, events = one_round(course, link, tmp_path / "run")
    stated = light(course)[1]._learner.num_examples()[name]
    reason = f"num_examples is {size}, and the silo said at first that it has {stated}"
    assert failures(events) == [(1, name, reason)]
    assert found.mean.result().model.digest == expected.digest


@pytest.mark.one_in(2)
@pytest.mark.parametrize("size", [0, -1, True, 1.0, "9", None, 10_000_001, 2**63 - 1, [5]])
def test_a_number_that_no_silo_has_is_refused_when_it_comes(size: Any, tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=1, silos=3, more=QUORUM)
    name = course.participants[1].name
    link = Altered(light(course), name, fields(num_examples=size), "hello")
    _, events = one_round(course, link, tmp_path / "run")
    (note,) = notes(events)
    assert note.startswith(f"silo {name!r} is left out: num_examples is ")
    assert "expected a whole number from 1 to 10000000 (deployment.max_examples)" in note


def test_figures_that_are_nearly_all_figures_are_told_of(tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=3, silos=3)
    silos = light(course)

    def evaluate(*_: object) -> Metrics:
        return Metrics(1_000_000, {"loss": 0.0, "accuracy": 1_000_000})

    silos[2]._learner.evaluate = evaluate  # type: ignore[method-assign]
    _, events = deployed(course, Altered(silos, silos[2].name, lambda a: a), tmp_path / "run")
    told = [note.partition(":")[0] for note in notes(events)]
    expected = f"silo {silos[2].name!r} says that it has 1,000,000 {{}} targets"
    assert told == [expected.format("validation"), expected.format("test")]


def test_whose_figures_are_refused_is_told_of(tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=1, silos=3)
    name = course.participants[1].name
    for index, (change, words) in enumerate(
        (
            (fields(test={"positions": -1}), "positions"),
            (lambda _: Message("raised", {"message": "no disk"}), "no disk"),
        )
    ):
        link = Altered(light(course), name, change, "metrics")
        _, events = deployed(course, link, tmp_path / str(index))
        (note,) = notes(events)
        assert note.startswith(f"silo {name!r} is not in the validation and test figures: ")
        assert words in note


def moved(course: Course, change: Callable[[Any, Any], Any]) -> Callable[[Message], Message]:
    """Another update, of the first round, from what the weights were and became."""
    base = light(course)[0]._learner.initial()
    return lambda answer: replace(
        answer, arrays={n: change(base[n], a).astype(np.float32) for n, a in answer.arrays.items()}
    )


RUINOUS: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("times a million", lambda b, a: b + np.float32(1e6) * (a - b)),
    ("the negative of that", lambda b, a: b - np.float32(1e6) * (a - b)),
    ("a huge constant", lambda _, a: np.full_like(a, 1e15)),
    ("the largest that is taken", lambda _, a: np.full_like(a, -(2.0**50))),
    ("one huge value", lambda _, a: np.where(np.arange(a.size).reshape(a.shape) == 0, np.float32(1e13), a)),
]


@pytest.mark.parametrize(("what", "change"), RUINOUS)
def test_what_would_leave_nothing_of_the_model_is_taken_out(
    what: str, change: Callable[[Any, Any], Any], tmp_path: Path
) -> None:
    """The mean has the bits of a round without that silo, and so has what is on disk."""
    course = write_course(tmp_path / "course", rounds=1, silos=4, more=QUORUM, precision="float32")
    name = course.participants[2].name
    expected = without(course, name, tmp_path / "without")
    link = Altered(light(course), name, moved(course, change))
    found, events = one_round(course, link, tmp_path / "run")
    ((number, silo, reason),) = failures(events)
    assert (number, silo) == (1, name), what
    assert "times the median of the others'" in reason
    assert "it would leave nothing of the model" in reason
    assert found.mean.result().model.digest == expected.digest
    with closing(sqlite3.connect(tmp_path / "run" / "ledger.sqlite")) as rows:
        kept = {silo for (silo,) in rows.execute("SELECT silo FROM accepted")}
    assert kept == {p.name for p in course.participants} - {name}


def test_without_a_quorum_it_ends_the_course_by_name(tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=1, silos=3, precision="float32")
    name = course.participants[0].name
    link = Altered(light(course), name, moved(course, RUINOUS[0][1]))
    with pytest.raises(RunFailed, match=rf"silo '{name}': the update changes the weights by"):
        one_round(course, link, tmp_path / "run")


@pytest.mark.parametrize("index", [0, 3])
def test_an_exact_sum_has_room_for_whoever_takes_less_of_it(index: int, tmp_path: Path) -> None:
    """One silo nearly fills it, with values that are not absurd and as many examples as one may have; it came first, and all others were refused."""
    course = write_course(tmp_path / "course", rounds=1, silos=4, more=QUORUM)
    name = course.participants[index].name
    silos = light(course)
    for silo in silos:
        claiming(silos, silo.name, 10_000_000 if silo.name == name else 1_000)
    expected = without(course, name, tmp_path / "without", silos)
    base = silos[0]._learner.initial()
    # What is left for the others is less than one of them needs.
    reach = ((1 << 30) - 500) / 10_000_000 - max(float(abs(array).max()) for array in base.values())
    change = moved(course, lambda _, a: np.full_like(a, np.float32(reach)))
    found, events = one_round(course, Altered(silos, name, change), tmp_path / "run")
    ((_, silo, reason),) = failures(events)
    assert silo == name
    assert reason.startswith("there is no room for it beside others: " if index == 0 else "parameter ")
    assert "too large for an exact sum" in reason
    assert found.mean.result().model.digest == expected.digest


def schema_of(kind: Kind) -> Schema:
    trained = Parameter("w", "Gemm", "weight", "B", (2, 3), "float32", Kind.TRAINABLE)
    other = Parameter("s", "BatchNormalization", "running_var", "var", (3,), "float32", kind)
    return Schema((Port("x", "float32", (1, 3)),), (Port("y", "float32", (1, 2)),), (), (trained, other))


def changes_of(schema: Schema, values: list[float]) -> tuple[dict[str, Change], Weights]:
    base = Weights.from_schema(schema, {"w": np.zeros((2, 3), np.float32), "s": np.ones(3, np.float32)})
    updates = {
        f"s{i}": base.like({"w": base["w"] + np.float32(0.1 + i / 100), "s": np.full(3, v, np.float32)})
        for i, v in enumerate(values)
    }
    return {name: Change.from_weights(update, base) for name, update in updates.items()}, base


def test_statistics_are_looked_at_too() -> None:
    """They are no part of the weights' change, and every evaluation depends on them."""
    found, base = changes_of(schema_of(Kind.STATISTIC), [1.1, 1.2, 1.3, 1e20])
    offender = ruinous(found, base)
    assert offender is not None
    assert offender[0] == "s3"
    assert "changes the statistics by 1.7e+20 (norm)" in offender[1]
    assert any("s3 stands out: it changes the statistics" in note for note in unlike(outliers(found)))
    # Pixels of 0 to 255 where the others have 0 to 1: another unit, which is said.
    found, base = changes_of(schema_of(Kind.STATISTIC), [1.1, 1.2, 1.3, 65025.0])
    assert ruinous(found, base) is None
    assert any("s3 stands out" in note for note in unlike(outliers(found)))
    found, base = changes_of(schema_of(Kind.FROZEN), [1.1, 1.2, 1.3, 1e20])
    assert ruinous(found, base) is None
    assert not list(unlike(outliers(found)))


@pytest.mark.parametrize(
    ("value", "outcome"), [(1e15, "refused"), (2.0**25, "refused"), (2e4, "said"), (5.0, "taken")]
)
def test_initial_weights_are_of_a_size_that_trains(value: float, outcome: str, tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=1, silos=1)
    answer = Message.from_bytes(light(course)[0].reply(Message("evidence").to_bytes()), "a silo")
    arrays = {n: np.full_like(a, value) if n.startswith("weights/") else a for n, a in answer.arrays.items()}
    changed = Message.from_bytes(replace(answer, arrays=arrays).to_bytes(), "a silo")
    if outcome == "refused":
        with pytest.raises(
            UpdateRefused, match=r"initial weights 'dense\.weight' hold NaN, infinity or more than"
        ):
            reference_of("oslo", changed)
        return
    said = list(reference_of("oslo", changed).notes())
    assert bool(said) == (outcome == "said")
    assert all(f"that silo 'oslo' gives hold values up to {value:.1e}" in note for note in said)


def test_initial_weights_from_which_little_trains_are_said(tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=1, silos=1)
    answer = Message.from_bytes(light(course)[0].reply(Message("evidence").to_bytes()), "a silo")
    arrays = {n: np.zeros_like(a) if n.startswith("weights/") else a for n, a in answer.arrays.items()}
    reference = reference_of("oslo", Message.from_bytes(replace(answer, arrays=arrays).to_bytes(), "a silo"))
    (said,) = reference.notes()
    assert "0 everywhere in 'dense.weight'" in said, "a bias may be zero, and is at first"
    for name, value, words in (
        ("running_var", 1e20, r"values up to 1\.0e\+20 in 'running_var'"),
        ("running_var", 0.0, "0 everywhere in the variance 'running_var'"),
        ("running_mean", -1e12, r"values up to 1\.0e\+12 in 'running_mean'"),
        ("running_mean", 0.0, ""),
        ("running_var", 1.0, ""),
    ):
        found = Weights({name: np.full(4, value, np.float32)}, "f", {name: Kind.STATISTIC})
        notes = list(replace(reference, schema=Normalised(reference.schema), initial=found).notes())  # type: ignore[arg-type]
        assert bool(notes) == bool(words), (name, value)
        assert all(re.search(words, note) for note in notes)


class Normalised:
    """A schema with one variance."""

    variances = frozenset({"running_var"})

    def __init__(self, _: object) -> None:
        pass
