"""One backend's side of a simulation: one shared model, and the participants that use it in turn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl import weights as files
from xbackend_fl.adapter import (
    LOCKSTEP,
    Batch,
    CohortTrainer,
    Numbering,
    Trainer,
    load,
    wrong_model,
)
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.exporting import Exported, export_native
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.course import Course, Participant, example_arrays, named
from xbackend_fl.data import Dataset
from xbackend_fl.errors import (
    ConfigError,
    Refusals,
    RefusedInput,
)
from xbackend_fl.events import Observer
from xbackend_fl.locate import call, explained
from xbackend_fl.mapping import (
    Evidence,
    Proof,
    bind_trainer,
    check_lengths,
    evidence_of,
    forget_draws,
)
from xbackend_fl.mapping.match.training import require_trainable
from xbackend_fl.mapping.native_file import canonical_file
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant.allocator import keep_freed_memory, return_free_memory
from xbackend_fl.participant.client import Arrays
from xbackend_fl.participant.client_states import ClientStates
from xbackend_fl.participant.contribution import Contribution, PartialSum
from xbackend_fl.participant.evaluating import Evaluating, Refused
from xbackend_fl.participant.examine import Examined, Rehearsal, Scope, digests_of, read_data
from xbackend_fl.participant.failures import failing, read_for, saving
from xbackend_fl.participant.feed import Feed
from xbackend_fl.participant.local_training import LocalTraining
from xbackend_fl.participant.loss_proof import Tried, check_against, packed, try_losses
from xbackend_fl.participant.mapped import MappedFile, mapped_files
from xbackend_fl.participant.own_evaluation import OwnEvaluation
from xbackend_fl.participant.own_training import Brought, Loop
from xbackend_fl.participant.shards import CourseData, DataSource
from xbackend_fl.participant.trained_outputs import check_heads, check_trains
from xbackend_fl.participant.usage import Usage
from xbackend_fl.text import shown_names
from xbackend_fl.weights import Weights


@final
class Worker:
    """Trains the participants of one backend.

    Args:
        course: The course.
        backend: The backend.
        threads: Threads the framework may use.
        source: Loads the data; what the course names if left out.
        brought: A model and a training loop that a script has handed over; those that the course names if left out.
        observer: Told what happens while participants train.

    Raises:
        ConfigError: The model is one of another backend.
    """

    def __init__(
        self,
        course: Course,
        backend: str,
        threads: int,
        source: DataSource | None = None,
        *,
        brought: Brought | None = None,
        observer: Observer = lambda _: None,
    ) -> None:
        self._brought = brought
        self._course, self._backend, self._observer = course, backend, observer
        self._source = source or CourseData(course, backend)
        self._adapter = load(backend)
        if brought is None:
            self._adapter.configure_process(threads, course.seed)
            keep_freed_memory()
        self._example = example_arrays(course.input, course.base)
        refused = Refusals()
        data = read_data(course, self._source, self._example, refused)
        self._loops = (
            self._own_code(course.training_of, refused)
            if brought is None
            else dict.fromkeys([*self._source.names, *self._source.loaders], brought.loop)
        )
        self._evaluations = self._own_code(course.evaluation_of, refused)
        with refused:
            self._trainer = self._open()
        refused.raise_any()
        assert data is not None
        self._splits, self._shards = data
        self._validations: Mapping[str, Dataset] = {}
        if course.evaluation.validation == "participants":
            with refused:
                self._shards, self._validations = self._source.apart(self._splits, self._shards)
            refused.raise_any()
        self._take_over(CanonicalModel.described(self._trainer), is_reference=backend == course.reference)

    def version(self) -> str:
        """Framework and version."""
        return self._adapter.version

    def digests(self) -> dict[str, str]:
        """Of every loader's data, by its name; all workers of a course must have the same."""
        return digests_of(self._source, self._splits, self._shards)

    def examine(self, scope: Scope) -> Examined:
        """Try everything but the training, before the course begins; the model is left as it was."""
        if not self._course.federate.share_local_model:
            for name in list(self._shards)[:1]:
                self._training.trainer_of(name)
        rehearsal = Rehearsal(
            self._course,
            self._backend,
            self._model,
            self._example,
            self._source,
            self._splits,
            self._shards,
            self._feed.batch,
            self._feed.step,
            self._feed.objective,
            self._training.config,
        )
        return rehearsal.examine(scope)

    def evidence(self) -> tuple[Schema, tuple[Evidence, ...]]:
        """The reference's schema and what it does with the probes."""
        from xbackend_fl.canonical.onnx_export import check_writable  # noqa: PLC0415  a server does without

        model = CanonicalModel.described(self._trainer)
        check_trains(model, self._course.heads)
        check_writable(model.schema, self._course.opset)
        if self._course.onnx_every is not None and (opaque := model.schema.opaque):
            raise ConfigError(
                f"`onnx_every`: no ONNX file of a round can be written of a model with operations of its own framework: {shown_names(opaque)}",
                hint="leave onnx_every out; the framework's own exporter writes the last round's",
            )
        with explained(f"the {self._backend} model, probed,"):
            check_lengths(model, model.read(), self._example, self._course.free_axes)
            first, *others = evidence_of(self._trainer, self._example)
        return model.schema, (replace(first, losses=packed(self._tried(model))), *others)

    def _tried(self, model: CanonicalModel) -> dict[str, tuple[Tried, ...]]:
        """What losses of the user's own make of drawn outputs."""
        try:
            objective = self._feed.objective(self._splits.train)
        except ConfigError:
            # Whoever examines the data says what is wrong with the targets, and where.
            return {}
        return try_losses(model, objective)

    def bind(self, schema: Schema, evidence: Sequence[Evidence]) -> tuple[Binding, Proof, tuple[str, ...]]:
        """Bind this backend's model to the schema, with proof."""
        trainings, name = self._course.trainings, self._adapter.name
        dropout = any(trainings[one].dropout for one in self._shards) or self._course.training.dropout
        if reason := self._trainer.description.binding.inference_only:
            require_trainable(name, self._trainer.description.schema.training_effects, dropout=dropout)
            raise RefusedInput(
                f"the {self._adapter.name} model cannot take part in training: {reason}",
                hint="name the code that builds the model instead of what it was saved as",
            )
        with explained(f"the {self._backend} model, probed,"):
            bound = bind_trainer(self._adapter, self._trainer, schema, self._example, evidence)
            if free := self._course.free_axes:
                check_lengths(bound.model, bound.model.read(), self._example, free, required=False)
        require_trainable(name, bound.binding.obstacles, dropout=dropout)
        check_heads(bound.model, self._course.heads)
        self._take_over(bound.model)
        self._training.require_freezing()
        self._training.require_precision()
        objective = self._feed.objective(self._splits.train)
        tried, there = self._tried(bound.model), self._course.reference
        check_against(tried, evidence[0].losses, objective, self._backend, there)
        forget_draws()
        return_free_memory()
        _lay_out(self._trainer)
        said = objective.layout_notes(bound.binding)
        return bound.binding, bound.proof, (*bound.notes, *said, *self._said_of_loops())

    def _said_of_loops(self) -> Iterator[str]:
        """What is not proven where participants bring their own code, once for each piece of it."""
        trained: dict[str, list[str]] = {}
        for name, loop in self._loops.items():
            trained.setdefault(loop.text, []).append(name)
        for text, names in trained.items():
            yield (
                f"map proven, training your own: {text} trains {shown_names(names)}; its optimizer, loss and batches are its own, "
                "and such participants train one after the other"
            )
        for name in self._source.given.keys() - self._shards.keys():
            yield f"the data of {name} are a {type(self._source.given[name]).__name__}, which its training loop alone reads"

    def adopt(self, schema: Schema, binding: Binding) -> None:
        """Take over what another worker of this backend has found and proven for the same model."""
        self._require_same(binding)
        self._take_over(CanonicalModel(schema, binding, self._trainer))
        _lay_out(self._trainer)

    def _require_same(self, binding: Binding) -> None:
        if binding.natives != self._trainer.description.binding.natives:
            raise RefusedInput(
                f"models.{self._backend} returned two different models when it was called twice",
                hint="the function must build the same layers every time",
            )

    def _take_over(self, model: CanonicalModel, *, is_reference: bool = True) -> None:
        self._model = model
        self._feed = Feed(self._course, self._example, model, is_reference=is_reference)
        self._training = LocalTraining(
            self._course,
            model,
            self._open_another,
            self._feed,
            self._shards,
            self._splits.train,
            self._loops,
            self._source.given,
            self._observer,
        )
        own = OwnEvaluation(
            self._course,
            model,
            self._feed,
            self._evaluations,
            {name: data for name, data in self._source.given.items() if name not in self._shards},
            lambda data: self._training.native_config(data, self._course.training),
        )
        self._evaluating = Evaluating(
            self._course,
            model,
            self._feed,
            self._splits,
            self._validations,
            self._training,
            own,
            self._observer,
        )

    def keep_states(self, states: ClientStates) -> None:
        """Where participants keep what they need from one of their rounds to the next."""
        self._training.states = states

    def to_device(self, device: str, replicas: int | None, share: int = 0) -> bool:
        """Move the model to a device, and the data that all participants share.

        Args:
            device: As for :meth:`~xbackend_fl.adapter.CohortTrainer.to_device`.
            replicas: As there.
            share: How many participants this worker usually has in a round at most; 0 if nobody knows.

        Returns:
            Whether cohorts are to train there in lockstep.

        Raises:
            AdapterError: The device is not there.
            RunFailed: It has not enough memory.
        """
        trainer = self._trainer
        if not isinstance(trainer, CohortTrainer):
            return False
        mebibytes = self._course.federate.device_memory_mib
        trainer.to_device(device, replicas, None if mebibytes is None else mebibytes << 20)
        self._training.on_device, self._training.usual_share = device != "cpu", share
        train = self._splits.train
        shared = all(shard.inputs[0] is train.inputs[0] for shard in self._shards.values())
        turned = any(
            axis.perm[0] != 0 for axis in (*self._model.binding.inputs, *self._model.binding.outputs)
        )
        # What reads rows when it is asked for them may not fit there.
        arrays = [column for column in train.inputs if isinstance(column, np.ndarray)]
        if (
            device == "cpu"
            or not shared
            or turned
            or len(arrays) < len(train.inputs)
            or self._feed.transforms
            or self._course.heads.names
        ):
            return False
        scale = self._course.data.scale
        inputs = tuple(
            a if scale is not None and a.dtype == np.uint8 else a.astype(e.dtype, copy=False)
            for a, e in zip(arrays, self._example, strict=True)
        )
        objective = self._feed.objective(train)
        whole = Batch(inputs, objective.prepared(train.targets))
        native = self._model.native_batch(whole, self._training.config(train, self._course.training))
        trainer.load_data(native.inputs, native.targets, None if scale is None else scale.rule())
        return replicas == LOCKSTEP

    def initial(self) -> Weights:
        """The model's current weights."""
        return Weights.from_schema(self._model.schema, self._model.read())

    def train_round(
        self,
        number: int,
        weights: Weights,
        cohort: Sequence[str],
        vectors: Mapping[str, Weights],
        watched: float = 1.0,
    ) -> PartialSum:
        """Train this worker's part of a cohort; see :meth:`LocalTraining.train_round`."""
        return self._training.train_round(number, weights, cohort, vectors, watched)

    def train_alone(
        self,
        number: int,
        weights: Weights,
        name: str,
        vectors: Mapping[str, Weights],
        kept: Arrays,
        watched: float = 1.0,
    ) -> Contribution:
        """Train one participant; see :meth:`LocalTraining.train_alone`."""
        return self._training.train_alone(number, weights, name, vectors, kept, watched)

    def evaluate(
        self, weights: Weights, split: str, kept: Arrays | None = None, refused: Refused | None = None
    ) -> Metrics:
        """Metrics of ``weights`` on a split, at the only participant; with parameters of its own, given what it ``kept``; see :meth:`Evaluating.measured`."""
        self._training.load(weights, kept)
        (name,) = self.num_examples()
        return self._evaluating.measured(name, split, refused)

    def evaluate_common(self, weights: Weights, split: str) -> Metrics:
        """Metrics of ``weights`` on a split of the common data."""
        return self._evaluating.common(weights, split)

    def evaluate_participants(
        self, weights: Weights, split: str, names: Sequence[str], number: int, but: Collection[str] = ()
    ) -> dict[str, Metrics]:
        """Metrics of every participant after round ``number``, with its own code's of all ``but`` some; see :meth:`Evaluating.participants`."""
        return self._evaluating.participants(weights, split, names, number, but)

    def report_participants(
        self, weights: Weights, split: str, names: Sequence[str], number: int, but: Collection[str] = ()
    ) -> dict[str, Metrics]:
        """What the code of these participants' own reports, and nothing else; of all ``but`` some."""
        return self._evaluating.reports(weights, split, names, number, but)

    def save_participants(self, weights: Weights, folder: Path, number: int) -> list[Path]:
        """Write the model of every participant of this backend, with its own parameters as they are after round ``number``."""
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for name in self.num_examples():
            self._training.load(weights, self._training.kept(name, number + 1))
            with saving(folder / name, self._backend):
                files.append(self._trainer.save(folder / name))
        return files

    def outputs(
        self, weights: Weights, split: str, count: int
    ) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
        """The first ``count`` inputs of a split and the model's answers, both in ONNX layout."""
        data: Dataset = getattr(self._splits, split)
        tried = data.tried
        rows = np.arange(min(count, len(tried)))
        when = f"while the trained model answers ({self._backend})"
        (batch,) = read_for(when, (self._feed.batch(tried, part) for part in (rows,)))
        inputs = batch.inputs
        return inputs, self.answers(weights, inputs)

    def answers(self, weights: Weights, inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """The model's outputs for inputs, both in ONNX layout."""
        self._training.load(weights)
        with failing(f"while the trained model answers ({self._backend})"):
            return self._model.forward(inputs)

    def save(self, weights: Weights, path: Path, kept: Arrays | None = None) -> Path:
        """Write ``weights`` in the backend's own format; raises :class:`RunFailed` if it cannot be written there."""
        self._training.load(weights, kept)
        with saving(path, self._backend):
            return self._trainer.save(path)

    def read_native(self, path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
        """The weights of a file in this model's own names, in canonical form, and what was left out; raises :class:`SchemaError` if it does not fit."""
        return canonical_file(files.open_weights(path), self._model.binding, self._trainer)

    def export_native(self, weights: Weights, inputs: Sequence[NDArray[Any]], path: Path) -> Exported:
        """Write the model with ``weights`` as ONNX by the framework's exporter; raises :class:`RefusedInput` if it cannot."""
        self._training.load(weights)
        return export_native(self._model, weights, inputs, path)

    def num_examples(self) -> dict[str, int | None]:
        """Examples of this backend's participants; ``None`` where only a training loop of their own can say."""
        sizes = {name: len(data) for name, data in self._shards.items()}
        unknown = [name for name, loop in self._loops.items() if loop.own_data]
        return {**dict.fromkeys(self._source.given), **sizes, **dict.fromkeys(unknown)}

    def mapped(self) -> tuple[MappedFile, ...]:
        """The files that its data are mapped from."""
        own = {name: data for name, data in self._shards.items() if name in self._source.loaders}
        return mapped_files(self._splits, own)

    def usage(self) -> Usage:
        """What this process has used."""
        trainer = self._trainer
        return Usage.now(trainer.device_memory() if isinstance(trainer, CohortTrainer) else (0, 0))

    def _own_code(self, named: Callable[[Participant], str | None], refused: Refusals) -> dict[str, Loop]:
        """What participants of this process have instead of the built-in code."""
        mine = {*self._source.names, *self._source.loaders}
        found: dict[str, Loop] = {}
        for participant in self._course.participants:
            text = named(participant)
            if participant.name in mine and text is not None:
                with refused:
                    found[participant.name] = Loop.load(text, self._course.base)
        return found

    def _open_another(self) -> Trainer:
        """A model of a participant's own."""
        found = self._open()
        self._require_same(found.description.binding)
        _lay_out(found)
        return found

    def _open(self) -> Trainer:
        where = f"models.{self._backend}"
        if self._brought is None:
            if isinstance(self._adapter, Numbering):
                self._adapter.number_anew()
            model = call(self._course.models[self._backend].build, self._course.base)
        else:
            where, model = "the script", self._brought.model
        if not self._adapter.handles(model):
            raise wrong_model(where, model, self._backend)
        with explained(f"the model of {where}"):
            return self._adapter.load_model(model, named(self._course.input, self._example))


def _lay_out(trainer: Trainer) -> None:
    """Let a model that is proven, and is ours to train, lie in memory as its processor likes it best."""
    if isinstance(trainer, CohortTrainer):
        trainer.to_device("cpu")
