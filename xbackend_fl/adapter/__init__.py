"""The seam between the core and the frameworks."""

from xbackend_fl.adapter.axes import with_axes
from xbackend_fl.adapter.contract import (
    Adapter,
    Batch,
    CohortResult,
    Exporting,
    LossSum,
    Part,
    Preserving,
    Reordering,
    Resident,
    Rounding,
    Scaling,
    Tensors,
    TrainConfig,
    Trainer,
    Unbuilding,
)
from xbackend_fl.adapter.losses import LOSSES, Loss, LossName
from xbackend_fl.adapter.optimizers import Optimizer
from xbackend_fl.adapter.registry import adapter_of, load, names, wrong_model
from xbackend_fl.adapter.sharing import longest_first

__all__ = [
    "LOSSES",
    "Adapter",
    "Batch",
    "CohortResult",
    "Exporting",
    "Loss",
    "LossName",
    "LossSum",
    "Optimizer",
    "Part",
    "Preserving",
    "Reordering",
    "Resident",
    "Rounding",
    "Scaling",
    "Tensors",
    "TrainConfig",
    "Trainer",
    "Unbuilding",
    "adapter_of",
    "load",
    "longest_first",
    "names",
    "with_axes",
    "wrong_model",
]
