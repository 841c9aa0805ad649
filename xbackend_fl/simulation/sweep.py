"""How the cost of rounds grows with one thing in a course: measured at every size, each in processes of its own."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from xbackend_fl.course import load_course
from xbackend_fl.errors import ConfigError
from xbackend_fl.events import Event, RoundFinished
from xbackend_fl.simulation.bench import bench_course
from xbackend_fl.simulation.run import run_course

ROUNDS = "rounds"
"""The key whose sizes are whole runs, with evaluation and files: what a course keeps grows with its rounds."""


@dataclass(frozen=True)
class Sweep:
    """One key of a course and what it becomes.

    Attributes:
        key: As in ``--set``: ``federate.cohort``.
        choices: Values as a course file says them, the smallest first.
    """

    key: str
    choices: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> Sweep:
        """``KEY=A,B,C``.

        Raises:
            ConfigError: It is none.
        """
        key, _, rest = text.partition("=")
        choices = tuple(choice.strip() for choice in rest.split(","))
        if not key.strip() or len(choices) < 2 or not all(choices):
            raise ConfigError(
                f"--over {text!r} is no key with two or more values",
                hint="for example --over federate.cohort=10,100,1000",
            )
        return Sweep(key.strip(), choices)


@dataclass(frozen=True)
class Point:
    """A course at one size.

    Attributes:
        choice: The value of the key.
        size: What has grown: the value if it is a number, and else the values of the model.
        seconds: Of a round, the median.
        cpu_seconds: Processor time of a round, of all processes; 0 for whole runs, whose evaluation and files count too.
        peak_bytes: Largest resident sets of all processes together; 0 for whole runs.
        later: What the last tenth of the rounds takes, in parts of the first tenth; 1 where only training is timed.
    """

    choice: str
    size: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    later: float = 1


def measure(
    file: Path, sweep: Sweep, settings: Sequence[str] = (), *, warm_up: int = 1, repeats: int = 5
) -> Iterator[Point]:
    """Measure a course at every size.

    Args:
        file: The course file.
        sweep: What grows.
        settings: More changes, ``a.b=value`` each.
        warm_up: Rounds before the clock counts.
        repeats: Rounds that count.

    Yields:
        A point each, as soon as it is there.

    Raises:
        ConfigError: The course is none at that size.
    """
    context = multiprocessing.get_context("spawn")
    for choice in sweep.choices:
        changes = [*settings, f"{sweep.key}={choice}"]
        # Loaded here first, so that a mistake ends the command with its place.
        load_course(file, changes)
        # Memory is freed, and peaks are its own, where a process ends.
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            if sweep.key == ROUNDS:
                yield pool.submit(_whole_run, choice, str(file), changes).result()
            else:
                yield pool.submit(_point, choice, str(file), changes, warm_up, repeats).result()


def growth(points: Sequence[Point], pick: Callable[[Point], float]) -> list[float]:
    """How fast a figure grows from each point to the next: 1 in step with the size, 0 not at all, 2 with its square.

    The slope between two points of the figure over the size, both as logarithms.
    """
    return [
        math.log(pick(after) / pick(before)) / math.log(after.size / before.size)
        for before, after in itertools.pairwise(points)
    ]


def _point(choice: str, file: str, changes: Sequence[str], warm_up: int, repeats: int) -> Point:
    found = bench_course(load_course(Path(file), changes), warm_up=warm_up, repeats=repeats)
    try:
        size = float(choice)
    except ValueError:
        size = float(found.values)
    peak = sum(item.peak_bytes for item in found.usage.values())
    return Point(choice, size, found.seconds, found.cpu_seconds, peak)


def _whole_run(choice: str, file: str, changes: Sequence[str]) -> Point:
    ends: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, RoundFinished):
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        run_course(load_course(Path(file), changes), Path(folder) / "run", observer=note)
    took = [after - before for before, after in itertools.pairwise(ends)]
    tenth = max(1, len(took) // 10)
    later = statistics.median(took[-tenth:]) / statistics.median(took[:tenth])
    return Point(choice, float(choice), statistics.median(took), 0, 0, later)
