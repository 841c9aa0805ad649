"""Which worker trains whom, with how many threads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xbackend_fl.course import Course

_DEVICES = Path("/dev")
_REPLICAS = 16
"""A cohort of FEMNIST on an H100: 1 takes 225 ms, 4 take 118, 8 take 97, 16 take 92, 40 take 92."""

_MOST_WORKERS = 4
"""Every worker holds a model and a framework; more than this is asked for with ``federate.workers``."""


@dataclass(frozen=True)
class Placement:
    """How the processor is shared out.

    Attributes:
        workers: Processes per backend; one if it has no participants.
        threads: Threads of each.
        device: Where models train; several workers of a backend take the GPUs in turn.
        replicas: Copies of the model on the device that train side by side.
    """

    workers: int
    threads: int
    device: str = "cpu"
    replicas: int = 1


def place(course: Course, cores: int) -> Placement:
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
        workers = max(1, min(federate.workers or gpus, gpus))
    elif federate.workers is not None:
        workers = federate.workers
    else:
        cohort = federate.cohort or len(course.participants)
        workers = max(1, min(cores // backends, _MOST_WORKERS, cohort // backends))
    replicas = _REPLICAS if device == "cuda" and federate.memory == "normal" else 1
    return Placement(workers, max(1, cores // (backends * workers)), device, replicas)


def _gpus() -> int:
    """GPUs that frameworks will see, without asking one: the driver's files, or fewer if the environment says so."""
    found = sum(1 for path in _DEVICES.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        found if visible is None else min(found, len([name for name in visible.split(",") if name.strip()]))
    )


def longest_first(names: Sequence[str], sizes: Mapping[str, int], workers: int) -> list[list[str]]:
    """Share participants out: the largest first, each to the worker with the least to do (Graham 1969).

    The time of a participant is proportional to its examples, for one model and batch size. Measured times would differ from run
    to run, and with them the order of the sums and their last bits.

    Args:
        names: Participants of one backend.
        sizes: Their examples.
        workers: Number of workers.
    """
    shares: list[list[str]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for name in sorted(names, key=lambda n: (-sizes[n], n)):
        index = loads.index(min(loads))
        shares[index].append(name)
        loads[index] += sizes[name]
    return shares
