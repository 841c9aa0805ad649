"""One pair of models through every format, and what does not fit, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import xbfl_tensorflow
import xbfl_torch
from xbackend_fl import weights
from xbackend_fl.adapter import Adapter
from xbackend_fl.convert import Side, convert, open_pair, open_side, read_side, selected
from xbackend_fl.errors import FileError, RefusedInput, RunFailed, SchemaError
from xbackend_fl.locate import call
from xbackend_fl.mapping.names import naming
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.weights.store import same_bits

EXAMPLE = (np.zeros((1, 1, 8, 8), np.float32),)
DIGITS = Path(__file__).resolve().parents[2] / "examples/digits"


def torch_model() -> tuple[Adapter, object]:
    return xbfl_torch.adapter, call("torch_model.py:build", DIGITS)


def keras_model() -> tuple[Adapter, object]:
    return xbfl_tensorflow.adapter, call("keras_model.py:build", DIGITS)


@pytest.fixture(scope="module")
def pair() -> tuple[Side, Side]:
    return open_pair(torch_model(), keras_model(), EXAMPLE)


@pytest.fixture(scope="module")
def backwards() -> tuple[Side, Side]:
    """Other models of the same code: what their layers are called must not matter."""
    return open_pair(keras_model(), torch_model(), EXAMPLE)


@pytest.fixture(scope="module")
def source(pair: tuple[Side, Side], tmp_path_factory: pytest.TempPathFactory) -> weights.Archive:
    """A file of the PyTorch model with drawn weights."""
    reader, _ = pair
    assert reader.schema is not None
    assert reader.trainer is not None
    reader.trainer.write(reader.binding.restore(draw_weights(reader.schema, 5)))
    return weights.open_weights(reader.trainer.save(tmp_path_factory.mktemp("source") / "net"))


def same(left: Any, right: Any) -> bool:
    names = [name for name in left if not name.endswith("num_batches_tracked")]
    return bool(names) and all(same_bits(left[name], right[name]) for name in names)


FORMS = [
    ("net.weights.h5", None),
    ("net.keras", None),
    ("net.h5", None),
    ("saved", "saved-model"),
    ("checkpoint", "checkpoint"),
    ("net.safetensors", None),
    ("net.npz", None),
    ("net.xbf", None),
    ("net.pt", None),
]


@pytest.mark.one_in(8)
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_there_and_back(
    name: str,
    form: str | None,
    pair: tuple[Side, Side],
    backwards: tuple[Side, Side],
    source: weights.Archive,
    tmp_path: Path,
) -> None:
    reader, writer = pair
    report = convert(source, tmp_path / name, form, reader=reader, writer=writer, example=EXAMPLE)
    assert report.tensors == 14
    assert report.outputs[0].relative < 1e-4
    assert [item.name for item in tmp_path.iterdir()] == [name]
    archive = weights.open_weights(tmp_path / name, form)
    convert(archive, tmp_path / "back.pt", reader=backwards[0], writer=backwards[1], example=EXAMPLE)
    assert same(source, weights.open_weights(tmp_path / "back.pt"))


def test_onnx_and_canonical(pair: tuple[Side, Side], source: weights.Archive, tmp_path: Path) -> None:
    reader, writer = pair
    for name in ("net.onnx", "canonical.safetensors", "canonical.xbf", "canonical.pt"):
        convert(source, tmp_path / name, reader=reader, example=EXAMPLE)
    assert weights.load_weights(tmp_path / "canonical.safetensors").fingerprint == reader.binding.fingerprint
    for name in ("canonical.safetensors", "canonical.xbf"):
        convert(
            weights.open_weights(tmp_path / name), tmp_path / f"{name}.keras", writer=writer, example=EXAMPLE
        )
    stranger = open_side(*keras_model(), EXAMPLE)
    with pytest.raises(SchemaError, match="holds weights of schema"):
        convert(weights.open_weights(tmp_path / "canonical.xbf"), tmp_path / "x.keras", writer=stranger)
    with pytest.raises(SchemaError, match="has no canonical parameter"):
        convert(weights.open_weights(tmp_path / "canonical.pt"), tmp_path / "x.keras", writer=stranger)
    assert reader.schema is not None
    proven = open_side(*keras_model(), EXAMPLE, reader.schema)
    assert proven.comparisons
    convert(
        weights.open_weights(tmp_path / "canonical.xbf"), tmp_path / "x.keras", writer=proven, example=EXAMPLE
    )


def test_bindings_stand_in_for_models(
    pair: tuple[Side, Side], source: weights.Archive, tmp_path: Path
) -> None:
    files = []
    for index, side in enumerate(pair):
        files.append(tmp_path / f"{index}.json")
        files[-1].write_text(side.binding.to_json())
    reader, writer = map(read_side, files)
    convert(source, tmp_path / "keras.safetensors", reader=reader, writer=writer)
    convert(
        weights.open_weights(tmp_path / "keras.safetensors"),
        tmp_path / "back.pt",
        reader=writer,
        writer=reader,
    )
    assert same(weights.open_weights(tmp_path / "back.pt"), source)
    with pytest.raises(RefusedInput, match="an ONNX file needs the graph"):
        convert(source, tmp_path / "x.onnx", reader=reader)
    with pytest.raises(RefusedInput, match="laid out by the model"):
        convert(source, tmp_path / "x.keras", reader=reader, writer=writer)
    with pytest.raises(RefusedInput, match="laid out by the model"):
        convert(source, tmp_path / "x.keras", reader=reader)


def test_a_keras_file_of_another_model(pair: tuple[Side, Side], tmp_path: Path) -> None:
    import keras

    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    net.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(SchemaError, match="the file is not of this model"):
        convert(weights.open_weights(tmp_path / "other.weights.h5"), tmp_path / "x.npz", reader=pair[1])


def test_a_model_twice_in_one_file(pair: tuple[Side, Side], source: weights.Archive, tmp_path: Path) -> None:
    both = {f"{who}.{name}": array for who in ("model", "average") for name, array in source.items()}
    weights.save(tmp_path / "two.pt", both)
    with pytest.raises(SchemaError, match=r"several times, behind 'model\.' and 'average\.'") as caught:
        convert(weights.open_weights(tmp_path / "two.pt"), tmp_path / "x.npz", reader=pair[0])
    assert "--only" in str(caught.value.hint)
    one = selected(weights.open_weights(tmp_path / "two.pt"), ["average.*"])
    assert naming(one, pair[0].binding, None, "pytorch")["hidden.bias"] == "average.hidden.bias"


def test_files_that_do_not_fit(pair: tuple[Side, Side], source: weights.Archive, tmp_path: Path) -> None:
    arrays = dict(source.items())
    bias = arrays["hidden.bias"]
    for changed, words in (
        ({n: a for n, a in arrays.items() if n != "hidden.bias"}, "it has no 'hidden.bias'"),
        ({**arrays, "hidden.bias": bias[:3]}, r"has the shape \[3\]; the model's 'hidden.bias' has \[128\]"),
        ({**arrays, "hidden.bias": bias.astype(np.float64)}, "is float64; the model has float32"),
        ({**arrays, "hidden.bias": bias.astype(np.int32)}, "is int32; the model has float32"),
    ):
        weights.save(tmp_path / "odd.pt", changed, overwrite=True)
        with pytest.raises(SchemaError, match=words):
            convert(weights.open_weights(tmp_path / "odd.pt"), tmp_path / "x.npz", reader=pair[0])
    assert [item.name for item in tmp_path.iterdir()] == ["odd.pt"]


def test_half_precision_is_widened_exactly_and_double_never_rounded_silently(
    pair: tuple[Side, Side], source: weights.Archive, tmp_path: Path
) -> None:
    half = selected(source, dtype="bfloat16")
    weights.save(tmp_path / "half.pt", half)
    convert(
        weights.open_weights(tmp_path / "half.pt"), tmp_path / "net.keras", reader=pair[0], writer=pair[1]
    )
    convert(
        weights.open_weights(tmp_path / "net.keras"), tmp_path / "back.pt", reader=pair[1], writer=pair[0]
    )
    again = weights.open_weights(tmp_path / "back.pt")
    assert all(
        same_bits(again[name], half[name].astype(again[name].dtype))
        for name in again
        if "tracked" not in name
    )
    with pytest.raises(SchemaError, match="is float64; the model has float32"):
        convert(selected(source, dtype="float64"), tmp_path / "x.npz", reader=pair[0])


def test_nothing_is_kept_unless_it_is_what_was_meant(
    pair: tuple[Side, Side], source: weights.Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pair
    restore = type(writer.binding).restore

    def wrong(self: Any, canonical: Any) -> Any:
        natives = restore(self, canonical)
        next(iter(natives.values())).flat[0] += 1
        return natives

    monkeypatch.setattr(type(writer.binding), "restore", wrong)
    for name in ("net.keras", "net.npz"):
        with pytest.raises(RunFailed, match="is not what was written; nothing was kept"):
            convert(source, tmp_path / name, reader=reader, writer=writer)
    assert not list(tmp_path.iterdir())


def test_existing_files_are_safe(pair: tuple[Side, Side], source: weights.Archive, tmp_path: Path) -> None:
    (tmp_path / "net.npz").write_bytes(b"mine")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine").write_bytes(b"mine")
    for name, form in (("net.npz", None), ("saved", "saved-model")):
        with pytest.raises(FileError, match="exists"):
            convert(source, tmp_path / name, form, reader=pair[0], writer=pair[1])
    assert (tmp_path / "net.npz").read_bytes() == b"mine"
    convert(source, tmp_path / "net.npz", reader=pair[0], overwrite=True)
    convert(source, tmp_path / "saved", "saved-model", reader=pair[0], writer=pair[1], overwrite=True)
    assert (tmp_path / "saved" / "saved_model.pb").is_file()


def test_a_model_is_left_as_it_was(pair: tuple[Side, Side]) -> None:
    _, writer = pair
    assert writer.trainer is not None
    before = writer.trainer.read()
    with pytest.raises(SchemaError):
        naming(["nothing"], writer.binding, writer.trainer, "keras-weights")
    after = writer.trainer.read()
    assert all(same_bits(before[name], after[name]) for name in before)


@pytest.mark.parametrize("held", [None, "a text", {}, {"epoch": 3, "state": {}}], ids=repr)
def test_a_file_without_tensors_is_no_source(held: object, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "nothing.pt")
    with pytest.raises(FileError, match=r"nothing\.pt holds no tensors"):
        convert(weights.open_weights(tmp_path / "nothing.pt"), tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()
