"""A course whose models are in half precision is the course of their float32 masters."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from xbackend_fl import Run, load_course, run_course
from xbackend_fl.weights import open_weights

HALF_KERAS = """
import keras
import keras_model

def build():
    keras.config.set_dtype_policy("bfloat16")
    try:
        return keras_model.build()
    finally:
        keras.config.set_dtype_policy("float32")
"""
TORCH = "from torch_model import DigitNet\n\ndef build():\n    return DigitNet().bfloat16()"
MODELS = {"half": (TORCH, HALF_KERAS), "whole": (f"{TORCH}.float()", "from keras_model import build")}


def course_of(folder: Path, digits: Path, kind: str, *settings: str) -> Run:
    shutil.copytree(digits, folder, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    ours, theirs = MODELS[kind]
    (folder / "ours.py").write_text(ours)
    (folder / "theirs.py").write_text(theirs)
    chosen = [
        "models.torch=ours.py:build",
        "models.tensorflow=theirs.py:build",
        "training.dropout=false",
        *settings,
    ]
    course = load_course(folder / "course.yaml", chosen)
    return run_course(course, folder / "run", in_process=True)


@pytest.mark.slow
def test_a_course_in_half_precision_is_that_of_its_masters(digits: Path, tmp_path: Path) -> None:
    """Both frameworks: the weights that move are float32 and the same; files that frameworks read hold their rounding."""
    settings = ("rounds=2", "training.steps=5")
    runs = {kind: course_of(tmp_path / kind, digits, kind, *settings) for kind in MODELS}
    assert runs["half"].weights.fingerprint == runs["whole"].weights.fingerprint
    assert runs["half"].weights.relative_distance(runs["whole"].weights) < 1e-6
    saved = torch.load(tmp_path / "half/run/model.pt", weights_only=True)
    assert {t.dtype for t in saved.values() if t.is_floating_point()} == {torch.bfloat16}
    kernel = next(
        a for n, a in open_weights(tmp_path / "half/run/model.weights.h5").items() if a.shape == (256, 128)
    )
    assert kernel.dtype.name == "bfloat16"
    bits = torch.from_numpy(np.asarray(runs["half"].weights["classifier.weight"])).bfloat16()
    assert torch.equal(saved["classifier.weight"], bits)
