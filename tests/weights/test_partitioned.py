"""Variables that TensorFlow 1 stored in parts are read as TensorFlow joins them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from xbackend_fl import weights
from xbackend_fl.errors import FormatRefused
from xbackend_fl.weights.store import same_bits

v1 = tf.compat.v1
CASES = {
    "rows": ((10, 4), v1.fixed_size_partitioner(3), tf.float32),
    "columns": ((10, 4), v1.fixed_size_partitioner(3, axis=1), tf.float64),
    "the middle of three": ((70, 200, 3), v1.fixed_size_partitioner(2, axis=1), tf.float32),
    "far apart": ((20000,), v1.fixed_size_partitioner(7), tf.int32),
    "single rows": ((8, 2), v1.fixed_size_partitioner(8), tf.bfloat16),
    "by size": ((9, 5), v1.variable_axis_size_partitioner(40), tf.float32),
}


def _saved(path: Path, name: str, *, sharded: bool) -> Path:
    shape, partitioner, dtype = CASES[name]
    with tf.Graph().as_default():
        v1.set_random_seed(0)
        draw = v1.random_uniform_initializer(0, 100, seed=1, dtype=tf.float32)
        with v1.variable_scope("scope", partitioner=partitioner):
            v1.get_variable(
                "w",
                shape,
                dtype,
                lambda size, dtype, **_: tf.cast(draw(size, tf.float32), dtype),
            )
        v1.get_variable("plain", (3,))
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver(sharded=sharded).save(session, str(path))
    return path


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_parts_are_joined(name: str, sharded: bool, tmp_path: Path) -> None:  # noqa: FBT001  a parameter of the test
    path = _saved(tmp_path / "model.ckpt", name, sharded=sharded)
    reader = tf.train.load_checkpoint(str(path))
    archive = weights.open_weights(path)
    assert archive.keys() == reader.get_variable_to_shape_map().keys() == {"plain", "scope/w"}
    for key, array in archive.items():
        assert same_bits(array, np.asarray(reader.get_tensor(key)))


def test_a_changed_bit_in_a_part_is_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path / "model.ckpt", "rows", sharded=False)
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    with pytest.raises(FormatRefused, match="checksum"):
        weights.open_weights(path)["scope/w"]
