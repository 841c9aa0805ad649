"""The seam between the core and the frameworks."""

from xbackend_fl.adapter.contract import (
    Adapter,
    Batch,
    CohortResult,
    Metrics,
    Part,
    Resident,
    Scaling,
    Tensors,
    TrainConfig,
    Trainer,
)
from xbackend_fl.adapter.optimizers import Optimizer
from xbackend_fl.adapter.registry import adapter_of, load, names
from xbackend_fl.adapter.sharing import longest_first

__all__ = [
    "Adapter",
    "Batch",
    "CohortResult",
    "Metrics",
    "Optimizer",
    "Part",
    "Resident",
    "Scaling",
    "Tensors",
    "TrainConfig",
    "Trainer",
    "adapter_of",
    "load",
    "longest_first",
    "names",
]
