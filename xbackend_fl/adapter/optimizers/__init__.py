"""Local optimizers: one arithmetic each, which every framework computes on its own arrays."""

from xbackend_fl.adapter.optimizers.optimizer import Optimizer, StepNumbers
from xbackend_fl.adapter.optimizers.registry import OPTIMIZERS

__all__ = ["OPTIMIZERS", "Optimizer", "StepNumbers"]
