"""Silos do what the simulation does; what is not an update of this round does not enter the mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from tests.federation.campaign import write_course
from tests.federation.light import Linear
from tests.federation.links import Altered, Passing, deployed, fields, light
from tests.federation.local import LocalLink
from xbackend_fl import Course, load_course, run_course
from xbackend_fl.errors import ConfigError, FileError, RunFailed
from xbackend_fl.events import ParticipantFailed, RoundCollected, RoundFinished
from xbackend_fl.federation import Message, Silo
from xbackend_fl.federation.transport import Reply
from xbackend_fl.weights import load_weights

TORCH = ["models={torch: torch_model.py:build}", "participants={torch: 3}"]


@pytest.mark.slow
def test_a_deployed_course_ends_with_the_simulations_bits(
    digits: Path, tmp_path: Path, small: list[str], files_of: Callable[[Course], Path]
) -> None:
    """Three PyTorch and three TensorFlow silos, each with a file of its own."""
    course = load_course(digits / "course.yaml", small)
    data = files_of(course)
    silos = [
        Silo.from_course(course, p.name, data / f"{p.name}.npz", out=tmp_path / p.name)
        for p in course.participants
    ]
    run, _ = deployed(course, LocalLink(silos), tmp_path / "deployed")
    expected = run_course(course, tmp_path / "simulated")
    assert run.weights.digest == expected.weights.digest
    assert [entry.num_examples for entry in run.history] == [e.num_examples for e in expected.history]
    assert (tmp_path / "berlin" / "model.pt").is_file()
    assert (tmp_path / "delhi" / "model.weights.h5").is_file()
    assert (tmp_path / "delhi" / "model.safetensors").is_file()


def test_a_metric_of_the_users_own_is_the_simulations(
    digits: Path, tmp_path: Path, small: list[str], files_of: Callable[[Course], Path]
) -> None:
    """Sums cross the wire, and the server makes the figure: every silo has all validation examples, so that it is the same."""
    chosen = f"evaluation.best={Path(__file__).parents[1]}/metrics/own_metrics.py:Recall"
    course = load_course(digits / "course.yaml", [*small, TORCH[0], "participants={torch: 2}", chosen])
    data = files_of(course)
    silos = [Silo.from_course(course, p.name, data / f"{p.name}.npz") for p in course.participants]
    run, _ = deployed(course, LocalLink(silos), tmp_path / "deployed")
    expected = run_course(course, tmp_path / "simulated", in_process=True)
    assert run.weights.digest == expected.weights.digest
    for one, other in zip(run.history, expected.history, strict=True):
        assert one.metrics["Recall"] == pytest.approx(other.metrics["Recall"], abs=1e-12)
        assert 0 < one.metrics["Recall"] < 1
        assert one.best == other.best


def first(change: Callable[[np.ndarray[Any, Any]], Any]) -> Callable[[Message], Message]:
    def changed(answer: Message) -> Message:
        name = next(name for name, array in answer.arrays.items() if array.dtype.kind == "f")
        return replace(answer, arrays={**answer.arrays, name: change(answer.arrays[name].copy())})

    return changed


def spoilt(value: float) -> Callable[[np.ndarray[Any, Any]], Any]:
    def change(array: np.ndarray[Any, Any]) -> Any:
        array.reshape(-1)[-1] = value
        return array

    return change


Three: TypeAlias = tuple[Course, str, str]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Three:
    """A course of three silos of which two are enough, and a round's weights without the second silo and with all."""
    tmp_path = tmp_path_factory.mktemp("three")
    more = "deployment: {quorum: 2, round_timeout_s: 0.3}\n"
    course = write_course(tmp_path / "course", rounds=1, silos=3, more=more)
    silos = light(course)
    alone, _ = deployed(course, Altered(silos, silos[1].name, lambda _: None), tmp_path / "alone")
    everybody, _ = deployed(course, LocalLink(silos), tmp_path / "everybody")
    return course, alone.weights.digest, everybody.weights.digest


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (first(spoilt(np.nan)), "NaN or infinity"),
        (first(spoilt(np.inf)), "NaN or infinity"),
        (first(spoilt(1e30)), "too large for an exact sum"),
        (first(lambda array: array[:-1]), "expected float32"),
        (first(lambda array: array.astype(np.float64)), "received float64"),
        (first(lambda array: array.T if array.ndim > 1 else array[None]), "expected float32"),
        (lambda a: replace(a, arrays={**a.arrays, "extra": np.zeros(1, np.float32)}), "extra"),
        (lambda a: replace(a, arrays=dict(list(a.arrays.items())[1:])), "parameters differ"),
        (fields(num_examples=0), "whole number"),
        (fields(num_examples=-5), "whole number"),
        (fields(num_examples=True), "whole number"),
        (fields(num_examples=1e18), "whole number"),
        (fields(num_examples=10**9), "whole number"),
        (fields(num_examples=None), "whole number"),
        (fields(round=7), "of round 7, expected round 1"),
        (fields(run="another"), "of run 'another'"),
        (fields(silo="another"), "of silo 'another'"),
        (fields(base="another"), "of base 'another'"),
        (fields(before=[1]), "metrics"),
        (fields(metrics=[1, 2]), "metrics"),
        (fields(metrics={"loss": "x", "positions": 1}), "loss is a str, expected a number"),
        (lambda _: Message("hello"), "unexpected answer 'hello'"),
        (lambda _: None, "no answer within"),
    ],
)
def test_what_is_no_update_of_this_round_stays_out(
    change: Callable[[Message], Message | None], reason: str, three: Three, tmp_path: Path
) -> None:
    course, alone, everybody = three
    silos = light(course)
    name = silos[1].name
    run, events = deployed(course, Altered(silos, name, change), tmp_path / "run")
    (failed,) = (event for event in events if isinstance(event, ParticipantFailed))
    assert failed.name == name
    assert reason in failed.reason
    assert run.weights.digest == alone
    assert run.weights.digest != everybody


def test_fewer_updates_than_the_quorum_end_the_course(tmp_path: Path) -> None:
    more = "deployment: {quorum: 3, round_timeout_s: 0.3}\n"
    course = write_course(tmp_path / "course", rounds=2, silos=3, more=more)
    late = course.participants[0].name
    with pytest.raises(RunFailed, match=rf"(?s)2 updates, and the quorum is 3.*'{late}': no answer within"):
        deployed(course, Altered(light(course), late, lambda _: None), tmp_path / "run")


def test_what_a_silo_raises_is_said_in_a_line_and_shown_where_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The traceback is of the silo's machine, and stays there."""
    course = write_course(tmp_path / "course", rounds=1, silos=3)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("in /home/someone/patients of \x1b[2Jthis silo:\nrow 7")

    with pytest.raises(RunFailed) as caught:
        deployed(course, LocalLink(light(course, train_alone=broken)), tmp_path / "run")
    reason = r"ZeroDivisionError: in …/patients of \x1b[2Jthis silo: row 7"
    assert caught.value.message.splitlines()[1:] == [f"  silo {course.participants[0].name!r}: {reason}"]
    assert "Traceback" in caplog.text
    assert "in broken" in caplog.text
    assert "\x1b" not in caplog.text


def test_evaluation_travels_with_training(tmp_path: Path) -> None:
    """Every round's weights are evaluated once, by all; only the last need a message for it, which asks for the test set too."""
    course = write_course(tmp_path / "course", rounds=4, silos=3)
    asked: list[str] = []

    class Counted(Passing):
        def send(self, frames: Mapping[str, bytes]) -> None:
            asked.extend(Message.from_bytes(frame, "the server").kind for frame in frames.values())
            super().send(frames)

    run, events = deployed(course, Counted(light(course)), tmp_path / "run")
    assert [asked.count(kind) for kind in ("train", "evaluate")] == [4 * 3, 3]
    finished = [event for event in events if isinstance(event, RoundFinished)]
    assert [event.round for event in finished] == [1, 2, 3, 4]
    # The light learner's loss is a function of the weights: those of the right round were evaluated.
    bias = load_weights(tmp_path / "run" / "last.safetensors")["dense.bias"]
    assert finished[-1].loss == pytest.approx(float(np.abs(bias).sum()) / 20, rel=1e-6)
    assert len({event.loss for event in finished}) == 4
    best = min(finished, key=lambda event: event.loss)
    bias = load_weights(tmp_path / "run" / "best.safetensors")["dense.bias"]
    assert best.loss == pytest.approx(float(np.abs(bias).sum()) / 20, rel=1e-6)
    assert run.result is not None
    assert run.result.best_round == best.round


def test_the_first_answers_of_more_silos_than_needed(tmp_path: Path) -> None:
    """Over-selection: four are asked, and the two that answer make the round."""
    more = "deployment: {over_selection: 2.0, round_timeout_s: 5}\n"
    course = write_course(tmp_path / "course", rounds=3, silos=4, more=more, federate="cohort: 2, ")
    slow = {course.participants[0].name, course.participants[2].name}

    class Slow(Passing):
        def replies(self) -> Iterator[Reply]:
            for reply in super().replies():
                kind = Message.from_bytes(reply.frame, reply.name).kind
                if kind != "trained" or reply.name not in slow:
                    yield reply

    began = time.monotonic()
    _, events = deployed(course, Slow(light(course)), tmp_path / "run")
    collected = [event for event in events if isinstance(event, RoundCollected)]
    assert all(set(event.accepted).isdisjoint(slow) and len(event.accepted) == 2 for event in collected)
    assert all(event.missing == () for event in collected)
    assert time.monotonic() - began < 10


def test_a_silo_without_its_data(digits: Path, tmp_path: Path, small: list[str]) -> None:
    course = load_course(digits / "course.yaml", small)
    with pytest.raises(FileError, match=r"berlin: no such file: .*berlin\.npz"):
        Silo.from_course(course, "berlin", tmp_path / "berlin.npz")
    with pytest.raises(ConfigError, match="no participant 'oslo'"):
        Silo.from_course(course, "oslo")


@pytest.mark.parametrize(
    ("payload", "share", "distance"),
    [
        pytest.param("bfloat16", 0.51, 1e-4, marks=pytest.mark.slow),
        pytest.param("float16", 0.51, 1e-5, marks=pytest.mark.slow),
        ("int8", 0.27, 1e-3),
        ("top-k", 0.22, 0.06),
    ],
)
def test_smaller_payloads(payload: str, share: float, distance: float, tmp_path: Path) -> None:
    """What silos send is smaller by what the encoding says, and the course ends near the one that sent every bit."""
    found = {}
    for kind in ("float32", payload):
        more = f"deployment: {{payload: {kind}, top_k_share: 0.1}}\n"
        course = write_course(tmp_path / kind, rounds=12, silos=3, size="400x100", more=more)
        learners = {p.name: Linear(p.name, course) for p in course.participants}
        silos = [Silo(course, n, learner, out=tmp_path / kind / n) for n, learner in learners.items()]
        run, events = deployed(course, LocalLink(silos), tmp_path / kind / "run")
        collected = [event for event in events if isinstance(event, RoundCollected)]
        found[kind] = (run.weights, collected[-1].received_bytes, collected[-1].sent_bytes)
    assert found[payload][1] / found["float32"][1] < share
    assert found[payload][2] == found["float32"][2]
    assert 0 < found[payload][0].relative_distance(found["float32"][0]) < distance


def test_the_order_of_arrival(tmp_path: Path) -> None:
    """Exact sums have the same bits in any order; float32 ones agree within rounding."""

    class Backwards(Passing):
        def replies(self) -> Iterator[Reply]:
            return reversed(list(super().replies()))

    for precision in ("exact", "float32"):
        course = write_course(tmp_path / precision, rounds=5, silos=6, precision=precision)
        first, _ = deployed(course, Passing(light(course)), tmp_path / precision / "first")
        second, _ = deployed(course, Backwards(light(course)), tmp_path / precision / "second")
        if precision == "exact":
            assert first.weights.digest == second.weights.digest
        assert first.weights.relative_distance(second.weights) < 1e-6


def test_an_answer_that_is_too_long(tmp_path: Path) -> None:
    """Longer than twice the model: refused before it is decoded, and the course goes on without it."""
    more = "deployment: {quorum: 2, round_timeout_s: 5}\n"
    course = write_course(tmp_path / "course", rounds=1, silos=3, size="400x1000", more=more)
    silos = light(course)
    bloated = Altered(
        silos, silos[1].name, lambda a: replace(a, arrays={**a.arrays, "x": np.zeros(3 << 18, np.float32)})
    )
    _, events = deployed(course, bloated, tmp_path / "run")
    (failed,) = (event for event in events if isinstance(event, ParticipantFailed))
    assert failed.name == silos[1].name
    assert "and no answer has more than 4,2" in failed.reason
