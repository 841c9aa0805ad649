"""Which worker trains whom, with how many threads."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import cycle, islice, takewhile
from pathlib import Path

from xbackend_fl.adapter import LOCKSTEP
from xbackend_fl.course import Course
from xbackend_fl.errors import ConfigError

_DEVICES = Path("/dev")
_NAME = re.compile(r"\d+|GPU-.+|MIG-.+")
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
        gpus: Name of every worker's GPU, for ``CUDA_VISIBLE_DEVICES``; none if models train on processors, or if nobody knows which there are.
    """

    workers: int
    threads: int
    device: str = "cpu"
    replicas: int | None = 1
    gpus: tuple[str, ...] = ()


def choose_placement(course: Course, cores: int) -> Placement:
    """Workers and threads for a machine.

    One thread in each of two workers trains two participants faster than two threads train one: small steps leave a second
    thread little to do. On GPUs every worker has one of its own. A course may say otherwise (``federate.workers``): fewer workers leave GPUs alone, more share
    them in turn. ``federate.memory: low`` and a model per participant mean one worker per backend.

    Raises:
        ConfigError: ``CUDA_VISIBLE_DEVICES`` names a GPU that is not there, or none where the course wants one.
    """
    # A reference without participants says what the model is, and then waits.
    backends, federate = len({p.backend for p in course.participants}), course.federate
    device, cohort = federate.device, federate.cohort or len(course.participants)
    gpus = () if device == "cpu" else _gpus(required=device == "cuda")
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if federate.memory == "low" or not federate.share_local_model:
        workers = 1
    elif federate.workers is not None:
        workers = federate.workers
    elif device == "cuda":
        workers = max(1, min(len(gpus), cohort))
    else:
        workers = max(1, min(cores // backends, _MAX_WORKERS, cohort // backends))
    replicas: int | None = 1
    if device == "cuda" and federate.memory == "normal":
        words = {"auto": None, "lockstep": LOCKSTEP}
        replicas = words[federate.replicas] if isinstance(federate.replicas, str) else federate.replicas
    threads = max(1, cores // (backends * workers))
    return Placement(workers, threads, device, replicas, tuple(islice(cycle(gpus), workers)))


def _gpus(*, required: bool) -> tuple[str, ...]:
    """GPUs that frameworks will see, without asking one: the driver's files, or what the environment names of them, cards and parts of cards (MIG)."""
    count = sum(path.name.removeprefix("nvidia").isdigit() for path in _DEVICES.glob("nvidia*"))
    # The driver's files need not start at zero; frameworks count from there.
    names = tuple(str(index) for index in range(count))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not count:
        return names
    # As for CUDA, what is no name (-1, NoDevFiles) ends the list.
    given = tuple(takewhile(_NAME.fullmatch, (name.strip() for name in visible.split(","))))
    missing = [name for name in given if name.isdigit() and int(name) >= count]
    if not missing and (given or not required):
        return given
    if missing:
        problem = f"there is no GPU {missing[0]}: this machine has {count}, counted from 0"
    else:
        problem = "federate.device is cuda"
    raise ConfigError(
        f"CUDA_VISIBLE_DEVICES is {visible!r}, and {problem}",
        hint=f"CUDA_VISIBLE_DEVICES={','.join(names)}, or federate.device: cpu",
    )
