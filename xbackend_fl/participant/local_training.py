"""Participants of one backend in training: one shared model that they use in turn, or side by side on a device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import repeat
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import (
    Batch,
    CohortTrainer,
    TrainConfig,
    Trainer,
)
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.contract import Autocasting
from xbackend_fl.aggregation import MODEL, PartialAggregate, Sums, Update
from xbackend_fl.course import Course
from xbackend_fl.course.federate import merging
from xbackend_fl.course.training import Training
from xbackend_fl.data import Dataset, batches, seed_of
from xbackend_fl.errors import ConfigError, Diverged, RefusedInput, UpdateRefused
from xbackend_fl.events import Noted, Observer, ParticipantFailed, ParticipantTrained
from xbackend_fl.locate import explained
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant.client import Arrays, Begun, Client
from xbackend_fl.participant.client_states import ClientStates
from xbackend_fl.participant.contribution import Contribution, Given, PartialSum
from xbackend_fl.participant.failures import failing, possible, read_for, traceback_kept, training, undone
from xbackend_fl.participant.feed import Feed, whole
from xbackend_fl.participant.own_training import Job, Loop, train_own
from xbackend_fl.participant.side_by_side import CohortOrder, SideBySide, are_sums
from xbackend_fl.schedules import factor_over_rounds, rates
from xbackend_fl.weights import Weights

_ONE_BY_ONE = (
    "participants train one after the other on the device: a whole cohort trains there only with PyTorch, with one loss that is no function of PyTorch's own, "
    "with a shared model, data and settings, and where the model runs in lockstep or steps by plain SGD"
)


@final
class LocalTraining:
    """Trains the participants of one backend.

    Args:
        course: The course.
        model: The shared model.
        open_another: Opens a model of a participant's own, which lies in memory as the shared one.
        feed: Makes batches.
        shards: The participants' data.
        split: Data by which the loss reads its targets: the training set.
        loops: Training loops of participants that do not use the built-in one.
        given: Data of any kind that participants have for their loops.
        observer: Told what happens, as it happens.

    Attributes:
        client: The algorithm at this model, once that is bound.
        states: Where participants keep what they need from one of their rounds to the next.
        on_device: Whether the model is on a device.
        usual_share: How many participants usually train here in a round at most.
    """

    def __init__(
        self,
        course: Course,
        model: CanonicalModel,
        open_another: Callable[[], Trainer],
        feed: Feed,
        shards: Mapping[str, Dataset],
        split: Dataset,
        loops: Mapping[str, Loop],
        given: Mapping[str, Any],
        observer: Observer,
    ) -> None:
        self._course, self._backend, self._trainings = course, model.binding.backend, course.trainings
        self._model, self._open_another, self._feed = model, open_another, feed
        self._shards, self._split, self._emit = shards, split, observer
        self._loops, self._given = loops, given
        self._keeps_state = course.keeps_state
        self._told: set[tuple[str, str]] = set()
        self._own: dict[str, Trainer] = {}
        self._said, self.on_device, self.usual_share = False, False, 0
        self._watched = 1.0
        self.states: ClientStates | None = None

    @cached_property
    def client(self) -> Client:
        """The algorithm at this model, once that is bound."""
        return Client(self._course, self._model)

    @cached_property
    def _side_by_side(self) -> SideBySide | None:
        """Cohorts all at once; ``None`` where the course, the data or the trainer has no place for that."""
        plain = not (self._loops or self._feed.transforms)
        if not plain or not isinstance(self._model.trainer, CohortTrainer):
            return None
        return SideBySide(
            self._course,
            self._model,
            self.client,
            self._shards,
            lambda: self.native_config(self._split, self._course.training),
            self._order,
            self.usual_share,
        )

    def require_precision(self) -> None:
        """Raise :class:`RefusedInput` if the model cannot be trained in the precision that the course says."""
        named = {name: self._trainings[name].precision for name in {**self._shards, **self._loops}}
        for name in self._loops:
            if named[name] != "float32":
                raise ConfigError(
                    f"{name} trains by a loop of its own, which training.precision {named[name]} does not reach",
                    hint="let the loop choose its precision, and leave training.precision out for it",
                )
        wanted = {*named.values()} - {"float32"}
        for precision in sorted(wanted):
            trainer, reason = self._model.trainer, "its adapter has no mixed precision"
            if isinstance(trainer, Autocasting):
                reason = trainer.autocasts()
            if reason:
                raise RefusedInput(
                    f"the {self._backend} model cannot be trained with training.precision {precision}: {reason}",
                    hint="training.precision: float32, for the course or for this backend's participants",
                )

    def require_freezing(self) -> None:
        """Raise :class:`RefusedInput` if the model cannot leave out of training what the course freezes."""
        if self.client.frozen:
            with explained(f"the {self._backend} model, with federate.frozen,"):
                self._model.trainer.train((), self.native_config(self._split, self._course.training))

    def train_round(
        self,
        number: int,
        weights: Weights,
        cohort: Sequence[str],
        vectors: Mapping[str, Weights],
        watched: float = 1.0,
    ) -> PartialSum:
        """Train this worker's part of a cohort.

        Args:
            number: The round.
            weights: What it starts from.
            cohort: Who trains here.
            vectors: What the algorithm sends beside the weights.
            watched: Factor of the learning rate by schedules that follow validation figures.
        """
        self._watched = watched
        ready = self._side_by_side if self.on_device else None
        together = ready is not None and ready.adds_up
        if ready is not None and together:
            order = ready.order(number, weights, cohort, watched)
            if order is not None:
                return self._train_on_device(number, weights, cohort, order)
        start, sent = self.client.received(weights), self.client.sent(vectors)
        if ready is not None and not together:
            given = ready.train(number, cohort, start, sent, self.kept, watched)
            if given is not None:
                return self._merged(number, cohort, start, sent, given)
        if self.on_device and not self._said:
            self._said = True
            self._emit(Noted(backend=self._backend, note=_ONE_BY_ONE))
        return self._merged(number, cohort, start, sent, self._train_in_turn(number, cohort, start, sent))

    def _train_in_turn(
        self, number: int, cohort: Sequence[str], start: Weights, sent: Mapping[str, Weights]
    ) -> Iterator[Given]:
        """One after the other, on the shared model or on models of their own."""
        for name in cohort:
            began = time.perf_counter()
            try:
                kept = self.kept(name, number)
                given = self._train(number, name, self.client.begin(start, sent, kept), kept)
            except UpdateRefused as error:
                yield name, error, 0.0
            else:
                yield name, given, time.perf_counter() - began

    def _merged(
        self,
        number: int,
        cohort: Sequence[str],
        start: Weights,
        sent: Mapping[str, Weights],
        given: Iterable[Given],
    ) -> PartialSum:
        """The sum of what participants give, as they give it."""
        federate = self._course.federate
        streams = federate.aggregator.streams
        base = start if streams else self.canonical(MODEL, start)
        variances = self.client.variances if streams else self._model.schema.variances
        mean = merging(federate, base, sent, variances=variances, folder=self._place(cohort))
        waiting: list[tuple[str, Contribution]] = []
        failed: dict[str, str] = {}
        hints: dict[str, str] = {}
        states: dict[str, str] = {}
        for name, found, seconds in given:
            try:
                if isinstance(found, UpdateRefused):
                    raise found
                if federate.online_aggr:
                    mean.add(self._for(found.update, streams=streams))
                    states |= self._keep(name, number, found.kept)
                else:
                    waiting.append((name, found))
            except UpdateRefused as error:
                folder = None if self.states is None else self.states.failures
                error.message += traceback_kept(folder, f"{name}-round-{number}", error)
                failed[name], hints[name] = error.message, error.hint or ""
                self._emit(self._failed(number, name, error.message))
                continue
            self._emit_trained(number, name, found, seconds)
        for name, late in waiting:
            try:
                mean.add(self._for(late.update, streams=streams))
                states |= self._keep(name, number, late.kept)
            except UpdateRefused as error:
                failed[name], hints[name] = error.message, error.hint or ""
                self._emit(self._failed(number, name, error.message))
        return PartialSum(mean.partial.mapped(self.client.canonical), failed, hints, states)

    def _for(self, update: Update, *, streams: bool) -> Update:
        """An update as it is merged: as it is, or in canonical layout where every one is kept."""
        return update if streams else update.with_model(self.canonical(MODEL, update.model))

    def _place(self, cohort: Sequence[str]) -> Path | None:
        """Where updates lie for a round; no two workers train the same participant."""
        return None if self.states is None or not cohort else self.states.spool / cohort[0]

    def train_alone(
        self,
        number: int,
        weights: Weights,
        name: str,
        vectors: Mapping[str, Weights],
        kept: Arrays,
        watched: float = 1.0,
    ) -> Contribution:
        """Train one participant.

        Args:
            number: The round.
            weights: What it starts from.
            name: Who trains.
            vectors: What the algorithm sends beside the weights.
            kept: What the participant kept from its last round.
            watched: Factor of the learning rate by schedules that follow validation figures.

        Returns:
            What it gives, in canonical layout.

        Raises:
            Diverged: Its loss or a weight is not finite; the model holds the weights that it started from.
        """
        self._watched = watched
        with undone(partial(self.load, weights)):
            start = self.client.received(weights)
            begun = self.client.begin(start, self.client.sent(vectors), kept)
            given = self._train(number, name, begun, kept)
            found = {
                vector: possible(
                    self.canonical(vector, arrays), self._model.schema.variances if vector == MODEL else ()
                )
                for vector, arrays in given.update.vectors.items()
            }
            return replace(given, update=Update(found, given.update.num_examples))

    def _train_on_device(
        self,
        number: int,
        weights: Weights,
        cohort: Sequence[str],
        order: CohortOrder,
    ) -> PartialSum:
        trainer, clients = self._model.trainer, order.work
        assert isinstance(trainer, CohortTrainer)
        start, began = order.start, time.perf_counter()
        with failing(training(number, cohort, self._backend)):
            result = trainer.train_cohort(start, clients, order.config, order.meanwhile)
        if not are_sums(self._model, result, sum(part.num_examples for part in clients)):
            # Somebody's weights are too large to be summed up: each is looked at by itself.
            received = self.client.received(weights)
            given = self._train_in_turn(number, cohort, received, {})
            return self._merged(number, cohort, received, {}, given)
        for note in result.notes:
            self._emit(Noted(backend=self._backend, note=note))
        seconds = (time.perf_counter() - began) / max(len(cohort), 1)
        failed: dict[str, str] = {}
        accepted = [part.num_examples for part, good in zip(clients, result.accepted, strict=True) if good]
        for name, loss, good in zip(cohort, result.losses, result.accepted, strict=True):
            if not good:
                failed[name] = "its loss or its weights are NaN or infinite"
                self._emit(self._failed(number, name, failed[name]))
                continue
            self._emit(
                self._trained(
                    number, name, loss.mean if loss.positions else None, seconds, len(self._shards[name])
                )
            )
        # What is not averaged stays as it was.
        sums = Sums({**start, **result.sums}, sum(accepted), len(accepted))
        exported = sums.mapped(partial(self._model.binding.export, copy=False))
        return PartialSum(PartialAggregate({MODEL: exported}), failed)

    def _failed(self, number: int, name: str, reason: str) -> ParticipantFailed:
        return ParticipantFailed(round=number, name=name, backend=self._backend, reason=reason)

    def _emit_trained(self, number: int, name: str, given: Contribution, seconds: float) -> None:
        for note in given.notes:
            if (name, note) not in self._told:
                self._told.add((name, note))
                self._emit(Noted(backend=self._backend, note=note))
        found = self._trained(number, name, given.loss, seconds, given.update.num_examples)
        self._emit(found.model_copy(update={"figures": dict(given.figures)}))

    def _trained(
        self, number: int, name: str, loss: float | None, seconds: float, num_examples: int
    ) -> ParticipantTrained:
        return ParticipantTrained(
            round=number,
            name=name,
            backend=self._backend,
            num_examples=num_examples,
            loss=loss,
            seconds=seconds,
        )

    def kept(self, name: str, number: int) -> Arrays:
        """What a participant kept before a round; empty if nothing is."""
        return self.states.read(name, number) if self._keeps_state and self.states is not None else {}

    def _keep(self, name: str, number: int, kept: Arrays) -> dict[str, str]:
        if not kept:
            return {}
        assert self.states is not None
        return {name: self.states.write(name, number, kept)}

    def _train(self, number: int, name: str, begun: Begun, kept: Arrays) -> Contribution:
        """One participant: the shared model is reset completely before it trains."""
        if name in self._loops:
            return self._train_own(number, name, begun, kept)
        data = self._shards[name]
        trainer = self.trainer_of(name)
        trainer.reset(seed_of(self._course.seed, "dropout", number, name))
        trainer.write(begun.start)
        order = list(self._order(number, name))
        settings = self._trainings[name]
        lr = settings.optimizer.lr
        found = rates(settings.schedule, lr, number, len(order), self._watched)
        config = replace(
            self.native_config(data, settings), rule=begun.plan.rule, slots=begun.plan.slots, rates=found
        )
        when, goes_on = training(number, [name], self._backend), self._course.federate.on_failure != "stop"
        with failing(when):
            steps = read_for(when, self._native_batches(number, name), goes_on=goes_on)
            loss = trainer.train(steps, config)
        if not math.isfinite(loss.total):
            raise Diverged(f"the training loss is {loss.mean}")
        lr_sum = len(order) * lr if found is None else math.fsum(found)
        update, state = self.client.finish(begun, trainer.read(), lr_sum, len(data))
        # What was read is nobody else's, unless the participant keeps something that may be made of it.
        update = replace(update, given=not state)
        return Contribution(update, state, Metrics(loss.positions, {"loss": loss.total}))

    def _train_own(self, number: int, name: str, begun: Begun, kept: Arrays) -> Contribution:
        """One participant, by a loop of its own."""
        course, data, loop = self._course, self._shards.get(name), self._loops[name]
        seed = seed_of(course.seed, "dropout", number, name)
        job = Job(
            name,
            self._backend,
            number,
            seed,
            self._trainings[name],
            None if data is None or loop.own_data else len(data),
            partial(self._data_of, name),
            partial(self._native_batches, number, name),
            course.federate.algorithm,
            self._lr(number, name),
            trace=None if self.states is None else self.states.trace(name, number),
        )
        plain = self.native_config(self._split if data is None else data, job.training)
        optimizer = replace(plain.optimizer, lr=job.lr)
        config = replace(plain, optimizer=optimizer, rule=begun.plan.rule, slots=begun.plan.slots)
        trainer = self.trainer_of(name)
        trainer.reset(seed)
        trainer.write(begun.start)
        done = train_own(loop, job, trainer, begun.start, config, kept)
        update, state = self.client.finish(begun, done.after, done.steps * job.lr, done.num_examples)
        notes = tuple(f"{name}, trained by {loop.text}: {note}" for note in done.notes)
        nothing = Metrics(0, {"loss": 0.0})  # a figure of its own merges with nobody's
        return Contribution(update, {**state, **done.state}, nothing, done.figures, notes)

    def _lr(self, number: int, name: str) -> float:
        """The learning rate of a participant in a round, with all schedules over rounds."""
        settings = self._trainings[name]
        return settings.optimizer.lr * factor_over_rounds(settings.schedule, number, self._watched)

    def _data_of(self, name: str) -> Any:
        """What a loop finds in ``task.data``."""
        if name in self._given:
            return self._given[name]
        return whole(self._shards[name])

    def _native_batches(self, number: int, name: str) -> Iterator[Batch]:
        """The batches of a participant, as the model takes them.

        Raises:
            ConfigError: Its data are of a kind of its own.
        """
        if name not in self._shards:
            raise ConfigError(
                f"the data of {name!r} are a {type(self._given[name]).__name__}, of which no batches can be made",
                hint="go through task.data yourself, or let its data function return inputs, targets: two arrays",
            )
        data = self._shards[name]
        config = self.config(data, self._trainings[name])
        size = self._trainings[name].batch_size
        for batch in self._feed.steps(data, list(self._order(number, name)), size, number, name):
            yield self._model.native_batch(batch, config)

    def _order(self, number: int, name: str) -> Iterator[NDArray[np.intp]]:
        """Which examples each step of a participant sees."""
        training = self._trainings[name]
        key = (self._course.seed, "batches", number, name)
        data, size = self._shards[name], len(self._shards[name])
        if data.stream is not None:
            # It has an order of its own; what is told is how many steps there are.
            steps = training.steps or training.epochs * data.stream.num_batches(training.batch_size)
            return repeat(np.empty(0, np.intp), steps)
        return batches(size, training.batch_size, training.epochs, training.steps, *key)

    def config(self, data: Dataset, training: Training) -> TrainConfig:
        """How a participant with these data and settings trains, but for the algorithm's rule; in ONNX layout."""
        plain = TrainConfig(
            training.optimizer,
            clip_norm=training.clip_norm,
            dropout=training.dropout,
            precision=training.precision,
        )
        return self._feed.objective(data).told(plain)

    def native_config(self, data: Dataset, training: Training) -> TrainConfig:
        """The same in the model's own layout, with what the course freezes."""
        config = replace(self.config(data, training), frozen=self.client.frozen)
        return self._model.native_config(config)

    def trainer_of(self, name: str) -> Trainer:
        """The model that a participant trains: the shared one, or its own."""
        if self._course.federate.share_local_model:
            return self._model.trainer
        if name not in self._own:
            self._own[name] = self._open_another()
        return self._own[name]

    def canonical(self, vector: str, arrays: Arrays) -> Weights:
        """A vector of an update, native, in canonical layout."""
        found = self.client.canonical(vector, arrays)
        if vector == MODEL:
            return Weights(found, self._model.schema.fingerprint, self.client.kinds)
        return Weights(found, self._model.schema.fingerprint)

    def load(self, weights: Weights, kept: Arrays | None = None) -> None:
        """Let the shared model hold weights: as they are, or as a participant has them that ``kept`` its own parameters."""
        self._model.trainer.reset(0)
        native = self._model.binding.restore(weights)
        self._model.trainer.write(
            native if kept is None else self.client.mine(self.client.native(native), kept)
        )
