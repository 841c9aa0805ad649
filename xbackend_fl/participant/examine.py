"""Everything of a course but the training, with one backend's model: what is wrong is found before the first round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Batch, TrainConfig
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Kind
from xbackend_fl.canonical.layout import leaves
from xbackend_fl.course import Course
from xbackend_fl.course.training import Training
from xbackend_fl.data import Column, Dataset, Splits, content, digest, errors_once, input_names, is_steady
from xbackend_fl.errors import ConfigError, Refusals, RefusedInput
from xbackend_fl.metrics import Objectives, parameters_of
from xbackend_fl.participant.data_checks import Wanted, examine_data, owning, vocabulary_of
from xbackend_fl.participant.loss_proof import try_losses
from xbackend_fl.participant.shards import DataSource
from xbackend_fl.participant.trial import Trial

Array = NDArray[Any]

_SPLITS = ("train", "validation", "test")
_FORM = "form of "
"""Begins the name of what has other values each time, of which only shape and dtype are compared."""
_NAMED = 6
"""Names that a note lists."""

_LARGE = 1 << 30
"""Bytes of data that are not loaded twice."""


@dataclass(frozen=True)
class Scope:
    """How much is tried.

    Attributes:
        common: Look at every value of the common data, and not only at those that participants bring; one worker's look is enough.
        thorough: Also make a training step, and call the loader again.
    """

    common: bool = True
    thorough: bool = False


@dataclass(frozen=True)
class Examined:
    """What came of it.

    Attributes:
        refused: What is wrong; nothing must be trained if there is anything.
        notes: What is done to the data without loss, one line each, for people.
        digests: Of every loader's data, by its name; another process must have the same.
        contents: Of every value of every array that was looked at, by the array's name; a run that goes on must have the same.
    """

    refused: tuple[RefusedInput, ...]
    notes: tuple[str, ...]
    digests: Mapping[str, str]
    contents: Mapping[str, str]

    def raise_any(self) -> None:
        """Raise what is wrong.

        Raises:
            RefusedInput: All of it, at once.
        """
        refused = Refusals()
        for error in self.refused:
            refused.add(error)
        refused.raise_any()


def read_data(
    course: Course, source: DataSource, example: Sequence[Array], refused: Refusals
) -> tuple[Splits, dict[str, Dataset]] | None:
    """The common data and those of participants.

    Args:
        course: The course.
        source: Loads them.
        example: One array per input of the model.
        refused: Gathers what is wrong. If anything is, the values of all that could be read are looked at too.
    """
    splits: Splits | None = None
    shards = source.own(refused)
    with refused:
        splits = source.splits()
        shards |= source.parts(splits)
    if not refused and splits is not None:
        return splits, shards
    wanted = Wanted(tuple(example), course.data.scale is not None)
    examine_data(named_data(source, shards, splits), wanted, refused, all_there=False)
    return None


def named_data(
    source: DataSource, shards: Mapping[str, Dataset], splits: Splits | None
) -> dict[str, Dataset]:
    """The splits, and the data that participants bring themselves, by what messages call them."""
    named = {} if splits is None else {f"{source.name}: {name}": getattr(splits, name) for name in _SPLITS}
    own = source.loaders
    return named | {
        f"participant {name!r}: {own[name]}": data for name, data in shards.items() if name in own
    }


@dataclass(frozen=True)
class Rehearsal:
    """One backend's model and data, ready for a course that has not begun.

    Attributes:
        course: The course.
        backend: The backend.
        model: The model.
        example: One array per input of the model, in ONNX layout.
        source: Loads the data again.
        splits: The common data.
        shards: The data of the backend's participants.
        batch: Makes a batch of rows of a data set, as evaluation does.
        step: The same, as training does.
        objective: How the losses read the targets of a data set.
        config: How the model is trained on a data set with such settings.
    """

    course: Course
    backend: str
    model: CanonicalModel
    example: tuple[Array, ...]
    source: DataSource
    splits: Splits
    shards: Mapping[str, Dataset]
    batch: Callable[[Dataset, NDArray[np.intp]], Batch]
    step: Callable[[Dataset, NDArray[np.intp]], Batch]
    objective: Callable[[Dataset], Objectives]
    config: Callable[[Dataset, Training], TrainConfig]

    def examine(self, scope: Scope) -> Examined:
        """Look at the data, and try a batch of each with the model, which is left as it was."""
        refused = Refusals()
        named = named_data(self.source, self.shards, self.splits)
        looked_at = named if scope.common else named_data(self.source, self.shards, None)
        notes = examine_data(looked_at, self._wanted(), refused)
        trials = [*self._trials()]
        notes += self._without_gradient() if scope.common else ()
        self._try_loss(named, refused)
        tried = Refusals()
        if not refused:
            errors: list[tuple[str, RefusedInput]] = []
            for where, data in named.items():
                wrong = Refusals()
                with wrong, owning(where):
                    trials[0].answer(
                        where,
                        data,
                        chooses=data is self.splits.validation
                        and self.course.evaluation.validation == "common",
                    )
                errors += [(where, error) for error in wrong.errors]
            for error in errors_once(errors):
                tried.add(error)
        if not refused and not tried:
            with tried:
                for trial in trials:
                    trial.check_single_examples()
                    if scope.thorough:
                        notes += tuple(trial.steps(self._trained_on(named)))
        if tried and not scope.common:
            # Another process looks at the common data; where these are wrong, what a model makes of them is no error of its own.
            examine_data(named, self._wanted(), refused)
        if not refused:
            for problem in tried.errors:
                refused.add(problem)
        read = self._digests(scope, refused)
        found, contents = read or ({}, {})
        if scope.thorough and read:
            for other in self._load_again(contents, common=scope.common):
                refused.add(other)
        notes += (*self.source.notes, *equal_parts(contents))
        return Examined(refused.errors, notes, found, contents)

    def _digests(self, scope: Scope, refused: Refusals) -> tuple[dict[str, str], dict[str, str]] | None:
        """Digests of all data that are read here; ``None`` if some cannot be, which is said if nothing was wrong before."""
        try:
            return (
                digests_of(self.source, self.splits, self.shards),
                contents_of(self.source, self.splits if scope.common else None, self.shards),
            )
        except RefusedInput as error:
            if not refused:
                refused.add(error)
            return None

    def _trials(self) -> Iterator[Trial]:
        """One for each way in which the built-in loop trains participants of this backend."""
        trainings, shards = self.course.trainings, self._built_in()
        ways: dict[int, Training] = {id(trainings[name]): trainings[name] for name in shards}
        for training in ways.values() or [self.course.training]:
            mine = {name: shard for name, shard in shards.items() if trainings[name] is training}
            yield Trial(
                self.course,
                self.backend,
                self.model,
                training,
                mine,
                self.batch,
                self.step,
                self.objective,
                self.config,
            )

    def _built_in(self) -> dict[str, Dataset]:
        """The data of those that the built-in loop trains."""
        own = {p.name for p in self.course.participants if self.course.training_of(p) is not None}
        return {name: data for name, data in self.shards.items() if name not in own}

    def _try_loss(self, named: Mapping[str, Dataset], refused: Refusals) -> None:
        """Drawn outputs tell more of a loss than the model's own."""
        if refused:
            return
        try:
            objective = self.objective(self.splits.train)
        except ConfigError:
            # Of the common data, which another process looks at: said in the same words, and so once.
            examine_data(named, self._wanted(), refused)
            return
        with refused:
            try_losses(self.model, objective)

    def _trained_on(self, named: Mapping[str, Dataset]) -> dict[str, Dataset]:
        """Of the named data, those that participants of this backend train on."""
        arrays = {id(shard.targets) for shard in self._built_in().values()}
        evaluated = (self.splits.validation, self.splits.test)
        return {
            where: data
            for where, data in named.items()
            if id(data.targets) in arrays and all(data is not other for other in evaluated)
        }

    def _without_gradient(self) -> tuple[str, ...]:
        """Notes about outputs that no loss reads, and about parameters that reach these alone."""
        schema, trainings, heads = self.model.schema, self.course.trainings, self.course.heads
        decay = any(trainings[name].optimizer.weight_decay for name in self.shards)
        try:
            places = {read.index for read in self.objective(self.splits.train).each}
        except ConfigError:
            # Said where the data are looked at.
            return ()
        behind = parameters_of(schema, places)
        rest = [port.key or str(place) for place, port in enumerate(schema.outputs) if place not in places]
        idle = f"the outputs {', '.join(rest)} of the model have no loss, and play no part in training"
        said = (idle,) if rest and heads.names else ()
        names = [
            leaf.tensor
            for parameter in schema.parameters
            if parameter.kind is Kind.TRAINABLE and parameter.name not in behind
            for leaf in leaves(self.model.binding.parameters[parameter.name])
        ]
        if not names:
            return said
        shown = ", ".join(names[:_NAMED]) + (
            f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        )
        change = "weight decay alone changes them" if decay else "they stay as they are"
        reads = f"losses read {', '.join(heads.names)}" if heads.names else "the loss reads the first output"
        note = (
            f"{reads}, and these parameters of the {self.backend} model reach others alone: {shown}; "
            f"they have no gradient, and {change}"
        )
        return (*said, note)

    def _wanted(self) -> Wanted:
        scaled = self.course.data.scale is not None
        return Wanted(self.example, scaled, self.objective, vocabulary_of(self.model.schema))

    def _load_again(self, contents: Mapping[str, str], *, common: bool) -> Iterator[RefusedInput]:
        """A loader that returns other data each time would give every process data of its own."""
        source, refused = self.source, Refusals()
        if common and source.is_code and sum(array.nbytes for array in _all_columns(self.splits)) < _LARGE:
            with refused:
                again = contents_of(source, source.splits(anew=True), {})
                if any(contents.get(name) != digest for name, digest in again.items()):
                    yield changed(source.name)
        own = [data for name, data in self.shards.items() if name in source.loaders]
        if sum(array.nbytes for data in own for array in data.inputs) < _LARGE:
            read = source.own(refused, anew=True)
            again = contents_of(source, None, read)
            for name in read:
                mine = {
                    key: digest for key, digest in again.items() if key.startswith(f"participant {name!r}: ")
                }
                if any(contents.get(key) != digest for key, digest in mine.items()):
                    yield changed(f"{source.loaders[name]} (participant {name!r})")
        yield from refused.errors


def digests_of(source: DataSource, splits: Splits, shards: Mapping[str, Dataset]) -> dict[str, str]:
    """Of the common data and of what participants bring, by what messages call the loader."""
    rows = [np.asarray(part.rows) for part in _parts(splits) if part.rows is not None]
    found = {source.name: digest([*_all_columns(splits), *rows])}
    for name, loader in source.loaders.items():
        if name in shards:
            data = shards[name]
            with owning(f"participant {name!r}: {loader}"):
                found[f"{loader} (participant {name!r})"] = digest(_columns(data))
    return found


def contents_of(source: DataSource, splits: Splits | None, shards: Mapping[str, Dataset]) -> dict[str, str]:
    """Digests of all values: of the common data, if they are given, and of what participants bring, by names that stay."""
    parts = {} if splits is None else {name: getattr(splits, name) for name in _SPLITS}
    parts |= {f"participant {name!r}": shards[name] for name in source.loaders if name in shards}
    owners = {f"participant {name!r}": loader for name, loader in source.loaders.items()}
    # Parts of a data set share its arrays.
    known: dict[int, str] = {}
    found: dict[str, str] = {}
    for where, data in parts.items():
        names = (*input_names(len(data.inputs)), "targets")
        for name, array in zip(names, (*data.inputs, data.targets), strict=True):
            if not is_steady(array) or (data.stream is not None and name == "targets"):
                found[f"{where}: {_FORM}{name}"] = f"{array.shape} {array.dtype}"
                continue
            key = f"{where}: {name}"
            with owning(f"{where}: {owners.get(where, '')}"):
                found[key] = known.get(id(array)) or known.setdefault(id(array), content(array))
        if data.rows is not None:
            found[f"{where}: rows"] = content(data.rows)
    if splits is not None and splits.owners is not None:
        found["owners"] = content(splits.owners)
    return found


def equal_parts(contents: Mapping[str, str]) -> Iterator[str]:
    """What is said of data sets with the same inputs: figures on what was trained on show nothing, and doubled data count twice."""
    parts: dict[str, dict[str, str]] = {}
    for key, value in contents.items():
        where, colon, name = key.rpartition(": ")
        if colon and name != "targets" and not name.startswith(_FORM):
            parts.setdefault(where, {})[name] = value
    known: dict[tuple[str, ...], str] = {}
    for where, found in parts.items():
        first = known.setdefault(tuple(found.values()), where)
        if first != where:
            yield f"{where} has the same inputs as {first}"


def changed(loader: str) -> ConfigError:
    """The refusal of a loader that does not return the same each time."""
    return ConfigError(
        f"{loader} returned other data when it was called again; every worker calls it, and all must get the same",
        hint="draw with a fixed seed inside the function: rng = np.random.default_rng(0)",
    )


def _parts(splits: Splits) -> tuple[Dataset, ...]:
    return splits.train, splits.validation, splits.test


def _columns(data: Dataset) -> list[Column]:
    """The inputs, and the targets if these are in the same order whenever they are read."""
    return [*data.inputs, *([data.targets] if data.stream is None else [])]


def _all_columns(splits: Splits) -> list[Column]:
    return [column for part in _parts(splits) for column in _columns(part)]
