"""Backend-neutral merging of updates."""

from xbackend_fl.aggregation.aggregator import Aggregator, PartialAggregate, Rule, Start
from xbackend_fl.aggregation.bench import bench_mean
from xbackend_fl.aggregation.kernels import is_finite, is_within
from xbackend_fl.aggregation.online import LARGEST, OnlineMean, Precision, SumFull, Sums
from xbackend_fl.aggregation.registry import AGGREGATORS
from xbackend_fl.aggregation.rules.mean import MeanAggregator
from xbackend_fl.aggregation.update import MODEL, Merged, Update, Weighing

__all__ = [
    "AGGREGATORS",
    "LARGEST",
    "MODEL",
    "Aggregator",
    "MeanAggregator",
    "Merged",
    "OnlineMean",
    "PartialAggregate",
    "Precision",
    "Rule",
    "Start",
    "SumFull",
    "Sums",
    "Update",
    "Weighing",
    "bench_mean",
    "is_finite",
    "is_within",
]
