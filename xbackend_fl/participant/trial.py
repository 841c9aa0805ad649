"""Tries batches with a model before the course begins: answers, and training steps. The model is left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Batch, TrainConfig
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.aggregation import LARGEST, MODEL, Merged, is_within
from xbackend_fl.canonical import Node
from xbackend_fl.course import Course
from xbackend_fl.course.training import Training
from xbackend_fl.data import Dataset, extreme_rows
from xbackend_fl.errors import ConfigError, RefusedInput, RunFailed, shortened
from xbackend_fl.locate import explained
from xbackend_fl.metrics import Metrics, Objectives
from xbackend_fl.participant.data_checks import owning
from xbackend_fl.text import number_of
from xbackend_fl.weights import Weights

Array = NDArray[Any]
Tensors = dict[str, Array]

EVALUATION_BATCH = 256
_SIZES = 6
"""How many sizes of batches are tried: a framework may plan each anew."""
_STEEP = 1e3
_NAMED = 6
"""Rows that a message lists."""
_KEEP = "leave some targets as they are; training.ignore_index is the target that does not count"


@dataclass(frozen=True)
class Trial:
    """One backend's model, ready for a course that has not begun.

    Attributes:
        course: The course.
        backend: The backend.
        model: The model.
        training: How some participants of the backend train.
        shards: Their data.
        batch: Makes a batch of rows of a data set, as evaluation does.
        step: The same, as training does.
        objective: How the losses read the targets of a data set.
        config: How the model is trained on a data set with such settings.
    """

    course: Course
    backend: str
    model: CanonicalModel
    training: Training
    shards: Mapping[str, Dataset]
    batch: Callable[[Dataset, NDArray[np.intp]], Batch]
    step: Callable[[Dataset, NDArray[np.intp]], Batch]
    objective: Callable[[Dataset], Objectives]
    config: Callable[[Dataset, Training], TrainConfig]

    def answer(self, where: str, data: Dataset, *, chooses: bool = False) -> None:
        """The model's answers to the first batch of a data set, to its last one and to its extreme rows, and their loss.

        Args:
            where: What messages call the data set.
            data: The data set.
            chooses: Whether its figures choose the best weights, so that the course's metric must be defined.

        Raises:
            ConfigError: An answer or a loss is not finite, or there is no figure to choose by.
        """
        if reason := self.objective(data).unfit():
            raise ConfigError(f"{where}: {reason}")
        name = self.course.chosen_by.name
        # Of a stream only some examples are looked at, and nothing here reports.
        chooses = chooses and data.stream is None and name not in self.course.evaluation.reported
        data = data.tried
        size, count = EVALUATION_BATCH, len(data)
        first, last = np.arange(min(size, count)), np.arange(count - (count % size or size), count)
        parts = {f"the first {len(first)} examples": first}
        if count > size:
            parts[f"the last {len(last)} examples"] = last
        extreme = extreme_rows(data)
        if len(extreme) and extreme.max() >= size:
            more = ", …" if len(extreme) > _NAMED else ""
            listed = ", ".join(map(str, extreme[:_NAMED])) + more
            parts[f"its smallest and largest values (rows {listed})"] = extreme
        found = [
            self._measured(f"{where}: the {self.backend} model, given {name},", data, rows)
            for name, rows in parts.items()
        ]
        if not chooses or name in Metrics.total(found).figures:
            return
        alone = self._without_model(data)
        if name not in alone.figures:
            none = "" if alone.positions else ", of which no target counts after data.evaluation_transform"
            if without := [head for head, one in alone.heads.items() if not one.positions]:
                there = next((head for head in alone.heads if head not in without), None)
                if there is not None:
                    raise ConfigError(
                        f"{where}: {name}, which chooses the best weights, is not defined: no target of {', '.join(without)} counts",
                        hint=f"choose by an output that has targets here: evaluation.best: {there}/loss",
                    )
            raise ConfigError(
                f"{where}: {name}, which chooses the best weights, is not defined for {number_of(count, 'example')}{none}",
                hint=_KEEP
                if none
                else "give more examples, or choose by another metric: evaluation.best: loss",
            )

    def _without_model(self, data: Dataset) -> Metrics:
        """Metrics of all examples of a data set if every output is zero: those that its targets define."""
        objective, starts = self.objective(data), range(0, len(data), EVALUATION_BATCH)
        blocks = (
            self.batch(data, np.arange(i, min(i + EVALUATION_BATCH, len(data)))).targets for i in starts
        )
        return Metrics.total(map(objective.of_zeros, blocks))

    def _measured(
        self, what: str, data: Dataset, rows: NDArray[np.intp], when: str = "before any training"
    ) -> Metrics:
        batch = self.batch(data, rows)
        try:
            with explained(what):
                outputs = self.model.forward(batch.inputs)
        except RefusedInput as error:
            if error.message.startswith(what):
                raise
            raise ConfigError(f"{what} raised: {error.message}", hint=error.hint) from error
        if not all(np.isfinite(output).all() for output in outputs):
            raise ConfigError(f"{what} answers with NaN or infinity {when}")
        try:
            with explained(f"{what} measured,"):
                found = self.objective(data).measured(outputs, batch.targets)
                # A metric of the user's own may raise here, too.
                _ = found.figures
        except RunFailed as error:
            raise ConfigError(f"{what} measured: {error.message}", hint=error.hint) from error
        for one in found.heads.values() or [found]:
            if one.positions and not np.isfinite(one.loss):
                raise ConfigError(f"{what} has a loss of {one.loss} {when}")
        return found

    def check_single_examples(self) -> None:
        """A step with one example, where there will be one and batch normalisation averages.

        Raises:
            ConfigError: There is no variance.
        """
        nodes = self.model.schema.nodes
        normalised = [node for node in nodes if node.operator == "BatchNormalization"]
        alone = {name: data for name, data in self.shards.items() if 1 in self._sizes(data)}
        if not normalised or not alone:
            return
        data = next(iter(alone.values())).tried
        batch = self.step(data, np.arange(1))
        try:
            with explained("one example"):
                _, before, after = self._step(batch, self._still(data))
        except ConfigError as error:
            raise self._one_example(normalised[0], alone, shortened(error.__cause__ or error)) from error
        for node in normalised:
            name, momentum = node.parameters["variance"], node.attributes["momentum"]
            if isinstance(momentum, int | float) and np.allclose(
                after[name], before[name] * momentum, rtol=1e-5, atol=0
            ):
                raise self._one_example(node, alone, "its variance is zero")

    def steps(self, named: Mapping[str, Dataset]) -> Iterator[str]:
        """Training steps of every size that there will be, and one that moves the weights, on the extreme rows of each data set.

        Args:
            named: Data sets that participants train on, by what messages call them.

        Yields:
            What people may want to know, one line each.

        Raises:
            ConfigError: A step fails, or weights or outputs after one are none to go on with.
        """
        for where, data in ((where, data.tried) for where, data in named.items()):
            with owning(where):
                notes = [*self._tried(where, data)]
            yield from notes

    def _tried(self, where: str, data: Dataset) -> Iterator[str]:
        """The steps on one data set."""
        self._require_counting(where, data)
        sizes = sorted({n for shard in self.shards.values() for n in self._sizes(shard) if n <= len(data)})
        for size in sizes[-_SIZES:]:
            self._still_step(
                f"{where}: the {self.backend} model, trained on {number_of(size, 'example')},",
                data,
                np.arange(size),
            )
        size = min(self.training.batch_size, len(data))
        extreme = extreme_rows(data)
        rest = np.setdiff1d(np.arange(min(len(data), size + len(extreme))), extreme)
        yield from self._first_step(where, data, np.concatenate([extreme, rest])[: max(size, len(extreme))])

    def _require_counting(self, where: str, data: Dataset) -> None:
        """Refuse a transform that leaves none of the first targets of a data set, of which some count."""
        rows, objective = np.arange(min(EVALUATION_BATCH, len(data))), self.objective(data)
        before, after = (
            [read.objective.counted(own) for read, own in objective.apart(targets)]
            for targets in (data.gather(rows).targets, self.step(data, rows).targets)
        )
        for read, first, then in zip(objective.each, before, after, strict=True):
            if first is not None and first.any() and then is not None and not then.any():
                which = f"{read.head.name}: " if read.head.name else ""
                raise ConfigError(
                    f"{where}: {which}no target of the first {number_of(len(rows), 'example')} counts after data.transform: "
                    f"all are {read.ignored}",
                    hint=_KEEP,
                )

    def _still_step(self, what: str, data: Dataset, rows: NDArray[np.intp]) -> None:
        batch = self.step(data, rows)
        with explained(what):
            loss, _, after = self._step(batch, self._still(data))
        if not np.isfinite(loss):
            raise ConfigError(f"{what} has a loss of {loss} before any training")
        bad = [name for name, array in after.items() if not np.isfinite(array).all()]
        if bad:
            raise ConfigError(f"{what} has gradients of NaN or infinity in {bad[0]} ({len(bad)} parameters)")

    def _first_step(self, where: str, data: Dataset, rows: NDArray[np.intp]) -> Iterator[str]:
        """One step as the course makes it, and the server's after it: what comes of them must be fit to go on with."""
        what = f"{where}: the {self.backend} model, trained on {number_of(len(rows), 'example')}, extreme ones among them,"
        trainer, schema = self.model.trainer, self.model.schema
        start = trainer.read()
        batch, before = self.step(data, rows), self._measured(what, data, rows)
        try:
            with explained(what):
                _, first, after = self._step(batch, self.config(data, self.training))
            kinds = {name: schema.by_name[name].kind for name in first}
            weights = Weights(first, schema.fingerprint, kinds)
            rule = self.course.federate.server
            merged = Merged({MODEL: Weights(after, schema.fingerprint, kinds)}, 1)
            self._require_fit(f"{what} has after one step", after, weights)
            with np.errstate(all="ignore"):
                moved, _ = rule.apply(weights, merged, rule.init(weights))
            self._require_fit(f"{what} has after one step, and one of the server,", moved, weights)
            self.model.write(moved)
            found = self._measured(what, data, rows, "after one step of training")
        finally:
            trainer.write(start)
            trainer.reset(0)
        if found.positions and found.loss > _STEEP * (1 + abs(before.loss)):
            yield f"{what} has a loss of {found.loss:.3g} after one step, and had {before.loss:.3g} before: training.optimizer.lr, or the scale of the data, is too large"

    def _require_fit(self, what: str, after: Mapping[str, Array], weights: Weights) -> None:
        for name, array in after.items():
            if array.dtype.kind == "f" and not is_within(array, LARGEST.get(weights.kinds[name], np.inf)):
                reach = float(np.abs(array).max())
                raise ConfigError(
                    f"{what} {'NaN or infinity' if not np.isfinite(reach) else f'{reach:.3g}'} in {name}, which no mean takes",
                    hint="lower training.optimizer.lr and weight_decay and federate.server.lr, or scale inputs and targets to about 1",
                )

    def _still(self, data: Dataset) -> TrainConfig:
        """A step too short to move parameters: traces and plans belong to one configuration, and those of the course are not to see it."""
        config = self.config(data, self.training)
        return replace(config, optimizer=replace(config.optimizer, lr=0.0))

    def _step(self, batch: Batch, config: TrainConfig) -> tuple[float, Tensors, Tensors]:
        """The loss of a training step, and canonical tensors before and after it."""
        trainer = self.model.trainer
        start, before = trainer.read(), self.model.read()
        try:
            self.model.reset(0)
            loss = self.model.train([batch], config).total
            return loss, before, self.model.read()
        finally:
            trainer.write(start)
            trainer.reset(0)

    def _one_example(self, node: Node, alone: Mapping[str, Dataset], reason: str) -> ConfigError:
        size = self.training.batch_size
        name, data = next(iter(alone.items()))
        others = f" (and {len(alone) - 1} others)" if len(alone) > 1 else ""
        larger = range(size + 1, 4 * size + 4)
        good = next(
            (n for n in larger if not any(1 in self._sizes(d, n) for d in self.shards.values())), None
        )
        return ConfigError(
            f"participant {name!r}{others} has {len(data)} examples: with training.batch_size {size} a batch has one example, "
            f"over which batch normalisation ({node.name!r}) has no variance: {reason}",
            hint="give every participant two examples at least"
            if good is None
            else f"training.batch_size: {good}",
        )

    def _sizes(self, data: Dataset, batch_size: int | None = None) -> set[int]:
        """Sizes of the batches of a participant with these data."""
        if data.stream is not None and data.stream.sizes:
            return {*data.stream.sizes}
        num_examples = len(data)
        training = self.training
        size = batch_size or training.batch_size
        whole, rest = divmod(num_examples, size)
        sizes = {size} if whole else set()
        reached = training.steps is None or training.steps > whole
        return sizes | {rest} if rest and reached else sizes
