"""A participant's figures by code of the user's own: it gets a task with the weights to judge, and what it did is looked at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np

from xbackend_fl.adapter import Batch, Tensors, TrainConfig, Trainer
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.optimizers.kinds.sgd import SGD
from xbackend_fl.course import Course
from xbackend_fl.data import Dataset, seed_of
from xbackend_fl.errors import UpdateRefused
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant.feed import Feed, whole
from xbackend_fl.participant.overtime import ended_after
from xbackend_fl.participant.own_training import Job, Loop, lendable, refusing, reported, task_of
from xbackend_fl.participant.trial import EVALUATION_BATCH
from xbackend_fl.text import shown_names


@final
@dataclass(frozen=True)
class OwnEvaluation:
    """The participants of one backend that report figures by code of their own.

    Attributes:
        course: The course.
        model: The model; it holds the weights to judge.
        feed: Makes batches.
        loops: Their code, by name.
        given: Data of any kind, by the name of whose code alone reads them.
        config: How the model is trained on a data set, native.
    """

    course: Course
    model: CanonicalModel
    feed: Feed
    loops: Mapping[str, Loop]
    given: Mapping[str, Any]
    config: Callable[[Dataset], TrainConfig]

    def measured(self, name: str, data: Dataset, split: str, trace: Path | None = None) -> Metrics:
        """What a participant reports of the weights that the model holds.

        Args:
            name: Who.
            data: Examples to evaluate on, where it has no data that its code alone reads.
            split: ``validation`` or ``test``.
            trace: Where a process that ends since its code could not be interrupted writes where it was.

        Raises:
            UpdateRefused: Its code raised, took too long, returned something else than it should, or changed the model, which is as it was then.
        """
        course, loop = self.course, self.loops[name]
        training = course.trainings[name]
        job = Job(
            name,
            self.model.binding.backend,
            0,
            seed_of(course.seed, "evaluation", 0, name),
            training,
            None if name in self.given else len(data),
            (lambda: self.given[name]) if name in self.given else partial(whole, data),
            partial(self._batches, data),
            course.federate.algorithm,
            training.optimizer.lr,
            split,
            trace,
        )
        num_examples, figures = evaluate_own(
            loop, job, self.model.trainer, self.config(data), course.evaluation.reported
        )
        return Metrics().reporting(course.heads.metrics, figures, num_examples)

    def _batches(self, data: Dataset) -> Iterator[Batch]:
        objective = self.feed.objective(data)
        config = objective.told(TrainConfig(SGD()))
        for inputs, targets in self.feed.examples(data, EVALUATION_BATCH):
            yield self.model.native_batch(Batch(inputs, objective.prepared(targets)), config)


def evaluate_own(
    loop: Loop, job: Job, trainer: Trainer, config: TrainConfig, names: Collection[str]
) -> tuple[int, dict[str, float]]:
    """Let code of the user's own judge the weights that a model holds.

    Args:
        loop: The code.
        job: Whose.
        trainer: The model.
        config: Native.
        names: Figures that the course knows.

    Returns:
        Over how many examples, and figures by name.

    Raises:
        UpdateRefused: It raised, took too long, returned something else than it should, or changed the model, which is as it was then.
    """
    limit, start = job.training.timeout_s, trainer.read()
    who = f"the evaluation of {job.participant} ({job.backend}, {loop.text}) on the {job.split} examples"
    try:
        with refusing(who, limit), lendable(trainer, job.backend).lend(config, "", training=False) as lent:
            with ended_after(limit, job.trace):
                answer = loop.function(task_of(job, lent, {}))
            num_examples, figures = reported(answer, job.max_examples)
            _check_names(figures, names)
            _check_still(start, lent.read())
    except UpdateRefused:
        trainer.write(start)
        raise
    return num_examples, figures


def _check_names(figures: Collection[str], names: Collection[str]) -> None:
    if figures and not (unknown := {*figures} - {*names}):
        return
    what = shown_names(sorted(unknown)) if figures else "no figure"
    raise UpdateRefused(
        f"returned {what}, and evaluation.reported names {shown_names([*names])}",
        hint=f'return {{"num_examples": 120, "{next(iter(names))}": 0.25}}; what leaves a participant is named in evaluation.reported',
    )


def _check_still(before: Tensors, after: Tensors) -> None:
    moved = [n for n, array in before.items() if not np.array_equal(after[n], array, equal_nan=True)]
    if moved:
        raise UpdateRefused(
            f"changed {shown_names(moved)}, and whoever evaluates leaves the weights as they are",
            hint="leave out optimizer steps and model.train()",
        )
