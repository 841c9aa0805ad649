"""Files by each framework's own writer are read bit for bit as its own loader reads them, and the reverse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import onnx
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import tensorflow as tf
import torch
from onnx import numpy_helper

from tests.weights.corpus.proto_attacks import valid_model
from xbackend_fl import weights
from xbackend_fl.errors import FileError
from xbackend_fl.formats.dtypes import ALLOWED, BFLOAT16, FLOAT8_E4M3FN, FLOAT8_E5M2
from xbackend_fl.weights.store import same_bits

Arrays = Mapping[str, np.ndarray[Any, Any]]
Make = Callable[[Path], tuple[Path, Arrays]]

PLAIN = [name for name, dtype in ALLOWED.items() if dtype.isbuiltin == 1]
TORCH = {name: getattr(torch, name) for name in ALLOWED}


def sample(name: str, shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray[Any, Any]:
    """Every bit pattern that the dtype allows, about."""
    dtype, generator = ALLOWED[name], np.random.default_rng(len(name))
    if name == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    count = int(np.prod(shape)) * dtype.itemsize
    raw = generator.integers(0, 256, count, dtype=np.uint8).tobytes()
    return np.frombuffer(raw, dtype).reshape(shape)


def to_torch(array: np.ndarray[Any, Any]) -> torch.Tensor:
    if array.dtype in (BFLOAT16, FLOAT8_E4M3FN, FLOAT8_E5M2):
        width = np.dtype(f"u{array.dtype.itemsize}")
        return torch.from_numpy(np.array(array).view(width)).view(TORCH[str(array.dtype)])
    return torch.from_numpy(np.array(array))


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    name = str(tensor.dtype).removeprefix("torch.")
    if name in {"bfloat16", "float8_e4m3fn", "float8_e5m2"}:
        width = torch.uint16 if name == "bfloat16" else torch.uint8
        return tensor.detach().contiguous().view(width).numpy().view(ALLOWED[name])
    return tensor.detach().numpy()


# PyTorch


def _torch_tensors(name: str) -> dict[str, torch.Tensor]:
    base = to_torch(sample(name, (4, 6, 3)))
    return {
        "contiguous": base,
        "transposed": base.permute(2, 0, 1),
        "sliced": base[1:3, ::2],
        "expanded": base[:1, :1].expand(4, 5, 3),
        "scalar": base[0, 0, 0].clone(),
        "empty": base[:0],
    }


def _torch_case(name: str, kind: str) -> Make:
    def make(folder: Path) -> tuple[Path, Arrays]:
        path = folder / "x.pt"
        torch.save({"w": _torch_tensors(name)[kind]}, path)
        loaded = torch.load(path, weights_only=True)
        return path, {"w": to_numpy(loaded["w"])}

    return make


def _torch_protocol(protocol: int) -> Make:
    def make(folder: Path) -> tuple[Path, Arrays]:
        path = folder / "x.pth"
        module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.LSTM(4, 5))
        torch.save(module.state_dict(), path, pickle_protocol=protocol)
        # PyTorch's own restricted reader knows protocols 2 and 3 only; the file is ours.
        loaded = torch.load(path, weights_only=protocol < 4)
        return path, {key: to_numpy(value) for key, value in loaded.items()}

    return make


def _torch_nested(folder: Path) -> tuple[Path, Arrays]:
    path = folder / "checkpoint.ckpt"
    module = torch.nn.Linear(3, 4)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        "state_dict": module.state_dict(),
        "epoch": 3,
        "name": "x",
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content, path)
    loaded = torch.load(path, weights_only=True)
    moments = loaded["optimizer"]["state"]
    flat = {f"state_dict.{key}": to_numpy(value) for key, value in loaded["state_dict"].items()}
    flat |= {
        f"optimizer.state.{i}.{key}": to_numpy(value)
        for i, row in moments.items()
        for key, value in row.items()
    }
    return path, flat


def _torch_parameters(folder: Path) -> tuple[Path, Arrays]:
    path = folder / "x.bin"
    torch.save(
        {"p": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)), "l": [torch.ones(2), torch.zeros(3)]}, path
    )
    loaded = torch.load(path, weights_only=True)
    return path, {
        "p": to_numpy(loaded["p"]),
        "l.0": to_numpy(loaded["l"][0]),
        "l.1": to_numpy(loaded["l"][1]),
    }


# The others


def _safetensors(name: str) -> Make:
    def make(folder: Path) -> tuple[Path, Arrays]:
        path = folder / "x.safetensors"
        safetensors.torch.save_file({"w": to_torch(sample(name)), "v": torch.ones(3)}, path, {"format": "pt"})
        return path, {key: to_numpy(value) for key, value in safetensors.torch.load_file(path).items()}

    return make


def _safetensors_numpy(name: str) -> Make:
    def make(folder: Path) -> tuple[Path, Arrays]:
        path = folder / "x.safetensors"
        safetensors.numpy.save_file({"w": np.array(sample(name)), "s": np.array(3, np.float32)}, path)
        return path, safetensors.numpy.load_file(path)

    return make


def _npz(name: str, how: str) -> Make:
    def make(folder: Path) -> tuple[Path, Arrays]:
        path, array = folder / "x.npz", sample(name)
        stored = {"F": np.asfortranarray(array), "big": array.astype(array.dtype.newbyteorder(">"))}.get(
            how, array
        )
        (np.savez_compressed if how == "packed" else np.savez)(
            path, w=stored, scalar=array[0, 0, 0], empty=array[:0]
        )
        with np.load(path) as loaded:
            return path, {key: loaded[key].astype(array.dtype) for key in loaded}

    return make


def _hdf5(name: str, how: str) -> Make:
    options: dict[str, Any] = {
        "packed": {"chunks": (2, 3, 5), "compression": "gzip", "shuffle": True, "fletcher32": True},
        "chunked": {"chunks": (2, 3, 5)},
    }.get(how, {})

    def make(folder: Path) -> tuple[Path, Arrays]:
        path, array = folder / "x.h5", sample(name)
        stored = array.astype(array.dtype.newbyteorder(">")) if how == "big" else array
        with h5py.File(path, "w", libver="latest" if how == "chunked" else None) as file:
            file.create_dataset("a/b/w", data=stored, **options)
            file["scalar"] = array[0, 0, 0]
            file["empty"] = array[:0]
        with h5py.File(path) as file:
            return path, {
                key: np.asarray(file[key]).astype(array.dtype) for key in ("a/b/w", "empty", "scalar")
            }

    return make


def _onnx(name: str, *, raw: bool) -> Make:
    def make(folder: Path) -> tuple[Path, Arrays]:
        path = folder / "x.onnx"
        array = (
            sample(name) if raw or name not in {"bfloat16", "float8_e4m3fn", "float8_e5m2"} else _tame(name)
        )
        path.write_bytes(valid_model({"w": array, "s": array[0, 0, 0].reshape(())}, raw=raw))
        loaded = onnx.load(path)
        return path, {item.name: numpy_helper.to_array(item) for item in loaded.graph.initializer}

    return make


def _tame(name: str) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(3, 4, 5)).astype(ALLOWED[name])


def _onnx_external(folder: Path) -> tuple[Path, Arrays]:
    path = folder / "x.onnx"
    model = onnx.load_from_string(valid_model({"w": sample("float32"), "v": sample("int64")}, raw=True))
    onnx.save(model, path, save_as_external_data=True, location="x.data", size_threshold=0)
    return path, {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}


def _checkpoint(name: str) -> Make:
    def make(folder: Path) -> tuple[Path, Arrays]:
        array = sample(name)
        module = tf.Module()
        module.w = tf.Variable(array, name="net/w")
        module.s = tf.Variable(array[0, 0, 0], name="net/s")
        path = Path(tf.train.Checkpoint(module=module).write(str(folder / "x")))
        reader = tf.train.load_checkpoint(str(path))
        return path, {
            f"net/{key}": reader.get_tensor(f"module/{key}/.ATTRIBUTES/VARIABLE_VALUE") for key in "ws"
        }

    return make


def _saved_model(folder: Path) -> tuple[Path, Arrays]:
    module = tf.Module()
    module.w = tf.Variable(sample("float32"), name="w")
    tf.saved_model.save(module, str(folder / "saved"))
    return folder / "saved", {"w": module.w.numpy()}


CASES: dict[str, Make] = {}
for _name in ALLOWED:
    for _kind in ("contiguous", "transposed", "sliced", "expanded", "scalar", "empty"):
        CASES[f"torch {_name} {_kind}"] = _torch_case(_name, _kind)
    if _name != "complex128":
        CASES[f"safetensors.torch {_name}"] = _safetensors(_name)
    CASES[f"onnx raw {_name}"] = _onnx(_name, raw=True)
    CASES[f"onnx typed {_name}"] = _onnx(_name, raw=False)
    CASES[f"checkpoint {_name}"] = _checkpoint(_name)
for _name in PLAIN:
    if not _name.startswith("complex"):
        CASES[f"safetensors.numpy {_name}"] = _safetensors_numpy(_name)
    for _how in ("plain", "F", "big", "packed"):
        CASES[f"npz {_name} {_how}"] = _npz(_name, _how)
    for _how in ("plain", "chunked", "packed", "big"):
        if not (_name == "bool" and _how == "big"):
            CASES[f"hdf5 {_name} {_how}"] = _hdf5(_name, _how)
for _protocol in (2, 3, 4, 5):
    CASES[f"torch protocol {_protocol}"] = _torch_protocol(_protocol)
CASES["torch nested"] = _torch_nested
CASES["torch parameters"] = _torch_parameters
CASES["onnx external"] = _onnx_external
CASES["saved model"] = _saved_model


def test_the_corpus_is_large() -> None:
    assert len(CASES) >= 200


@pytest.mark.one_in(2)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast", "ignore:invalid value encountered in cast")
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("label", CASES)
def test_read_as_its_own_loader_reads(label: str, tmp_path: Path) -> None:
    path, expected = CASES[label](tmp_path)
    archive = weights.open_weights(path, external_data=label == "onnx external")
    assert (
        archive.keys() == expected.keys()
        if "optimizer" not in str(list(archive))
        else archive.keys() >= expected.keys()
    )
    for name, array in expected.items():
        assert same_bits(archive[name], np.asarray(array)), name
        assert not archive[name].flags.writeable or not archive[name].size


def _foreign(path: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """What the format's own library reads."""
    match path.suffix:
        case ".safetensors":
            for name, tensor in safetensors.torch.load_file(path).items():
                yield name, to_numpy(tensor)
        case ".pt":
            for name, tensor in torch.load(path, weights_only=True).items():
                yield name, to_numpy(tensor)
        case ".npz":
            with np.load(path) as loaded:
                yield from ((name, loaded[name]) for name in loaded)
        case ".h5":
            with h5py.File(path) as file:
                yield from (
                    (name, np.asarray(file[name])) for name in ("net.w", "deep/er", "scalar", "empty")
                )
        case _:
            yield from weights.open_weights(path).items()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz", ".h5", ".xbf"])
@pytest.mark.parametrize("name", ALLOWED)
def test_written_files_are_read_by_the_formats_own_library(name: str, suffix: str, tmp_path: Path) -> None:
    array = sample(name)
    arrays = {
        "net.w": array,
        "deep/er": array.transpose(2, 0, 1),
        "scalar": array[0, 0, 0].reshape(()),
        "empty": array[:0],
    }
    path = tmp_path / f"x{suffix}"
    unknown = suffix in {".npz", ".h5"} and name not in PLAIN
    if unknown or (name == "complex128" and suffix == ".safetensors"):
        with pytest.raises(FileError, match="dtype"):
            weights.save(path, arrays)
        assert not list(tmp_path.iterdir())
        return
    weights.save(path, arrays)
    received = dict(_foreign(path))
    assert received.keys() == arrays.keys()
    for key, expected in arrays.items():
        assert same_bits(np.asarray(received[key]), np.asarray(expected)), key


@pytest.mark.one_in(2)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz", ".h5", ".xbf"])
def test_arrays_larger_than_a_piece(suffix: str, tmp_path: Path) -> None:
    """Rows that do not divide a piece, and a row that is larger than one."""
    arrays = {
        "many": np.arange(7 * 1_000_003, dtype=np.float32).reshape(7, -1),
        "wide": np.arange(2 * 5_000_011, dtype=np.float32).reshape(2, -1),
        "turned": np.arange(3 * 2_000_003, dtype=np.float32).reshape(-1, 3).T,
    }
    weights.save(tmp_path / f"x{suffix}", arrays)
    again = weights.open_weights(tmp_path / f"x{suffix}")
    assert all(same_bits(again[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".h5", ".xbf"])
def test_tied_tensors_stay_tied(suffix: str, tmp_path: Path) -> None:
    module = torch.nn.Module()
    module.embed, module.out = torch.nn.Embedding(10, 4), torch.nn.Linear(4, 10, bias=False)
    module.out.weight = module.embed.weight
    torch.save(module.state_dict(), tmp_path / "x.pt")
    archive = weights.open_weights(tmp_path / "x.pt")
    assert archive.aliases == {"out.weight": "embed.weight"}
    path = tmp_path / f"again{suffix}"
    weights.save(path, archive)
    again = weights.open_weights(path)
    assert again.aliases in ({"out.weight": "embed.weight"}, {"embed.weight": "out.weight"})
    assert path.stat().st_size < 2 * archive.num_bytes + (4096 if suffix == ".h5" else 1024)
    if suffix == ".safetensors":
        before = module.embed.weight.detach().clone()
        torch.nn.init.zeros_(module.embed.weight)
        assert safetensors.torch.load_model(module, path) == (set(), [])
        assert torch.equal(module.out.weight, before)


def test_a_model_that_the_reference_writer_tied(tmp_path: Path) -> None:
    module = torch.nn.Module()
    module.one, module.two = torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False)
    module.two.weight = module.one.weight
    safetensors.torch.save_model(module, str(tmp_path / "x.safetensors"))
    archive = weights.open_weights(tmp_path / "x.safetensors")
    assert set(archive) == {"one.weight", "two.weight"}
    assert len(archive.aliases) == 1


def test_shards(tmp_path: Path) -> None:
    import json

    parts = {
        "one.safetensors": {"a": np.ones(3, np.float32)},
        "two.safetensors": {"b": np.zeros(2, np.int64)},
    }
    for file, arrays in parts.items():
        safetensors.numpy.save_file(arrays, tmp_path / file)
    index = {"metadata": {"total_size": 28}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    archive = weights.open_weights(tmp_path / "model.safetensors.index.json")
    assert {name: array.tolist() for name, array in archive.items()} == {"a": [1, 1, 1], "b": [0, 0]}
    torch.save({"a": torch.ones(3)}, tmp_path / "one.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "one.bin"}}))
    assert list(weights.open_weights(tmp_path / "pytorch_model.bin.index.json")) == ["a"]


def test_bfloat16_of_keras(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        values = np.arange(6).astype(ml_dtypes.bfloat16)
        file["w"] = values
        file["w"].attrs["dtype"] = "bfloat16"
    assert same_bits(weights.open_weights(tmp_path / "x.weights.h5")["w"], values)
