"""Figures about a model, computed in one place from outputs and targets, the same for every backend."""

from xbackend_fl.metrics.evaluation import evaluated
from xbackend_fl.metrics.metric import Metric
from xbackend_fl.metrics.metrics import Metrics
from xbackend_fl.metrics.objective import Fault, Objective, objective_of
from xbackend_fl.metrics.own import MetricFile, OwnMetric
from xbackend_fl.metrics.pairs import columns_of, most_positions_of
from xbackend_fl.metrics.registry import METRICS, default_metric, is_better, metrics_for, shown

__all__ = [
    "METRICS",
    "Fault",
    "Metric",
    "MetricFile",
    "Metrics",
    "Objective",
    "OwnMetric",
    "columns_of",
    "default_metric",
    "evaluated",
    "is_better",
    "metrics_for",
    "most_positions_of",
    "objective_of",
    "shown",
]
