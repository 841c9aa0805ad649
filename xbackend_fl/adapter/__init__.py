"""The seam between the core and the frameworks."""

from xbackend_fl.adapter.axes import with_axes
from xbackend_fl.adapter.cohort import LOCKSTEP, ClientResult, ClientWork, CohortResult, CohortTrainer
from xbackend_fl.adapter.contract import (
    Adapter,
    Batch,
    Exporting,
    Judging,
    LiteExporting,
    LiteModel,
    LossSum,
    Numbering,
    Preserving,
    Renewing,
    Reordering,
    Rounding,
    Scaling,
    Tensors,
    TrainConfig,
    Trainer,
    Unbuilding,
)
from xbackend_fl.adapter.heads import HeadConfig, TrainsHeads
from xbackend_fl.adapter.lending import Lending, Lent
from xbackend_fl.adapter.optimizers import OPTIMIZERS, Optimizer
from xbackend_fl.adapter.peers import Distributed, Peers
from xbackend_fl.adapter.registry import adapter_of, load, names, wrong_model
from xbackend_fl.adapter.rules import LocalRule
from xbackend_fl.adapter.scheduling import balance, balance_lockstep, largest_share

__all__ = [
    "LOCKSTEP",
    "OPTIMIZERS",
    "Adapter",
    "Batch",
    "ClientResult",
    "ClientWork",
    "CohortResult",
    "CohortTrainer",
    "Distributed",
    "Exporting",
    "HeadConfig",
    "Judging",
    "Lending",
    "Lent",
    "LiteExporting",
    "LiteModel",
    "LocalRule",
    "LossSum",
    "Numbering",
    "Optimizer",
    "Peers",
    "Preserving",
    "Renewing",
    "Reordering",
    "Rounding",
    "Scaling",
    "Tensors",
    "TrainConfig",
    "Trainer",
    "TrainsHeads",
    "Unbuilding",
    "adapter_of",
    "balance",
    "balance_lockstep",
    "largest_share",
    "load",
    "names",
    "with_axes",
    "wrong_model",
]
