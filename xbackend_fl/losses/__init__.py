"""What training minimises: one arithmetic a loss, which every framework computes with its own operations."""

from xbackend_fl.losses.mean import mean_loss
from xbackend_fl.losses.operations import NumpyOperations, Operations
from xbackend_fl.losses.own import NativeLoss, OwnLoss
from xbackend_fl.losses.protocol import QUANTITIES, BuiltIn, Kernel, Loss, Targets
from xbackend_fl.losses.registry import LOSSES
from xbackend_fl.losses.targets import each_of, joined, parts_of

__all__ = [
    "LOSSES",
    "QUANTITIES",
    "BuiltIn",
    "Kernel",
    "Loss",
    "NativeLoss",
    "NumpyOperations",
    "Operations",
    "OwnLoss",
    "Targets",
    "each_of",
    "joined",
    "mean_loss",
    "parts_of",
]
