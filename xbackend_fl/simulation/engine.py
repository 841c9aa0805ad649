"""The simulation engine: one long-lived worker per backend, merged once per round."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from xbackend_fl.adapter import Metrics
from xbackend_fl.aggregation import OnlineMean
from xbackend_fl.canonical import Binding
from xbackend_fl.course import Course
from xbackend_fl.events import ModelBound, Observer
from xbackend_fl.server import Outputs, Prepared, RoundOutcome, check_loss
from xbackend_fl.simulation.process import Handle, LocalWorker, ProcessWorker, collect
from xbackend_fl.weights import Weights


@final
class SimulationEngine:
    """Trains all participants of a course on this machine.

    Args:
        course: The course.
        in_process: Run the workers in this process, one after the other, for debugging.
    """

    def __init__(self, course: Course, *, in_process: bool = False) -> None:
        self._course = course
        backends = course.backends
        threads = max(1, (os.cpu_count() or 1) // len(backends))
        make = LocalWorker if in_process else ProcessWorker
        self._workers: list[Handle] = [make(course, backend, threads) for backend in backends]

    def prepare(self, observer: Observer) -> Prepared:
        """Open every model; the reference's evidence proves the others."""
        began = time.perf_counter()
        reference, *others = self._workers
        for worker in others:
            # Imports and descriptions run side by side with the reference's.
            worker.submit("version")
        reference.submit("evidence")
        schema, evidence = collect([reference], observer)[0]
        check_loss(schema, self._course.training.loss)
        collect(others, observer)
        bindings: dict[str, Binding] = {}
        for worker in self._workers:
            worker.submit("bind", schema, evidence)
        for worker, answer in zip(self._workers, collect(self._workers, observer), strict=True):
            binding, proof, notes = answer
            bindings[worker.backend] = binding
            observer(
                ModelBound(
                    backend=worker.backend,
                    version=self._ask(worker, "version"),
                    fingerprint=schema.fingerprint,
                    reference=worker is reference,
                    largest_error=proof.largest_error,
                    notes=(*notes, *proof.notes),
                    seconds=time.perf_counter() - began,
                )
            )
        return Prepared(schema, bindings, self._ask(reference, "initial"))

    def train_round(
        self, number: int, weights: Weights, cohort: Sequence[str], observer: Observer
    ) -> RoundOutcome:
        """Train a cohort, all backends side by side; partial means merge in the order of the backends."""
        for worker in self._workers:
            worker.submit("train_round", number, weights, cohort)
        mean = OnlineMean(weights, self._course.federate.precision)
        failed: dict[str, str] = {}
        for partial in collect(self._workers, observer):
            mean.merge(partial.mean)
            failed |= partial.failed
        return RoundOutcome(mean, failed)

    def evaluate(self, weights: Weights, split: str) -> Metrics:
        """Metrics in the reference's worker."""
        metrics: Metrics = self._ask(self._workers[0], "evaluate", weights, split)
        return metrics

    def outputs(self, weights: Weights, split: str, count: int) -> Outputs:
        """Answers of every backend."""
        for worker in self._workers:
            worker.submit("outputs", weights, split, count)
        answers = collect(self._workers, _ignore)
        by_backend = {w.backend: answer[1] for w, answer in zip(self._workers, answers, strict=True)}
        return Outputs(answers[0][0], by_backend)

    def save_native(self, weights: Weights, path: Path) -> list[Path]:
        """One file per backend."""
        for worker in self._workers:
            worker.submit("save", weights, path)
        return collect(self._workers, _ignore)

    def num_examples(self) -> dict[str, int]:
        """Examples of every participant."""
        for worker in self._workers:
            worker.submit("num_examples")
        sizes: dict[str, int] = {}
        for answer in collect(self._workers, _ignore):
            sizes |= answer
        return sizes

    def peak_memory_bytes(self) -> dict[str, int]:
        """Largest resident set of every process."""
        for worker in self._workers:
            worker.submit("peak_memory_bytes")
        answers = collect(self._workers, _ignore)
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"server": own} | {w.backend: n for w, n in zip(self._workers, answers, strict=True)}

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()

    def _ask(self, worker: Handle, method: str, *arguments: Any) -> Any:
        worker.submit(method, *arguments)
        return collect([worker], _ignore)[0]


def _ignore(_: object) -> None:
    """Calls that make no events."""
