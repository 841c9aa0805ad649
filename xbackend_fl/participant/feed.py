"""What a model is fed: rows of a data set in its own dtype, and targets as its loss reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count, islice, repeat
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Batch, TrainConfig
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.optimizers.kinds.sgd import SGD
from xbackend_fl.course import Course
from xbackend_fl.data import Dataset, Examples, Transform, ahead, announced
from xbackend_fl.errors import ConfigError
from xbackend_fl.losses import NativeLoss, each_of
from xbackend_fl.losses.own import NUMPY
from xbackend_fl.metrics import Objectives, Read, objectives_of
from xbackend_fl.participant.batch_checks import BatchChecks
from xbackend_fl.participant.data_checks import vocabulary_of

_SAME = "let the data set give what the model and its loss take, whenever it is gone through"
_MEND = "let it return what the model and its loss take, or choose another loss"


@final
class Feed:
    """Makes the batches of one model, in ONNX layout.

    Args:
        course: Says how bytes are scaled, and the losses.
        example: One array per input, in ONNX layout and with the dtype that the model takes.
        model: Its outputs are what the losses read.
        is_reference: Whether its schema is the reference's; else it is not proven yet.
    """

    def __init__(
        self, course: Course, example: Sequence[NDArray[Any]], model: CanonicalModel, *, is_reference: bool
    ) -> None:
        self._course, self._example, self._model = course, example, model
        self._is_reference = is_reference
        self._objectives: dict[int, Objectives] = {}
        self._check = BatchChecks(vocabulary_of(model.schema))
        self._training, self._evaluation = (
            None if text is None else Transform(f"data.{key}", text, course.base, course.seed)
            for key, text in (
                ("transform", course.data.transform),
                ("evaluation_transform", course.data.evaluation_transform),
            )
        )

    @property
    def transforms(self) -> bool:
        """Whether what is trained on is transformed, so that no two rounds see the same."""
        return self._training is not None

    def objective(self, data: Dataset) -> Objectives:
        """How the losses read the targets of a data set."""
        key = id(data.targets)
        if key not in self._objectives:
            found = objectives_of(
                self._model.schema,
                self._course.heads,
                data.targets,
                is_reference=self._is_reference,
                varies=self._varies(data),
            )
            self._objectives[key] = replace(found, each=tuple(map(self._answered, found.each)))
        return self._objectives[key]

    def _varies(self, data: Dataset) -> bool:
        """Whether a batch may have other targets than the data set had when it was looked at."""
        return data.stream is not None or self._training is not None or self._evaluation is not None

    def _some_counting(self, where: str, objective: Objectives, steps: Iterator[Batch]) -> Iterator[Batch]:
        """The steps, of which one target at least must count: else nothing is learnt.

        Raises:
            ConfigError: None does.
        """
        counts = False
        for step in steps:
            counts = counts or objective.counts(step.targets)
            yield step
        if not counts:
            raise ConfigError(
                f"{where}: no target counts: all are {objective.ignored}",
                hint="leave some targets as they are",
            )

    def _answered(self, read: Read) -> Read:
        """A head whose loss only this backend can compute, with a way to ask it."""
        loss = read.objective.loss
        if not isinstance(loss, NativeLoss) or NUMPY in loss.backends:
            return read
        return replace(read, objective=replace(read.objective, asked=partial(self._judged, read)))

    def _judged(self, read: Read, output: NDArray[Any], targets: NDArray[Any]) -> float:
        """A loss that only this backend can compute, of an evaluated batch."""
        config = read.told(TrainConfig(SGD()))
        prepared = read.objective.prepared(targets)
        return self._model.judge(output.astype(np.float32), prepared, config)[0]

    def prepared(self, inputs: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
        """Inputs in the dtype of the model; bytes are scaled if the course says how."""
        scale = self._course.data.scale
        pairs = zip(inputs, self._example, strict=True)
        if scale is None:
            return tuple(array.astype(wanted.dtype, copy=False) for array, wanted in pairs)
        factor, offset = map(np.float32, (scale.rule().factor, scale.rule().offset))
        return tuple(
            _scaled(a, factor, offset) if a.dtype == np.uint8 else a.astype(e.dtype, copy=False)
            for a, e in pairs
        )

    def examples(self, data: Dataset, size: int) -> Iterator[Examples]:
        """All of a data set as it is evaluated, with inputs in the dtype of the model and targets as they are.

        Args:
            data: The data set.
            size: Examples of a batch, where the data set does not bring its own.
        """
        if data.stream is not None:
            return map(partial(self._evaluated, data), data.stream.batches(size), count())
        parts = (np.arange(start, min(start + size, len(data))) for start in range(0, len(data), size))
        found = (
            self._evaluated(data, data.gather(part), number)
            for number, part in enumerate(announced(parts, data.prefetch))
        )
        return ahead(found) if data.is_read else found

    def _evaluated(self, data: Dataset, part: Examples, number: int) -> Examples:
        part = self._looked_at(data, part, self._evaluation, number, "evaluation", number)
        return Examples(self.prepared(part.inputs), part.targets)

    def batch(self, data: Dataset, indices: NDArray[np.intp]) -> Batch:
        """Some rows of a data set as they are evaluated."""
        part = self._evaluated(data, data.gather(indices), 0)
        return Batch(part.inputs, self.objective(data).prepared(part.targets))

    def step(self, data: Dataset, indices: NDArray[np.intp]) -> Batch:
        """Some rows of a data set as they are trained on."""
        return self._trained(data, data.gather(indices), 0)

    def steps(
        self, data: Dataset, order: Sequence[NDArray[np.intp]], size: int, *key: int | str
    ) -> Iterator[Batch]:
        """The steps of one participant in a round; they are made ahead where that takes time.

        Args:
            data: The participant's data.
            order: The rows of every step; of a data set that brings its own batches, they say how many steps there are.
            size: Examples of a batch, where they come one by one.
            key: What the random numbers of ``data.transform`` are for.
        """
        objective = self.objective(data)
        if data.stream is not None:
            passes = chain.from_iterable(data.stream.batches(size) for _ in repeat(None))
            streamed = enumerate(islice(passes, len(order)))
            found = (self._trained(data, part, number, *key, number) for number, part in streamed)
            return self._some_counting(data.stream.where, objective, found)
        told = enumerate(announced(order, data.prefetch))
        found = (self._trained(data, data.gather(part), number, *key, number) for number, part in told)
        if self._training is not None:
            return self._some_counting(self._training.what, objective, ahead(found))
        return ahead(found) if data.is_read else found

    def _trained(self, data: Dataset, part: Examples, number: int, *key: int | str) -> Batch:
        part = self._looked_at(data, part, self._training, number, *key)
        return Batch(self.prepared(part.inputs), self.objective(data).prepared(part.targets))

    def _looked_at(
        self, data: Dataset, part: Examples, transform: Transform | None, number: int, *key: int | str
    ) -> Examples:
        """A batch transformed, and looked at wherever nobody has seen it before.

        Raises:
            ConfigError: The data set, or the transform, gave what the model or its loss does not take.
        """
        if data.stream is not None:
            self._check(f"{data.stream.where}: batch {number}:", part, self.objective(data), _SAME)
        if transform is not None:
            part = transform(part, *key)
            self._check(f"{transform.what}: batch {number}: returned", part, self.objective(data), _MEND)
        return part


def _scaled(array: NDArray[np.uint8], factor: np.float32, offset: np.float32) -> NDArray[np.float32]:
    found: NDArray[np.float32] = array * factor
    found += offset
    return found


def whole(data: Dataset) -> tuple[Any, Any]:
    """All examples of a data set as ``task.data`` has them: inputs, a tuple of them where there are several, and targets, a dict where there are several."""
    inputs, targets = data.gather(np.arange(len(data)))
    return inputs[0] if len(inputs) == 1 else inputs, each_of(targets, np.ascontiguousarray)
