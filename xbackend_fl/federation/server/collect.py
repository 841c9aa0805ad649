"""One round's updates: each is checked, merged, put on disk, and dropped."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Literal, final

import numpy as np

from xbackend_fl.aggregation import MODEL, Aggregator, SumFull, Update
from xbackend_fl.course import Course
from xbackend_fl.course.federate import merging
from xbackend_fl.deadline import Deadline
from xbackend_fl.errors import Diverged, RunFailed, UpdateRefused
from xbackend_fl.events import (
    Noted,
    Observer,
    ParticipantFailed,
    ParticipantTrained,
    RoundCollected,
)
from xbackend_fl.federation.protocol.message import Message, public, quoted
from xbackend_fl.federation.protocol.own import own_figures, own_notes
from xbackend_fl.federation.protocol.payload import Payload, decode
from xbackend_fl.federation.protocol.vectors import split, unpacked
from xbackend_fl.federation.server.claims import Claims
from xbackend_fl.federation.server.ledger import Ledger
from xbackend_fl.federation.server.outliers import Change, leaps, outliers, ruinous, unlike
from xbackend_fl.metrics import Expected, Metrics
from xbackend_fl.rounds import retry_until_space
from xbackend_fl.weights import Weights


@final
class Collector:
    """Merges the updates of one round, each once.

    Args:
        course: The course.
        ledger: Has what was accepted before an interruption, and keeps what is.
        claims: Know how many examples a silo has.
        number: The round.
        weights: What it starts from.
        vectors: What the algorithm sends beside them.
        variances: Names of those of which no value is negative.
        payload: How updates are encoded.
        expected: What a silo can measure.
        told: What silos said of their own training that was passed on.
        observer: Told about every update.

    Attributes:
        base: Digest of the weights.
        mean: Of the accepted updates.
        accepted: Silos whose update is in the mean.
        failed: Silos whose update is not, with the reason.
        diverged: Those of them whose training led to NaN or infinity, or whose evaluation of the weights did.
        before: Metrics of the weights, over the accepted silos that evaluated them.
        hints: What the reasons of silos that failed say can be done, by name.
        leapt_again: The updates that were taken out since they leapt, as those of their silos in the round before did, in words.
    """

    def __init__(
        self,
        course: Course,
        ledger: Ledger,
        claims: Claims,
        number: int,
        weights: Weights,
        vectors: Mapping[str, Weights],
        variances: frozenset[str],
        payload: Payload,
        expected: Expected,
        told: set[tuple[str, str]],
        observer: Observer,
    ) -> None:
        self._rules, self._ledger, self._number, self._weights = course.deployment, ledger, number, weights
        self._claims, self._variances = claims, variances
        self._vectors, self._federate = vectors, course.federate
        self._told = told
        self._payload, self._observer, self._began = payload, observer, time.perf_counter()
        self._backends = {participant.name: participant.backend for participant in course.participants}
        self._expected = expected
        self._each = course.evaluation.validation == "participants"
        self._parts: dict[str, Metrics] = {}
        self._changes: dict[str, Change] = {}
        # What every update takes of an exact sum: its largest value, times its examples.
        self._takes: dict[str, float] = {}
        self._losses: dict[str, float] = {}
        self.base = weights.digest
        self.mean = self._empty_mean()
        self.accepted: dict[str, str] = {}
        self.failed: dict[str, str] = dict(ledger.taken_out(number, self.base))
        self.hints: dict[str, str] = {}
        self.diverged: set[str] = set()
        self.leapt_again: list[str] = []
        self._offenders = ledger.offenders()
        self._leapt = ledger.leapt(number)

    @property
    def before(self) -> Metrics | None:
        """Metrics of the weights that the round started from, if silos evaluated them."""
        # In the order of names: the sum of a resumed round has the same bits.
        found = {name: self._parts[name] for name in sorted(self._parts)}
        if not found:
            return None
        return Metrics.over(found) if self._each else Metrics.total(found.values()).beside(found)

    @property
    def parts(self) -> Mapping[str, Metrics]:
        """The same of every silo."""
        return self._parts

    def resume(self) -> None:
        """Merge what was accepted of this round before the server was interrupted."""
        self._merge_again()
        if self.accepted:
            note = f"round {self._number} goes on with {len(self.accepted)} updates that were on disk"
            self._observer(Noted(backend="server", note=note))

    def accept(self, name: str, answer: Message) -> None:
        """Merge an answer, or say why not."""
        try:
            size = self._checked(name, answer)
            metrics = self._expected.trained(answer.fields.get("metrics"))
            figures = own_figures(answer.fields)
            self._fit_in(name, answer, size)
        except UpdateRefused as error:
            if isinstance(error, Diverged):
                self.diverged.add(name)
            self.hints[name] = answer.hint or error.hint or ""
            self.reject(name, "refused", error.message)
            return
        seconds = time.perf_counter() - self._began
        self._keep(name, answer, size, seconds)
        if answer.fields.get("data_changed") is True:
            self._emit_notes(
                [f"round {self._number}: silo {name!r} trains on other data than it did before in this run"]
            )
        for note in own_notes(answer.fields):
            if (name, note) not in self._told:
                self._told.add((name, note))
                self._observer(Noted(backend=name, note=public(note)))
        self._observer(
            ParticipantTrained(
                round=self._number,
                name=name,
                backend=self._backends[name],
                num_examples=size,
                loss=metrics.figures.get("loss", figures.get("loss")),
                seconds=seconds,
                figures=figures,
            )
        )

    def reject(self, name: str, outcome: Literal["refused", "late"], reason: str) -> None:
        """This silo's update is not in the mean."""
        reason = public(reason)
        self._ledger.missed(self._number, name, outcome, reason)
        self._failed(name, reason)

    def settle(self) -> None:
        """Take out what would leave nothing of the model for the next round, as soon as it can be told from the others.

        So is whatever stands out of a silo of which an update did that before: each would cost the course a round. And so is what leaps, of a silo that did
        that before.
        """
        while (found := ruinous(self._changes, self._weights) or self._repeated()) is not None:
            self._take_out(*found)
        for leap in leaps(self._changes, self._weights):
            at = self._leapt.get(leap.silo)
            if at is not None:
                reason = f"the update {leap.how}, and its update of round {at} did so too"
                self._ledger.take_out(self._number, leap.silo, self.base, reason)
                self._offenders[leap.silo] = self._number
                self._merge_again()
                self._failed(leap.silo, reason)
                if at == self._number - 1:
                    self.leapt_again.append(
                        f"the update of {leap.silo} in round {self._number} {leap.how} too"
                    )

    def report(self, sent: int, received: int) -> None:
        """Sum up the round, and say which updates stand out."""
        if self._parts:
            positions = {name: part.positions for name, part in self._parts.items()}
            self._emit_notes(self._claims.figures("validation", positions))
        losses = [loss for loss in self._losses.values() if math.isfinite(loss)]
        usual = float(np.median(losses)) if losses else None
        found = tuple(outliers(self._changes))
        self._ledger.stand_out(self._number, found, leaps(self._changes, self._weights), usual)
        self._emit_notes(f"round {self._number}: {note}" for note in unlike(found))
        self._observer(
            RoundCollected(
                round=self._number,
                accepted=tuple(self.accepted),
                missing=tuple(self.failed),
                sent_bytes=sent,
                received_bytes=received,
                seconds=time.perf_counter() - self._began,
            )
        )

    def _checked(self, name: str, answer: Message) -> int:
        """The number of examples of an update that is of this round, these weights and this silo."""
        if answer.kind != "trained":
            raise (Diverged if answer.diverged else UpdateRefused)(answer.reason)
        fields = answer.fields
        stated = {key: fields.get(key) for key in ("run", "round", "base", "silo")}
        expected = {"run": self._ledger.run, "round": self._number, "base": self.base, "silo": name}
        for key, value in expected.items():
            # True is 1, and so is 1.0.
            if stated[key] != value or type(stated[key]) is not type(value):
                raise UpdateRefused(f"the update is of {key} {quoted(stated[key])}, expected {key} {value}")
        return self._claims.check(name, fields.get("num_examples"))

    def _repeated(self) -> tuple[str, str] | None:
        """The update that stands out most of those whose silo has had one taken out, and the reason."""
        again = [found for found in outliers(self._changes) if found.silo in self._offenders]
        if not again:
            return None
        worst = max(again, key=lambda found: found.times)
        before = self._offenders[worst.silo]
        return worst.silo, f"the update {worst.how}, and its update of round {before} was taken out"

    def _empty_mean(self) -> Aggregator:
        folder = self._ledger.folder / "updates"
        return merging(self._federate, self._weights, self._vectors, variances=self._variances, folder=folder)

    def _merge_again(self) -> None:
        """The mean of what is on disk of this round."""
        self.mean = self._empty_mean()
        for found in (self._parts, self._changes, self._takes, self._losses, self.accepted):
            found.clear()
        for name, update, num_examples in self._ledger.begin(self._number, self.base):
            try:
                self._merge(name, update, num_examples)
            except UpdateRefused:
                # Settings changed since: it is asked for again.
                self._ledger.forget(self._number, name)

    def _fit_in(self, name: str, update: Message, num_examples: int) -> None:
        """Merge an update. All share what an exact sum can hold: whoever takes most of it gives way, not whoever comes last.

        Raises:
            UpdateRefused: It cannot be merged.
        """
        while True:
            try:
                self._merge(name, update, num_examples)
            except SumFull as error:
                heaviest = max(self._takes, key=lambda silo: self._takes[silo])
                arrays, _ = split(update.arrays)
                change = Change.from_weights(decode(arrays, self._weights, self._payload), self._weights)
                if self._takes[heaviest] <= change.largest * num_examples:
                    raise
                self._take_out(heaviest, f"there is no room for it beside others: {error.message}")
            else:
                return

    def _failed(self, name: str, reason: str) -> None:
        self.failed[name] = reason
        backend = self._backends[name]
        self._observer(ParticipantFailed(round=self._number, name=name, backend=backend, reason=reason))

    def _take_out(self, name: str, reason: str) -> None:
        """An update that is in the mean, and on disk, is there no longer."""
        self._ledger.forget(self._number, name)
        self._merge_again()
        self.reject(name, "refused", reason)

    def _emit_notes(self, notes: Iterable[str]) -> None:
        for note in notes:
            self._observer(Noted(backend="server", note=note))

    def _merge(self, name: str, update: Message, num_examples: int) -> None:
        before = update.fields.get("before")
        part = None
        if before is not None:
            part = self._expected.evaluated(before)
        trained = self._expected.trained(update.fields.get("metrics"))
        arrays, beside = split(update.arrays)
        weights = decode(arrays, self._weights, self._payload, self._variances)
        vectors = unpacked(beside, self._vectors, self._weights)
        self.mean.add(Update({MODEL: weights, **vectors}, num_examples))
        self._losses[name] = trained.loss
        self._changes[name] = change = Change.from_weights(weights, self._weights, self._variances)
        self._takes[name] = change.largest * num_examples
        self.accepted[name] = update.identity
        if part is not None:
            self._parts[name] = part

    def _keep(self, name: str, update: Message, num_examples: int, seconds: float) -> None:
        """Put an update on disk; a full disk is waited for.

        Raises:
            RunFailed: It stayed full for as long as a round may last, or is broken.
        """
        deadline = Deadline.within(self._rules.round_timeout_s)
        accept = partial(self._ledger.accept, self._number, name, self.base, update, num_examples, seconds)

        def on_wait(reason: str) -> None:
            note = f"the update of {name} cannot be written ({reason}); waiting for space"
            self._observer(Noted(backend="server", note=note))

        try:
            retry_until_space(accept, self._ledger.folder, on_wait, lambda: deadline.passed)
        except OSError as error:
            raise RunFailed(f"the update of {name!r} could not be written: {error}") from error
