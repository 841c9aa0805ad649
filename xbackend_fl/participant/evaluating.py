"""Figures of weights at the participants of one backend: the toolkit's, and beside them those of code of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

from xbackend_fl.adapter import Batch
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.course import Course
from xbackend_fl.data import Dataset, Splits
from xbackend_fl.errors import RunFailed, UpdateRefused
from xbackend_fl.events import Noted, Observer
from xbackend_fl.metrics import Metrics, evaluated
from xbackend_fl.participant.failures import failing, read_for, traceback_kept
from xbackend_fl.participant.feed import Feed
from xbackend_fl.participant.local_training import LocalTraining
from xbackend_fl.participant.own_evaluation import OwnEvaluation
from xbackend_fl.participant.trial import EVALUATION_BATCH
from xbackend_fl.weights import Weights

Refused = Callable[[RunFailed], None]
"""Hears why a participant's own code gave no figures."""


@final
@dataclass(frozen=True)
class Evaluating:
    """What is measured at participants.

    Attributes:
        course: The course.
        model: The model.
        feed: Makes batches.
        splits: The data that all have.
        validations: Validation examples that are a participant's own, by its name.
        training: Puts weights into the model.
        own: The participants that report figures by code of their own.
        observer: Told about every event.
    """

    course: Course
    model: CanonicalModel
    feed: Feed
    splits: Splits
    validations: Mapping[str, Dataset]
    training: LocalTraining
    own: OwnEvaluation
    observer: Observer

    def common(self, weights: Weights, split: str) -> Metrics:
        """Metrics of weights on a split of the common data."""
        self.training.load(weights)
        return self._measured(getattr(self.splits, split), split)

    def measured(
        self, name: str, split: str, refused: Refused | None, number: int = 0, *, asked: bool = True
    ) -> Metrics:
        """Metrics of the weights that the model holds, at a participant.

        Args:
            name: Who.
            split: Of which examples.
            refused: Hears why its own code gives none, and the toolkit's remain; the error is raised if it is left out.
            number: After which round.
            asked: Whether its own code is.

        Raises:
            RunFailed: The model or the data cannot be used; or the participant's own code.
        """
        found = self._measured(self._data_of(name, split), split, f" participant {name!r}")
        if name not in self.own.loops or not asked:
            return found
        try:
            return found.beside({name: self._reported(name, split, number)})
        except RunFailed as error:
            if refused is None:
                raise
            refused(error)
            return found

    def participants(
        self, weights: Weights, split: str, names: Sequence[str], number: int, but: Collection[str]
    ) -> dict[str, Metrics]:
        """Metrics of every participant, on its own validation examples or on a split, with its own parameters as they are after a round."""

        def measure(name: str) -> Metrics:
            refused = partial(self._tell, name) if self._goes_on else None
            return self.measured(name, split, refused, number, asked=name not in but)

        return dict(self._at_each(weights, names, number, measure))

    def reports(
        self, weights: Weights, split: str, names: Sequence[str], number: int, but: Collection[str]
    ) -> dict[str, Metrics]:
        """What the code of these participants' own reports, and nothing else."""
        wanted = [name for name in names if name not in but]
        return dict(self._at_each(weights, wanted, number, lambda name: self._reported(name, split, number)))

    @property
    def _goes_on(self) -> bool:
        return self.course.federate.on_failure == "continue"

    def _data_of(self, name: str, split: str) -> Dataset:
        own = self.validations if split == "validation" else {}
        data: Dataset = own[name] if name in own else getattr(self.splits, split)
        return data

    def _reported(self, name: str, split: str, number: int) -> Metrics:
        """What a participant's own code makes of the weights that the model holds.

        Raises:
            RunFailed: Nothing.
        """
        states = self.training.states
        trace = None if states is None else states.trace_of_evaluation(name, number)
        try:
            return self.own.measured(name, self._data_of(name, split), split, trace)
        except UpdateRefused as error:
            said = traceback_kept(None if states is None else states.failures, f"{name}-evaluation", error)
            raise RunFailed(f"{error.message}{said}", hint=error.hint) from error.__cause__

    def _measured(self, data: Dataset, split: str, whose: str = "") -> Metrics:
        when = f"while evaluating{whose} on the {split} examples ({self.model.binding.backend})"
        batches = read_for(when, (Batch(*part) for part in self.feed.examples(data, EVALUATION_BATCH)))
        with failing(when):
            return evaluated(self.model, batches, self.feed.objective(data).measured)

    def _at_each(
        self, weights: Weights, names: Sequence[str], number: int, measure: Callable[[str], Metrics]
    ) -> Iterator[tuple[str, Metrics]]:
        """What is measured at every participant that can be; who cannot ends the course, if it says so."""
        for index, name in enumerate(names):
            if self.course.local:
                self.training.load(weights, self.training.kept(name, number + 1))
            elif not index:
                self.training.load(weights)
            try:
                yield name, measure(name)
            except RunFailed as error:
                if name not in self.own.loops or not self._goes_on:
                    raise
                self._tell(name, error)

    def _tell(self, name: str, error: RunFailed) -> None:
        note = f"{name} is not in the figures of its own code: {error.message}"
        self.observer(Noted(backend=self.model.binding.backend, note=note))
