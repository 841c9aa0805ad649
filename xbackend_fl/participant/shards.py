"""Who has which examples: the data of a course, shared out among its participants."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.course import Course, input_names
from xbackend_fl.data import (
    Dataset,
    Splits,
    by_id,
    dirichlet,
    iid,
    load_dataset,
    load_npz,
    load_splits,
    not_held,
    pathological,
    quantity,
    read_leaf,
    split_users,
)
from xbackend_fl.errors import CombinedError, ConfigError, Refusals, RefusedInput


def splits_of(course: Course, *, anew: bool = False) -> Splits:
    """The data of a course.

    Args:
        course: The course.
        anew: Execute the loader's file again, as another process would.

    Raises:
        ConfigError: They are missing, broken or uneven.
    """
    source, base = course.data.source, course.base
    if source.startswith("leaf:"):
        users = read_leaf(base / source.removeprefix("leaf:"), deduplicate=course.data.deduplicate)
        return split_users(users, course.data.splits, course.seed)
    if source.startswith("npz:"):
        return load_npz(base / source.removeprefix("npz:"))
    return load_splits(source, base, len(course.input), input_names(course.input), anew=anew)


def shards_of(course: Course, backend: str, splits: Splits) -> dict[str, Dataset]:
    """The data of one backend's participants: their own, or their part of the common data.

    Raises:
        ConfigError: Some have none, or cannot be used; all of them at once.
    """
    refused = Refusals()
    own = own_data_of(course, backend, refused)
    refused.raise_any()
    return own | parts_of(course, backend, splits)


def parts_of(course: Course, backend: str, splits: Splits) -> dict[str, Dataset]:
    """What participants of one backend that bring no data have of the common data.

    Raises:
        ConfigError: There is no such partition of these data.
    """
    partitioned = [participant for participant in course.participants if participant.data is None]
    indices = (
        _partition(course, [participant.name for participant in partitioned], splits) if partitioned else {}
    )
    mine = [participant.name for participant in partitioned if participant.backend == backend]
    return {name: splits.train.subset(indices[name]) for name in mine}


def own_data_of(
    course: Course,
    backend: str,
    refused: Refusals,
    *,
    only: Container[str] | None = None,
    anew: bool = False,
) -> dict[str, Dataset]:
    """Data that participants of one backend bring themselves.

    Args:
        course: The course.
        backend: The backend.
        refused: Gathers what cannot be used.
        only: Participants whose data are wanted; all of the backend if left out.
        anew: Execute the loaders' files again, as another process would.
    """
    found: dict[str, Dataset] = {}
    for participant in course.participants:
        if participant.backend != backend or participant.data is None:
            continue
        if only is not None and participant.name not in only:
            continue
        try:
            found[participant.name] = load_dataset(
                participant.data, course.base, len(course.input), input_names(course.input), anew=anew
            )
        except RefusedInput as error:
            for one in error.errors if isinstance(error, CombinedError) else (error,):
                refused.add(ConfigError(f"participant {participant.name!r}: {one.message}", hint=one.hint))
    return found


def _partition(course: Course, names: list[str], splits: Splits) -> dict[str, NDArray[np.intp]]:
    rule, train = course.data.partition, splits.train
    if rule.kind in {"dirichlet", "pathological"} and not _is_classes(train):
        raise ConfigError(
            f"data.partition {rule.kind} shares examples out by their class, and the training targets are "
            f"{train.targets.dtype} {['N', *train.targets.shape[1:]]!s}".replace("'", ""),
            hint="one class for every example, [N]; or data.partition: {kind: iid}",
        )
    match rule.kind:
        case "iid":
            return iid(len(train), names, course.seed)
        case "dirichlet":
            return dirichlet(train.labels.reshape(-1), names, rule.alpha, rule.min_examples, course.seed)
        case "pathological":
            return pathological(train.labels.reshape(-1), names, rule.classes, course.seed)
        case "quantity":
            return quantity(len(train), names, rule.sigma, course.seed)
        case "by_id":
            return by_id(splits.owners, names)


def _is_classes(data: Dataset) -> bool:
    """Whether every example has one class: a whole number."""
    targets = data.targets
    return targets[:1].size == 1 and (
        targets.dtype.kind in "biu" or not_held(targets, np.dtype(np.int64)) is None
    )
