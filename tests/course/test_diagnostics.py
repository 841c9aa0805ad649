"""Every mistake of a course file at once, each with its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbackend_fl import load_course
from xbackend_fl.course import diagnostics, dump, example_arrays
from xbackend_fl.errors import ConfigError

pytestmark = pytest.mark.quick

BAD = """\
name: digits
roundz: 3
models:
  torch: torch_model.py:build
  tensorflw: keras_model.py:build
  jax: nowhere.py:build
input: ["1,1,8,8"]
data:
  source: data.py:load
  partition: {kind: dirichlett, alpha: -1}
participants:
  - {name: osaka, backend: torch, color: red}
training:
  optimizer: {name: adan, lr: fast}
  batch_size: 0
"""


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_course(path, overrides)
    return str(caught.value)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "course.yaml"
    path.write_text(BAD)
    text = message(path)
    for place in ("2:1", "10:21", "10:40", "12:35", "14:21", "14:31", "15:15"):
        assert f"--> course.yaml:{place}" in text, place
    for words in (
        "unknown key `roundz`",
        "did you mean `rounds`?",
        "did you mean `dirichlet`?",
        "unknown key `participants.0.color`",
        "did you mean `adam`?",
        "`training.optimizer.lr`",
        "`training.batch_size`: input should be greater than 0, got 0",
        "7 errors; nothing was run.",
    ):
        assert words in text, words
    assert "missing key" not in text


def test_backends_and_files_are_looked_up(tmp_path: Path, digits: Path) -> None:
    source = (digits / "course.yaml").read_text()
    path = tmp_path / "course.yaml"
    path.write_text(
        source.replace("tensorflow: keras", "jax: keras").replace("backend: tensorflow", "backend: jax")
    )
    text = message(path)
    assert "unknown backend `jax`" in text
    assert "known backends: onnx, tensorflow, torch" in text
    assert text.count("no such file") == 3


def test_names_and_sizes_are_checked_together(digits: Path) -> None:
    path = digits / "course.yaml"
    assert "which has no model" in message(path, "participants.0.backend=mxnet")
    assert "two participants are called 'berlin'" in message(path, "participants.0.name=berlin")
    assert "federate.cohort is 9" in message(path, "federate.cohort=9")
    assert "is not a shape" in message(path, "input=['a,b']")


def test_syntax_and_absence(tmp_path: Path) -> None:
    path = tmp_path / "course.yaml"
    assert "no such course file" in message(path)
    path.write_text("name: [unclosed\n")
    assert "error: not YAML" in message(path)
    path.write_text("- a list\n")
    assert "must be a mapping" in message(path)


def test_overrides(digits: Path) -> None:
    course = load_course(digits / "course.yaml", ["training.optimizer.lr=1e-3", "rounds=2"])
    assert course.training.optimizer.lr == 1e-3
    assert course.rounds == 2
    assert "is not KEY=VALUE" in message(digits / "course.yaml", "rounds")
    assert "unknown key `training.lrr`" in message(digits / "course.yaml", "training.lrr=1")


def test_what_a_run_keeps_loads_from_anywhere(digits: Path, tmp_path: Path) -> None:
    course = load_course(digits / "course.yaml", ["seed=11"])
    kept = tmp_path / "kept.yaml"
    kept.write_text(dump(course))
    again = load_course(kept)
    assert again.seed == 11
    assert again.participants == course.participants
    assert again.training == course.training


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.sampled_from(["", "int64:", "float32:"]))
@settings(max_examples=30)
def test_example_arrays(shape: list[int], prefix: str) -> None:
    (array,) = example_arrays([prefix + ",".join(map(str, shape))])
    assert array.shape == tuple(shape)
    assert str(array.dtype) == (prefix.rstrip(":") or "float32")


def test_an_example_is_read_from_a_file_beside_the_course(tmp_path: Path) -> None:
    mask = np.array([[1, 0, 1]], bool)
    np.save(tmp_path / "mask.npy", mask)
    drawn, read = example_arrays(["bool:1,3", "mask.npy"], tmp_path)
    assert (drawn.dtype, drawn.shape) == (np.bool_, (1, 3))
    np.testing.assert_array_equal(read, mask)
    np.save(tmp_path / "nan.npy", np.full((1, 2), np.nan, np.float32))
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    np.save(tmp_path / "object.npy", np.array([[None]]), allow_pickle=True)
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    for name in ("nan.npy", "text.npy", "object.npy", "broken.npy", "absent.npy"):
        with pytest.raises(ConfigError, match=name):
            example_arrays([name], tmp_path)


@pytest.mark.parametrize("text", ["", "1,", "x:1,2", "float99:1", "1;2"])
def test_bad_shapes(text: str) -> None:
    with pytest.raises(ConfigError):
        example_arrays([text])


@pytest.mark.parametrize(("old", "new"), diagnostics.RENAMED.items())
def test_a_renamed_key_is_named(old: str, new: str, digits: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_course(digits / "course.yaml", [f"deployment.{old}=3"])
    assert f"`{old}` is now `{new}`" in str(caught.value)
    assert getattr(load_course(digits / "course.yaml", [f"deployment.{new}=3"]).deployment, new) == 3
