"""A cohort on the device does what the plain loop does, one participant after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import xbfl_torch
from xbackend_fl.adapter import OPTIMIZERS, Batch, ClientWork, CohortTrainer, Scaling, TrainConfig
from xbackend_fl.adapter.cohort import CohortResult
from xbackend_fl.errors import AdapterError, RunFailed
from xbfl_torch import cohort
from xbfl_torch.replicas import chosen
from xbfl_torch.stacked.cohorts import Lockstep
from xbfl_torch.trainer import TorchTrainer

EXAMPLE = (np.zeros((1, 1, 8, 8), np.float32),)
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (90, 1, 8, 8), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 4, 90)
SCALING = Scaling(1 / 64, -2.0)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def normalised() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 4),
    )


def opened(
    build: Callable[[], nn.Module] = normalised, device: str = "cpu", replicas: int | None = 2
) -> TorchTrainer:
    torch.manual_seed(0)
    trainer = xbfl_torch.adapter.load_model(build(), EXAMPLE)
    trainer.to_device(device, replicas)
    trainer.load_data((IMAGES,), LABELS, SCALING)
    return trainer


def clients(count: int = 5) -> list[ClientWork]:
    """Participants of several sizes, each with a short last batch."""
    found = []
    for index in range(count):
        rows = np.random.default_rng(index).permutation(90)[: 11 + 3 * index]
        found.append(ClientWork(tuple(rows[i : i + 8] for i in range(0, len(rows), 8)), len(rows)))
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize(("clip", "ignored"), [(None, None), (0.3, None), (0.3, 2)])
def test_the_same_as_one_by_one(device: str, replicas: int, clip: float | None, ignored: int | None) -> None:
    config = TrainConfig(OPTIMIZERS["sgd"](lr=0.1, weight_decay=0.01), clip_norm=clip, ignore_index=ignored)
    trainer = opened(device=device, replicas=replicas)
    assert isinstance(trainer, CohortTrainer)
    assert trainer.supports(config)
    shared = trainer.description.binding.owners
    start = {name: array for name, array in trainer.read().items() if name in shared}
    result = trainer.train_cohort(start, clients(), config)
    found = {name: array.copy() for name, array in result.sums.items()}
    plain = opened()
    sums = {name: np.zeros(array.shape) for name, array in start.items()}
    for part, loss in zip(clients(), result.losses, strict=True):
        plain.reset(0)
        plain.write(start)
        pixels = [IMAGES[rows].astype(np.float32) * SCALING.factor + SCALING.offset for rows in part.batches]
        batches = [
            Batch((x.astype(np.float32),), LABELS[rows]) for x, rows in zip(pixels, part.batches, strict=True)
        ]
        expected = plain.train(batches, config)
        assert loss.mean == pytest.approx(expected.mean, rel=1e-5)
        assert loss.positions == expected.positions
        for name, array in plain.read().items():
            if name in sums:
                sums[name] += part.num_examples * (array.astype(np.float64) - start[name])
    assert result.accepted == (True,) * 5
    for name, expected_sum in sums.items():
        scale = np.abs(expected_sum).max()
        np.testing.assert_allclose(found[name], expected_sum, atol=2e-5 * scale, err_msg=name)
        assert scale > 0
    again = trainer.train_cohort(start, clients(), config)
    for name in sums:
        np.testing.assert_array_equal(again.sums[name], found[name], err_msg="a cohort leaves a trace")


def test_a_device_that_is_too_small(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fewer copies of the model, and the same result; with one copy, a refusal that says what was tried."""
    config, room, tried = TrainConfig(OPTIMIZERS["sgd"](lr=0.1)), 2, []
    train = cohort.train

    def limited(replicas: Sequence[cohort.Replica], *rest: Any) -> CohortResult:
        tried.append(len(replicas))
        if len(replicas) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train(replicas, *rest)

    trainer = opened(replicas=4)
    start = {n: a for n, a in trainer.read().items() if n in trainer.description.binding.owners}
    monkeypatch.setattr(cohort, "train", limited)
    small = {n: a.copy() for n, a in trainer.train_cohort(start, clients(), config).sums.items()}
    assert tried == [4, 2]
    assert "4 copies of the model with their steps do not fit" in caplog.text
    for name, array in opened(replicas=2).train_cohort(start, clients(), config).sums.items():
        np.testing.assert_array_equal(small[name], array)
    room = 0
    with pytest.raises(RunFailed, match=r"1 copy of the model .* do not fit") as caught:
        opened(replicas=4).train_cohort(start, clients(), config)
    assert "training.batch_size" in str(caught.value.hint)


@pytest.mark.parametrize("device", DEVICES)
def test_the_number_of_replicas_is_measured_once(device: str) -> None:
    config = TrainConfig(OPTIMIZERS["sgd"](lr=0.1))
    trainer = opened(device=device, replicas=None)
    start = {n: a for n, a in trainer.read().items() if n in trainer.description.binding.owners}
    first = trainer.train_cohort(start, clients(), config)
    (note,) = first.notes
    found = re.match(r"(\d+) replicas train side by side, by a cohort's time \(1: \d+ ms, 2: \d+ ms", note)
    assert found is not None, note
    sums = {n: a.copy() for n, a in first.sums.items()}
    again = trainer.train_cohort(start, clients(), config)
    assert again.notes == ()
    told = opened(device=device, replicas=int(found[1])).train_cohort(start, clients(), config)
    for name, array in sums.items():
        np.testing.assert_array_equal(again.sums[name], array)
        np.testing.assert_array_equal(told.sums[name], array)


def test_measuring_stops_where_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    train = cohort.train

    def limited(replicas: Sequence[cohort.Replica], *rest: Any) -> CohortResult:
        if len(replicas) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train(replicas, *rest)

    monkeypatch.setattr(cohort, "train", limited)
    trainer = opened(replicas=None)
    start = {n: a for n, a in trainer.read().items() if n in trainer.description.binding.owners}
    (note,) = trainer.train_cohort(start, clients(), TrainConfig(OPTIMIZERS["sgd"](lr=0.1))).notes
    assert note.startswith("1 replicas train")
    assert note.endswith("; more do not fit)")


@pytest.mark.parametrize(
    ("seconds", "pick"),
    [
        ({}, 1),
        ({1: 2.0}, 1),
        ({1: 225, 2: 160, 4: 118, 8: 97, 16: 92, 32: 92}, 16),
        ({1: 100, 2: 98}, 1),
        ({1: 100, 2: 120}, 1),
    ],
)
def test_more_replicas_must_be_worth_their_memory(seconds: dict[int, float], pick: int) -> None:
    assert chosen(seconds) == pick


@pytest.mark.parametrize("device", DEVICES)
def test_an_update_that_is_not_finite_stays_out(device: str) -> None:
    config = TrainConfig(OPTIMIZERS["sgd"](lr=0.1))
    trainer = opened(device=device)
    start = {n: a for n, a in trainer.read().items() if n in trainer.description.binding.owners}
    good = trainer.train_cohort(start, clients(1), config)
    images = IMAGES.astype(np.float32)
    images[89] = np.nan
    trainer.load_data((images,), LABELS, None)
    clean = np.arange(10)
    bad = ClientWork((np.array([89, 3]),), 2)
    both = trainer.train_cohort(start, [ClientWork((clean,), 10), bad], config)
    with_bad = {name: array.copy() for name, array in both.sums.items()}
    alone = trainer.train_cohort(start, [ClientWork((clean,), 10)], config)
    assert both.accepted == (True, False)
    assert good.accepted == (True,)
    for name in alone.sums:
        np.testing.assert_array_equal(with_bad[name], alone.sums[name])
        assert np.isfinite(with_bad[name]).all()


def test_replicas_after_a_cohort_in_lockstep() -> None:
    """Which lays the model's tensors elsewhere."""
    trainer, other = opened(), opened()
    assert trainer._data is not None
    lockstep = Lockstep(trainer._model, trainer._floats(), trainer._dense, trainer._data)
    start, config = trainer.read(), TrainConfig(OPTIMIZERS["sgd"](lr=0.1))
    for place in (None, lockstep, None):
        trainer._lockstep = place
        found, expected = (one.train_cohort(start, clients(), config).sums for one in (trainer, other))
        for name, sums in expected.items():
            np.testing.assert_allclose(found[name], sums, rtol=0, atol=1e-3)


def test_a_file_of_a_model_that_trained_a_cohort(tmp_path: Path) -> None:
    """Its tensors are views of one buffer; the file holds them and nothing else."""
    trainer = opened()
    start = {n: a for n, a in trainer.read().items() if n in trainer.description.binding.owners}
    trainer.train_cohort(start, clients(), TrainConfig(OPTIMIZERS["sgd"](lr=0.1)))
    saved = torch.load(trainer.save(tmp_path / "model"), weights_only=True)
    read = trainer.read()
    assert saved.keys() == read.keys()
    for name, tensor in saved.items():
        np.testing.assert_array_equal(tensor.numpy(), read[name])
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_what_must_be_trained_one_by_one() -> None:
    def dropping() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4))

    def off() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.0), nn.Linear(64, 4))

    sgd = OPTIMIZERS["sgd"](lr=0.1)
    wanted = {"1": {"ratio": 0.5}}
    assert not opened(off).supports(TrainConfig(sgd, attributes=wanted)), "the schema's rate counts"
    assert opened(off).supports(TrainConfig(sgd))
    assert not opened(dropping).supports(TrainConfig(sgd))
    assert opened(dropping).supports(TrainConfig(sgd, dropout=False))
    assert not opened().supports(TrainConfig(OPTIMIZERS["adam"]()))
    assert not xbfl_torch.adapter.load_model(normalised(), EXAMPLE).supports(TrainConfig(sgd))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(AdapterError, match="there is no CUDA device") as caught:
        opened(device="cuda")
    assert "federate.device" in str(caught.value.hint)
