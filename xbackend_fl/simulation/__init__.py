"""Runs whole courses on one machine with one model per backend."""

from xbackend_fl.simulation.engine import SimulationEngine
from xbackend_fl.simulation.run import Run, resume_run, run_course

__all__ = ["Run", "SimulationEngine", "resume_run", "run_course"]
