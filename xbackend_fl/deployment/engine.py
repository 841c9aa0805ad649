"""The deployment engine: silos train, the server merges each answer as it comes and drops it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import numpy as np

from xbackend_fl.adapter import Metrics
from xbackend_fl.aggregation import OnlineMean
from xbackend_fl.canonical import Schema
from xbackend_fl.course import Course
from xbackend_fl.deployment.link import Link
from xbackend_fl.deployment.message import Message
from xbackend_fl.deployment.silo import evidence_alone, initial_weights
from xbackend_fl.errors import MismatchError, RunFailed, UpdateRefused
from xbackend_fl.events import ModelBound, Observer, ParticipantFailed, ParticipantTrained
from xbackend_fl.server import Outputs, Prepared, RoundOutcome, check_loss
from xbackend_fl.training import Usage
from xbackend_fl.weights import Weights


@final
class DeploymentEngine:
    """Trains cohorts of real silos. It holds the global weights and one mean, whatever the number of silos, and no framework.

    Args:
        course: The course; its ``deployment`` section has deadlines and the quorum.
        link: Reaches the silos.
    """

    def __init__(self, course: Course, link: Link) -> None:
        self._course, self._link, self._rules = course, link, course.deployment
        self._backends = {participant.name: participant.backend for participant in course.participants}
        self._probe: tuple[np.ndarray[Any, Any], ...] = ()
        self._present: set[str] = set()

    def prepare(self, observer: Observer) -> Prepared:
        """Meet the silos; the reference's evidence proves every model, each at its own silo.

        Raises:
            RunFailed: Fewer silos than the quorum came, or no silo of the reference's backend.
            MismatchError: A silo's model is not proven to be the reference's.
        """
        began = time.perf_counter()
        hellos = self._link.meet(list(self._backends), self._rules.join_within_s)
        self._present = set(hellos)
        missing = sorted(self._backends.keys() - self._present)
        if len(self._present) < self._quorum(len(self._backends)):
            raise RunFailed(
                f"{len(self._present)} of {len(self._backends)} silos came within {self._rules.join_within_s:g} s; "
                f"not there: {', '.join(missing)}",
                hint="start them with xbfl join, raise deployment.join_within_s, or set deployment.quorum",
            )
        for name, hello in hellos.items():
            self._check_hello(name, hello)
        reference = next((n for n in sorted(hellos) if self._backends[n] == self._course.reference), None)
        if reference is None:
            raise RunFailed(f"no silo with the reference's backend {self._course.reference!r} is there")
        answer = self._only(reference, Message("evidence"))
        schema = Schema.from_json(answer.fields["schema"])
        check_loss(schema, self._course.training.loss)
        bind = evidence_alone(answer)
        self._probe = tuple(bind.arrays[f"0/inputs/{i}"] for i in range(len(schema.inputs)))
        for name, bound in self._asked(dict.fromkeys(sorted(hellos), bind)):
            if bound.kind != "bound":
                raise MismatchError(f"silo {name!r}: {_reason(bound)}", hint=bound.fields.get("hint"))
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
        return Prepared(schema, {}, initial_weights(schema, answer))

    def train_round(
        self, number: int, weights: Weights, cohort: Sequence[str], observer: Observer
    ) -> RoundOutcome:
        """Train a cohort; every answer is checked, merged and dropped before the next is looked at.

        Raises:
            RunFailed: Fewer updates than the quorum were accepted in time.
        """
        began = time.perf_counter()
        base = weights.digest
        mean = OnlineMean(weights, self._course.federate.precision)
        failed: dict[str, str] = {}
        request = self._with(weights, "train", round=number, base=base)
        waiting = set(cohort)
        for name, answer in self._link.ask(dict.fromkeys(cohort, request), self._rules.round_within_s):
            waiting.discard(name)
            backend = self._backends[name]
            try:
                size, metrics = self._merge(mean, weights, answer, number, base)
            except UpdateRefused as error:
                failed[name] = error.message
                observer(ParticipantFailed(round=number, name=name, backend=backend, reason=error.message))
                continue
            observer(
                ParticipantTrained(
                    round=number,
                    name=name,
                    backend=backend,
                    num_examples=size,
                    loss=metrics.loss,
                    accuracy=metrics.accuracy,
                    seconds=time.perf_counter() - began,
                )
            )
        for name in sorted(waiting):
            failed[name] = f"no answer within {self._rules.round_within_s:g} s"
            reason = failed[name]
            observer(ParticipantFailed(round=number, name=name, backend=self._backends[name], reason=reason))
        if mean.count < (wanted := self._quorum(len(cohort))):
            reasons = "".join(f"\n  silo {name!r}: {reason}" for name, reason in failed.items())
            raise RunFailed(f"round {number}: {mean.count} updates, and the quorum is {wanted}{reasons}")
        return RoundOutcome(mean, failed, enough=self._rules.quorum is not None)

    def evaluate(self, weights: Weights, split: str) -> Metrics:
        """Metrics over the examples of all silos that answer."""
        request = self._with(weights, "evaluate", split=split)
        parts = []
        for _, answer in self._asked(dict.fromkeys(sorted(self._present), request)):
            # Whoever does not evaluate is left out of the figures; it still trains.
            with suppress(UpdateRefused):
                parts.append(_metrics(answer.fields if answer.kind == "metrics" else None))
        if not parts:
            raise RunFailed(f"no silo evaluated the weights on its {split} examples")
        return Metrics(
            sum(part.loss_sum for part in parts),
            sum(part.correct for part in parts),
            sum(part.num_examples for part in parts),
        )

    def outputs(self, weights: Weights, split: str, count: int) -> Outputs:
        """Answers of one silo per backend to the reference's probes: examples of a split never leave their silo."""
        del split, count
        request = self._with(weights, "outputs")
        inputs = {f"inputs/{i}": array for i, array in enumerate(self._probe)}
        request = Message(request.kind, request.fields, {**request.arrays, **inputs})
        first: dict[str, str] = {}
        for name in sorted(self._present):
            first.setdefault(self._backends[name], name)
        answers = {
            self._backends[name]: tuple(answer.arrays[f"outputs/{i}"] for i in range(len(answer.arrays)))
            for name, answer in self._asked(dict.fromkeys(first.values(), request))
            if answer.kind == "outputs"
        }
        return Outputs(self._probe, answers)

    def save_native(self, weights: Weights, path: Path) -> list[Path]:
        """Every silo writes the model into its own folder; here nothing is."""
        del path
        for _ in self._asked(dict.fromkeys(sorted(self._present), self._with(weights, "save"))):
            continue
        return []

    def usage(self) -> dict[str, Usage]:
        """Of the server: silos keep their figures."""
        return {"server": Usage.now()}

    def close(self) -> None:
        """The link belongs to whoever made it."""

    def _merge(
        self, mean: OnlineMean, weights: Weights, answer: Message, number: int, base: str
    ) -> tuple[int, Metrics]:
        """Check an update against the round it claims to be of, and merge it."""
        if answer.kind != "trained":
            raise UpdateRefused(_reason(answer))
        fields = answer.fields
        if (fields.get("round"), fields.get("base")) != (number, base):
            raise UpdateRefused(f"the update is of round {fields.get('round')}, expected round {number}")
        size = fields.get("num_examples")
        if type(size) is not int or not 0 < size <= self._rules.most_examples:
            raise UpdateRefused(
                f"num_examples is {size!r}, expected a whole number from 1 to {self._rules.most_examples}"
            )
        metrics = _metrics(fields.get("metrics"))
        mean.add(_like(weights, answer.arrays), size)
        return size, metrics

    def _check_hello(self, name: str, hello: Message) -> None:
        if hello.kind != "hello":
            raise RunFailed(f"silo {name!r}: {_reason(hello)}")
        if hello.fields["backend"] != self._backends[name]:
            raise MismatchError(
                f"silo {name!r} trains with {hello.fields['backend']!r}, the course says {self._backends[name]!r}"
            )

    def _with(self, weights: Weights, kind: str, **fields: Any) -> Message:
        return Message(kind, {**fields, "fingerprint": weights.fingerprint}, weights)

    def _asked(self, requests: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
        return self._link.ask(requests, self._rules.round_within_s)

    def _only(self, name: str, request: Message) -> Message:
        answer = dict(self._asked({name: request})).get(name)
        if answer is None or answer.kind in {"refused", "raised"}:
            reason = "no answer" if answer is None else _reason(answer)
            raise RunFailed(f"silo {name!r}: {reason}")
        return answer

    def _quorum(self, silos: int) -> int:
        return min(self._rules.quorum or silos, silos)


def _like(weights: Weights, arrays: Mapping[str, Any]) -> Weights:
    """Received arrays as weights; a silo may have any names, shapes and dtypes in its frame."""
    if arrays.keys() != weights.keys():
        wrong = sorted(arrays.keys() ^ weights.keys())[:5]
        raise UpdateRefused(f"the update's parameters differ from the schema's: {', '.join(wrong)}")
    for name, array in arrays.items():
        expected = weights[name]
        if (array.shape, array.dtype) != (expected.shape, expected.dtype):
            raise UpdateRefused(
                f"parameter {name!r}: expected {expected.dtype} {list(expected.shape)}, "
                f"received {array.dtype} {list(array.shape)}"
            )
    return weights.like(arrays)


def _metrics(fields: Any) -> Metrics:
    """Received figures; a silo may send anything."""
    names = {"loss_sum": float, "correct": int, "num_examples": int}
    if not isinstance(fields, dict) or fields.keys() != names.keys():
        raise UpdateRefused("the metrics are not a loss_sum, correct and num_examples")
    for name, kind in names.items():
        if type(fields[name]) not in {kind, int}:
            raise UpdateRefused(f"{name} is {fields[name]!r}, expected a number")
    return Metrics(float(fields["loss_sum"]), fields["correct"], fields["num_examples"])


def _reason(answer: Message) -> str:
    return str(answer.fields.get("message", f"unexpected answer {answer.kind!r}"))[:20_000]
