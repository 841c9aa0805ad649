"""The deployment engine: silos train, the server merges each answer as it comes and drops it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np

from xbackend_fl.adapter.exporting import Exported
from xbackend_fl.course import Course
from xbackend_fl.course.agreed import agreed
from xbackend_fl.data import cohort as draw
from xbackend_fl.errors import Diverged, MismatchError, RefusedInput, RunFailed, UpdateRefused, hints_of
from xbackend_fl.events import Noted, Observer
from xbackend_fl.federation.protocol.message import Message, public
from xbackend_fl.federation.protocol.own import own_notes
from xbackend_fl.federation.protocol.payload import Payload
from xbackend_fl.federation.protocol.vectors import digest_of, frozen_arrays, packed, shared, split_frozen
from xbackend_fl.federation.server.claims import Claims
from xbackend_fl.federation.server.collect import Collector
from xbackend_fl.federation.server.dispatcher import Dispatcher
from xbackend_fl.federation.server.enrollment import fetch_references, verify_models, wait_for_silos
from xbackend_fl.federation.server.ledger import Ledger
from xbackend_fl.federation.server.reference import Reference
from xbackend_fl.federation.server.verdict import Verdict, take_out
from xbackend_fl.metrics import Expected, Metrics
from xbackend_fl.participant import Usage
from xbackend_fl.report import Participation
from xbackend_fl.rounds import Outputs, Prepared, RoundOutcome, Ruined
from xbackend_fl.weights import Weights

_OVERHEAD = 1 << 20
"""Bytes of a frame beside its arrays, at most."""


@final
class DeploymentEngine:
    """Trains cohorts of real silos. It holds the global weights and one mean, whatever the number of silos, and no framework.

    Args:
        course: The course; its ``deployment`` section has deadlines and the quorum.
        dispatcher: Reaches the silos.
        ledger: Remembers which updates were accepted.
    """

    def __init__(self, course: Course, dispatcher: Dispatcher, ledger: Ledger) -> None:
        self._course, self._dispatcher, self._ledger, self._rules = (
            course,
            dispatcher,
            ledger,
            course.deployment,
        )
        self._payload = Payload(self._rules.payload, self._rules.top_k_share)
        self._backends = {participant.name: participant.backend for participant in course.participants}
        dispatcher.expected = {
            name: {"name": name, "backend": backend, **agreed(course, name)}
            for name, backend in self._backends.items()
        }
        self._claims = Claims(self._rules.max_examples)
        dispatcher.on_hello = self._claims.on_hello
        self._observer: Observer = lambda _: None
        # Inputs of the reference's evidence, and how many outputs belong to them.
        self._probe: tuple[np.ndarray[Any, Any], ...] = ()
        self._answered = 0
        self._expected = Expected(course.heads, ((),) * len(course.heads.each), 1)
        self._variances = frozenset[str]()
        self._each = course.evaluation.validation == "participants"
        self._evaluated: dict[tuple[str, str], Metrics] = {}
        self._told: set[tuple[str, str]] = set()
        self._round = 0
        self._frozen: str | None = None

    @property
    def evaluates_with_training(self) -> bool:
        """Whether every silo sees every round's weights anyway: their evaluation then needs no message of its own.

        Where the next round depends on the figures of this one, they cannot come with it.
        """
        everybody = (self._course.federate.cohort or len(self._backends)) >= len(self._backends)
        return everybody and not self._course.waits_for_figures

    def prepare(self, observer: Observer) -> Prepared:
        """Meet the silos; the reference's evidence proves every model, each at its own silo.

        Raises:
            RunFailed: Fewer silos than the quorum came, or none gave the reference's model.
            MismatchError: A silo's model is not proven to be the reference's; with a quorum, so many that too few are left.
        """
        self._observer = observer
        announcements = wait_for_silos(self._course, self._dispatcher, observer)
        self._emit_notes(self._claims.notes())
        refused: MismatchError | RunFailed | None = None
        for found in fetch_references(self._course, self._dispatcher, announcements, observer):
            frozen = frozen_arrays(found.initial.with_kinds(self._course.kinds(found.schema)))
            arrays = {**found.binding.arrays, **frozen}
            reference = replace(found, binding=Message(found.binding.kind, found.binding.fields, arrays))
            self._adopt(reference)
            self._emit_notes(reference.notes())
            try:
                verify_models(self._course, self._dispatcher, reference, announcements, observer)
            except (MismatchError, RunFailed) as error:
                # By whom: by those that differ from this one, or by this one itself? Another of its backend tells.
                refused = refused or error
            else:
                return Prepared(reference.schema, {}, reference.initial)
        assert refused is not None
        raise refused

    def _adopt(self, reference: Reference) -> None:
        """Remember what silos bind their models with, and how long an answer can be."""
        self._variances = reference.schema.variances
        # The weight of a silo in figures is bounded as its weight in the mean of the updates is.
        self._expected = Expected.from_schema(self._course.heads, reference.schema, self._rules.max_examples)
        self._dispatcher.binding = reference.binding
        self._probe, self._answered = reference.probe, len(reference.schema.outputs)
        size = sum(array.nbytes for array in reference.initial.values())
        # Figures on two splits at most.
        figures = 2 * self._expected.max_bytes
        self._dispatcher.max_bytes = (
            (2 + len(self._course.federate.algorithm.vectors)) * size + figures + _OVERHEAD
        )

    def train_round(
        self,
        number: int,
        weights: Weights,
        vectors: Mapping[str, Weights],
        cohort: Sequence[str],
        observer: Observer,
        watched: float = 1.0,
    ) -> RoundOutcome:
        """Train a cohort; every answer is checked, merged, put on disk and dropped before the next is looked at.

        Raises:
            RunFailed: Fewer updates than the quorum were accepted in time.
            Ruined: Most silos cannot train from the weights, and an update of the round that gave them stood out; or an update is as far away as one of the
                round before.
        """
        self._round = number
        verdict = Verdict(self._ledger, number - 1, "train from")
        spares = self._spares(number, cohort)
        collector = Collector(
            self._course,
            self._ledger,
            self._claims,
            number,
            weights,
            vectors,
            self._variances,
            self._payload,
            self._expected,
            self._told,
            observer,
        )
        request = self._with(
            weights,
            "train",
            vectors,
            run=self._ledger.run,
            round=number,
            base=collector.base,
            receipts=self._ledger.receipts(number),
            payload={"kind": self._payload.kind, "share": self._payload.share},
            watched=watched,
            evaluate="validation" if self.evaluates_with_training and number > 1 else None,
        )
        collector.resume()
        # Of silos that came after the enrollment.
        self._emit_notes(self._claims.notes())
        # What was taken out of this round is not asked for again.
        wanted = [name for name in (*cohort, *spares) if name not in collector.accepted | collector.failed]
        voters = [name for name in cohort if name not in collector.failed]
        before = self._dispatcher.traffic
        quorum = self._rules.min_silos(len(cohort))
        asked = self._asked(dict.fromkeys(wanted, request), lambda: len(collector.accepted) >= quorum)
        with closing(asked) as answers:
            for name, answer in answers if len(collector.accepted) < len(cohort) else ():
                wanted.remove(name)
                collector.accept(name, answer)
                # Or it would be held while the next one is received.
                del answer
                if len(collector.accepted) == len(cohort):
                    # Spares who are still at it are not needed: they are neither late nor refused.
                    break
                if verdict.is_certain(collector.diverged | verdict.worse(collector.parts).keys(), voters):
                    break
        worse = verdict.worse(collector.parts)
        bad = {name: collector.failed[name] for name in sorted(collector.diverged)} | worse
        verdict.raise_for(bad, collector.accepted.keys() - worse.keys())
        for name in wanted:
            if len(collector.accepted) < len(cohort) or not self._dispatcher.is_available(name):
                collector.reject(name, "late", self._why_late(name))
        collector.settle()
        if collector.leapt_again:
            raise Ruined(collector.leapt_again[0])
        traffic = self._dispatcher.traffic.since(before)
        collector.report(traffic.sent, traffic.received)
        if len(collector.accepted) < quorum:
            reasons = "".join(f"\n  silo {name!r}: {reason}" for name, reason in collector.failed.items())
            blamed = verdict.blames(collector.diverged, collector.accepted)
            raise RunFailed(
                f"round {number}: {len(collector.accepted)} updates, and the quorum is {quorum}{blamed and '; '}{blamed}{reasons}{verdict.earlier}",
                hint=hints_of(
                    [
                        *collector.hints.values(),
                        _hint(blamed, number, without_quorum=self._rules.quorum is None),
                    ]
                ),
            )
        complete = self._rules.quorum is not None or len(collector.accepted) == len(cohort)
        return RoundOutcome(collector.mean, collector.failed, collector.hints, complete, collector.before)

    @property
    def take_out(self) -> Callable[[int, str, str], Iterator[str]]:
        """Takes an update out of the ledger."""
        return partial(take_out, self._ledger)

    def evaluate(self, weights: Weights, split: str, number: int = 0) -> Metrics:
        """Metrics over the examples of all silos that are there.

        Raises:
            RunFailed: No silo has any.
            Ruined: Most silos find NaN or infinity, and an update of round ``number``, which gave the weights, stood out.
        """
        key = (weights.digest, split)
        if key not in self._evaluated:
            # The test set is next after the last round, and it can be undone now only; one message for both.
            last = self.evaluates_with_training or number >= self._course.rounds
            splits = ["validation", "test"] if last and split == "validation" else [split]
            self._evaluated = {
                (key[0], name): found for name, found in self._metrics(weights, splits, number)
            }
        return self._evaluated[key]

    def _metrics(self, weights: Weights, splits: Sequence[str], number: int) -> Iterator[tuple[str, Metrics]]:
        parts: dict[str, dict[str, Metrics]] = {split: {} for split in splits}
        diverged: dict[str, str] = {}
        verdict = Verdict(self._ledger, number, "evaluate")
        for name, answer in self._all(self._evaluation(weights, splits, number)):
            try:
                found = {split: self._expected.evaluated(answer.fields.get(split)) for split in splits}
            except UpdateRefused as error:
                # Whoever does not evaluate is left out of the figures; it still trains.
                reason = error.message if answer.kind == "metrics" else answer.reason
                if answer.diverged or (answer.kind == "metrics" and isinstance(error, Diverged)):
                    diverged[name] = reason
                self._emit_new(
                    name, [f"silo {name!r} is not in the {' and '.join(splits)} figures: {reason}"]
                )
                continue
            self._emit_new(name, [f"silo {name!r}: {public(note)}" for note in own_notes(answer.fields)])
            for split, metrics in found.items():
                parts[split][name] = metrics
        fine = {name for several in parts.values() for name in several}
        for several in parts.values():
            diverged |= verdict.worse(several)
        verdict.raise_for(diverged, fine - diverged.keys())
        blamed = verdict.blames(diverged, fine)
        for split, several in parts.items():
            if not several:
                raise RunFailed(
                    f"no silo evaluated the weights on its {split} examples{blamed and ': '}{blamed}{verdict.earlier}",
                    hint=_hint(blamed, number),
                )
            self._emit_notes(
                self._claims.figures(split, {name: found.positions for name, found in several.items()})
            )
            yield (
                split,
                Metrics.over(several)
                if split == "validation" and self._each
                else Metrics.total(several.values()).beside(several),
            )

    def _emit_new(self, name: str, notes: Sequence[str]) -> None:
        """What is said of a silo, once: an evaluation that fails in one round fails in others too."""
        told = self._told
        self._emit_notes(note for note in notes if (name, note) not in told)
        told |= {(name, note) for note in notes}

    def _emit_notes(self, notes: Iterable[str]) -> None:
        for note in notes:
            self._observer(Noted(backend="server", note=note))

    def outputs(self, weights: Weights, split: str, count: int) -> Outputs:
        """Answers of silos to the reference's probes: examples of a split never leave their silo.

        One of each backend is asked; with a quorum all are, so that nobody alone can end the course here.
        """
        del split, count
        # The reference's own parameters too: all answer with one model.
        request = Message("outputs", {"fingerprint": weights.fingerprint}, weights)
        inputs = {f"inputs/{i}": array for i, array in enumerate(self._probe)}
        request = Message(request.kind, request.fields, {**request.arrays, **inputs})
        there = sorted(
            name for name, hello in self._dispatcher.announcements().items() if hello.kind == "hello"
        )
        first = {self._backends[name]: name for name in reversed(there)}
        chosen = first.values() if self._rules.quorum is None else there
        answers: dict[str, tuple[np.ndarray[Any, Any], ...]] = {}
        for name, answer in self._asked(dict.fromkeys(chosen, request), lambda: True):
            if answer.kind == "outputs":
                answers[name] = tuple(_real(answer.arrays.get(f"outputs/{i}")) for i in range(self._answered))
            else:
                self._emit_notes([f"silo {name!r} gave no outputs of the trained model: {answer.reason}"])
        return Outputs(self._probe, answers, all_needed=self._rules.quorum is None)

    def save_native(self, weights: Weights, path: Path, number: int = 0) -> list[Path]:
        """Every silo writes the model into its own folder; here nothing is."""
        del path, number
        receipts = self._ledger.receipts(self._round + 1)
        request = self._with(weights, "save", run=self._ledger.run, receipts=receipts)
        for name, answer in self._all(request):
            if answer.kind != "saved":
                self._emit_notes([f"silo {name!r} did not write the trained model: {answer.reason}"])
        return []

    def read_native(self, path: Path) -> tuple[Mapping[str, np.ndarray[Any, Any]], str]:
        """Only silos have a model's code."""
        raise RefusedInput(
            f"initial: {path} has a model's own names, and only the silos have the code of the model",
            hint="where the code is: xbfl convert FILE initial.safetensors --source-model BACKEND:FILE:CALLABLE --input SHAPE",
        )

    def export_native(self, weights: Weights, inputs: Sequence[np.ndarray[Any, Any]], path: Path) -> Exported:
        """Only silos have a model's code."""
        del weights, inputs, path
        raise RefusedInput("only the silos have the code of the model: xbfl convert writes it there")

    def usage(self) -> dict[str, Usage]:
        """Of the server: silos keep their figures."""
        return {"server": Usage.now()}

    def participation(self) -> Sequence[Participation]:
        """How every silo took part so far, also before an interruption."""
        return self._ledger.participation()

    def close(self) -> None:
        """Release the ledger; the link belongs to whoever made it."""
        self._ledger.close()

    def _spares(self, number: int, cohort: Sequence[str]) -> list[str]:
        """More silos than needed, so that a few slow ones do not hold up the round; with a quorum, others for those that are gone."""
        rest = [name for name in self._backends if name not in set(cohort)]
        extra = math.ceil(len(cohort) * (self._rules.over_selection - 1))
        if self._rules.quorum is not None:
            rest = [name for name in rest if self._dispatcher.is_available(name)]
            extra += sum(not self._dispatcher.is_available(name) for name in cohort)
        extra = min(len(rest), extra)
        return draw(rest, extra, self._course.seed, "spares", number) if extra else []

    def _why_late(self, name: str) -> str:
        hello = self._dispatcher.announcements().get(name)
        if hello is not None and hello.kind != "hello":
            return hello.reason
        trouble = self._dispatcher.last_errors.get(name)
        last = f"; last: {trouble}" if trouble else ""
        return (
            "it is not there" if hello is None else f"no answer within {self._rules.round_timeout_s:g} s"
        ) + last

    def _evaluation(self, weights: Weights, splits: Sequence[str], number: int) -> Message:
        receipts = self._ledger.receipts(number + 1)
        return self._with(weights, "evaluate", splits=list(splits), run=self._ledger.run, receipts=receipts)

    def _with(
        self, weights: Weights, kind: str, vectors: Mapping[str, Weights] | None = None, **fields: Any
    ) -> Message:
        arrays = {**shared(weights), **packed(vectors or {})}
        frozen = self._hold(weights)
        return Message(kind, {**fields, "fingerprint": weights.fingerprint, "frozen": frozen}, arrays)

    def _hold(self, weights: Weights) -> str:
        """The digest of the frozen parameters; a silo that has others, or none, gets them with the binding before it answers."""
        if self._frozen is None:
            # They never change: once for a course is enough.
            frozen, binding = frozen_arrays(weights), self._dispatcher.binding
            self._frozen = digest_of(frozen)
            if binding is not None:
                evidence, _ = split_frozen(binding.arrays)
                self._dispatcher.binding = Message(binding.kind, binding.fields, {**evidence, **frozen})
        return self._frozen

    def _asked(
        self, requests: Mapping[str, Message], enough: Callable[[], bool]
    ) -> Generator[tuple[str, Message]]:
        return self._dispatcher.ask(requests, self._rules.round_timeout_s, enough=enough)

    def _all(self, request: Message) -> Generator[tuple[str, Message]]:
        """Answers of all silos; with a quorum, those that went away are not waited for."""
        return self._asked(
            dict.fromkeys(sorted(self._backends), request), lambda: self._rules.quorum is not None
        )


def _hint(blamed: str, number: int, *, without_quorum: bool = False) -> str | None:
    """What may help after a failure."""
    if blamed:
        rates = "training.optimizer.lr" if number <= 1 else "training.optimizer.lr or federate.server.lr"
        return f"lower {rates}, or set training.clip_norm, in a new run"
    return "with deployment.quorum a course goes on without some silos" if without_quorum else None


def _real(array: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
    """An output as numbers that can be compared; nothing for what is none."""
    kind = "" if array is None else array.dtype.kind
    return np.empty(0, np.float32) if array is None or kind not in "fiu" else array
