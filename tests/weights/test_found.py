"""Folders of downloaded models, files without an ending, and what other programs write."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from xbackend_fl import weights
from xbackend_fl.errors import FileError, FormatRefused

ARRAYS = {"w": np.arange(4, dtype=np.float32)}
FOREIGN: dict[str, tuple[bytes, str]] = {
    "x.gguf": (b"GGUF\3\0\0\0", "GGUF"),
    "x.bin": (b"GGUF\3\0\0\0", "GGUF"),
    "x.tflite": (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
    "x.pt.gz": (gzip.compress(b"x"), "gunzip"),
    "x.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "x.h5": (b"<!DOCTYPE html><html></html>", "web page"),
    "x.npy": (b"\x93NUMPY\1\0", "numpy.savez"),
    "x.msgpack": (b"\x81", "Flax"),
    "x.pb": (b"\x0a", "SavedModel"),
    "x.pkl": (b"\x80\x04}.", "bare pickle"),
}


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.npz", "x.h5", "x.xbf"])
def test_a_file_without_an_ending(name: str, tmp_path: Path) -> None:
    weights.save(tmp_path / name, ARRAYS)
    (tmp_path / name).rename(tmp_path / "weights")
    assert weights.open_weights(tmp_path / "weights")["w"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_programs_are_named(name: str, tmp_path: Path) -> None:
    content, words = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatRefused) as caught:
        weights.open_weights(tmp_path / name)
    assert words in str(caught.value)


def test_the_folder_of_a_downloaded_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    torch.save({"step": 3}, tmp_path / "training_args.bin")
    weights.save(tmp_path / "model.safetensors", ARRAYS)
    assert list(weights.open_weights(tmp_path)) == ["w"]
    weights.save(tmp_path / "pytorch_model.bin", ARRAYS)
    with pytest.raises(FileError, match=r"2 models: model\.safetensors, pytorch_model\.bin"):
        weights.open_weights(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model-1.safetensors")
    index = {"weight_map": {"w": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert list(weights.open_weights(tmp_path)) == ["w"], "its one index"
    inner = tmp_path / "pipeline"
    shutil.copytree(tmp_path, inner / "unet", ignore=shutil.ignore_patterns("pipeline"))
    with pytest.raises(FileError, match="its folders do: unet"):
        weights.open_weights(inner)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((".metadata", "__0_0.distcp"), "torch.distributed"),
        (("zero_to_fp32.py", "latest"), "DeepSpeed"),
        (("mp_rank_00_model_states.pt",), "DeepSpeed"),
        (("_CHECKPOINT_METADATA", "manifest.ocdbt"), "Orbax"),
        (("model.json", "group1-shard1of1.bin"), "TensorFlow.js"),
        (("net.xml", "net.bin"), "OpenVINO"),
    ],
)
def test_folders_of_other_programs_are_named(names: tuple[str, ...], words: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FormatRefused) as caught:
        weights.open_weights(tmp_path)
    assert caught.value.code == "foreign-format"
    assert words in str(caught.value)
