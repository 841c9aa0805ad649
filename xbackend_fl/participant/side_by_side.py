"""A whole cohort at once, by a trainer that can: as one sum, or with what each participant gives by itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import ClientWork, CohortResult, CohortTrainer, TrainConfig
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.cohort import Own
from xbackend_fl.aggregation import LARGEST
from xbackend_fl.course import Course
from xbackend_fl.data import Dataset, cohort, seed_of
from xbackend_fl.errors import Diverged, UpdateRefused
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant.client import Arrays, Client
from xbackend_fl.participant.contribution import Contribution, Given
from xbackend_fl.participant.failures import failing, training
from xbackend_fl.schedules import rates
from xbackend_fl.weights import Weights


@dataclass(frozen=True)
class CohortOrder:
    """What a trainer is told to do with a cohort.

    Attributes:
        start: What they start from.
        work: Of every participant.
        config: How all of them train.
        meanwhile: Puts the examples of the next round in order.
    """

    start: Weights
    work: Sequence[ClientWork]
    config: TrainConfig
    meanwhile: Callable[[], None]


@final
class SideBySide:
    """Trains cohorts at once, where that has the results of one participant after the other.

    Args:
        course: The course.
        model: The shared model, whose trainer knows cohorts.
        client: The algorithm at this model.
        shards: The participants' data.
        config: How a participant trains, but for the algorithm's rule and the rates.
        order: Which examples each step of a participant sees in a round.
        usual: How many participants a cohort usually has here at most.
    """

    def __init__(
        self,
        course: Course,
        model: CanonicalModel,
        client: Client,
        shards: Mapping[str, Dataset],
        config: Callable[[], TrainConfig],
        order: Callable[[int, str], Iterator[NDArray[np.intp]]],
        usual: int,
    ) -> None:
        assert isinstance(model.trainer, CohortTrainer)
        self._course, self._client, self._shards = course, client, shards
        self._trainings, self._told, self._usual = course.trainings, False, usual
        self._ahead: tuple[int, dict[str, ClientWork]] = (0, {})
        self._model, self._trainer, self._config, self._order = model, model.trainer, config, order

    @property
    def adds_up(self) -> bool:
        """Whether nothing but the sum of all updates is needed, as float32."""
        federate = self._course.federate
        return federate.precision == "float32" and federate.aggregator.name == "mean" and self._client.plain

    def order(
        self, number: int, weights: Weights, cohort: Sequence[str], watched: float
    ) -> CohortOrder | None:
        """What gives the sum of a cohort's updates; ``None`` if the cohort cannot train at once."""
        start = self._client.native(self._model.binding.restore(weights, copy=False))
        # Examples are put in order while the weights are on their way.
        self._trainer.begin(start)
        work = self._work(number, cohort)
        if work is None:
            return None
        return self._supported(number, start, {}, work, watched)

    def train(
        self,
        number: int,
        cohort: Sequence[str],
        start: Weights,
        sent: Mapping[str, Weights],
        kept: Callable[[str, int], Arrays],
        watched: float,
    ) -> Iterator[Given] | None:
        """What each participant gives, one after the other; ``None`` if the cohort cannot train at once.

        What a participant kept is read when its turn comes, and once more when it is done: nothing of it is held in between.
        """
        found = self._work(number, cohort)
        if found is None:
            return None

        def own(name: str) -> Own:
            begun = self._client.begin(start, sent, kept(name, number))
            mine = {native: begun.start[native] for native in self._client.own_tensors}
            return Own(mine, begun.plan.slots)

        work = [replace(part, own=partial(own, name)) for name, part in zip(cohort, found, strict=True)]
        order = self._supported(number, start, sent, work, watched)
        if order is None:
            return None
        return self._given(number, cohort, start, sent, kept, order)

    def _given(
        self,
        number: int,
        cohort: Sequence[str],
        start: Weights,
        sent: Mapping[str, Weights],
        kept: Callable[[str, int], Arrays],
        order: CohortOrder,
    ) -> Iterator[Given]:
        began, config = time.perf_counter(), order.config
        results = self._trainer.train_apart(start, order.work, config)
        while True:
            with failing(training(number, cohort, self._model.binding.backend)):
                found = next(results, None)
            if found is None:
                return
            name, part = cohort[found.index], order.work[found.index]
            seconds = (time.perf_counter() - began) / len(cohort)
            try:
                if not math.isfinite(found.loss.total):
                    raise Diverged(f"the training loss is {found.loss.mean}")
                begun, steps = self._client.begin(start, sent, kept(name, number)), len(part.batches)
                plain = steps * config.optimizer.lr
                lr_sum = plain if config.rates is None else math.fsum(config.rates[:steps])
                after = {**begun.start, **found.after}
                update, state = self._client.finish(begun, after, lr_sum, part.num_examples)
            except UpdateRefused as error:
                yield name, error, seconds
            else:
                metrics = Metrics(found.loss.positions, {"loss": found.loss.total})
                yield name, Contribution(update, state, metrics), seconds

    def _work(self, number: int, cohort: Sequence[str]) -> list[ClientWork] | None:
        """The work of a cohort that trains in one way on one model; ``None`` if it does not."""
        federate = self._course.federate
        same = all(self._trainings[name] is self._course.training for name in cohort)
        if not (federate.share_local_model and federate.online_aggr and same):
            return None
        self._expect()
        ahead = self._ahead[1] if self._ahead[0] == number else {}
        return [ahead.get(name) or self._work_of(number, name) for name in cohort]

    def _work_of(self, number: int, name: str) -> ClientWork:
        shard = self._shards[name]
        orders = self._order(number, name)
        rows = [shard.rows[part] if shard.rows is not None else part for part in orders]
        return ClientWork(tuple(rows), len(shard), seed_of(self._course.seed, "dropout", number, name))

    def _look_ahead(self, number: int) -> None:
        """Put in order the examples of those who are drawn for a round, as far as they are here; who is not there then does not matter."""
        names = [*self._trainings]
        drawn = cohort(names, self._course.federate.cohort or len(names), self._course.seed, "cohort", number)
        self._ahead = number, {n: self._work_of(number, n) for n in drawn if n in self._shards}

    def _expect(self) -> None:
        """Tell the trainer, once, what participants of this course are like."""
        settings = self._course.training
        if self._told:
            return
        self._told = True
        sizes = [
            len(self._shards[name])
            for name, own in self._trainings.items()
            if own is settings and name in self._shards
        ]
        steps = [settings.num_steps(size) for size in sizes]
        self._trainer.expect(steps, min(settings.batch_size, max(sizes, default=0)), self._usual)

    def _supported(
        self,
        number: int,
        start: Weights,
        sent: Mapping[str, Weights],
        work: Sequence[ClientWork],
        watched: float,
    ) -> CohortOrder | None:
        settings = self._course.training
        plan = self._client.plan(start, sent)
        steps = max((len(part.batches) for part in work), default=0)
        # The rate of a step is everybody's: some have more steps than others.
        found = rates(settings.schedule, settings.optimizer.lr, number, steps, watched)
        config = replace(self._config(), rule=plan.rule, slots=plan.slots, rates=found)
        meanwhile = partial(self._look_ahead, number + 1)
        return CohortOrder(start, work, config, meanwhile) if self._trainer.supports(config, work) else None


def are_sums(model: CanonicalModel, result: CohortResult, num_examples: int) -> bool:
    """Whether sums may be of updates that a mean accepts one by one."""
    owners, kinds = model.binding.owners, model.schema.by_name
    limits = {name: LARGEST.get(kinds[owners[name]].kind, 0.0) for name in result.sums}
    # No comparison with NaN is true.
    return all(found <= 2 * limits[name] * num_examples for name, found in result.largest.items())
