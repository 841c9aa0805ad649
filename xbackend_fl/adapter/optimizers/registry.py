"""All local optimizers by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.adapter.optimizers import kinds
from xbackend_fl.adapter.optimizers.optimizer import Optimizer
from xbackend_fl.registry import discover_kinds

OPTIMIZERS: Mapping[str, type[Optimizer]] = discover_kinds(kinds, "OPTIMIZER", Optimizer)
"""Optimizer by the name of its file, which courses write."""
