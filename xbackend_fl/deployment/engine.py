"""The deployment engine: silos train, the server merges each answer as it comes and drops it."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, final

import numpy as np

from xbackend_fl.adapter import Metrics
from xbackend_fl.canonical import Schema
from xbackend_fl.course import Course
from xbackend_fl.data import cohort as draw
from xbackend_fl.deployment.collect import Collector, metrics_of
from xbackend_fl.deployment.exchange import Exchange
from xbackend_fl.deployment.ledger import Ledger
from xbackend_fl.deployment.message import Message
from xbackend_fl.deployment.payload import Payload
from xbackend_fl.deployment.silo import evidence_alone, initial_weights
from xbackend_fl.errors import MismatchError, RunFailed, UpdateRefused
from xbackend_fl.events import ModelBound, Observer
from xbackend_fl.server import Outputs, Participation, Prepared, RoundOutcome, check_loss
from xbackend_fl.training import Usage
from xbackend_fl.weights import Weights

_WAIT_S = 0.2
_OVERHEAD = 1 << 20
"""Bytes of a frame beside its arrays, at most."""


@final
class DeploymentEngine:
    """Trains cohorts of real silos. It holds the global weights and one mean, whatever the number of silos, and no framework.

    Args:
        course: The course; its ``deployment`` section has deadlines and the quorum.
        exchange: Reaches the silos.
        ledger: Remembers which updates were accepted.
    """

    def __init__(self, course: Course, exchange: Exchange, ledger: Ledger) -> None:
        self._course, self._exchange, self._ledger, self._rules = course, exchange, ledger, course.deployment
        self._payload = Payload(self._rules.payload, self._rules.top_k_share)
        self._backends = {participant.name: participant.backend for participant in course.participants}
        self._probe: tuple[np.ndarray[Any, Any], ...] = ()
        self._evaluated: dict[tuple[str, str], Metrics] = {}
        self._round = 0

    @property
    def evaluates_with_training(self) -> bool:
        """Whether every silo sees every round's weights anyway: their evaluation then needs no message of its own."""
        return (self._course.federate.cohort or len(self._backends)) >= len(self._backends)

    def prepare(self, observer: Observer) -> Prepared:
        """Meet the silos; the reference's evidence proves every model, each at its own silo.

        Raises:
            RunFailed: Fewer silos than the quorum came, or no silo of the reference's backend.
            MismatchError: A silo's model is not proven to be the reference's.
        """
        began = time.perf_counter()
        hellos = self._meet()
        reference = next((n for n in sorted(hellos) if self._backends[n] == self._course.reference), None)
        if reference is None:
            raise RunFailed(f"no silo with the reference's backend {self._course.reference!r} is there")
        answer = self._only(reference, Message("evidence"))
        schema = Schema.from_json(answer.fields["schema"])
        check_loss(schema, self._course.training.loss)
        bind = evidence_alone(answer)
        self._exchange.binding = bind
        self._probe = tuple(bind.arrays[f"0/inputs/{i}"] for i in range(len(schema.inputs)))
        initial = initial_weights(schema, answer)
        size = sum(array.nbytes for array in initial.values())
        self._exchange.most_bytes = 2 * size + _OVERHEAD
        for name, bound in self._asked(dict.fromkeys(sorted(hellos), bind)):
            if bound.kind != "bound":
                raise MismatchError(f"silo {name!r}: {bound.reason}", hint=bound.fields.get("hint"))
            observer(
                ModelBound(
                    backend=f"{name} ({self._backends[name]})",
                    version=hellos[name].fields["version"],
                    fingerprint=bound.fields["fingerprint"],
                    reference=name == reference,
                    largest_error=bound.fields["largest_error"],
                    notes=tuple(bound.fields["notes"]),
                    seconds=time.perf_counter() - began,
                )
            )
        return Prepared(schema, {}, initial)

    def train_round(
        self, number: int, weights: Weights, cohort: Sequence[str], observer: Observer
    ) -> RoundOutcome:
        """Train a cohort; every answer is checked, merged, put on disk and dropped before the next is looked at.

        Raises:
            RunFailed: Fewer updates than the quorum were accepted in time.
        """
        self._round = number
        spares = self._spares(number, cohort)
        collector = Collector(self._course, self._ledger, number, weights, self._payload, observer)
        request = self._with(
            weights,
            "train",
            run=self._ledger.run,
            round=number,
            base=collector.base,
            receipts=self._ledger.accepted(number - 1),
            payload={"kind": self._payload.kind, "share": self._payload.share},
            evaluate="validation" if self.evaluates_with_training and number > 1 else None,
        )
        collector.resume()
        wanted = [name for name in (*cohort, *spares) if name not in collector.accepted]
        before = self._exchange.traffic
        with closing(self._asked(dict.fromkeys(wanted, request))) as answers:
            for name, answer in answers if len(collector.accepted) < len(cohort) else ():
                wanted.remove(name)
                collector.take(name, answer)
                # Or it would be held while the next one is received.
                del answer
                if len(collector.accepted) == len(cohort):
                    # Spares who are still at it are not needed: they are neither late nor refused.
                    break
        if len(collector.accepted) < len(cohort):
            for name in wanted:
                trouble = self._exchange.troubles.get(name)
                last = f"; last: {trouble}" if trouble else ""
                collector.miss(name, "late", f"no answer within {self._rules.round_within_s:g} s{last}")
        traffic = self._exchange.traffic.since(before)
        collector.tell(traffic.sent, traffic.received)
        quorum = self._quorum(len(cohort))
        if len(collector.accepted) < quorum:
            reasons = "".join(f"\n  silo {name!r}: {reason}" for name, reason in collector.failed.items())
            raise RunFailed(
                f"round {number}: {len(collector.accepted)} updates, and the quorum is {quorum}{reasons}"
            )
        enough = self._rules.quorum is not None or len(collector.accepted) == len(cohort)
        return RoundOutcome(collector.mean, collector.failed, enough, collector.before)

    def evaluate(self, weights: Weights, split: str) -> Metrics:
        """Metrics over the examples of all silos that are there."""
        key = (weights.digest, split)
        if key not in self._evaluated:
            # Validation for itself comes after the last round only, and the test set is next: one message for both.
            last = split == "validation" and self.evaluates_with_training
            splits = ["validation", "test"] if last else [split]
            self._evaluated = {(key[0], name): found for name, found in self._metrics(weights, splits)}
        return self._evaluated[key]

    def _metrics(self, weights: Weights, splits: Sequence[str]) -> Iterator[tuple[str, Metrics]]:
        parts: dict[str, list[Metrics]] = {split: [] for split in splits}
        for _, answer in self._all(self._with(weights, "evaluate", splits=list(splits))):
            try:
                found = {split: metrics_of(answer.fields.get(split)) for split in splits}
            except UpdateRefused:
                # Whoever does not evaluate is left out of the figures; it still trains.
                continue
            for split, metrics in found.items():
                parts[split].append(metrics)
        for split, several in parts.items():
            if not several:
                raise RunFailed(f"no silo evaluated the weights on its {split} examples")
            yield split, Metrics.total(several)

    def outputs(self, weights: Weights, split: str, count: int) -> Outputs:
        """Answers of one silo per backend to the reference's probes: examples of a split never leave their silo."""
        del split, count
        request = self._with(weights, "outputs")
        inputs = {f"inputs/{i}": array for i, array in enumerate(self._probe)}
        request = Message(request.kind, request.fields, {**request.arrays, **inputs})
        first: dict[str, str] = {}
        for name in sorted(self._exchange.hellos()):
            first.setdefault(self._backends[name], name)
        answers = {
            self._backends[name]: tuple(answer.arrays[f"outputs/{i}"] for i in range(len(answer.arrays)))
            for name, answer in self._asked(dict.fromkeys(first.values(), request), absent=False)
            if answer.kind == "outputs"
        }
        return Outputs(self._probe, answers)

    def save_native(self, weights: Weights, path: Path) -> list[Path]:
        """Every silo writes the model into its own folder; here nothing is."""
        del path
        receipts = self._ledger.accepted(self._round)
        for _ in self._all(self._with(weights, "save", receipts=receipts)):
            continue
        return []

    def usage(self) -> dict[str, Usage]:
        """Of the server: silos keep their figures."""
        return {"server": Usage.now()}

    def participation(self) -> Sequence[Participation]:
        """How every silo took part so far, also before an interruption."""
        return self._ledger.participation()

    def close(self) -> None:
        """Release the ledger; the link belongs to whoever made it."""
        self._ledger.close()

    def _meet(self) -> dict[str, Message]:
        """Wait for the silos, and hear who they are."""
        deadline = time.monotonic() + self._rules.join_within_s
        hellos: dict[str, Message] = {}
        while time.monotonic() < deadline and not self._backends.keys() <= hellos.keys():
            hellos = {n: hello for n, hello in self._exchange.hellos().items() if n in self._backends}
            for name, hello in hellos.items():
                self._check_hello(name, hello)
            time.sleep(0 if self._backends.keys() <= hellos.keys() else _WAIT_S)
        if len(hellos) < self._quorum(len(self._backends)):
            missing = ", ".join(sorted(self._backends.keys() - hellos.keys()))
            raise RunFailed(
                f"{len(hellos)} of {len(self._backends)} silos came within {self._rules.join_within_s:g} s; "
                f"not there: {missing}",
                hint="start them with xbfl join, raise deployment.join_within_s, or set deployment.quorum",
            )
        return hellos

    def _check_hello(self, name: str, hello: Message) -> None:
        if hello.kind != "hello":
            raise RunFailed(f"silo {name!r}: {hello.reason}")
        if hello.fields["backend"] != self._backends[name]:
            raise MismatchError(
                f"silo {name!r} trains with {hello.fields['backend']!r}, the course says {self._backends[name]!r}"
            )

    def _spares(self, number: int, cohort: Sequence[str]) -> list[str]:
        """More silos than needed, so that a few slow ones do not hold up the round."""
        rest = [name for name in self._backends if name not in set(cohort)]
        extra = min(len(rest), math.ceil(len(cohort) * (self._rules.over_selection - 1)))
        return draw(rest, extra, self._course.seed, "spares", number) if extra else []

    def _with(self, weights: Weights, kind: str, **fields: Any) -> Message:
        return Message(kind, {**fields, "fingerprint": weights.fingerprint}, weights)

    def _asked(
        self, requests: Mapping[str, Message], *, absent: bool = True
    ) -> Generator[tuple[str, Message]]:
        return self._exchange.ask(requests, self._rules.round_within_s, absent=absent)

    def _all(self, request: Message) -> Generator[tuple[str, Message]]:
        """Answers of all silos; with a quorum, those that went away are not waited for."""
        names = sorted(self._backends if self._rules.quorum is None else self._exchange.hellos())
        return self._asked(dict.fromkeys(names, request), absent=self._rules.quorum is None)

    def _only(self, name: str, request: Message) -> Message:
        answer = dict(self._asked({name: request})).get(name)
        if answer is None or answer.kind in {"refused", "raised"}:
            reason = "no answer" if answer is None else answer.reason
            raise RunFailed(f"silo {name!r}: {reason}")
        return answer

    def _quorum(self, silos: int) -> int:
        return min(self._rules.quorum or silos, silos)
