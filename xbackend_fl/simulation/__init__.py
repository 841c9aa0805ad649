"""Runs whole courses on one machine with one model per backend."""

from xbackend_fl.rounds import Run
from xbackend_fl.simulation.bench import Bench, bench_course
from xbackend_fl.simulation.engine import SimulationEngine
from xbackend_fl.simulation.run import resume_run, run_course

__all__ = ["Bench", "Run", "SimulationEngine", "bench_course", "resume_run", "run_course"]
