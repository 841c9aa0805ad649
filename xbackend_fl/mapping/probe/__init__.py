"""Weights and data that make differences visible, and the programs that run a model or a graph on them."""

from xbackend_fl.mapping.probe.probe import Case, Evidence, observe

__all__ = ["Case", "Evidence", "observe"]
