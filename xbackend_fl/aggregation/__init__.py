"""Backend-neutral merging of updates."""

from xbackend_fl.aggregation.bench import bench_mean
from xbackend_fl.aggregation.kernels import is_finite, is_within
from xbackend_fl.aggregation.mean import MeanAggregator, Partial
from xbackend_fl.aggregation.online import LARGEST, OnlineMean, Precision, SumFull, Sums
from xbackend_fl.aggregation.update import MODEL, Merged, Update, Weighing

__all__ = [
    "LARGEST",
    "MODEL",
    "MeanAggregator",
    "Merged",
    "OnlineMean",
    "Partial",
    "Precision",
    "SumFull",
    "Sums",
    "Update",
    "Weighing",
    "bench_mean",
    "is_finite",
    "is_within",
]
