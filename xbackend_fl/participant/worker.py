"""One backend's side of a simulation: one shared model, and the participants that use it in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import (
    ClientWork,
    CohortTrainer,
    LossSum,
    Tensors,
    TrainConfig,
    Trainer,
    load,
    wrong_model,
)
from xbackend_fl.adapter.exporting import Exported, export_native
from xbackend_fl.aggregation import LARGEST, OnlineMean, Sums, is_within
from xbackend_fl.canonical import Binding, Kind, Schema
from xbackend_fl.canonical.schema import parameters_behind
from xbackend_fl.course import Course, example_arrays, named
from xbackend_fl.data import Dataset, batches, seed_of
from xbackend_fl.errors import (
    AdapterError,
    ConfigError,
    Diverged,
    Refusals,
    RefusedInput,
    UpdateRefused,
)
from xbackend_fl.events import Event, Noted, ParticipantFailed, ParticipantTrained
from xbackend_fl.locate import call, explained
from xbackend_fl.mapping import (
    Evidence,
    Proof,
    bind_trainer,
    check_lengths,
    evidence_of,
    training_attributes,
)
from xbackend_fl.mapping.match.training import require_trainable
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant.examine import Examined, Rehearsal, Scope, digests_of, read_data
from xbackend_fl.participant.failures import failing, finite, saving, training, undone
from xbackend_fl.participant.feed import Feed
from xbackend_fl.participant.trial import EVALUATION_BATCH
from xbackend_fl.participant.usage import Usage
from xbackend_fl.weights import Weights

_ONE_BY_ONE = (
    "participants train one after the other on the device: only PyTorch's plain SGD without dropout, with a "
    "float32 mean and a shared model, trains a whole cohort there"
)


@dataclass(frozen=True)
class PartialSum:
    """A worker's share of a round.

    Attributes:
        sums: Over this worker's participants, in canonical layout.
        failed: Participants whose update was refused, with the reason.
    """

    sums: Sums
    failed: dict[str, str]


@final
class Worker:
    """Trains the participants of one backend.

    Args:
        course: The course.
        backend: The backend.
        threads: Threads the framework may use.
        only: Participants whose data are read; all of the backend if left out.
    """

    def __init__(
        self, course: Course, backend: str, threads: int, only: Container[str] | None = None
    ) -> None:
        self._course, self._backend = course, backend
        self._adapter = load(backend)
        self._adapter.configure_process(threads, course.seed)
        self._example = example_arrays(course.input, course.base)
        refused = Refusals()
        data = read_data(course, backend, self._example, refused, only)
        with refused:
            self._trainer = self._open()
        refused.raise_any()
        assert data is not None
        self._splits, self._shards = data
        self._own: dict[str, Trainer] = {}
        self._placed = self._said = False
        self._schema: Schema = self._trainer.description.schema
        self._binding: Binding = self._trainer.description.binding
        self._feed = Feed(course, self._example, self._schema, self._binding)

    @property
    def version(self) -> str:
        """Framework and version."""
        return self._adapter.version

    @property
    def digests(self) -> dict[str, str]:
        """Of every loader's data, by its name; all workers of a course must have the same."""
        return digests_of(self._course, self._splits, self._shards)

    def examine(self, scope: Scope) -> Examined:
        """Try everything but the training, before the course begins; the model is left as it was."""
        if not self._course.federate.share_local_model:
            for name in list(self._shards)[:1]:
                self._trainer_of(name)
        rehearsal = Rehearsal(
            self._course,
            self._backend,
            self._trainer,
            self._example,
            self._splits,
            self._shards,
            self._feed.batch,
            self._feed.objective,
            self._config,
        )
        return rehearsal.examine(scope)

    def evidence(self) -> tuple[Schema, tuple[Evidence, ...]]:
        """The reference's schema and what it does with the probes."""
        _check_one_output(self._trainer.description.schema)
        _check_trains(self._backend, self._trainer.description.schema)
        description, free = self._trainer.description, self._course.free_axes
        with explained(f"the {self._backend} model, probed,"):
            weights = description.binding.export(self._trainer.read())
            check_lengths(
                self._trainer, description.binding, description.schema, weights, self._example, free
            )
            return description.schema, evidence_of(self._trainer, self._example)

    def bind(self, schema: Schema, evidence: Sequence[Evidence]) -> tuple[Binding, Proof, tuple[str, ...]]:
        """Bind this backend's model to the treaty, with proof."""
        dropout, name = self._course.training.dropout, self._adapter.name
        if reason := self._trainer.description.binding.inference_only:
            require_trainable(name, self._trainer.description.schema.training_effects, dropout=dropout)
            raise RefusedInput(
                f"the {self._adapter.name} model cannot take part in training: {reason}",
                hint="name the code that builds the model instead of what it was saved as",
            )
        with explained(f"the {self._backend} model, probed,"):
            bound = bind_trainer(self._adapter, self._trainer, schema, self._example, evidence)
            if free := self._course.free_axes:
                weights = bound.binding.export(self._trainer.read())
                check_lengths(
                    self._trainer, bound.binding, schema, weights, self._example, free, required=False
                )
        require_trainable(name, bound.binding.obstacles, dropout=dropout)
        self._take_over(schema, bound.binding)
        note = self._feed.objective(self._splits.train).layout_note(bound.binding.outputs[0].perm)
        return bound.binding, bound.proof, (*bound.notes, *([note] if note else []))

    def adopt(self, schema: Schema, binding: Binding) -> None:
        """Take over what another worker of this backend has found and proven for the same model."""
        self._require_same(binding)
        self._take_over(schema, binding)

    def _require_same(self, binding: Binding) -> None:
        if binding.natives != self._trainer.description.binding.natives:
            raise RefusedInput(
                f"models.{self._backend} returned two different models when it was called twice",
                hint="the function must build the same layers every time",
            )

    def _take_over(self, schema: Schema, binding: Binding) -> None:
        self._schema, self._binding = schema, binding
        self._feed = Feed(self._course, self._example, schema, binding)
        _lay_out(self._trainer)

    def to_device(self, device: str, replicas: int | None) -> None:
        """Move the model to a device, and the data that all participants share."""
        trainer = self._trainer
        if not isinstance(trainer, CohortTrainer):
            return
        try:
            mebibytes = self._course.federate.device_memory_mib
            trainer.to_device(device, replicas, None if mebibytes is None else mebibytes << 20)
        except AdapterError:
            if self._course.federate.device != "auto":
                raise
            return
        self._placed = device != "cpu"
        train = self._splits.train
        shared = all(shard.inputs[0] is train.inputs[0] for shard in self._shards.values())
        turned = any(axis.perm[0] != 0 for axis in (*self._binding.inputs, *self._binding.outputs))
        if device == "cpu" or not shared or turned:
            return
        scale = self._course.data.scale
        inputs = self._binding.native_inputs(
            [
                a if scale is not None and a.dtype == np.uint8 else a.astype(e.dtype, copy=False)
                for a, e in zip(train.inputs, self._example, strict=True)
            ]
        )
        targets = self._feed.targets(train, train.targets)
        trainer.load_data(inputs, targets, None if scale is None else scale.rule())

    def initial(self) -> Weights:
        """The model's current weights."""
        return Weights.of(self._schema, self._binding.export(self._trainer.read()))

    def train_round(
        self, number: int, weights: Weights, cohort: Sequence[str]
    ) -> Iterator[Event | PartialSum]:
        """Train this worker's part of a cohort; events as they happen, the partial mean last."""
        train = self._train_resident if self._on_device() else self._train_in_turn
        yield from train(number, weights, cohort)

    def _train_in_turn(
        self, number: int, weights: Weights, cohort: Sequence[str]
    ) -> Iterator[Event | PartialSum]:
        start = self._native(self._binding.restore(weights))
        if self._placed and not self._said:
            self._said = True
            yield Noted(backend=self._backend, note=_ONE_BY_ONE)
        precision = self._course.federate.precision
        mean = OnlineMean(start, precision)
        kept: list[tuple[str, Weights]] = []
        failed: dict[str, str] = {}
        for name in cohort:
            began = time.perf_counter()
            try:
                update, loss = self._train(number, name, start)
                if self._course.federate.online_aggr:
                    mean.add(update, len(self._shards[name]))
                else:
                    kept.append((name, update))
            except UpdateRefused as error:
                failed[name] = error.message
                yield self._failed(number, name, error.message)
                continue
            yield self._trained(number, name, loss, time.perf_counter() - began)
        for name, update in kept:
            try:
                mean.add(update, len(self._shards[name]))
            except UpdateRefused as error:
                failed[name] = error.message
                yield self._failed(number, name, error.message)
        yield PartialSum(mean.sums.mapped(self._binding.export), failed)

    def train_alone(self, number: int, weights: Weights, name: str) -> tuple[Weights, Metrics]:
        """Train one participant; its weights afterwards, in canonical layout.

        Raises:
            Diverged: Its loss or a weight is not finite; the model holds the weights that it started from.
        """
        with undone(partial(self._load, weights)):
            update, loss = self._train(number, name, self._native(self._binding.restore(weights)))
            metrics = Metrics(loss.positions, {"loss": loss.total})
            return finite(Weights.of(self._schema, self._binding.export(update))), metrics

    def evaluate(self, weights: Weights, split: str) -> Metrics:
        """Metrics of ``weights`` on a split."""
        self._load(weights)
        data: Dataset = getattr(self._splits, split)
        rows = np.arange(len(data))
        parts = [rows[i : i + EVALUATION_BATCH] for i in range(0, len(data), EVALUATION_BATCH)]
        objective, axes = self._feed.objective(data), self._binding.outputs[0]
        answers = self._trainer.predict(self._feed.inputs(data.take(part)) for part in parts)
        with failing(f"while evaluating on the {split} examples ({self._backend})"):
            return Metrics.total(
                Metrics.measured(objective, axes.to_canonical(output), data.take(part).targets)
                for part, (output, *_) in zip(parts, answers, strict=True)
            )

    def outputs(
        self, weights: Weights, split: str, count: int
    ) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
        """The first ``count`` inputs of a split and the model's answers, both in ONNX layout."""
        data: Dataset = getattr(self._splits, split)
        inputs = self._feed.prepared(data.take(np.arange(min(count, len(data)))).inputs)
        return inputs, self.answers(weights, inputs)

    def answers(self, weights: Weights, inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """The model's outputs for inputs, both in ONNX layout."""
        self._load(weights)
        with failing(f"while the trained model answers ({self._backend})"):
            raw = self._trainer.forward(self._binding.native_inputs(inputs))
        return tuple(axis.to_canonical(array) for axis, array in zip(self._binding.outputs, raw, strict=True))

    def save(self, weights: Weights, path: Path) -> Path:
        """Write ``weights`` in the backend's own format; raises :class:`RunFailed` if it cannot be written there."""
        self._load(weights)
        with saving(path, self._backend):
            return self._trainer.save(path)

    def export_native(self, weights: Weights, inputs: Sequence[NDArray[Any]], path: Path) -> Exported:
        """Write the model with ``weights`` as ONNX by the framework's exporter; raises :class:`RefusedInput` if it cannot."""
        self._load(weights)
        return export_native(self._trainer, self._binding, self._schema, weights, inputs, path)

    def num_examples(self) -> dict[str, int]:
        """Examples of this backend's participants."""
        return {name: len(data) for name, data in self._shards.items()}

    def usage(self) -> Usage:
        """What this process has used."""
        trainer = self._trainer
        return Usage.now(trainer.device_memory() if isinstance(trainer, CohortTrainer) else (0, 0))

    def _open(self) -> Trainer:
        where = f"models.{self._backend}"
        model = call(self._course.models[self._backend], self._course.base)
        if not self._adapter.handles(model):
            raise wrong_model(where, model, self._backend)
        with explained(f"the model of {where}"):
            return self._adapter.open(model, named(self._course.input, self._example))

    def _on_device(self) -> bool:
        """Whether a whole cohort can stay on a device, with the results that one by one would have."""
        federate = self._course.federate
        plain = federate.precision == "float32" and federate.share_local_model and federate.online_aggr
        return (
            plain
            and isinstance(self._trainer, CohortTrainer)
            and self._trainer.supports(self._config(self._splits.train))
        )

    def _train_resident(
        self, number: int, weights: Weights, cohort: Sequence[str]
    ) -> Iterator[Event | PartialSum]:
        assert isinstance(self._trainer, CohortTrainer)
        start = self._binding.restore(weights, copy=False)
        began = time.perf_counter()
        clients = []
        for name in cohort:
            shard = self._shards[name]
            rows = [
                shard.rows[part] if shard.rows is not None else part for part in self._order(number, name)
            ]
            clients.append(ClientWork(tuple(rows), len(shard)))
        with failing(training(number, cohort, self._backend)):
            result = self._trainer.train_cohort(start, clients, self._config(self._splits.train))
        if not self._are_sums(result.sums, sum(part.num_examples for part in clients)):
            # Somebody's weights are too large to be summed up: each is looked at by itself.
            yield from self._train_in_turn(number, weights, cohort)
            return
        for note in result.notes:
            yield Noted(backend=self._backend, note=note)
        seconds = (time.perf_counter() - began) / max(len(cohort), 1)
        failed: dict[str, str] = {}
        accepted = [part.num_examples for part, good in zip(clients, result.accepted, strict=True) if good]
        for name, loss, good in zip(cohort, result.losses, result.accepted, strict=True):
            if not good:
                failed[name] = "its loss or its weights are NaN or infinite"
                yield self._failed(number, name, failed[name])
                continue
            yield self._trained(number, name, loss, seconds)
        # What is not averaged stays as it was.
        sums = Sums({**start, **result.sums}, sum(accepted), len(accepted))
        yield PartialSum(sums.mapped(partial(self._binding.export, copy=False)), failed)

    def _are_sums(self, sums: Tensors, num_examples: int) -> bool:
        """Whether sums may be of updates that a mean accepts one by one."""
        owners = self._binding.owners
        limits = {name: LARGEST.get(self._schema.by_name[owners[name]].kind, 0.0) for name in sums}
        return all(
            is_within(array, 2 * limits[name] * num_examples) for name, array in sums.items() if array.size
        )

    def _failed(self, number: int, name: str, reason: str) -> ParticipantFailed:
        return ParticipantFailed(round=number, name=name, backend=self._backend, reason=reason)

    def _trained(self, number: int, name: str, loss: LossSum, seconds: float) -> ParticipantTrained:
        return ParticipantTrained(
            round=number,
            name=name,
            backend=self._backend,
            num_examples=len(self._shards[name]),
            loss=loss.mean if loss.positions else None,
            seconds=seconds,
        )

    def _train(self, number: int, name: str, start: Weights) -> tuple[Weights, LossSum]:
        """One participant: the shared model is reset completely before it trains."""
        data = self._shards[name]
        trainer = self._trainer_of(name)
        trainer.reset(seed_of(self._course.seed, "dropout", number, name))
        trainer.write(start)
        order = self._order(number, name)
        with failing(training(number, [name], self._backend)):
            loss = trainer.train((self._feed.batch(data, part) for part in order), self._config(data))
        if not math.isfinite(loss.total):
            raise Diverged(f"the training loss is {loss.mean}")
        return self._native(trainer.read()), loss

    def _order(self, number: int, name: str) -> Iterator[NDArray[np.intp]]:
        """Which examples each step of a participant sees."""
        course, training = self._course, self._course.training
        key = (course.seed, "batches", number, name)
        size = len(self._shards[name])
        return batches(size, training.batch_size, training.epochs, training.steps, *key)

    def _config(self, data: Dataset) -> TrainConfig:
        training, objective = self._course.training, self._feed.objective(data)
        return TrainConfig(
            training.optimizer.rule(),
            loss=training.loss,
            class_axis=objective.class_axis_in(self._binding.outputs[0].perm),
            ignore_index=objective.ignore_index,
            clip_norm=training.clip_norm,
            dropout=training.dropout,
            attributes=training_attributes(self._schema, self._binding),
            silenced=self._binding.silenced,
        )

    def _trainer_of(self, name: str) -> Trainer:
        if self._course.federate.share_local_model:
            return self._trainer
        if name not in self._own:
            found = self._open()
            self._require_same(found.description.binding)
            _lay_out(found)
            self._own[name] = found
        return self._own[name]

    def _native(self, tensors: Any) -> Weights:
        """Native tensors as weights of this binding, so that they merge without conversion."""
        owners = self._binding.owners
        kinds: dict[str, Kind] = {name: self._schema.by_name[owner].kind for name, owner in owners.items()}
        fingerprint = f"{self._schema.fingerprint}:{self._backend}"
        return Weights({name: tensors[name] for name in owners}, fingerprint, kinds)

    def _load(self, weights: Weights) -> None:
        self._trainer.reset(0)
        self._trainer.write(self._binding.restore(weights))


def _check_one_output(schema: Schema) -> None:
    names = [port.key for port in schema.outputs if port.key]
    if len(names) > 1:
        # Names have no order, and the loss is of the first output.
        raise ConfigError(
            f"the model returns several outputs by name ({', '.join(names)}); a course computes its loss of one",
            hint="return it alone for training, or a tuple in which it is the first",
        )


def _check_trains(backend: str, schema: Schema) -> None:
    behind = parameters_behind(schema, schema.outputs[0].name)
    if not any(p.kind is Kind.TRAINABLE and p.name in behind for p in schema.parameters):
        raise ConfigError(
            f"nothing trains in the {backend} model, the reference: the loss reads no trainable parameter",
            hint="leave something to train: parameter.requires_grad_(True) in PyTorch, layer.trainable = True in Keras",
        )


def _lay_out(trainer: Trainer) -> None:
    """Let a model that is proven, and is ours to train, lie in memory as its processor likes it best."""
    if isinstance(trainer, CohortTrainer):
        trainer.to_device("cpu")
