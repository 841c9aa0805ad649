"""Adam (Kingma & Ba 2015, algorithm 1); weight decay is added to the gradient, as in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbackend_fl.adapter.optimizers.moments import Moments


@dataclass(frozen=True)
class Adam(Moments):
    """Steps along a mean of gradients, shorter by the root of a mean of their squares."""

    name: Literal["adam"] = "adam"


OPTIMIZER = Adam
