"""Who has which examples: the data of a course, shared out among its participants, or what one participant has for itself."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.course import Course, example_arrays, input_names
from xbackend_fl.course.data import Data
from xbackend_fl.data import (
    READING_KEYS,
    Dataset,
    Pool,
    Reading,
    Splits,
    dataset_of,
    not_held,
    source_of,
)
from xbackend_fl.errors import CombinedError, ConfigError, Refusals, RefusedInput
from xbackend_fl.locate import call
from xbackend_fl.participant.held_out import held_out


class DataSource(Protocol):
    """A way to load the data of one backend's participants; it is used in the process that trains them.

    Attributes:
        name: What messages call the common data.
        names: Participants that have a part of the common data.
        is_code: Whether loading these runs code, which may return something else the next time.
        notes: What people may want to know of how it reads, one line each.
        loaders: Of participants that bring data of their own: what messages call these.
        given: What the functions of participants with a training loop of their own have returned, once :meth:`own` was called. It is data of any
            kind; where it is none of which batches can be made, :meth:`own` does not have it.
    """

    name: str
    names: Collection[str]
    is_code: bool
    notes: Collection[str]
    loaders: Mapping[str, str]
    given: Mapping[str, Any]

    def splits(self, *, anew: bool = False) -> Splits:
        """The common data.

        Args:
            anew: Execute a loader's file again, as another process would.

        Raises:
            ConfigError: They are missing, broken or uneven.
        """
        ...

    def own(self, refused: Refusals, *, anew: bool = False) -> dict[str, Dataset]:
        """Data that participants bring themselves.

        Args:
            refused: Gathers what cannot be used.
            anew: Execute the loaders' files again, as another process would.
        """
        ...

    def parts(self, splits: Splits) -> dict[str, Dataset]:
        """What participants that bring no data have of the common data.

        Raises:
            ConfigError: There is no such partition of these data.
        """
        ...

    def apart(
        self, splits: Splits, shards: Mapping[str, Dataset]
    ) -> tuple[dict[str, Dataset], dict[str, Dataset]]:
        """What every participant trains on, and what it validates on, where each has validation examples of its own.

        Raises:
            ConfigError: A participant has too few.
        """
        ...


@final
class CourseData:
    """The data that a course names.

    Args:
        course: The course.
        backend: Whose participants' data are wanted.
        only: Participants whose data are wanted; all of the backend if left out.
    """

    def __init__(self, course: Course, backend: str, only: Container[str] | None = None) -> None:
        self._course = course
        self.name = course.data.source.removeprefix("npz:")
        self.is_code = source_of(course.data.source)[0].is_code
        self.notes: Collection[str] = tuple(_unread(course))
        mine = [p for p in course.participants if p.backend == backend and (only is None or p.name in only)]
        self.names: Collection[str] = [p.name for p in mine if p.data is None]
        self.loaders: Mapping[str, str] = {p.name: p.data for p in mine if p.data is not None}
        self._given: dict[str, Any] = {}
        self.given: Mapping[str, Any] = self._given
        self._by_themselves = {p.name for p in mine if course.training_of(p) is not None}

    def splits(self, *, anew: bool = False) -> Splits:
        """Of the course's loader or files."""
        source, place = source_of(self._course.data.source)
        return source.splits(place, reading_of(self._course, shared=True), anew=anew)

    def own(self, refused: Refusals, *, anew: bool = False) -> dict[str, Dataset]:
        """Of the loaders that participants name."""
        found: dict[str, Dataset] = {}
        how = reading_of(self._course, shared=False)
        for name, loader in self.loaders.items():
            try:
                source, place = source_of(loader)
                if name in self._by_themselves and source.is_code:
                    given = call(place, how.base, anew=anew)
                    self._given.setdefault(name, given)
                    found[name] = dataset_of(loader, given, how)
                else:
                    found[name] = source.own(place, how, anew=anew)
            except RefusedInput as error:
                if name in self.given:
                    # Its loop reads them, whatever they are.
                    continue
                for one in error.errors if isinstance(error, CombinedError) else (error,):
                    refused.add(ConfigError(f"participant {name!r}: {one.message}", hint=one.hint))
        return found

    def parts(self, splits: Splits) -> dict[str, Dataset]:
        """By the course's partition, which is one of all participants that bring no data."""
        names = [participant.name for participant in self._course.participants if participant.data is None]
        indices = _partition(self._course, names, splits) if names else {}
        return {name: splits.train.subset(indices[name]) for name in self.names}

    def apart(
        self, splits: Splits, shards: Mapping[str, Dataset]
    ) -> tuple[dict[str, Dataset], dict[str, Dataset]]:
        """A share of the examples of each is held out."""
        del splits
        return held_out(shards, self._course.evaluation.held_out, self._course.seed)


@final
class OwnSplits:
    """What one participant has for itself, with its own validation and test examples.

    Args:
        participant: Who.
        splits: The data, or where they are: any source, absolute.
        course: Says how they are read.
    """

    notes: Collection[str] = ()
    loaders: Mapping[str, str] = {}
    given: Mapping[str, Any] = {}

    def __init__(self, participant: str, splits: Splits | str, course: Course) -> None:
        self._participant, self._splits, self._course = participant, splits, course
        self.names: Collection[str] = [participant]
        self.is_code = isinstance(splits, str) and source_of(splits)[0].is_code
        self.name = splits.removeprefix("npz:") if isinstance(splits, str) else f"the data of {participant!r}"

    def splits(self, *, anew: bool = False) -> Splits:
        """All of it."""
        if isinstance(self._splits, Splits):
            return self._splits
        source, place = source_of(self._splits)
        return source.splits(place, reading_of(self._course, shared=False), anew=anew)

    def own(self, refused: Refusals, *, anew: bool = False) -> dict[str, Dataset]:
        """Nothing beside it."""
        del refused, anew
        return {}

    def parts(self, splits: Splits) -> dict[str, Dataset]:
        """The training examples."""
        return {self._participant: splits.train}

    def apart(
        self, splits: Splits, shards: Mapping[str, Dataset]
    ) -> tuple[dict[str, Dataset], dict[str, Dataset]]:
        """It has brought both."""
        return dict(shards), {self._participant: splits.validation}


def _unread(course: Course) -> Iterator[str]:
    """Keys that say something to no source of a course."""
    sources = dict.fromkeys(
        (course.data.source, *(p.data for p in course.participants if p.data is not None))
    )
    read = set[str]().union(*(source_of(text)[0].keys for text in sources))
    for key in READING_KEYS:
        if key not in read and getattr(course.data, key) != Data.model_fields[key].default:
            yield f"data.{key} says nothing to {', '.join(sources)}"


def reading_of(course: Course, *, shared: bool) -> Reading:
    """How a course reads data that everybody has, or one participant alone."""
    data = course.data
    return Reading(
        course.base,
        example_arrays(course.input, course.base),
        input_names(course.input),
        course.seed,
        data.splits,
        data.split_by,
        data.owners,
        None if data.classes is None else tuple(data.classes),
        shared,
        data.deduplicate,
        data.on_error,
        None if data.cache is None else course.base / data.cache,
        course.heads.names,
    )


def _partition(course: Course, names: list[str], splits: Splits) -> dict[str, NDArray[np.intp]]:
    partition, train = course.data.partition, splits.train
    if partition.by_class and train.targets.dtype.names:
        raise ConfigError(
            f"data.partition {partition.kind} shares examples out by their class, and training.outputs reads several targets of each: "
            f"{', '.join(train.targets.dtype.names)}",
            hint="data.partition: {kind: iid}; or let every participant name its own: participants: [{…, data: data.py:load}]",
        )
    if partition.by_class and not _is_classes(train):
        raise ConfigError(
            f"data.partition {partition.kind} shares examples out by their class, and the training targets are "
            f"{train.targets.dtype} {['N', *train.targets.shape[1:]]!s}".replace("'", ""),
            hint="one class for every example, [N]; or data.partition: {kind: iid}",
        )
    classes = train.labels.reshape(-1) if partition.by_class else None
    return partition.shards(Pool(len(train), classes, splits.owners), names, course.seed)


def _is_classes(data: Dataset) -> bool:
    """Whether every example has one class: a whole number."""
    targets = data.targets
    return targets[:1].size == 1 and (
        targets.dtype.kind in "biu" or not_held(targets, np.dtype(np.int64)) is None
    )
