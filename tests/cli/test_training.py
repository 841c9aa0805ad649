"""A course refuses what training here does not carry out, and goes on where the schema carries it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import xbfl_here

COURSE = """
name: small
rounds: 1
models: {torch: torch_net.py:build, tensorflow: keras_net.py:build}
input: ["1,8"]
data: {source: data.py:load, partition: {kind: iid}}
participants: [{name: a, backend: torch}, {name: b, backend: tensorflow}]
training: {optimizer: {name: sgd, lr: 0.01}, batch_size: 4, epochs: 1}
"""
TORCH = """
from torch import nn
def build(): return nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.5), nn.Linear(6, 3))
"""
KERAS = """
import keras
from keras import layers as K
def build(): return keras.Sequential([keras.Input((8,)), K.Dense(6, %s), %s, K.Dense(3)])
"""
DATA = """
import numpy as np
def load():
    draw = np.random.default_rng(0)
    return {s: (draw.standard_normal((24, 8)).astype("f"), draw.integers(0, 3, 24)) for s in ("train", "validation", "test")}
"""


@pytest.mark.slow
def test_check_refuses_and_run_follows_the_schema(tmp_path: Path) -> None:
    for name, text in (("course.yaml", COURSE), ("torch_net.py", TORCH), ("data.py", DATA)):
        (tmp_path / name).write_text(text)
    (tmp_path / "keras_net.py").write_text(KERAS % ("kernel_regularizer='l2'", "K.Identity()"))
    refused = xbfl_here("check", "course.yaml", cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "kernel_regularizer=L2(l2=0.01) adds a penalty" in refused.stderr
    assert "nothing drops there" in refused.stderr
    (tmp_path / "keras_net.py").write_text(KERAS % ("name='first'", "K.Dropout(0.1)"))
    done = xbfl_here("run", "course.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ratio is 0.5 in the schema, 0.1 in 'dropout'; training uses the schema's" in done.stdout
