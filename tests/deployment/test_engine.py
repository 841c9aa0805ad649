"""Silos do what the simulation does; what is not an update of this round does not enter the mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from xbackend_fl import Course, load_course, run_course
from xbackend_fl.deployment import DeploymentEngine, LocalLink, Message, Silo
from xbackend_fl.errors import ConfigError, FileError, MismatchError, RunFailed
from xbackend_fl.events import Event, ParticipantFailed
from xbackend_fl.server import RunFolder, run_with

ROOT = Path(__file__).resolve().parents[2]
TORCH = ["models={torch: torch_model.py:build}", "participants={torch: 3}"]


def deployed(course: Course, link: Any, out: Path) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    folder = RunFolder.create(course, out)
    return run_with(DeploymentEngine(course, link), course, folder, None, events.append), events


def test_a_deployed_course_ends_with_the_simulations_bits(
    digits: Path, tmp_path: Path, small: list[str], files_of: Callable[[Course], Path]
) -> None:
    """Three PyTorch and three TensorFlow silos, each with a file of its own."""
    course = load_course(digits / "course.yaml", small)
    data = files_of(course)
    silos = [Silo(course, p.name, data / f"{p.name}.npz", out=tmp_path / p.name) for p in course.participants]
    run, _ = deployed(course, LocalLink(silos), tmp_path / "deployed")
    expected = run_course(course, tmp_path / "simulated")
    assert run.weights.digest == expected.weights.digest
    assert [entry.num_examples for entry in run.history] == [e.num_examples for e in expected.history]
    assert (tmp_path / "berlin" / "model.pt").is_file()
    assert (tmp_path / "delhi" / "model.weights.h5").is_file()
    assert (tmp_path / "delhi" / "model.safetensors").is_file()


class Altered:
    """A link on which one silo's answers of one kind are changed on their way."""

    def __init__(self, silos: Sequence[Silo], name: str, change: Callable[[Message], Message | None]) -> None:
        self._link, self._name, self._change = LocalLink(silos), name, change

    def meet(self, names: Sequence[str], within_s: float) -> dict[str, Message]:
        return self._link.meet(names, within_s)

    def ask(self, requests: Mapping[str, Message], within_s: float) -> Iterator[tuple[str, Message]]:
        for name, answer in self._link.ask(requests, within_s):
            found = self._change(answer) if name == self._name and answer.kind == "trained" else answer
            if found is not None:
                yield name, found


def fields(**changes: Any) -> Callable[[Message], Message]:
    return lambda answer: replace(answer, fields={**answer.fields, **changes})


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


Three: TypeAlias = tuple[Course, list[Silo], str, str]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Three:
    """Three silos of which two are enough, and a round's weights without the second silo and with all."""
    settings = ["rounds=1", "training.steps=4", "federate.precision=exact", *TORCH, "deployment.quorum=2"]
    course = load_course(ROOT / "examples" / "digits" / "course.yaml", settings)
    silos = [Silo(course, p.name) for p in course.participants]
    folder = tmp_path_factory.mktemp("three")
    alone, _ = deployed(course, Altered(silos, silos[1].name, lambda _: None), folder / "alone")
    everybody, _ = deployed(course, LocalLink(silos), folder / "everybody")
    return course, silos, alone.weights.digest, everybody.weights.digest


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
        (fields(base="another"), "expected round 1"),
        (fields(metrics=[1, 2]), "metrics"),
        (fields(metrics={"loss_sum": "x", "correct": 1, "num_examples": 1}), "loss_sum"),
        (lambda _: Message("hello"), "unexpected answer 'hello'"),
        (lambda _: None, "no answer within"),
    ],
)
def test_what_is_no_update_of_this_round_stays_out(
    change: Callable[[Message], Message | None], reason: str, three: Three, tmp_path: Path
) -> None:
    course, silos, alone, everybody = three
    name = silos[1].name
    run, events = deployed(course, Altered(silos, name, change), tmp_path / "run")
    (failed,) = (event for event in events if isinstance(event, ParticipantFailed))
    assert failed.name == name
    assert reason in failed.reason
    assert run.weights.digest == alone
    assert run.weights.digest != everybody


def test_fewer_updates_than_the_quorum_end_the_course(digits: Path, tmp_path: Path, small: list[str]) -> None:
    settings = [*small, *TORCH, "deployment.quorum=3"]
    course = load_course(digits / "course.yaml", settings)
    silos = [Silo(course, p.name) for p in course.participants]
    late = course.participants[0].name
    with pytest.raises(RunFailed, match=rf"(?s)2 updates, and the quorum is 3.*'{late}': no answer within"):
        deployed(course, Altered(silos, late, lambda _: None), tmp_path / "run")


def test_a_silo_that_does_not_come_is_named(digits: Path, tmp_path: Path, small: list[str]) -> None:
    course = load_course(digits / "course.yaml", [*small, *TORCH])
    silos = [Silo(course, p.name) for p in course.participants[1:]]
    with pytest.raises(RunFailed, match=rf"2 of 3 silos came .*not there: {course.participants[0].name}"):
        deployed(course, LocalLink(silos), tmp_path / "run")


def test_another_model_is_refused_before_it_trains(digits: Path, tmp_path: Path, small: list[str]) -> None:
    other = tmp_path / "other.py"
    other.write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    course = load_course(digits / "course.yaml", [*small, *TORCH])
    theirs = load_course(digits / "course.yaml", [*small, f"models={{torch: {other}:build}}", TORCH[1]])
    names = [p.name for p in course.participants]
    silos = [Silo(course, names[0]), Silo(course, names[1]), Silo(theirs, names[2])]
    with pytest.raises(MismatchError, match=rf"silo '{names[2]}'"):
        deployed(course, LocalLink(silos), tmp_path / "run")


def test_what_a_silo_raises_is_shown(
    digits: Path, tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    course = load_course(digits / "course.yaml", [*small, *TORCH])
    silos = [Silo(course, p.name) for p in course.participants]

    def broken(*_: object) -> None:
        raise ZeroDivisionError("the disk of this silo")

    monkeypatch.setattr(silos[2]._worker, "train_alone", broken)
    with pytest.raises(RunFailed, match=r"(?s)Traceback.*the disk of this silo"):
        deployed(course, LocalLink(silos), tmp_path / "run")


def test_a_silo_without_its_data(digits: Path, tmp_path: Path, small: list[str]) -> None:
    course = load_course(digits / "course.yaml", small)
    with pytest.raises(FileError, match=r"berlin: no such file: .*berlin\.npz"):
        Silo(course, "berlin", tmp_path / "berlin.npz")
    with pytest.raises(ConfigError, match="no participant 'oslo'"):
        Silo(course, "oslo")
