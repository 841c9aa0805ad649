"""The simulation engine: a few long-lived workers per backend, merged once per round."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, final

from numpy.typing import NDArray

from xbackend_fl.adapter import balance
from xbackend_fl.adapter.exporting import Exported
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.course import Course
from xbackend_fl.course.federate import merging
from xbackend_fl.errors import Refusals, RefusedInput
from xbackend_fl.events import ModelBound, Noted, Observer, ParticipantEvaluated
from xbackend_fl.mapping import Evidence
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant import ClientStates, Scope, Usage, changed
from xbackend_fl.rounds import Outputs, Participation, Prepared, RoundOutcome, check_loss
from xbackend_fl.simulation.placement import Placement, place
from xbackend_fl.simulation.shared_memory import BufferRef, SharedBuffer
from xbackend_fl.simulation.workers import Handle, LocalWorker, ProcessWorker, collect
from xbackend_fl.weights import Weights


@final
class SimulationEngine:
    """Trains all participants of a course on this machine.

    Args:
        course: The course.
        in_process: Run the workers in this process, one after the other, for debugging.
        thorough: Also try what only the first round would try: a training step, the loaders once more.
        states: Where participants keep what they need from one of their rounds to the next; a folder that ends with the engine if left out.
    """

    def __init__(
        self,
        course: Course,
        *,
        in_process: bool = False,
        thorough: bool = False,
        states: Path | None = None,
    ) -> None:
        self._course = course
        self._passing = TemporaryDirectory(prefix="xbfl-") if states is None else None
        folder = states or Path(self._passing.name if self._passing is not None else "")
        budget = course.federate.state_memory_mib << 20
        self._states = ClientStates(folder, budget, course.keep_checkpoints)
        self._begun = False
        self._observer: Observer = _ignore
        # In one process, a second worker would only train in its turn.
        alone = in_process and course.federate.workers is None
        placement = self.placement = place(course, 1 if alone else os.cpu_count() or 1)
        # To try a course, two processes are enough: what they load and build is compared.
        workers = min(placement.workers, 2 // len(course.backends) or 1) if thorough else placement.workers
        busy = {participant.backend for participant in course.participants}
        make = LocalWorker if in_process else ProcessWorker
        self._teams: dict[str, list[Handle]] = {
            backend: [
                make(course, backend, placement.threads, gpu)
                for gpu in _seen(placement)[: workers if backend in busy else 1]
            ]
            for backend in course.backends
        }
        self._workers = [worker for team in self._teams.values() for worker in team]
        self._first = [team[0] for team in self._teams.values()]
        self._buffer = None if in_process else SharedBuffer()
        self._posted: tuple[Weights, BufferRef] | None = None
        self._beside = None if in_process else SharedBuffer()
        self._thorough = thorough
        self._sizes: dict[str, int] = {}

    def prepare(self, observer: Observer) -> Prepared:
        """Look at all data, open every model; the reference's evidence proves the others."""
        began = time.perf_counter()
        self._observer = observer
        reference = self._workers[0]
        schema, evidence, data = self._examine(observer)
        bindings: dict[str, Binding] = {}
        for worker in self._first:
            worker.submit("bind", schema, evidence)
        for worker, answer in zip(self._first, collect(self._first, observer), strict=True):
            binding, proof, notes = answer
            bindings[worker.backend] = binding
            observer(
                ModelBound(
                    backend=worker.backend,
                    version=self._ask(worker, "version"),
                    fingerprint=schema.fingerprint,
                    reference=worker is reference,
                    largest_error=proof.largest_error,
                    notes=notes,
                    seconds=time.perf_counter() - began,
                )
            )
        for backend, team in self._teams.items():
            for worker in team[1:]:
                worker.submit("adopt", schema, bindings[backend])
            collect(team[1:], observer)
        for worker in self._workers:
            worker.submit("keep_states", self._states)
        collect(self._workers, observer)
        if self.placement.device != "cpu":
            for worker in self._workers:
                worker.submit("to_device", self.placement.device, self.placement.replicas)
            collect(self._workers, observer)
        self._sizes = self.num_examples()
        return Prepared(schema, bindings, self._ask(reference, "initial"), data)

    def _examine(self, observer: Observer) -> tuple[Schema, tuple[Evidence, ...], dict[str, str]]:
        """Try everything but the training, in every backend; the reference's schema and evidence, and digests of the data.

        Raises:
            RefusedInput: All that is wrong, at once.
        """
        refused, reference = Refusals(), self._workers[0]
        for worker in self._workers:
            # Imports and descriptions run side by side with the reference's.
            worker.submit("evidence" if worker is reference else "digests")
        opened = dict(zip(self._workers, collect(self._workers, observer, refused), strict=True))
        asked = [worker for worker in self._first if opened[worker] is not None]
        for worker in asked:
            # The first looks at what all share.
            worker.submit("examine", Scope(worker is asked[0], self._thorough))
        data: dict[str, str] = {}
        loaded = [opened[worker] for worker in self._workers[1:] if opened[worker] is not None]
        for worker, found in zip(asked, collect(asked, observer), strict=True):
            loaded.append(found.digests)
            data |= found.contents
            for error in found.refused:
                refused.add(error)
            for note in found.notes:
                observer(Noted(backend=worker.backend, note=note))
        for loader in sorted({name for digests in loaded for name in digests}):
            if len({digests[loader] for digests in loaded if loader in digests}) > 1:
                refused.add(changed(loader))
        if opened[reference] is not None:
            with refused:
                check_loss(opened[reference][0], self._course.training.loss)
        refused.raise_any()
        schema, evidence = opened[reference]
        return schema, evidence, data

    def train_round(
        self,
        number: int,
        weights: Weights,
        vectors: Mapping[str, Weights],
        cohort: Sequence[str],
        observer: Observer,
    ) -> RoundOutcome:
        """Train a cohort, all workers side by side; partial means merge in the order of the workers."""
        if not self._begun:
            self._begun = True
            self._states.forget_from(number)
        beside = self._beside.write(vectors) if self._beside is not None and vectors else vectors
        backends = {participant.name: participant.backend for participant in self._course.participants}
        posted = self._post(weights)
        for backend, team in self._teams.items():
            sizes = {name: self._sizes[name] for name in sorted(cohort) if backends[name] == backend}
            for worker, share in zip(team, balance(sizes, len(team)), strict=True):
                worker.submit("train_round", number, posted, share, beside)
        mean = merging(self._course.federate, weights, vectors)
        failed: dict[str, str] = {}
        for partial in collect(self._workers, observer):
            mean.absorb(partial.partial)
            failed |= partial.failed
        return RoundOutcome(mean, failed)

    def participation(self) -> Sequence[Participation]:
        """Nobody is late here."""
        return ()

    @property
    def evaluates_with_training(self) -> bool:
        """Evaluation takes no message here."""
        return False

    @property
    def take_out(self) -> None:
        """Updates are not kept here: all participants are the user's own, who can mend them."""
        return

    def evaluate(self, weights: Weights, split: str, number: int = 0) -> Metrics:
        """Metrics in the reference's worker; where parameters are local, of every participant with its own, all together."""
        if self._course.local:
            return self._evaluated_each(weights, split, number)
        metrics: Metrics = self._ask(self._workers[0], "evaluate", self._post(weights), split)
        return metrics

    def _evaluated_each(self, weights: Weights, split: str, number: int) -> Metrics:
        posted, everybody = self._post(weights), self._course.participants
        for backend, team in self._teams.items():
            names = [participant.name for participant in everybody if participant.backend == backend]
            for worker, mine in zip(team, balance(dict.fromkeys(names, 1), len(team)), strict=True):
                worker.submit("evaluate_participants", posted, split, mine, number)
        found: dict[str, Metrics] = {}
        for answer in collect(self._workers, _ignore):
            found |= answer
        for participant in everybody:
            figures = found[participant.name].figures
            self._observer(
                ParticipantEvaluated(
                    round=number,
                    name=participant.name,
                    backend=participant.backend,
                    split=split,
                    metrics=figures,
                )
            )
        return Metrics.total(found[participant.name] for participant in everybody)

    def outputs(self, weights: Weights, split: str, count: int) -> Outputs:
        """Answers of every backend."""
        for worker in self._first:
            worker.submit("outputs", self._post(weights), split, count)
        answers = collect(self._first, _ignore)
        by_backend = {w.backend: answer[1] for w, answer in zip(self._first, answers, strict=True)}
        return Outputs(answers[0][0], by_backend)

    def save_native(self, weights: Weights, path: Path, number: int = 0) -> list[Path]:
        """One file per backend; where parameters are local, also one per participant with its own."""
        for worker in self._first:
            worker.submit("save", self._post(weights), path)
        files: list[Path] = collect(self._first, _ignore)
        if self._course.local:
            for worker in self._first:
                worker.submit("save_participants", self._post(weights), path.parent / "participants", number)
            files += [file for several in collect(self._first, _ignore) for file in several]
        return files

    def export_native(self, weights: Weights, inputs: Sequence[NDArray[Any]], path: Path) -> Exported:
        """By the reference's framework, else by the next that can."""
        reasons = []
        for worker in self._first:
            try:
                exported: Exported = self._ask(
                    worker, "export_native", self._post(weights), tuple(inputs), path
                )
            except RefusedInput as error:
                reasons.append(error.message)
            else:
                return exported
        raise RefusedInput("; ".join(reasons))

    def num_examples(self) -> dict[str, int]:
        """Examples of every participant."""
        for worker in self._first:
            worker.submit("num_examples")
        sizes: dict[str, int] = {}
        for answer in collect(self._first, _ignore):
            sizes |= answer
        return sizes

    def usage(self) -> dict[str, Usage]:
        """What every process has used so far; a backend's workers together."""
        for worker in self._workers:
            worker.submit("usage")
        answers = collect(self._workers, _ignore)
        found = {"server": Usage.now()}
        for worker, usage in zip(self._workers, answers, strict=True):
            found[worker.backend] = found[worker.backend] + usage if worker.backend in found else usage
        return found

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()
        for buffer in (self._buffer, self._beside):
            if buffer is not None:
                buffer.close()
        if self._passing is not None:
            self._passing.cleanup()

    def _post(self, weights: Weights) -> Weights | BufferRef:
        """Weights as all workers can read them; they are written once."""
        if self._buffer is None:
            return weights
        if self._posted is None or self._posted[0] is not weights:
            self._posted = weights, self._buffer.write(weights)
        return self._posted[1]

    def _ask(self, worker: Handle, method: str, *arguments: Any) -> Any:
        worker.submit(method, *arguments)
        return collect([worker], _ignore)[0]


def _seen(placement: Placement) -> list[str]:
    """The GPU that each worker of a backend may see, by name; none on a processor."""
    return list(placement.gpus) or [""] * placement.workers


def _ignore(_: object) -> None:
    """Calls that make no events."""
