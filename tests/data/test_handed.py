"""Data sets and loaders of the frameworks give what they give their own users; what cannot be relied on is said or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data as torch_data

from xbackend_fl.data import Dataset, Reading, content, is_steady, load_dataset
from xbackend_fl.data.handed import dataset_of
from xbackend_fl.errors import ConfigError

RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.standard_normal((50, 3, 4)).astype(np.float32), RNG.integers(0, 5, 50)
HOW = Reading(Path(), (np.zeros((1, 3, 4), np.float32),))


class Items:
    """Examples by number, changed at one of them, or at all."""

    def __init__(
        self,
        change: Callable[[Any, Any], Any] = lambda x, y: (x, y),
        *,
        at: int | None = 7,
        claimed: int = 50,
    ) -> None:
        self.change, self.at, self.claimed, self.asked = change, at, claimed, 0

    def __len__(self) -> int:
        return self.claimed

    def __getitem__(self, index: int) -> Any:
        if index >= 50:
            raise IndexError(index)
        self.asked += 1
        pair = (INPUTS[index], int(TARGETS[index]))
        return self.change(*pair) if self.at in {None, index} else pair


class Batches:
    """Batches of 16, of fewer examples the next time if they are told so."""

    def __init__(self, change: Callable[[Any, Any], Any] = lambda x, y: (x, y)) -> None:
        self.change, self.ends = change, 50

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, self.ends, 16):
            part = slice(start, min(start + 16, self.ends))
            pair = (INPUTS[part], TARGETS[part])
            yield self.change(*pair) if start == 32 else pair


def gathered(data: Dataset, rows: Any) -> bytes:
    return data.gather(np.asarray(rows, np.intp)).inputs[0].tobytes()


def tensors() -> torch_data.Dataset[Any]:
    return torch_data.TensorDataset(torch.from_numpy(INPUTS), torch.from_numpy(TARGETS))


@pytest.mark.parametrize(
    "source",
    [
        Items(),
        Items(lambda x, y: {"x": x, "label": y}, at=None),
        tensors(),
        torch_data.Subset(tensors(), range(50)),
    ],
)
def test_examples_by_number_are_the_arrays(source: Any) -> None:
    found, plain = dataset_of("data", source, HOW), dataset_of("data", (INPUTS, TARGETS), HOW)
    assert content(found.inputs[0]) == content(INPUTS)
    assert found.targets.tolist() == TARGETS.tolist()
    assert found.targets.dtype == np.int64
    part = np.array([9, 3, 3, 40])
    assert gathered(found.subset(part), [2, 0]) == gathered(plain.subset(part), [2, 0])
    assert is_steady(found.inputs[0])


def test_several_inputs_are_read_once() -> None:
    how = Reading(Path(), (np.zeros((1, 3, 4)), np.zeros((1, 1))), ("image", "age"))
    source = Items(lambda x, y: (x, np.ones(1), y), at=None)
    found = dataset_of("data", source, how)
    before = source.asked
    assert [array.shape for array in found.gather(np.arange(6)).inputs] == [(6, 3, 4), (6, 1)]
    assert source.asked == before + 6


def _raises(_x: Any, _y: Any) -> Any:
    raise OSError("image file is truncated")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Items(claimed=60), r"example 50 is not there: the data set said that it has 60, and ends early"),
        (Items(_raises), "example 7 cannot be read: OSError: image file is truncated"),
        (
            Items(lambda x, y: (x[:, :2], y)),
            r"example 7 has inputs of float32 \[3, 2\] .* those before have .*\[3, 4\]",
        ),
        (Items(lambda x, y: (x.astype(np.float64), y)), r"example 7 has inputs of float64"),
        (Items(lambda x, _: (x, "cat")), r"example 7: targets: text, such as 'cat'"),
        (Items(lambda x, _: x), r"example 7: a ndarray, expected \(inputs, target\)"),
        (Items(lambda x, y: {"a": x, "b": y}), r"example 7: a dict with the keys a, b"),
        (Items(claimed=0), "no examples"),
        ({1, 2}, "a set has no order"),
        (iter([1]), "can be gone through once, and every round begins anew"),
        ([INPUTS, TARGETS], r"expected \(inputs, targets\), received a list of 2"),
        (Batches(lambda x, y: (x[:, :2], y)), r"element 2 has inputs of float32 \[2, 4\]"),
        (Batches(_raises), "element 2 cannot be read: OSError"),
        (Batches(lambda x, y: (x, y[:3])), "element 2: inputs and targets differ in length"),
    ],
)
def test_what_cannot_be_relied_on_is_refused(source: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataset_of("data", source, HOW)


def test_broken_examples_are_skipped_and_counted() -> None:
    found = dataset_of("data", Items(_raises), Reading(Path(), HOW.inputs, on_error="skip"))
    assert found.targets.tolist() == np.delete(TARGETS, 7).tolist()
    assert gathered(found, [7]) == INPUTS[8:9].tobytes()
    assert "1 of 50 examples cannot be read and are skipped: 7" in found.notes[1]


def test_examples_that_change_are_said_or_stop_the_run() -> None:
    noisy = Items(lambda x, y: (x + RNG.normal(), y), at=None)
    found = dataset_of("data", noisy, HOW)
    assert not is_steady(found.inputs[0])
    assert not found.is_read, "a thread would draw from generators that the training draws from"
    assert "differ each time" in found.notes[1]
    source = Items()
    later = dataset_of("data", source, HOW)
    source.change = lambda x, y: (x, y + 1)
    with pytest.raises(
        ConfigError, match=rf"example 7 had the target {TARGETS[7]} and now has {TARGETS[7] + 1}"
    ):
        later.gather(np.arange(10))


def test_a_loader_brings_its_own_batches() -> None:
    loader = torch_data.DataLoader(tensors(), batch_size=16)
    found = dataset_of("data", loader, HOW)
    assert found.stream is not None
    for mine, theirs in zip(found.stream.batches(4), loader, strict=True):
        assert mine.inputs[0].tobytes() == theirs[0].numpy().tobytes()
        assert mine.targets.tolist() == theirs[1].tolist()
    assert (len(found), found.stream.num_batches(4)) == (50, 4)
    assert "4 batches of its own (of 2, 16); training.batch_size is not used" in found.notes[0]
    assert found.tried.targets.tolist() == [*TARGETS[:16], *TARGETS[48:]]
    with pytest.raises(ConfigError, match="cannot be shared out"):
        found.subset(np.arange(3))


def test_a_shuffling_loader_follows_pytorch_s_seed() -> None:
    loader = torch_data.DataLoader(tensors(), batch_size=16, shuffle=True)
    found = dataset_of("data", loader, HOW)
    assert found.stream is not None
    torch.manual_seed(3)
    theirs = np.concatenate([targets.numpy() for _, targets in loader])
    torch.manual_seed(3)
    assert np.concatenate([part.targets for part in found.stream.batches(1)]).tolist() == theirs.tolist()


@pytest.mark.parametrize("ends", [34, 20])
def test_a_stream_that_changes_its_length_stops_the_run(ends: int) -> None:
    source = Batches()
    found = dataset_of("data", source, HOW)
    assert found.stream is not None
    source.ends = ends
    with pytest.raises(ConfigError, match=f"ended after {ends} examples, and had 50 when the course began"):
        [*found.stream.batches(16)]


def test_workers_of_a_loader() -> None:
    loader = torch_data.DataLoader(tensors(), batch_size=25, num_workers=1, multiprocessing_context="fork")
    found = dataset_of("data", loader, HOW)
    assert content(dataset_of("data", (INPUTS, TARGETS), HOW).inputs[0]) == content(
        np.concatenate([block for _, block in found.inputs[0].blocks()])  # type: ignore[attr-defined]
    )


@pytest.mark.slow
def test_spawned_workers_that_cannot_import_the_data_set_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch.utils.data import DataLoader, Dataset\n\n\nclass Own(Dataset):\n"
        "    def __len__(self):\n        return 4\n\n    def __getitem__(self, index):\n        return torch.zeros(3, 4), 0\n\n\n"
        "def load():\n    return DataLoader(Own(), num_workers=1, multiprocessing_context='spawn')\n"
    )
    with pytest.raises(ConfigError, match="element 0 cannot be read") as refused:
        load_dataset("own.py:load", Reading(tmp_path, HOW.inputs))
    assert refused.value.hint is not None
    assert "a module that can be imported" in refused.value.hint


def test_tensorflow_s_data_sets() -> None:
    tf = pytest.importorskip("tensorflow")
    one_by_one = tf.data.Dataset.from_tensor_slices((INPUTS, TARGETS))
    found = dataset_of("data", one_by_one, HOW)
    assert found.stream is not None
    assert [len(part.targets) for part in found.stream.batches(20)] == [20, 20, 10]
    assert np.concatenate([p.inputs[0] for p in found.stream.batches(20)]).tobytes() == INPUTS.tobytes()
    batched = dataset_of("data", one_by_one.batch(30), HOW)
    assert batched.stream is not None
    assert [len(part.targets) for part in batched.stream.batches(20)] == [30, 20]
    with pytest.raises(ConfigError, match="without an end"):
        dataset_of("data", one_by_one.repeat(), HOW)


def test_items_that_are_batches_are_gone_through() -> None:
    class Sequence:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, number: int) -> Any:
            return INPUTS[number * 10 : number * 10 + 10], TARGETS[number * 10 : number * 10 + 10]

    found = dataset_of("data", Sequence(), HOW)
    assert found.stream is not None
    assert np.concatenate([p.inputs[0] for p in found.stream.batches(1)]).tobytes() == INPUTS.tobytes()
    assert "a Sequence that brings 5 batches of its own (of 10)" in found.notes[0]
