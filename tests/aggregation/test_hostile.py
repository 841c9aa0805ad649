"""What no mean takes is refused before anything is touched, and no process or setting makes it hang or trip."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from xbackend_fl import OnlineMean, Weights
from xbackend_fl.aggregation import bench_mean
from xbackend_fl.canonical import Kind
from xbackend_fl.errors import ConfigError, UpdateRefused

FIVE = np.array(5, np.int32)
KINDS = {"a": Kind.TRAINABLE, "c": Kind.COUNTER, "z": Kind.TRAINABLE}
FORK = """
import multiprocessing
import numpy as np
from xbackend_fl import OnlineMean, Weights

weights = Weights({"w": np.ones(5_000_000, np.float32)}, "x")

def mean(_: int = 0) -> int:
    found = OnlineMean(weights)
    found.add(weights, 1)
    return int(found.result()["w"].sum())

if __name__ == "__main__":
    mean()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(*pool.map_async(mean, [0]).get(60))
"""


def update(value: float, counter: Any = FIVE, last: Any = np.float32) -> Weights:
    arrays = {"a": np.float32([value]), "c": counter, "z": np.array([value]).astype(last)}
    return Weights(arrays, "x", KINDS)


@pytest.mark.quick
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint64", "int8"])
def test_a_counter_of_another_dtype(dtype: str) -> None:
    """It was refused by NumPy, after the parameters before it had been merged."""
    mean = OnlineMean(update(0.0))
    mean.add(update(1.0), 1)
    before = {name: array.tobytes() for name, array in mean.result().items()}
    with pytest.raises(UpdateRefused, match=f"parameter 'c': expected int32, received {dtype}"):
        mean.add(update(3.0, np.array(7).astype(dtype)), 1)
    assert {name: array.tobytes() for name, array in mean.result().items()} == before
    assert mean.total == 1


@pytest.mark.quick
@pytest.mark.parametrize("precision", ["float32", "float64", "exact"])
@pytest.mark.parametrize("dtype", ["int32", "complex64", "object", "str", "bfloat16"])
def test_a_parameter_that_holds_no_floats(dtype: str, precision: Any) -> None:
    """A NaN of bfloat16 became -2147483648 in an exact mean."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    mean = OnlineMean(update(0.0), precision)
    mean.add(update(1.0), 1)
    other = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    with pytest.raises(UpdateRefused, match="parameter 'z': expected float32") as refused:
        mean.add(update(3.0, last=other), 1)
    assert refused.value.hint == "convert the update first: array.astype('float32')"
    np.testing.assert_array_equal(mean.result()["a"], np.float32([1.0]))


@pytest.mark.quick
@pytest.mark.parametrize("number", [float("nan"), float("inf"), None, "3", 2.5, 0, -1, True, [3]])
def test_no_number_of_examples(number: Any) -> None:
    with pytest.raises(UpdateRefused, match="num_examples must be a positive integer"):
        OnlineMean().add(update(1.0), number)


@pytest.mark.quick
def test_sums_of_another_shape() -> None:
    other = OnlineMean(Weights({"w": np.ones((3, 3), np.float32)}, "x"))
    other.add(Weights({"w": np.ones((3, 3), np.float32)}, "x"), 1)
    with pytest.raises(UpdateRefused, match="shapes"):
        OnlineMean(Weights({"w": np.ones(2, np.float32)}, "x")).absorb(other.sums)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """It waited for its parent's for ever."""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", FORK], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "5000000", done.stderr[-500:]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("OMP_NUM_THREADS", text) for text in ("4,2", "", "-1", "many")),
        ("NUMBA_DISABLE_JIT", "1"),
        ("NUMBA_NUM_THREADS", "0"),
    ],
)
def test_settings_of_a_process(name: str, value: str) -> None:
    """Each ended in a traceback."""
    program = (
        "import numpy as np\n"
        "from xbackend_fl import OnlineMean, Weights\n"
        "from xbackend_fl.aggregation import online\n"
        "online.MANY = 0\n"
        "ones = Weights({'w': np.ones(5_000_000, np.float32)}, 'x')\n"
        "mean = OnlineMean(ones)\n"
        "mean.add(ones, 2)\n"
        "print(int(mean.result()['w'].sum()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "5000000", done.stderr[-500:]


@pytest.mark.quick
def test_more_than_memory_holds() -> None:
    with pytest.raises(ConfigError, match="do not fit into memory") as refused:
        bench_mean(10**14, 1, 1)
    assert "--values" in str(refused.value.hint)


@pytest.mark.quick
def test_a_mean_allocates_one_model() -> None:
    _, models = bench_mean(200_000, 1, 1)
    assert 1 <= models < 1.2
