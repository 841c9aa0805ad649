"""Writes one model's weights in every format that has the same bytes for the same weights.

python -m tests.convert.every_format FOLDER SECONDS: as if it were SECONDS later.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import xbfl_tensorflow
import xbfl_torch
from xbackend_fl import weights
from xbackend_fl.convert import convert, open_side

CANONICAL = (".onnx", ".safetensors", ".xbf", ".pt", ".npz", ".h5")
NATIVE = ("keras", "keras-weights", "hdf5", "checkpoint")


class Net(nn.Module):
    """Constants of several kinds, so that the exported graph holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.conv(x * 0.5)).clamp(-1.0, 3.0)
        return self.head(hidden.flatten(1)) * 2.0 + 1.0


def write(folder: Path) -> None:
    """Write the files into ``folder``, which must not exist."""
    import keras

    folder.mkdir()
    torch.manual_seed(0)
    example = (np.zeros((1, 3, 8, 8), np.float32),)
    reader = open_side(xbfl_torch.adapter, Net(), example)
    assert reader.schema is not None
    assert reader.trainer is not None
    source = weights.open_weights(reader.trainer.save(folder / "native"))
    for suffix in CANONICAL:
        convert(source, folder / f"canonical{suffix}", reader=reader)
    (folder / "schema.json").write_text(reader.schema.to_json())
    (folder / "binding.json").write_text(reader.binding.to_json())
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((8, 8, 3), name="x"),
        keras.layers.Conv2D(4, 3, name="conv"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Flatten(name="flat"),
        keras.layers.Dense(2, name="head"),
    ]
    trainer = xbfl_tensorflow.adapter.load_model(keras.Sequential(layers, name="net"), example)
    for file_format in NATIVE:
        trainer.save(folder / f"of-{file_format}", file_format)


if __name__ == "__main__":
    now, later = time.time, float(sys.argv[2])
    time.time = lambda: now() + later
    xbfl_tensorflow.import_frameworks()
    write(Path(sys.argv[1]))
