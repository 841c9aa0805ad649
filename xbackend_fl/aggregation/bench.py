"""How fast the running mean is, against what this machine's memory allows."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbackend_fl.aggregation.kernels import MANY, add_scaled, reach
from xbackend_fl.aggregation.online import OnlineMean, Precision
from xbackend_fl.errors import ConfigError
from xbackend_fl.weights import Weights

_BYTES_PER_VALUE = 12
"""Of float32: read the update, read the sum, write the sum."""

_BYTES_OF_A_COPY = 8


_AT_ONCE = 4


@dataclass(frozen=True)
class MeanTiming:
    """One way of adding up updates.

    Attributes:
        name: What was timed.
        seconds: Median time of one update.
        fraction: Speed in parts of the limit's.
        gigabytes_per_second: At 12 bytes a value.
    """

    name: str
    seconds: float
    fraction: float
    gigabytes_per_second: float


def bench_mean(
    values: int, updates: int, repeats: int, device: str = "cpu"
) -> tuple[list[MeanTiming], float]:
    """Time the mean of ``updates`` updates of ``values`` float32 values.

    Args:
        values: Size of the model.
        updates: Updates of a round.
        repeats: Rounds that count.
        device: ``cpu``, or ``cuda`` for the GPU that CuPy sees.

    Returns:
        Timings, the limit first, and what a float32 mean on a processor allocates, in models. The limit is BLAS's ``axpy`` without any check; on a GPU 12 bytes
        a value at the speed of a copy on the device.

    Raises:
        ConfigError: CuPy is not installed, or sees no GPU; or memory does not hold the updates.
    """
    xp = _array_module(device)
    try:
        return _timed(values, updates, repeats, xp), _allocated(values) if xp is np else 0.0
    except MemoryError as error:
        raise ConfigError(
            f"updates of {values:,} values do not fit into memory: {error}",
            hint=f"fewer --values: ten arrays of 4 bytes a value are held at once, here {40 * values / (1 << 30):,.0f} GiB",
        ) from error


def _timed(values: int, updates: int, repeats: int, xp: Any) -> list[MeanTiming]:
    timings: list[MeanTiming] = []
    for name, run in _rows(values, updates, xp):
        seconds = (
            statistics.median([run() for _ in range(repeats + 1)][1:]) / updates
        )  # the first touches new memory
        if not timings and xp is not np:
            seconds *= _BYTES_PER_VALUE / _BYTES_OF_A_COPY
        first = timings[0].seconds if timings else seconds
        timings.append(MeanTiming(name, seconds, first / seconds, values * _BYTES_PER_VALUE / seconds / 1e9))
    return timings


def _allocated(values: int) -> float:
    """What a float32 mean of two updates allocates at most, in models."""
    update = Weights({"w": np.ones(values, np.float32)}, "bench")
    tracemalloc.start()
    try:
        mean = OnlineMean()
        for _ in range(2):
            mean.add(update, 3)
        return tracemalloc.get_traced_memory()[1] / (4 * values)
    finally:
        tracemalloc.stop()


def _rows(values: int, updates: int, xp: Any) -> list[tuple[str, Callable[[], float]]]:
    generator = np.random.default_rng(0)
    drawn = [xp.asarray(generator.standard_normal(values, np.float32)) for _ in range(_AT_ONCE + 1)]
    base, *arrays = (Weights({"w": array}, "bench") for array in drawn)
    total = xp.zeros(values, np.float32)
    reach(np.zeros(1, np.float32), many=values >= MANY)  # what compiles loops is no part of any row
    several = [(arrays[index % _AT_ONCE], 3) for index in range(updates)]

    def limit() -> None:
        for weights, scale in several:
            if xp is np:
                add_scaled(total, [weights["w"]], [scale])
            else:
                xp.copyto(total, weights["w"])

    def alone(at_once: int, origin: Any = None) -> Callable[[], None]:
        def run() -> None:
            for part in _parts(several, at_once):
                arrays, scales = [weights["w"] for weights, _ in part], [scale for _, scale in part]
                add_scaled(total, arrays, scales, origin, many=values >= MANY)

        return run

    def adding(base: Weights | None, precision: Precision, at_once: int = 1) -> Callable[[], None]:
        mean = OnlineMean(base, precision)

        def run() -> None:
            for part in _parts(several, at_once):
                mean.add_all(part)

        return run

    rows = [("the limit", limit), *((f"addition alone, {k} at once", alone(k)) for k in (1, _AT_ONCE))]
    rows.append(("addition of differences alone", alone(1, base["w"])))
    rows += [(f"mean, {kind}", adding(None, kind)) for kind in ("float32", "float64", "exact")]
    rows += [
        (f"mean, float32, {_AT_ONCE} at once", adding(None, "float32", _AT_ONCE)),
        ("mean of differences, float32", adding(base, "float32")),
        (f"mean of differences, float32, {_AT_ONCE} at once", adding(base, "float32", _AT_ONCE)),
    ]
    given = ("mean of differences, float32, given away", _given(base, several, xp))
    return [*((name, _clocked(run, xp)) for name, run in rows), given]


def _array_module(device: str) -> Any:
    if device == "cpu":
        return np
    try:
        import cupy  # noqa: PLC0415  a heavy import that only this needs

        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # a missing driver raises CuPy's own kinds
        raise ConfigError(
            f"the mean on {device!r} needs CuPy and a GPU: {error}",
            hint="install the package of CuPy for your CUDA (cupy-cuda12x, cupy-cuda13x), or leave --device out",
        ) from error
    return cupy


def _parts(updates: list[tuple[Weights, int]], size: int) -> list[list[tuple[Weights, int]]]:
    return [updates[start : start + size] for start in range(0, len(updates), size)]


def _clocked(run: Callable[[], None], xp: Any) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        run()
        if xp is not np:
            xp.cuda.runtime.deviceSynchronize()
        return time.perf_counter() - start

    return timed


def _given(base: Weights, several: list[tuple[Weights, int]], xp: Any) -> Callable[[], float]:
    """Updates that are given away, each in the memory that the sums had before the last; putting them there does not count."""
    mean, spare = OnlineMean(base), xp.empty_like(base["w"])

    def run() -> float:
        nonlocal spare
        seconds = 0.0
        for weights, scale in several:
            xp.copyto(spare, weights["w"])
            update, before = weights.like({"w": spare}), mean.sums.arrays.get("w", spare)
            seconds += _clocked(lambda: mean.add(update, scale, given=True), xp)()  # noqa: B023  it is called at once
            spare = before if mean.sums.arrays["w"] is spare else spare
        return seconds

    return run
