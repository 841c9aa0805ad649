"""Several GPUs, as far as a processor can show them: who trains where, and what is said of a card that is not there."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import hypergeom

from tests import small_models
from xbackend_fl import load_course, run_course
from xbackend_fl.adapter.scheduling import largest_share
from xbackend_fl.course import Course
from xbackend_fl.course.training import Training
from xbackend_fl.data import batches
from xbackend_fl.errors import AdapterError, ConfigError, WorkerDied
from xbackend_fl.events import Event, Noted, ParticipantFailed
from xbackend_fl.participant import Worker
from xbackend_fl.simulation import engine
from xbackend_fl.simulation.balance import Balance, usual_share
from xbackend_fl.simulation.calls import Pending, collect, settle
from xbackend_fl.simulation.placement import choose_placement
from xbackend_fl.simulation.shared_memory import SharedValues
from xbackend_fl.simulation.workers import ProcessWorker

TORCH = [
    "rounds=1",
    "training.steps=2",
    small_models.TORCH,
    *(f"participants.{i}.backend=torch" for i in range(6)),
]
OTHER = "MIG-8932f937-d72c-4106-c12f-20bd9faed9f6"


@pytest.fixture
def two_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).touch()
    monkeypatch.setattr("xbackend_fl.simulation.placement._DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of workers: sums inside a layer depend on how many threads share them."""
    monkeypatch.setattr("xbackend_fl.simulation.engine.os.cpu_count", lambda: 1)


def gpus(digits: Path, *settings: str) -> tuple[str, ...]:
    return choose_placement(load_course(digits / "course.yaml", settings), 8).gpus


@pytest.mark.usefixtures("two_cards")
def test_workers_and_cards(digits: Path) -> None:
    assert gpus(digits) == ("0", "1")
    assert gpus(digits, "federate.workers=1") == ("0",)
    assert gpus(digits, "federate.workers=5") == ("0", "1", "0", "1", "0"), "in turn"
    assert gpus(digits, "federate.cohort=1") == ("0",), "a second worker would have nobody"
    assert gpus(digits, "federate.device=cpu", "federate.workers=5") == ()


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("1", ("1",)),
        ("1, 0", ("1", "0")),
        ("GPU-8932f937,1", ("GPU-8932f937", "1")),
        (f"MIG-1,MIG-2,{OTHER}", ("MIG-1", "MIG-2", OTHER)),  # parts of a card: more than there are cards
        ("0,0", ("0", "0")),
        ("1,-1,0", ("1",)),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
    ],
)
def test_what_the_environment_names(
    digits: Path, monkeypatch: pytest.MonkeyPatch, visible: str, found: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus(digits) == found
    if not found:
        with pytest.raises(ConfigError, match=r"federate\.device is cuda") as caught:
            gpus(digits, "federate.device=cuda")
        assert caught.value.hint == "CUDA_VISIBLE_DEVICES=0,1, or federate.device: cpu"


@pytest.mark.usefixtures("two_cards")
def test_a_card_that_is_not_there(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,7")
    course = load_course(digits / "course.yaml")
    with pytest.raises(ConfigError, match="there is no GPU 7: this machine has 2, counted from 0"):
        run_course(course, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert gpus(digits, "federate.device=cpu") == ()


def notes_of(course: Course, place: Path) -> list[str]:
    events: list[Event] = []
    run_course(course, place, observer=events.append, in_process=True)
    return [event.note for event in events if isinstance(event, Noted)]


@pytest.mark.usefixtures("two_cards")
def test_cards_that_a_framework_cannot_use(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them: models train on the processor, which is said. One of them: that is a mistake."""
    course = load_course(digits / "course.yaml", [*TORCH, "federate.workers=2"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", OTHER)
    (said,) = [note for note in notes_of(course, tmp_path / "none") if "processor" in note]
    assert said.startswith("models train on the processor: there is no CUDA device 0 for PyTorch")
    assert said.endswith(f"which sees 0 (CUDA_VISIBLE_DEVICES is {OTHER})")

    asked = itertools.count()
    to_device = Worker.to_device

    def second_is_missing(self: Worker, _: str, replicas: int | None, share: int) -> bool:
        return to_device(self, "cuda" if next(asked) == 1 else "cpu", replicas, share)

    monkeypatch.setattr(Worker, "to_device", second_is_missing)
    with pytest.raises(AdapterError, match="there is no CUDA device 0"):
        run_course(course, tmp_path / "one", in_process=True)


def test_a_worker_that_died_says_on_which_card() -> None:
    worker = ProcessWorker(None, "torch", 1, "1", SharedValues())  # type: ignore[arg-type]
    os.kill(worker._process.pid or 0, signal.SIGKILL)
    with pytest.raises(WorkerDied, match=r"the torch worker \(process \d+, GPU 1\) ended with SIGKILL"):
        collect([worker.submit(Worker.version)])
    worker.close()


@pytest.mark.parametrize("steps", [None, 3, 7, 20])
@pytest.mark.parametrize("size", [1, 31, 32, 33, 100])
def test_steps_and_examples_are_those_of_the_batches(steps: int | None, size: int) -> None:
    training = Training(batch_size=32, epochs=2, steps=steps)
    drawn = list(batches(size, 32, 2, steps, 0))
    assert training.num_steps(size) == len(drawn)
    assert training.num_seen(size) == sum(map(len, drawn))


def test_work_is_what_a_participant_does(digits: Path) -> None:
    """Not the examples that it has: with a number of steps all have the same to do, and one with more epochs has more."""
    course = load_course(
        digits / "course.yaml",
        [*TORCH, "training.batch_size=10", "training.steps=null", "participants.5.training={epochs: 4}"],
    )
    names = [participant.name for participant in course.participants]
    sizes = dict(zip(names, [40, 41, 42, 43, 44, 45], strict=True))
    shares = Balance(course, sizes, ()).assign(names, {"torch": 2})
    assert [*shares.values()] == [names[5:], names[4::-1]], "180 and 210 examples"
    same = load_course(digits / "course.yaml", TORCH)
    lockstep = Balance(same, dict(zip(names, [9, 400, 41, 4000, 5, 77], strict=True)), {"torch"})
    assert [*map(len, lockstep.assign(names, {"torch": 2}).values())] == [3, 3]
    assert lockstep.assign(names[:1], {"torch": 3}) == {("torch", 0): names[:1]}


@pytest.mark.parametrize(("cohort", "mine", "everybody"), [(40, 100, 200), (40, 13, 200), (10, 7, 12)])
def test_a_usual_share_is_seldom_too_small(digits: Path, cohort: int, mine: int, everybody: int) -> None:
    course = load_course(
        digits / "course.yaml",
        [f"participants={{torch: {mine}, tensorflow: {everybody - mine}}}", f"federate.cohort={cohort}"],
    )
    usual = usual_share(course, "torch", 1)
    assert hypergeom.sf(usual, everybody, mine, cohort) < 0.005
    assert usual <= min(cohort, mine)
    assert usual_share(course, "torch", 3) == largest_share(usual, 3)
    alone = load_course(
        digits / "course.yaml", [f"participants={{torch: {everybody}}}", f"federate.cohort={cohort}"]
    )
    assert usual_share(alone, "torch", 1) == cohort


def test_more_workers_than_participants(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_thread(monkeypatch)
    settings = [*TORCH, "rounds=2", "federate.cohort=2", "federate.precision=exact", "training.dropout=false"]
    found = []
    for workers in (1, 3):
        course = load_course(digits / "course.yaml", [*settings, f"federate.workers={workers}"])
        found.append(run_course(course, tmp_path / str(workers), in_process=True).weights.digest)
    assert found[0] == found[1]


def test_the_mean_does_not_depend_on_who_is_done_first(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = load_course(digits / "course.yaml", [*TORCH, "rounds=2", "federate.workers=3"])
    forward = run_course(course, tmp_path / "forward", in_process=True).weights

    def backward(pending: Iterable[Pending[Any]], *more: Any) -> None:
        settle([*pending][::-1], *more)

    monkeypatch.setattr(engine, "settle", backward)
    assert run_course(course, tmp_path / "backward", in_process=True).weights.digest == forward.digest


def test_an_update_that_is_refused_at_one_of_two_workers(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others' mean is that of one worker, whoever was with the one that is left out."""
    one_thread(monkeypatch)
    poison = tmp_path / "poison.py"
    poison.write_text(
        "import numpy as np\nfrom sklearn.datasets import load_digits\n\n"
        "def load():\n    digits = load_digits()\n    images = (digits.images[:64, None] / 16).astype(np.float32)\n"
        "    images[40, 0, 3, 3] = 3e38\n    return images, digits.target[:64]\n"
    )
    found = []
    for workers in (1, 2):
        events: list[Event] = []
        course = load_course(
            digits / "course.yaml",
            [
                *TORCH,
                f"participants.4.data={poison}:load",
                "training.steps=4",
                f"federate.workers={workers}",
                "federate.on_failure=continue",
                "federate.precision=exact",
                "training.dropout=false",
            ],
        )
        done = run_course(course, tmp_path / str(workers), observer=events.append, in_process=True)
        assert [event.name for event in events if isinstance(event, ParticipantFailed)] == ["edinburgh"]
        found.append(done.weights)
    assert found[0].digest == found[1].digest
    assert all(np.isfinite(array).all() for array in found[0].values())
