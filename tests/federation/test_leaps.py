"""Whoever moves the weights by a part of their length that nobody else comes near may do so once; and variances count by their ratio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.federation.campaign import write_course
from tests.federation.light import Linear
from tests.federation.links import Passing, deployed
from xbackend_fl.canonical import Kind, Parameter, Port, Schema
from xbackend_fl.course import Course
from xbackend_fl.data import generator
from xbackend_fl.errors import Diverged, RunFailed
from xbackend_fl.events import Event, Noted, ParticipantFailed
from xbackend_fl.federation import DeploymentEngine, Dispatcher, Ledger, Message, Silo
from xbackend_fl.federation.server.outliers import Change, leaps, outliers, ruinous, unlike
from xbackend_fl.federation.server.verdict import Verdict, suspects
from xbackend_fl.federation.transport import Reply
from xbackend_fl.metrics import Metrics
from xbackend_fl.rounds import RunFolder, run_with
from xbackend_fl.weights import Weights

pytestmark = pytest.mark.quick

Array = Any
_QUORUM = "deployment: {quorum: 2, round_timeout_s: 20}\n"


class Steady(Linear):
    """Training moves the weights by a hundred thousandth of their length; at silos of ``more``, by so many times that.

    Args:
        name: The participant.
        course: The course.
        more: By silo.
    """

    def __init__(self, name: str, course: Course, more: Mapping[str, float]) -> None:
        super().__init__(name, course)
        self._more = more.get(name, 1.0)

    def step(self, number: int, weights: Weights, name: str) -> tuple[Weights, Metrics]:
        draw, size = generator(self._seed, "steady", number, name), np.float32(1e-5 * self._more)
        noise = {n: size * draw.standard_normal(a.shape, dtype=np.float32) for n, a in weights.items()}
        return weights.like({n: a + noise[n] for n, a in weights.items()}), Metrics(4, {"loss": 1.5})


class Leaping(Passing):
    """A link on which silos' updates of some rounds are another multiple of what they started from."""

    def __init__(self, silos: list[Silo], rounds: Mapping[str, tuple[float, tuple[int, ...]]]) -> None:
        super().__init__(silos)
        self._rounds = rounds
        self._base: Mapping[str, Array] = {}

    def send(self, frames: Mapping[str, bytes]) -> None:
        for frame in frames.values():
            request = Message.from_bytes(frame, "the server")
            if request.kind == "train":
                self._base = {name: np.array(array) for name, array in request.arrays.items()}
        super().send(frames)

    def replies(self) -> Iterator[Reply]:
        for reply in super().replies():
            answer = Message.from_bytes(reply.frame, reply.name)
            times, rounds = self._rounds.get(reply.name, (1.0, ()))
            if answer.kind == "trained" and answer.fields["round"] in rounds:
                arrays = {n: (times * self._base[n]).astype(a.dtype) for n, a in answer.arrays.items()}
                yield Reply(reply.name, replace(answer, arrays=arrays).to_bytes())
            else:
                yield reply


def course_of(folder: Path, rounds: int = 5, silos: int = 4, **changes: Any) -> Course:
    return write_course(folder, rounds, silos, **{"more": _QUORUM, "rule": "fedavg", **changes})


def steady(course: Course, more: Mapping[str, float] | None = None) -> list[Silo]:
    return [Silo(course, p.name, Steady(p.name, course, more or {})) for p in course.participants]


def notes(events: list[Event]) -> list[str]:
    return [event.note for event in events if isinstance(event, Noted)]


def refused(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.name, event.round) for event in events if isinstance(event, ParticipantFailed)]


def length(weights: Mapping[str, Array]) -> float:
    return float(np.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in weights.values())))


@pytest.mark.parametrize(
    ("times", "rounds", "rule"),
    [
        (2.0, (1, 2, 3, 4, 5), "fedavg"),
        (1.3, (1, 2, 3, 4, 5), "fedavgm"),
        (2.0, (1, 2, 3), "fedavgm"),
        (-1.0, (1, 2, 3, 4, 5), "fedavg"),
        (0.0, (2, 3), "fedavg"),
    ],
)
def test_who_leaps_twice_is_out_of_both_rounds(
    times: float, rounds: tuple[int, ...], rule: str, tmp_path: Path
) -> None:
    course = course_of(tmp_path / "course", rule=rule)
    name = course.participants[1].name
    initial = length(Linear(name, course).initial())
    run, events = deployed(course, Leaping(steady(course), {name: (times, rounds)}), tmp_path / "run")
    said = notes(events)
    assert any(note.startswith(f"round {rounds[0]}: the update of {name} stands out") for note in said)
    (again,) = [note for note in said if "is merged again without" in note]
    assert again.startswith(f"round {rounds[0]} is merged again without the update of {name}: it changes the")
    assert f"the update of {name} in round {rounds[1]} changes the weights" in again
    assert {silo for silo, _ in refused(events)} == {name}
    assert [entry.round for entry in run.history] == [1, 2, 3, 4, 5]
    assert length(run.weights) == pytest.approx(initial, rel=1e-4)


def test_rounds_need_not_follow_each_other(tmp_path: Path) -> None:
    course = course_of(tmp_path / "course")
    name = course.participants[1].name
    _, events = deployed(course, Leaping(steady(course), {name: (2.0, (1, 4, 5))}), tmp_path / "run")
    assert refused(events) == [(name, 4), (name, 5)]
    reasons = [event.reason for event in events if isinstance(event, ParticipantFailed)]
    assert "its update of round 1 did so too" in reasons[0]
    assert "its update of round 4 was taken out" in reasons[1]


def test_it_is_known_after_an_interruption(tmp_path: Path) -> None:
    course = course_of(tmp_path / "course")
    name = course.participants[1].name
    folder = RunFolder.create(course, tmp_path / "run")
    for until in (2, 5):
        events: list[Event] = []
        link = Leaping(steady(course), {name: (2.0, (1, 4))})
        with closing(DeploymentEngine(course, Dispatcher(link), Ledger(folder))) as engine:
            part = course.model_copy(update={"rounds": until})
            run_with(engine, part, folder, folder.latest(), events.append)
    assert refused(events) == [(name, 4)]


def test_once_is_said_and_merged(tmp_path: Path) -> None:
    course = course_of(tmp_path / "course")
    name = course.participants[1].name
    _, events = deployed(course, Leaping(steady(course), {name: (2.0, (2,))}), tmp_path / "run")
    assert refused(events) == []
    assert sum("stands out" in note for note in notes(events)) == 1


def test_two_of_five(tmp_path: Path) -> None:
    course = course_of(tmp_path / "course", silos=5)
    names = [course.participants[index].name for index in (1, 3)]
    run, events = deployed(
        course, Leaping(steady(course), dict.fromkeys(names, (2.0, (1, 2, 3, 4, 5)))), tmp_path / "run"
    )
    assert {silo for silo, _ in refused(events)} == set(names)
    assert length(run.weights) == pytest.approx(length(Linear(names[0], course).initial()), rel=1e-4)


def test_without_a_quorum_it_is_named(tmp_path: Path) -> None:
    course = course_of(tmp_path / "course", more="deployment: {round_timeout_s: 20}\n")
    name = course.participants[1].name
    with pytest.raises(RunFailed, match=f"silo '{name}': taken out again: it changes the weights") as caught:
        deployed(course, Leaping(steady(course), {name: (2.0, (1, 2, 3))}), tmp_path / "run")
    assert [p.name for p in course.participants if f"silo {p.name!r}" in str(caught.value)] == [name]


@pytest.mark.parametrize("more", [10.0, 900.0, 20_000.0])
def test_honest_silos_stay(more: float, tmp_path: Path) -> None:
    """More data or steps, data of another scale, or a newcomer where the others' training moves nothing any more: far from the weights' own length."""
    course = course_of(tmp_path / "course", rounds=4)
    name = course.participants[2].name
    _, events = deployed(course, Passing(steady(course, {name: more})), tmp_path / "run")
    assert refused(events) == []


def small(spread: Mapping[str, float], base: float = 1.0) -> tuple[dict[str, Change], Weights]:
    """Changes of a fully connected layer by so much a value."""
    trained = Parameter("w", "Gemm", "weight", "B", (10, 10), "float32", Kind.TRAINABLE)
    schema = Schema((Port("x", "float32", (1, 10)),), (Port("y", "float32", (1, 10)),), (), (trained,))
    weights = Weights.from_schema(schema, {"w": np.full((10, 10), base, np.float32)})
    updates = {name: weights.like({"w": weights["w"] + np.float32(by)}) for name, by in spread.items()}
    return {name: Change.from_weights(update, weights) for name, update in updates.items()}, weights


@pytest.mark.parametrize(
    ("spread", "expected"),
    [
        ({"a": 1e-4, "b": 1e-4, "c": 0.5}, ["c"]),
        ({"a": 1e-4, "b": 1e-4, "c": 0.1}, []),
        ({"a": 1e-2, "b": 1e-2, "c": 0.5}, []),
        ({"a": 1e-4, "b": 1e-4, "c": 0.5, "d": -2.0, "e": 1e-4}, ["d", "c"]),
        # Of two nobody can tell which is unlike.
        ({"a": 1e-4, "b": 0.5}, []),
    ],
)
def test_what_a_leap_is(spread: dict[str, float], expected: list[str]) -> None:
    assert [found.silo for found in leaps(*small(spread))] == expected


class Ended(Steady):
    """A participant that cannot train once the weights are three times as long."""

    def step(self, number: int, weights: Weights, name: str) -> tuple[Weights, Metrics]:
        if length(weights) > 3 * length(self.initial()):
            raise Diverged("the training loss is nan")
        return super().step(number, weights, name)


def test_a_ruin_two_rounds_after_the_leap_names_the_silo(tmp_path: Path) -> None:
    """Momentum goes on where nobody stands out any more."""
    course = course_of(tmp_path / "course", rule="fedavgm", rounds=9)
    name = course.participants[1].name
    silos = [Silo(course, p.name, Ended(p.name, course, {})) for p in course.participants]
    with pytest.raises(RunFailed) as caught:
        deployed(course, Leaping(silos, {name: (3.0, (1,))}), tmp_path / "run")
    assert f"the update of {name!r} changes the weights by" in str(caught.value)
    assert "in round 1" in str(caught.value)
    assert "no update of round" not in str(caught.value)
    with closing(Ledger(RunFolder(tmp_path / "run"))) as ledger:
        assert list(ledger.offenders()) == [name]


def test_whom_a_verdict_suspects(tmp_path: Path) -> None:
    """Who stood out in the round; if nobody did, who leapt before or was longer than the others twice; then nobody."""
    folder = RunFolder.create(course_of(tmp_path / "course"), tmp_path / "run")
    changes, base = small({"a": 1e-4, "b": 1e-4, "c": 0.5})
    longer, _ = small({"a": 1e-4, "b": 2e-3, "c": 1e-4})
    with closing(Ledger(folder)) as ledger:
        for number, found, far in (
            (1, changes, True),
            (2, longer, False),
            (3, longer, False),
            (4, {}, False),
        ):
            ledger.stand_out(number, outliers(found), leaps(found, base) if far else (), 1.0)
            for silo in "abc":
                ledger.accept(number, silo, "0", Message("trained", {"s": silo, "n": number}), 1, 0.1)
        assert [found.silo for found in suspects(ledger, 3)] == ["b"]
        assert [found.silo for found in suspects(ledger, 4)] == ["c", "b"]
        assert Verdict(ledger, 4, "train from").blames({"a"}, ()) == ""
        ledger.forget(4, "c")
        assert [found.silo for found in suspects(ledger, 4)] == ["b"]


def variances(values: list[Callable[[Array], Array]]) -> tuple[dict[str, Change], Weights]:
    """Of two layers; others' are about 1."""
    parameters = [
        Parameter(
            f"{i}.variance", "BatchNormalization", "running_var", "var", (16,), "float32", Kind.STATISTIC
        )
        for i in range(2)
    ]
    schema = Schema((Port("x", "float32", (1, 3)),), (Port("y", "float32", (1, 2)),), (), tuple(parameters))
    base = Weights.from_schema(schema, {p.name: np.ones(16, np.float32) for p in parameters})
    draw = np.random.default_rng(2)
    updates = {
        f"s{i}": base.like({n: change(draw.uniform(0.5, 2, 16)).astype(np.float32) for n in base})
        for i, change in enumerate([lambda a: a, lambda a: a, lambda a: a, *values])
    }
    return {
        name: Change.from_weights(update, base, frozenset(base)) for name, update in updates.items()
    }, base


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-12, 1e-7, 3e6, 1e12, 1e30])
def test_variances_that_leave_nothing(value: float) -> None:
    found, base = variances([lambda a: np.full_like(a, value)])
    assert any("s3 stands out: it has variances of" in note for note in unlike(outliers(found)))
    taken = ruinous(found, base)
    assert taken is not None
    assert taken[0] == "s3"
    assert "'0.variance'" in taken[1] or "'1.variance'" in taken[1] or "the statistics" in taken[1]


@pytest.mark.parametrize(
    ("change", "is_said"),
    [
        (lambda a: a * 1e-4, True),
        (lambda a: a * 1e4, True),
        (lambda a: a * 0.1, False),
        (lambda a: a * 50, False),
        (lambda a: np.where(np.arange(16) < 3, 0, a), False),
        (lambda a: np.where(np.arange(16) < 6, 0, a), True),
    ],
)
def test_variances_of_another_scale_are_merged(change: Callable[[Array], Array], is_said: bool) -> None:  # noqa: FBT001
    found, base = variances([change])
    assert any("s3 stands out: it has variances" in note for note in unlike(outliers(found))) == is_said
    assert ruinous(found, base) is None


def test_channels_that_are_dead_everywhere_say_nothing() -> None:
    def dead(array: Array) -> Array:
        return np.full_like(array, 1e-9)

    found, base = variances([dead, dead, dead, dead, lambda a: a * 0])
    assert ruinous(found, base) is None
    assert not any("s7" in note for note in unlike(outliers(found)))
