"""The round loop, checkpoints and the run folder: one piece of code for every engine."""

from xbackend_fl.rounds.back import Ruined
from xbackend_fl.rounds.checkpoint import CourseState, load_state, save_state
from xbackend_fl.rounds.engine import Engine, Outputs, Prepared, RoundOutcome
from xbackend_fl.rounds.finish import finish
from xbackend_fl.rounds.folder import RunFolder
from xbackend_fl.rounds.owner import LEAVING_S, owned
from xbackend_fl.rounds.preflight import check_losses
from xbackend_fl.rounds.rounds import run_rounds
from xbackend_fl.rounds.run import Run, run_with
from xbackend_fl.rounds.space import explain_full_disk, retry_until_space, wait_for_space

__all__ = [
    "LEAVING_S",
    "CourseState",
    "Engine",
    "Outputs",
    "Prepared",
    "RoundOutcome",
    "Ruined",
    "Run",
    "RunFolder",
    "check_losses",
    "explain_full_disk",
    "finish",
    "load_state",
    "owned",
    "retry_until_space",
    "run_rounds",
    "run_with",
    "save_state",
    "wait_for_space",
]
