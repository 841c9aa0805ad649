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
    "names",
]
