"""How long a round of a course takes, and what it needs: training and merging, without evaluation and files."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from xbackend_fl.course import Course
from xbackend_fl.data import cohort
from xbackend_fl.events import Event
from xbackend_fl.participant.usage import Usage
from xbackend_fl.simulation.engine import SimulationEngine


@dataclass(frozen=True)
class Timing:
    """One timed round.

    Attributes:
        seconds: Wall time of training a cohort, merging it, and the server's step.
        cpu_seconds: Processor time of all processes in it.
        examples: Training examples that were seen.
        steps: Optimizer steps of all participants.
    """

    seconds: float
    cpu_seconds: float
    examples: int
    steps: int


@dataclass(frozen=True)
class Bench:
    """Measurements of a course.

    Attributes:
        course: Its name.
        values: Values of the model.
        prepare_seconds: Imports, proofs and data, once.
        first: The rounds that warmed up.
        rounds: The rounds that count.
        usage: Peak and proportional memory of every process at the end.
        workers: Processes per backend, and threads of each.
    """

    course: str
    values: int
    prepare_seconds: float
    first: tuple[Timing, ...]
    rounds: tuple[Timing, ...]
    usage: dict[str, Usage]
    workers: tuple[int, int]

    @property
    def seconds(self) -> float:
        """Median seconds a round."""
        return statistics.median(item.seconds for item in self.rounds)

    @property
    def cpu_seconds(self) -> float:
        """Median processor seconds a round."""
        return statistics.median(item.cpu_seconds for item in self.rounds)

    @property
    def examples_per_second(self) -> float:
        """Over all timed rounds: their cohorts differ in size."""
        return sum(item.examples for item in self.rounds) / sum(item.seconds for item in self.rounds)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "course": self.course,
            "values": self.values,
            "prepare_seconds": self.prepare_seconds,
            "seconds_a_round": self.seconds,
            "cpu_seconds_a_round": self.cpu_seconds,
            "examples_per_second": self.examples_per_second,
            "first": [vars(item) for item in self.first],
            "rounds": [vars(item) for item in self.rounds],
            "memory": {name: vars(usage) for name, usage in self.usage.items()},
            "workers_per_backend": self.workers[0],
            "threads_per_worker": self.workers[1],
        }


def bench_course(
    course: Course,
    *,
    warm_up: int = 1,
    repeats: int = 5,
    in_process: bool = False,
    observer: Callable[[Event], None] = lambda _: None,
) -> Bench:
    """Time rounds of a course.

    Args:
        course: The course; its evaluation, checkpoints and stopping rule play no part.
        warm_up: Rounds before the clock counts.
        repeats: Rounds that count.
        in_process: Run the workers in this process.
        observer: Told about every event.
    """
    began = time.perf_counter()
    with closing(SimulationEngine(course, in_process=in_process)) as engine:
        prepared = engine.prepare(observer)
        prepare_seconds = time.perf_counter() - began
        weights, rule = prepared.initial, course.server_algorithm
        state, sizes = rule.init(weights), engine.num_examples()
        names = [participant.name for participant in course.participants]
        trainings = course.trainings
        timings: list[Timing] = []
        for number in range(1, warm_up + repeats + 1):
            size = course.federate.cohort or len(names)
            chosen = cohort(names, size, course.seed, "cohort", number)
            before, start = _cpu(engine), time.perf_counter()
            outcome = engine.train_round(number, weights, rule.vectors(weights, state), chosen, observer)
            weights, state = rule.apply(weights, outcome.mean.result(), state)
            seconds = time.perf_counter() - start
            steps = sum(trainings[name].num_steps(sizes[name]) for name in chosen)
            examples = sum(trainings[name].num_seen(sizes[name]) for name in chosen)
            timings.append(Timing(seconds, _cpu(engine) - before, examples, steps))
        placement = engine.placement
        return Bench(
            course.name,
            prepared.schema.num_values,
            prepare_seconds,
            tuple(timings[:warm_up]),
            tuple(timings[warm_up:]),
            engine.usage(),
            (placement.workers, placement.threads),
        )


def _cpu(engine: SimulationEngine) -> float:
    return sum(usage.cpu_seconds for usage in engine.usage().values())
