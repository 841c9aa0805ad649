"""Backend-neutral merging of updates."""

from xbackend_fl.aggregation.bench import bench_mean
from xbackend_fl.aggregation.kernels import is_finite, is_within
from xbackend_fl.aggregation.online import LARGEST, OnlineMean, Precision, SumFull, Sums
from xbackend_fl.aggregation.optimizers import ServerOptimizer, State

__all__ = [
    "LARGEST",
    "OnlineMean",
    "Precision",
    "ServerOptimizer",
    "State",
    "SumFull",
    "Sums",
    "bench_mean",
    "is_finite",
    "is_within",
]
