"""Figures about a model, computed in one place from outputs and targets, the same for every backend."""

from xbackend_fl.metrics.choice import Choice
from xbackend_fl.metrics.evaluation import evaluated
from xbackend_fl.metrics.expected import Expected
from xbackend_fl.metrics.heads import Head, Heads, Objectives, Read, objectives_of, parameters_of
from xbackend_fl.metrics.metric import Direction, Metric
from xbackend_fl.metrics.metrics import OF, Metrics, max_bytes
from xbackend_fl.metrics.objective import Fault, Objective, objective_of
from xbackend_fl.metrics.own import Own, OwnMetric
from xbackend_fl.metrics.pairs import max_positions_of
from xbackend_fl.metrics.participants import Over, over_participants
from xbackend_fl.metrics.registry import LOSS, METRICS, fitting, shown, usual_metrics
from xbackend_fl.metrics.reported import Reported

__all__ = [
    "LOSS",
    "METRICS",
    "OF",
    "Choice",
    "Direction",
    "Expected",
    "Fault",
    "Head",
    "Heads",
    "Metric",
    "Metrics",
    "Objective",
    "Objectives",
    "Over",
    "Own",
    "OwnMetric",
    "Read",
    "Reported",
    "evaluated",
    "fitting",
    "max_bytes",
    "max_positions_of",
    "objective_of",
    "objectives_of",
    "over_participants",
    "parameters_of",
    "shown",
    "usual_metrics",
]
