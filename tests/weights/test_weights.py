"""The container and its file: exact, and loud about everything that does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from xbackend_fl import Weights, load_weights, save_weights
from xbackend_fl.canonical import Kind, Parameter, Schema
from xbackend_fl.errors import FileError, SchemaError
from xbackend_fl.weights import read_tensors

pytestmark = pytest.mark.quick

ARRAYS = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}\.(weight|bias)", fullmatch=True),
    hnp.arrays(
        st.sampled_from([np.float32, np.int64]), hnp.array_shapes(max_dims=4), elements=st.integers(-9, 9)
    ),
    min_size=1,
    max_size=5,
)


@given(ARRAYS)
@settings(max_examples=60)
def test_files_keep_every_bit(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    kinds = dict.fromkeys(arrays, Kind.STATISTIC)
    weights = Weights(arrays, "f" * 64, kinds)
    save_weights(path, weights)
    again = load_weights(path, "f" * 64)
    assert again.digest == weights.digest
    assert again.kinds == kinds
    assert list(again) == list(weights)
    for name, array in load_file(path).items():  # the library's own reader sees the same
        np.testing.assert_array_equal(array, arrays[name])


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, Weights({"a": np.arange(100.0)}, "x"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(FileError, match="does not match the digest"):
        load_weights(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match="corrupt"):
        read_tensors(path)
    with pytest.raises(FileError, match="no such file"):
        load_weights(tmp_path / "absent.safetensors")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, Weights({"a": np.zeros(2)}, "one" * 8))
    with pytest.raises(SchemaError, match="expected weights of schema twotwotwotwo"):
        load_weights(path, "two" * 8)
    save_file({"a": np.zeros(2)}, path)
    with pytest.raises(SchemaError, match="no fingerprint"):
        load_weights(path)


def test_weights_must_fit_their_schema() -> None:
    parameter = Parameter("fc.weight", "Gemm", "weight", "B", (2, 3), "float32", Kind.TRAINABLE)
    schema = Schema((), (), (), (parameter,))
    good = np.zeros((2, 3), np.float32)
    assert Weights.from_schema(schema, {"fc.weight": good}).fingerprint == schema.fingerprint
    for arrays, words in (
        ({"fc.weight": good.T}, r"expected float32 \[2, 3\], received float32 \[3, 2\]"),
        ({"fc.weight": good.astype(np.float64)}, "received float64"),
        ({}, r"missing \['fc.weight'\]"),
        ({"fc.weight": good, "x": good}, r"unknown \['x'\]"),
    ):
        with pytest.raises(SchemaError, match=words):
            Weights.from_schema(schema, arrays)


def test_relative_distance() -> None:
    one, two = Weights({"a": np.array([3.0, 4.0])}, "x"), Weights({"a": np.array([3.0, 4.5])}, "x")
    assert two.relative_distance(one) == pytest.approx(0.1)
    assert one.relative_distance(one) == 0
