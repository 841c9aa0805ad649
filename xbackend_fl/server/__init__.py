"""The round loop, checkpoints and the run folder: one piece of code for every engine."""

from xbackend_fl.server.back import Ruined
from xbackend_fl.server.checkpoint import CourseState, load_state, save_state
from xbackend_fl.server.engine import Engine, Outputs, Participation, Prepared, RoundOutcome
from xbackend_fl.server.finish import Result, finish
from xbackend_fl.server.folder import RunFolder
from xbackend_fl.server.owner import LEAVING_S, owned, unwritable_said
from xbackend_fl.server.preflight import check_loss
from xbackend_fl.server.rounds import run_rounds
from xbackend_fl.server.run import Run, run_with
from xbackend_fl.server.space import full_disk_said, wait_for_space, written

__all__ = [
    "LEAVING_S",
    "CourseState",
    "Engine",
    "Outputs",
    "Participation",
    "Prepared",
    "Result",
    "RoundOutcome",
    "Ruined",
    "Run",
    "RunFolder",
    "check_loss",
    "finish",
    "full_disk_said",
    "load_state",
    "owned",
    "run_rounds",
    "run_with",
    "save_state",
    "unwritable_said",
    "wait_for_space",
    "written",
]
