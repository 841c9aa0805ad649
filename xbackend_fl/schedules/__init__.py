"""Learning rates over rounds and over the steps of one: factors of ``training.optimizer.lr``, without a framework."""

from xbackend_fl.schedules.patience import Waiting, improves
from xbackend_fl.schedules.rates import factor_over_rounds, factor_over_steps, rates
from xbackend_fl.schedules.registry import SCHEDULES
from xbackend_fl.schedules.schedule import Schedule, Watching

__all__ = [
    "SCHEDULES",
    "Schedule",
    "Waiting",
    "Watching",
    "factor_over_rounds",
    "factor_over_steps",
    "improves",
    "rates",
]
