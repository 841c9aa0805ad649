"""Which worker trains whom, with how many threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from xbackend_fl.adapter import LOCKSTEP
from xbackend_fl.course import Course

_DEVICES = Path("/dev")
_MAX_WORKERS = 4
"""Every worker holds a model and a framework; more than this is asked for with ``federate.workers``."""


@dataclass(frozen=True)
class Placement:
    """How the processor is shared out.

    Attributes:
        workers: Processes per backend; one if it has no participants.
        threads: Threads of each.
        device: Where models train.
        replicas: Copies of the model on the device that train side by side; ``None`` to measure, :data:`~xbackend_fl.adapter.LOCKSTEP` for none.
        gpus: Name of every worker's GPU, for ``CUDA_VISIBLE_DEVICES``; none if models train on processors.
    """

    workers: int
    threads: int
    device: str = "cpu"
    replicas: int | None = 1
    gpus: tuple[str, ...] = ()


def choose_placement(course: Course, cores: int) -> Placement:
    """Workers and threads for a machine.

    One thread in each of two workers trains two participants faster than two threads train one: small steps leave a second
    thread little to do. On GPUs every worker has one of its own. A course may say otherwise (``federate.workers``); ``federate.memory: low`` and a model per participant
    mean one worker per backend.
    """
    # A reference without participants says what the model is, and then waits.
    backends, federate = len({p.backend for p in course.participants}), course.federate
    device = federate.device
    gpus = _gpus()
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if federate.memory == "low" or not federate.share_local_model:
        workers = 1
    elif device == "cuda":
        workers = max(1, min(federate.workers or len(gpus), len(gpus)))
    elif federate.workers is not None:
        workers = federate.workers
    else:
        cohort = federate.cohort or len(course.participants)
        workers = max(1, min(cores // backends, _MAX_WORKERS, cohort // backends))
    replicas: int | None = 1
    if device == "cuda" and federate.memory == "normal":
        words = {"auto": None, "lockstep": LOCKSTEP}
        replicas = words[federate.replicas] if isinstance(federate.replicas, str) else federate.replicas
    threads = max(1, cores // (backends * workers))
    return Placement(workers, threads, device, replicas, gpus[:workers] if device == "cuda" else ())


def _gpus() -> tuple[str, ...]:
    """GPUs that frameworks will see, without asking one: the driver's files, or fewer if the environment says so."""
    numbers = [path.name.removeprefix("nvidia") for path in _DEVICES.glob("nvidia*")]
    found = sorted((number for number in numbers if number.isdigit()), key=int)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        # The driver's files need not start at zero; frameworks count from there.
        return tuple(str(index) for index in range(len(found)))
    return tuple(name.strip() for name in visible.split(",") if name.strip())[: len(found)]
