"""Participants of a course in lockstep give what they give one after the other, with an algorithm's rule in their steps too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xbackend_fl.adapter.contract import Batch
from xbackend_fl.course import load_course
from xbackend_fl.participant.local_training import PartialSum
from xbackend_fl.participant.worker import Worker
from xbfl_torch.stacked.cohorts import Lockstep
from xbfl_torch.trainer import TorchTrainer


def let_stack(worker: Worker) -> None:
    """Hold the data as on a device, and train there in lockstep: on a processor, whose float32 is the same."""
    trainer, train = worker._trainer, worker._splits.train
    assert isinstance(trainer, TorchTrainer)
    objective = worker._feed.objective(train)
    inputs, _ = train.gather(np.arange(len(train)))
    arrays = tuple(array.astype(np.float32) for array in inputs)
    whole = worker._model.native_batch(
        Batch(arrays, objective.prepared(train.targets)), objective.class_axis or 1
    )
    trainer.load_data(whole.inputs, whole.targets, None)
    assert trainer._data is not None
    trainer._lockstep = Lockstep(trainer._model, trainer._floats(), trainer._dense, trainer._data)


@pytest.mark.parametrize("algorithm", ["fedavg", "{name: fedprox, mu: 0.7}"])
def test_the_same_sums(digits: Path, algorithm: str) -> None:
    course = load_course(
        digits / "course.yaml",
        [f"federate.algorithm={algorithm}", "participants={torch: 3}", "training.dropout=false"],
    )
    worker = Worker(course, "torch", 1)
    names, weights = [participant.name for participant in course.participants], worker.initial()

    def sums(partial: PartialSum) -> dict[str, np.ndarray]:
        assert not partial.failed
        return {name: array.copy() for name, array in partial.partial.sums["model"].arrays.items()}

    expected = sums(worker.train_round(1, weights, names, {}))
    let_stack(worker)
    found = sums(worker.train_round(1, weights, names, {}))
    assert worker._trainer._lockstep._wave is not None  # type: ignore[attr-defined]
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5 * max(1.0, np.abs(array).max()))
