"""A script that owns its main loop takes part: every round is its own, and whatever the script does, the course hears of it in a line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import onnx
import pytest

import xbackend_fl as xb
from tests.federation.local import LocalLink
from xbackend_fl.errors import ConfigError, RunFailed
from xbackend_fl.events import Event, Noted, ParticipantFailed, ParticipantTrained
from xbackend_fl.federation import DeploymentEngine, Dispatcher, Ledger, Silo
from xbackend_fl.participant import Task
from xbackend_fl.rounds import RunFolder, run_with
from xbackend_fl.weights import load_weights

FILES = {
    "net.py": """
        import torch
        from torch import nn

        def build():
            torch.manual_seed(1)
            return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
        """,
    "data.py": """
        import numpy as np

        def load():
            x = np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32)
            return {split: (x, x[:, :1] * 2) for split in ("train", "validation", "test")}
        """,
    "loop.py": """
        import torch

        def train(task):
            optimizer = torch.optim.SGD(task.model.parameters(), lr=task.lr)
            for inputs, targets in task.batches():
                optimizer.zero_grad()
                (((task.model(inputs) - targets) ** 2).mean() + task.penalty()).backward()
                optimizer.step()
            return {"num_examples": len(task.data[1]), "loss": 0.5}

        def fails(task):
            raise OSError(28, "the scanner is full")
        """,
    "course.yaml": """
        name: script
        rounds: 2
        models: {torch: net.py:build}
        input: ["1,4"]
        data: {source: data.py:load}
        participants: [{name: osaka, backend: torch}, {name: lyon, backend: torch}]
        training: {optimizer: {name: sgd, lr: 0.1}, batch_size: 8, loss: mean_squared_error}
        deployment: {join_timeout_s: 60, round_timeout_s: 60}
        """,
}
QUORUM = "deployment={quorum: 1, join_timeout_s: 60, round_timeout_s: 60}"


class Served:
    """A server in this process, the script's silo, and one with the built-in loop beside it; a transport for the script."""

    keys = None

    def __init__(self, course: xb.Course, folder: Path) -> None:
        self.course, self.folder = course, folder
        self.events: list[Event] = []
        self.error: BaseException | None = None
        # Opened one after the other: PyTorch traces one model at a time in a process.
        self._other = Silo.from_course(course, "lyon", out=folder / "lyon")
        self._thread: threading.Thread | None = None

    def connect(self, silo: Silo, patience_s: float, observer: Any, should_stop: Callable[[], bool]) -> None:
        """The server begins when the script's silo is there."""
        del patience_s, observer
        self._thread = threading.Thread(target=self._lead, args=(silo,))
        self._thread.start()
        while self._thread.is_alive() and not should_stop():
            time.sleep(0.01)

    def _lead(self, silo: Silo) -> None:
        folder = RunFolder.create(self.course, self.folder / "run")
        dispatcher = Dispatcher(LocalLink([silo, self._other]), grace_s=1.0)
        try:
            with closing(DeploymentEngine(self.course, dispatcher, Ledger(folder))) as engine:
                run_with(engine, self.course, folder, None, self.events.append)
        except BaseException as error:  # noqa: BLE001  looked at by the test
            self.error = error

    def script(self, model: Any) -> Any:
        out = self.folder / "osaka"
        return xb.federate(model, self.course, "osaka", transport=self, out=out, observer=lambda _: None)

    def end(self) -> None:
        if self._thread is not None:
            self._thread.join(60)
            assert not self._thread.is_alive()

    def failures(self) -> list[tuple[int, str, str]]:
        return [(e.round, e.name, e.reason) for e in self.events if isinstance(e, ParticipantFailed)]


@pytest.fixture
def room(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(dedent(text))
    return tmp_path


@pytest.fixture
def served(room: Path) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(*settings: str) -> Served:
        made.append(Served(xb.load_course(room / "course.yaml", settings), room))
        return made[-1]

    yield make
    for one in made:
        one.end()


def build(room: Path) -> Any:
    from xbackend_fl.locate import call

    return call("net.py:build", room)


def descend(model: Any, task: Task) -> None:
    """What the built-in loop does, in the script's own words."""
    import torch

    optimizer = torch.optim.SGD(model.parameters(), lr=task.lr)
    for inputs, targets in task.batches():
        optimizer.zero_grad()
        loss = ((model(inputs) - targets) ** 2).mean() + task.penalty()
        loss.backward()
        optimizer.step()


def test_a_script_that_trains_as_the_course_says_ends_with_the_course_s_weights(
    served: Callable[..., Served], room: Path
) -> None:
    course, model, seen = served(), build(room), []
    with course.script(model) as rounds:
        for task in rounds:
            assert task.model is model
            descend(model, task)
            rounds.report(16, loss=0.25)
            seen.append(task.round)
    course.end()
    assert course.error is None
    assert seen == [1, 2]
    alone = xb.run_course(course.course, room / "alone", in_process=True)
    found = load_weights(room / "run" / "last.safetensors")
    for name, array in alone.weights.items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)
    figures = [e.figures for e in course.events if isinstance(e, ParticipantTrained) and e.name == "osaka"]
    assert figures == [{"loss": 0.25}] * 2
    assert (room / "osaka" / "model.pt").is_file()


def test_weights_that_were_not_trained_are_said(served: Callable[..., Served], room: Path) -> None:
    course, model = served("rounds=1"), build(room)
    with course.script(model) as rounds:
        for _ in rounds:
            # A script trains on data of its own, whatever its part of the course's.
            rounds.report(1000)
    course.end()
    sizes = [e.num_examples for e in course.events if isinstance(e, ParticipantTrained) and e.name == "osaka"]
    assert sizes == [1000]
    notes = [event.note for event in course.events if isinstance(event, Noted) and event.backend == "osaka"]
    assert any("every weight is as it was before" in note for note in notes)


def test_a_round_without_a_report_is_skipped_and_the_others_go_on(
    served: Callable[..., Served], room: Path
) -> None:
    course, model = served(QUORUM), build(room)
    with course.script(model) as rounds:
        for task in rounds:
            if task.round == 1:
                continue
            descend(model, task)
            rounds.report(16)
    course.end()
    assert course.error is None
    ((number, name, reason),) = course.failures()
    assert (number, name) == (1, "osaka")
    assert "was skipped by its script in round 1: rounds.report(num_examples) was not called" in reason


def test_an_exception_in_the_block_is_the_script_s_and_the_course_goes_on(
    served: Callable[..., Served], room: Path
) -> None:
    course, model = served(QUORUM), build(room)

    def script() -> None:
        with course.script(model) as rounds:
            for _ in rounds:
                raise ZeroDivisionError("no batch left")

    with pytest.raises(ZeroDivisionError, match="no batch left"):
        script()
    course.end()
    assert course.error is None
    number, name, reason = course.failures()[0]
    assert (number, name) == (1, "osaka")
    assert "raised ZeroDivisionError" in reason
    assert "test_script.py:" in reason
    assert "no batch left" in reason
    assert "raise ZeroDivisionError" in (room / "osaka" / "failures" / "round-1.txt").read_text()


def test_whoever_leaves_the_loop_leaves_the_course(served: Callable[..., Served], room: Path) -> None:
    course, model = served(QUORUM), build(room)
    with course.script(model) as rounds:
        for task in rounds:
            descend(model, task)
            break
    course.end()
    assert course.error is None
    assert "has left the course in the middle of the round" in course.failures()[0][2]


def test_a_body_that_takes_too_long_has_left_the_course(served: Callable[..., Served], room: Path) -> None:
    course, model = served(QUORUM, "training.timeout_s=0.3"), build(room)

    def script() -> None:
        with course.script(model) as rounds:
            for _ in rounds:
                time.sleep(1.0)
                rounds.report(16)

    with pytest.raises(RunFailed, match=r"the round took longer than training\.timeout_s"):
        script()
    course.end()
    assert course.error is None
    assert "did not return within 0.3 s" in course.failures()[0][2]


def test_a_model_of_another_framework_is_refused_where_the_script_stands(room: Path) -> None:
    course = xb.load_course(room / "course.yaml")
    with (
        pytest.raises(
            ConfigError,
            match="the participant 'osaka' trains with 'torch', and the script's model is one of 'onnx'",
        ),
        xb.federate(onnx.ModelProto(), course, "osaka", out=room / "osaka"),
    ):
        pass


def test_only_rank_0_speaks(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with (
        pytest.raises(ConfigError, match="this is rank 1 of a distributed script"),
        xb.federate(build(room), room / "course.yaml", "osaka"),
    ):
        pass
