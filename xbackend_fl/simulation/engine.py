"""The simulation engine: a few long-lived workers per backend, merged once per round."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, final

from numpy.typing import NDArray

from xbackend_fl.adapter import balance
from xbackend_fl.adapter.exporting import Exported
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.course import Course, Participant
from xbackend_fl.course.federate import merging
from xbackend_fl.errors import Refusals, RefusedInput, RunFailed, SchemaError
from xbackend_fl.events import ModelBound, Noted, Observer, ParticipantFailed
from xbackend_fl.mapping import Evidence
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant import ClientStates, PartialSum, Scope, Usage, Worker, changed
from xbackend_fl.report import Participation
from xbackend_fl.rounds import Outputs, Prepared, RoundOutcome, check_losses
from xbackend_fl.simulation.balance import Balance, usual_share
from xbackend_fl.simulation.calls import Handle, Pending, collect, settle
from xbackend_fl.simulation.ended import Ended, Once
from xbackend_fl.simulation.placement import Placement, choose_placement
from xbackend_fl.simulation.shared_memory import SharedValues
from xbackend_fl.simulation.workers import LocalWorker, ProcessWorker
from xbackend_fl.text import shown_names
from xbackend_fl.weights import Weights, digest

T = TypeVar("T")


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
        self._observer: Observer = lambda _: None
        # In one process, a second worker would only train in its turn.
        alone = in_process and course.federate.workers is None
        placement = self.placement = choose_placement(course, 1 if alone else os.cpu_count() or 1)
        # To try a course, two processes are enough: what they load and build is compared.
        workers = min(placement.workers, 2 // len(course.backends) or 1) if thorough else placement.workers
        busy = {participant.backend for participant in course.participants}
        make = LocalWorker if in_process else ProcessWorker
        self._shared = SharedValues()
        self._teams: dict[str, list[Handle]] = {
            backend: [
                make(course, backend, placement.threads, gpu, self._shared)
                for gpu in _seen(placement)[: workers if backend in busy else 1]
            ]
            for backend in course.backends
        }
        self._thorough = thorough
        self._adopted: dict[str, tuple[Schema, Binding]] = {}
        self._lockstep: set[str] = set()
        self._balance = Balance(course, {}, ())

    @property
    def _workers(self) -> list[Handle]:
        return [worker for team in self._teams.values() for worker in team]

    @property
    def _first(self) -> list[Handle]:
        return [team[0] for team in self._teams.values()]

    def prepare(self, observer: Observer) -> Prepared:
        """Look at all data, open every model; the reference's evidence proves the others."""
        began = time.perf_counter()
        self._observer = observer
        reference = self._workers[0]
        schema, evidence, data = self._examine(observer)
        bindings: dict[str, Binding] = {}
        bound = collect([w.submit(Worker.bind, schema, evidence) for w in self._first], observer)
        for worker, (binding, proof, notes) in zip(self._first, bound, strict=True):
            bindings[worker.backend] = binding
            observer(
                ModelBound(
                    backend=worker.backend,
                    version=_only(worker.submit(Worker.version)),
                    fingerprint=schema.fingerprint,
                    reference=worker is reference,
                    largest_error=proof.largest_error,
                    notes=notes,
                    seconds=time.perf_counter() - began,
                )
            )
        self._adopted = {backend: (schema, binding) for backend, binding in bindings.items()}
        for backend, team in self._teams.items():
            collect([worker.submit(Worker.adopt, schema, bindings[backend]) for worker in team[1:]])
        self._complete(self._workers)
        self._balance = Balance(self._course, self.num_examples(), self._lockstep)
        return Prepared(schema, bindings, _only(reference.submit(Worker.initial)), data)

    def _complete(self, workers: Sequence[Handle]) -> None:
        """Tell workers whose models are bound where states are, and where to train."""
        collect([worker.submit(Worker.keep_states, self._states) for worker in workers])
        if self.placement.device == "cpu":
            return
        for backend in dict.fromkeys(worker.backend for worker in workers):
            if self._on_device([worker for worker in workers if worker.backend == backend]):
                self._lockstep.add(backend)

    def _on_device(self, workers: Sequence[Handle]) -> bool:
        """Move workers of a backend to their devices; whether they will train in lockstep there.

        Raises:
            AdapterError: A device is not there; if the course leaves the choice and none is, models stay on the processor, which is said.
        """
        placement, refused = self.placement, Refusals()
        team = self._teams[workers[0].backend]
        share = usual_share(self._course, workers[0].backend, len(team))
        calls = [w.submit(Worker.to_device, placement.device, placement.replicas, share) for w in workers]
        settle(calls, self._observer, refused)
        if self._course.federate.device == "auto" and not any(call.answered for call in calls):
            for error in refused.errors:
                note = f"models train on the processor: {error.message}"
                self._observer(Noted(backend=workers[0].backend, note=note))
            return False
        refused.raise_any()
        return all(call.result for call in calls)

    def _restart(self, backend: str, index: int) -> None:
        """A new worker in the place of one whose process has ended."""
        self._teams[backend][index].close()
        placement = self.placement
        worker = ProcessWorker(
            self._course, backend, placement.threads, _seen(placement)[index], self._shared
        )
        self._teams[backend][index] = worker
        collect([worker.submit(Worker.adopt, *self._adopted[backend])])
        self._complete([worker])

    def _examine(self, observer: Observer) -> tuple[Schema, tuple[Evidence, ...], dict[str, str]]:
        """Try everything but the training, in every backend; the reference's schema and evidence, and digests of the data.

        Raises:
            RefusedInput: All that is wrong, at once.
        """
        refused, (reference, *others) = Refusals(), self._workers
        # Imports and descriptions run side by side with the reference's.
        described = reference.submit(Worker.evidence)
        loaded = {worker: worker.submit(Worker.digests) for worker in others}
        settle([described, *loaded.values()], observer, refused)
        opened = [worker for worker, call in {reference: described, **loaded}.items() if call.answered]
        asked = [worker for worker in self._first if worker in opened]
        # The first looks at what all share.
        scopes = [Scope(worker is asked[0], self._thorough) for worker in asked]
        examined = collect(
            [w.submit(Worker.examine, s) for w, s in zip(asked, scopes, strict=True)], observer
        )
        data: dict[str, str] = {}
        digests: list[Mapping[str, str]] = [call.result for call in loaded.values() if call.answered]
        for worker, found in zip(asked, examined, strict=True):
            digests.append(found.digests)
            data |= found.contents
            for error in found.refused:
                refused.add(error)
            for note in found.notes:
                observer(Noted(backend=worker.backend, note=note))
        for loader in sorted({name for one in digests for name in one}):
            if len({one[loader] for one in digests if loader in one}) > 1:
                refused.add(changed(loader))
        if described.answered:
            with refused:
                check_losses(described.result[0], self._course.heads)
        refused.raise_any()
        return *described.result, data

    def train_round(
        self,
        number: int,
        weights: Weights,
        vectors: Mapping[str, Weights],
        cohort: Sequence[str],
        observer: Observer,
        watched: float = 1.0,
    ) -> RoundOutcome:
        """Train a cohort, all workers side by side; partial means merge in the order of the workers."""
        if not self._begun:
            self._begun = True
            self._states.forget_from(number)
        self._shared.publish(weights, vectors)
        waiting = self._balance.assign(cohort, {backend: len(team) for backend, team in self._teams.items()})
        order, once = tuple(waiting), Once(observer)
        partials: dict[tuple[str, int], PartialSum] = {}
        failed: dict[str, str] = {}
        hints: dict[str, str] = {}
        while waiting:
            ended = Ended()
            calls = {
                (backend, i): self._teams[backend][i].submit(
                    Worker.train_round, number, weights, names, vectors, watched
                )
                for (backend, i), names in waiting.items()
            }
            settle(calls.values(), once, ended)
            partials |= {place: call.result for place, call in calls.items() if call.answered}
            waiting = {place: names for place, names in waiting.items() if place not in partials}
            for (backend, i), names in waiting.items():
                name, reason = ended.by(
                    self._course,
                    {
                        one: (f"the training of {one} in round {number}", self._states.trace(one, number))
                        for one in names
                    },
                )
                failed[name] = reason
                once(ParticipantFailed(round=number, name=name, backend=backend, reason=reason))
                names.remove(name)
                self._restart(backend, i)
        mean = merging(self._course.federate, weights, vectors)
        states: dict[str, str] = {}
        for partial in (partials[place] for place in order):
            mean.absorb(partial.partial)
            failed |= partial.failed
            hints |= partial.hints
            states |= partial.states
        return RoundOutcome(mean, failed, hints, states=states)

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
        """Metrics in the reference's worker; where participants are evaluated, in theirs, all together."""
        if self._course.local or (
            self._course.evaluation.validation == "participants" and split == "validation"
        ):
            return self._evaluated_each(weights, split, number)
        self._shared.publish(weights)
        found = _only(self._workers[0].submit(Worker.evaluate_common, weights, split))
        reporting = [p for p in self._course.participants if self._course.evaluation_of(p) is not None]
        return found.beside(self._at_each(Worker.report_participants, reporting, weights, split, number))

    def _evaluated_each(self, weights: Weights, split: str, number: int) -> Metrics:
        self._shared.publish(weights)
        everybody = self._course.participants
        found = self._at_each(Worker.evaluate_participants, everybody, weights, split, number)
        if not found:
            raise RunFailed(f"no participant could be evaluated on its {split} examples")
        return Metrics.over(found)

    def _at_each(
        self,
        method: Callable[[Worker, Weights, str, Sequence[str], int, Collection[str]], dict[str, Metrics]],
        participants: Sequence[Participant],
        weights: Weights,
        split: str,
        number: int,
    ) -> dict[str, Metrics]:
        """What the workers of these participants measure at them, all side by side, in the order of the participants."""
        waiting: dict[tuple[str, int], Sequence[str]] = {}
        for backend, team in self._teams.items():
            sizes = dict.fromkeys((one.name for one in participants if one.backend == backend), 1)
            waiting |= {(backend, i): mine for i, mine in enumerate(balance(sizes, len(team))) if mine}
        found: dict[str, Metrics] = {}
        gone: set[str] = set()
        while waiting:
            ended = Ended()
            calls = {
                (backend, i): self._teams[backend][i].submit(
                    method, weights, split, names, number, tuple(gone)
                )
                for (backend, i), names in waiting.items()
            }
            settle(calls.values(), self._observer, ended)
            for call in calls.values():
                found |= call.result if call.answered else {}
            waiting = {place: names for place, names in waiting.items() if not calls[place].answered}
            for (backend, i), names in waiting.items():
                name, reason = ended.by(
                    self._course,
                    {
                        one: (
                            f"the evaluation of {one} on the {split} examples",
                            self._states.trace_of_evaluation(one, number),
                        )
                        for one in names
                        if one not in gone
                    },
                )
                gone.add(name)
                note = f"{name} is not in the figures of its own code: {reason}"
                self._observer(Noted(backend=backend, note=note))
                self._restart(backend, i)
        return {one.name: found[one.name] for one in participants if one.name in found}

    def outputs(self, weights: Weights, split: str, count: int) -> Outputs:
        """Answers of every backend."""
        self._shared.publish(weights)
        answers = collect([worker.submit(Worker.outputs, weights, split, count) for worker in self._first])
        by_backend = {w.backend: answer[1] for w, answer in zip(self._first, answers, strict=True)}
        return Outputs(answers[0][0], by_backend)

    def save_native(self, weights: Weights, path: Path, number: int = 0) -> list[Path]:
        """One file per backend; where parameters are local, also one per participant with its own."""
        self._shared.publish(weights)
        files = collect([worker.submit(Worker.save, weights, path) for worker in self._first])
        if self._course.local:
            place = path.parent / "participants"
            calls = [
                worker.submit(Worker.save_participants, weights, place, number) for worker in self._first
            ]
            files += [file for several in collect(calls) for file in several]
        return files

    def read_native(self, path: Path) -> tuple[Mapping[str, NDArray[Any]], str]:
        """In the names of the reference, else of the next model that it fits."""
        found: dict[str, tuple[Mapping[str, NDArray[Any]], list[str]]] = {}
        refused: list[tuple[str, RefusedInput]] = []
        for worker in self._first:
            try:
                found[worker.backend] = _only(worker.submit(Worker.read_native, path))
            except RefusedInput as error:
                refused.append((worker.backend, error))
        if not found:
            reasons = "\n  ".join(f"{backend}: {error.message}" for backend, error in refused)
            raise SchemaError(
                f"initial: {path} is of none of the course's models:\n  {reasons}",
                hint=next((_here(error.hint, path) for _, error in refused if error.hint), None),
            )
        if len({digest(arrays) for arrays, _ in found.values()}) > 1:
            raise SchemaError(
                f"initial: {path} could be of {' and of '.join(found)}, and is other weights for each",
                hint="say whose it is: xbfl convert FILE initial.safetensors --source-model BACKEND:FILE:CALLABLE",
            )
        backend, (arrays, rest) = next(iter(found.items()))
        left = f"; left out: {shown_names(rest)}" if rest else ""
        return arrays, f"in the names of the {backend} model{left}"

    def export_native(self, weights: Weights, inputs: Sequence[NDArray[Any]], path: Path) -> Exported:
        """By the reference's framework, else by the next that can."""
        self._shared.publish(weights)
        reasons = []
        for worker in self._first:
            try:
                return _only(worker.submit(Worker.export_native, weights, tuple(inputs), path))
            except RefusedInput as error:
                reasons.append(error.message)
        raise RefusedInput("; ".join(reasons))

    def num_examples(self) -> dict[str, int]:
        """Examples of every participant."""
        sizes: dict[str, int] = {}
        for answer in collect([worker.submit(Worker.num_examples) for worker in self._first]):
            # Whoever has data of a kind of its own counts little where work is shared out.
            sizes |= {name: size or 1 for name, size in answer.items()}
        return sizes

    def usage(self) -> dict[str, Usage]:
        """What every process has used so far; a backend's workers together."""
        answers = collect([worker.submit(Worker.usage) for worker in self._workers])
        found = {"server": Usage.now()}
        for worker, usage in zip(self._workers, answers, strict=True):
            found[worker.backend] = found[worker.backend] + usage if worker.backend in found else usage
        return found

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()
        with suppress(OSError):
            # Not there, or with updates of a round that did not end.
            self._states.spool.rmdir()
        self._shared.close()
        if self._passing is not None:
            self._passing.cleanup()


def _only(call: Pending[T]) -> T:
    """The answer of one worker, whose call tells nothing."""
    return collect([call])[0]


def _seen(placement: Placement) -> list[str]:
    """The GPU that each worker of a backend may see, by name; none on a processor."""
    return list(placement.gpus) or [""] * placement.workers


def _here(hint: str, path: Path) -> str:
    """A cure that names options of the command that has them: a course has none."""
    return f"xbfl convert {path} part.safetensors: {hint}" if "--" in hint and "xbfl" not in hint else hint
