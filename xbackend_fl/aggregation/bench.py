"""How fast the running mean is, against what this machine's memory allows."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xbackend_fl.aggregation.kernels import add_scaled
from xbackend_fl.aggregation.online import OnlineMean, Precision
from xbackend_fl.weights import Weights

_BYTES_PER_VALUE = 12
"""Of float32: read the update, read the sum, write the sum."""


@dataclass(frozen=True)
class MeanTiming:
    """One way of adding up updates.

    Attributes:
        name: What was timed.
        seconds: Median time of one update.
        share: Speed in parts of the limit's.
        gigabytes_per_second: At 12 bytes a value.
    """

    name: str
    seconds: float
    share: float
    gigabytes_per_second: float


def bench_mean(values: int, updates: int, repeats: int) -> tuple[list[MeanTiming], float]:
    """Time the mean of ``updates`` updates of ``values`` float32 values.

    Returns:
        Timings, the limit first (the same additions without any check), and the extra memory in models.
    """
    generator = np.random.default_rng(0)
    update = Weights({"w": generator.standard_normal(values, np.float32)}, "bench")
    base = Weights({"w": generator.standard_normal(values, np.float32)}, "bench")
    total = np.zeros(values, np.float32)

    def limit() -> None:
        for _ in range(updates):
            add_scaled(total, update["w"], 1.5)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = [("axpy, the limit", limit)]
    rows += [
        (f"mean, {kind}", _adding(update, None, kind, updates)) for kind in ("float32", "float64", "exact")
    ]
    rows += [("mean of differences, float32", _adding(update, base, "float32", updates))]
    timings: list[MeanTiming] = []
    extra = 0.0
    for name, run in rows:
        seconds = _median(run, repeats) / updates
        first = timings[0].seconds if timings else seconds
        timings.append(MeanTiming(name, seconds, first / seconds, values * _BYTES_PER_VALUE / seconds / 1e9))
        if name == "mean, float32":
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            extra = grown * 1024 / (4 * values)
    return timings, extra


def _adding(update: Weights, base: Weights | None, precision: Precision, updates: int) -> Callable[[], None]:
    mean = OnlineMean(base, precision)

    def run() -> None:
        for _ in range(updates):
            mean.add(update, 3)

    return run


def _median(run: Callable[[], None], repeats: int) -> float:
    run()  # the first touches new memory
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
