"""Participants of a course in lockstep give what they give one after the other, with an algorithm's rule in their steps too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.small_models import TORCH
from xbackend_fl.adapter.contract import Batch
from xbackend_fl.algorithms.kinds.scaffold import ScaffoldServer
from xbackend_fl.course import Course, load_course
from xbackend_fl.course.federate import merging
from xbackend_fl.data import cohort
from xbackend_fl.participant.client_states import ClientStates
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
    config = worker._training.config(train, worker._course.training)
    whole = worker._model.native_batch(Batch(arrays, objective.prepared(train.targets)), config)
    trainer.load_data(whole.inputs, whole.targets, None)
    assert trainer._data is not None
    trainer._lockstep = Lockstep(trainer._model, trainer._floats(), trainer._dense, trainer._data)

    worker._training.on_device = True


def opened(digits: Path, folder: Path, settings: list[str]) -> tuple[Course, Worker]:
    course = load_course(
        digits / "course.yaml",
        [TORCH, "participants={torch: 3}", "training.dropout=false", "training.steps=4", *settings],
    )
    worker = Worker(course, "torch", 1)
    worker.keep_states(ClientStates(folder, 1 << 20, 2))
    return course, worker


@pytest.mark.parametrize(
    "settings",
    [
        ["federate.algorithm=fedavg"],
        ["federate.algorithm={name: fedprox, mu: 0.7}"],
        [
            "federate.algorithm=scaffold",
            "training.optimizer={name: sgd, lr: 0.05}",
            "training.schedule=[{name: cosine, per: step, length: 40}]",
            "training.steps=null",
            "training.batch_size=150",
        ],
        ["federate.algorithm=fedbn", "training.optimizer={name: momentum, lr: 0.05}"],
        ["federate.local=[6.*]", "training.optimizer={name: sgd, lr: 0.05}"],
        ["federate.aggregator=median"],
        ["federate.precision=float64"],
        ["training.schedule=[{name: cosine, per: step, length: 9}, {name: exponential, gamma: 0.5}]"],
    ],
    ids=lambda settings: settings[0],
)
def test_the_same_rounds(digits: Path, tmp_path: Path, settings: list[str]) -> None:
    """Two of them, with what the algorithm sends and what participants keep in between."""
    seen: dict[str, list[Mapping[str, np.ndarray]]] = {"device": [], "processor": []}
    for side, rounds in seen.items():
        course, worker = opened(digits, tmp_path / side, settings)
        if side == "device":
            let_stack(worker)
        names, weights = [participant.name for participant in course.participants], worker.initial()
        server = course.federate.algorithm.server(course.federate.server, len(names))
        state = server.init(weights)
        for number in (1, 2):
            sent = server.vectors(weights, state) if isinstance(server, ScaffoldServer) else {}
            partial = worker.train_round(number, weights, names, sent)
            assert not partial.failed
            mean = merging(course.federate, weights, sent, folder=tmp_path / side / f"merged{number}")
            mean.absorb(partial.partial)
            weights, state = server.apply(weights, mean.result(), state)
            rounds.extend([weights, *(worker._training.kept(name, number + 1) for name in names)])
        if side == "device":
            assert worker._trainer._lockstep._wave is not None  # type: ignore[attr-defined]
    for one, other in zip(*seen.values(), strict=True):
        assert one.keys() == other.keys()
        for name, array in other.items():
            np.testing.assert_allclose(
                one[name], array, rtol=0, atol=1e-5 * max(1.0, np.abs(array).max()), err_msg=name
            )


def test_the_next_round_is_put_in_order_while_the_device_computes(digits: Path, tmp_path: Path) -> None:
    """The examples are those that it would have seen, and who was not drawn is looked up as always."""
    course, worker = opened(digits, tmp_path, ["federate.cohort=2"])
    let_stack(worker)
    names, weights = [participant.name for participant in course.participants], worker.initial()
    chosen = cohort(names, 2, course.seed, "cohort", 1), cohort(names, 2, course.seed, "cohort", 2)
    worker.train_round(1, weights, chosen[0], {})
    side, asked = worker._training._side_by_side, []
    assert side is not None
    order = side._order
    side._order = lambda number, name: asked.append(name) or order(number, name)
    found = side._work(2, chosen[1])
    assert found is not None
    assert not asked
    for name, work in zip(chosen[1], found, strict=True):
        fresh = side._work_of(2, name)
        assert work.seed == fresh.seed
        for one, other in zip(work.batches, fresh.batches, strict=True):
            np.testing.assert_array_equal(one, other)
    asked.clear()
    side._work(2, names)
    assert asked == [name for name in names if name not in chosen[1]]
