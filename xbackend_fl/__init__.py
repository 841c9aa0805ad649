"""Federated learning across frameworks: one course, one model, proven equal on every backend.

Names are imported on first use (PEP 562), so that ``import xbackend_fl`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbackend_fl.adapter import with_axes
    from xbackend_fl.aggregation import OnlineMean
    from xbackend_fl.canonical import Binding, Schema
    from xbackend_fl.course import Course, Participant, load_course
    from xbackend_fl.errors import MismatchError, XbflError
    from xbackend_fl.federation.script import federate
    from xbackend_fl.mapping import BoundModel, Proof, bind, describe, describe_reference, gather_evidence
    from xbackend_fl.participant import Task
    from xbackend_fl.simulation import Run, resume_run, run_course
    from xbackend_fl.weights import Weights, load_weights, save_weights

__version__ = "0.1.0"

__all__ = [
    # Models and what connects them
    "Binding",
    "BoundModel",
    # Courses
    "Course",
    "MismatchError",
    # Merging
    "OnlineMean",
    "Participant",
    "Proof",
    "Run",
    "Schema",
    "Task",
    # Weights
    "Weights",
    "XbflError",
    "bind",
    "describe",
    "describe_reference",
    "federate",
    "gather_evidence",
    "load_course",
    "load_weights",
    "resume_run",
    "run_course",
    "save_weights",
    "with_axes",
]

_ROOMS = {
    "Binding": "canonical",
    "BoundModel": "mapping",
    "Course": "course",
    "MismatchError": "errors",
    "OnlineMean": "aggregation",
    "Participant": "course",
    "Proof": "mapping",
    "Run": "simulation",
    "Schema": "canonical",
    "Task": "participant",
    "Weights": "weights",
    "XbflError": "errors",
    "bind": "mapping",
    "describe": "mapping",
    "describe_reference": "mapping",
    "federate": "federation.script",
    "gather_evidence": "mapping",
    "load_course": "course",
    "load_weights": "weights",
    "resume_run": "simulation",
    "run_course": "simulation",
    "save_weights": "weights",
    "with_axes": "adapter",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'xbackend_fl' has no attribute {name!r}")
    return getattr(import_module(f"xbackend_fl.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
