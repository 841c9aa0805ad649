"""A course of Python objects is the course of the same functions in files, with workers and without."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import xbackend_fl as xb
from tests.simulation.conftest import Make
from xbackend_fl.errors import ConfigError, RefusedInput
from xbackend_fl.locate import call


@pytest.mark.slow
def test_objects_train_as_files_do(small: Make, tmp_path: Path) -> None:
    plain = small()
    expected = xb.run_course(plain, tmp_path / "files", in_process=True)
    builders = {backend: call_later(model.build, plain.base) for backend, model in plain.models.items()}
    data = {**dict(plain.data), "source": call(plain.data.source, plain.base)}
    written = xb.Course(**{**dict(plain), "models": builders, "data": data})
    received = xb.run_course(written, tmp_path / "objects", in_process=True)
    assert received.weights.digest == expected.weights.digest


def test_workers_have_the_objects_too(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)

    def some(count: int) -> tuple[Any, Any]:
        inputs = generator.standard_normal((count, 4), np.float32)
        return inputs, inputs[:, :3].argmax(1)

    def train(task: xb.Task) -> int:
        optimizer = torch.optim.SGD(task.model.parameters(), 0.1)
        inputs, targets = task.data
        torch.nn.functional.cross_entropy(task.model(torch.tensor(inputs)), torch.tensor(targets)).backward()
        optimizer.step()
        return len(targets)

    people = [xb.Participant("osaka", "torch", data=some(12), train=train), xb.Participant("lyon", "torch")]
    keys = {
        "name": "written",
        "federate": {"workers": 1},
        "models": {"torch": lambda: torch.nn.Sequential(torch.nn.Linear(4, 3))},
        "input": ["1,4"],
        "data": {"train": some(20), "validation": some(20), "test": some(20)},
        "participants": people,
    }
    place = tmp_path / "run"
    run = xb.run_course(xb.Course(**keys, rounds=2), place)
    assert run.history[-1].metrics["loss"] < run.history[0].metrics["loss"]
    with pytest.raises(RefusedInput, match="object of Python"):
        xb.resume_run(place, ["rounds=3"], in_process=True)
    longer = xb.Course(**keys, rounds=3)
    with pytest.raises(ConfigError, match="overrides"):
        xb.resume_run(place, ["rounds=3"], course=longer)
    parts = {split: some(20) for split in ("train", "validation", "test")}
    others = xb.Course(**{**keys, "data": parts}, rounds=3)
    with pytest.raises(RefusedInput, match="data"):
        xb.resume_run(place, course=others, in_process=True)
    assert len(xb.resume_run(place, course=longer, in_process=True).history) == 3


def test_what_a_class_has_made_callable_is_called(tmp_path: Path) -> None:
    """An object with ``__call__`` gives the bits of a function, as a loop and for batches."""

    class Halves:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def __call__(self, inputs: Any, targets: Any, _: np.random.Generator) -> tuple[Any, Any]:
            return (inputs * self.factor).astype(np.float32), targets

    class Steps:
        def __init__(self, lr: float) -> None:
            self.lr = lr

        def __call__(self, task: xb.Task) -> int:
            optimizer = torch.optim.SGD(task.model.parameters(), self.lr)
            for inputs, targets in task.batches():
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(task.model(inputs), targets).backward()
                optimizer.step()
            return len(task.data[1])

    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((20, 4), np.float32)
    examples = inputs, inputs[:, :3].argmax(1)
    halves, steps = Halves(0.5), Steps(0.1)

    def digest(name: str, transform: Any, train: Any, *, in_process: bool) -> str:
        course = xb.Course(
            name="written",
            rounds=2,
            models={"torch": torch.nn.Sequential(torch.nn.Linear(4, 3))},
            input=["1,4"],
            data={
                "source": {"train": examples, "validation": examples, "test": examples},
                "transform": transform,
            },
            participants=[xb.Participant("osaka", "torch", train=train)],
        )
        return xb.run_course(course, tmp_path / name, in_process=in_process).weights.digest

    torch.manual_seed(0)
    expected = digest("methods", halves.__call__, steps.__call__, in_process=True)
    torch.manual_seed(0)
    assert digest("objects", halves, steps, in_process=True) == expected
    torch.manual_seed(0)
    assert digest("workers", halves, steps, in_process=False) == expected


def call_later(text: str, base: Path) -> Callable[[], Any]:
    """A function that no module has."""
    return lambda: call(text, base)


@pytest.mark.parametrize("in_process", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["function", "name", "backend", "output"])
def test_a_loss_of_the_script(form: str, tmp_path: Path, *, in_process: bool) -> None:
    generator = np.random.default_rng(0)

    def some(count: int) -> tuple[Any, Any]:
        inputs = generator.standard_normal((count, 4), np.float32)
        targets = inputs[:, :1] - inputs[:, 1:2]
        return inputs, {"y": targets} if form == "output" else targets

    def squared(outputs: Any, targets: Any, ops: Any) -> Any:  # noqa: ARG001  as losses are called
        return (outputs - targets) * (outputs - targets)

    def by_torch(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.square(outputs - targets).mean()

    losses = {
        "function": squared,
        "name": {"name": squared},
        "backend": {"torch": by_torch},
        "output": squared,
    }
    data = {"train": some(24), "validation": some(8), "test": some(8)}

    def last(loss: Any, place: str) -> float:
        course = xb.Course(
            name="written",
            rounds=2,
            models={"torch": lambda: torch.nn.Sequential(torch.nn.Linear(4, 1))},
            input=["1,4"],
            data=data,
            participants=[xb.Participant("osaka", "torch")],
            training={"outputs": {"y": {"loss": loss, "output": 0}}} if form == "output" else {"loss": loss},
        )
        return xb.run_course(course, tmp_path / place, in_process=in_process).history[-1].metrics["loss"]

    assert last(losses[form], "own") == pytest.approx(last("mean_squared_error", "known"), rel=1e-5)


@pytest.mark.slow
def test_what_no_process_can_be_sent_trains_in_this_one(tmp_path: Path) -> None:
    """A data set of TensorFlow's and an open HDF5 file give the bits of arrays; with workers they are refused, and functions are the cure."""
    inputs = np.random.default_rng(0).standard_normal((24, 4), np.float32)
    targets = inputs[:, :3].argmax(1)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = inputs

    def course(data: Any) -> xb.Course:
        parts = (inputs, targets)
        return xb.Course(
            name="sent",
            rounds=1,
            models={"torch": build},
            input=["1,4"],
            data={"train": parts, "validation": parts, "test": parts},
            participants=[xb.Participant("osaka", "torch", data=data)],
            training={"batch_size": 8},
        )

    def trained(data: Any, name: str, *, in_process: bool = True) -> str:
        return xb.run_course(course(data), tmp_path / name, in_process=in_process).weights.digest

    def from_tensorflow() -> Any:
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(8)

    def from_hdf5() -> Any:
        return h5py.File(tmp_path / "x.h5")["x"], targets

    assert trained(from_hdf5(), "hdf5") == trained((inputs, targets), "arrays")
    assert trained(from_tensorflow(), "tensorflow") == trained(from_tensorflow, "function")
    for number, data in enumerate((from_hdf5(), from_tensorflow())):
        with pytest.raises(
            ConfigError,
            match=r"osaka\.data: workers are processes .*, and a (Dataset|_BatchDataset) cannot be sent",
        ) as caught:
            trained(data, f"refused_{number}", in_process=False)
        assert "data=load; or in_process=True" in str(caught.value.hint)
    assert trained(from_hdf5, "made_there", in_process=False) == trained(from_hdf5, "made_here")
    with pytest.raises(ConfigError, match="can be gone through once"):
        trained((pair for pair in zip(inputs, targets, strict=True)), "generator")


class Locked(torch.nn.Linear):
    """A model that cannot be copied."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.lock = threading.Lock()


def test_a_model_that_cannot_be_copied_is_refused_and_its_class_trains(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).standard_normal((24, 4)).astype(np.float32)
    parts = dict.fromkeys(("train", "validation", "test"), (inputs, inputs[:, :3].argmax(1)))

    def trained(model: Any, name: str) -> int:
        people = [xb.Participant("osaka", "torch")]
        keys = {"models": {"torch": model}, "input": ["1,4"], "data": parts, "participants": people}
        course = xb.Course(name="locked", rounds=1, **keys)
        return len(xb.run_course(course, tmp_path / name, in_process=True).history)

    with pytest.raises(RefusedInput, match=r"models\.torch: every use gets a copy of its own") as caught:
        trained(Locked(), "object")
    assert "a class or a function" in str(caught.value.hint)
    assert trained(Locked, "class") == 1


def build() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3))
