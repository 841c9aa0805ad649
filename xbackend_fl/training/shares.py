"""Who has which examples: the data of a course, shared out among its participants."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.course import Course
from xbackend_fl.data import (
    Dataset,
    Splits,
    by_id,
    dirichlet,
    iid,
    load_dataset,
    load_npz,
    load_splits,
    pathological,
    quantity,
    read_leaf,
    split_users,
)
from xbackend_fl.errors import ConfigError


def splits_of(course: Course) -> Splits:
    """The data of a course.

    Raises:
        ConfigError: They are missing, broken or uneven.
    """
    source, base = course.data.source, course.base
    if source.startswith("leaf:"):
        users = read_leaf(base / source.removeprefix("leaf:"), deduplicate=course.data.deduplicate)
        return split_users(users, course.data.splits, course.seed)
    if source.startswith("npz:"):
        return load_npz(base / source.removeprefix("npz:"))
    return load_splits(source, base)


def shares_of(course: Course, backend: str, splits: Splits) -> dict[str, Dataset]:
    """The data of one backend's participants: their own, or their part of the common data."""
    sharing = [participant.name for participant in course.participants if participant.data is None]
    indices = _partition(course, sharing, splits) if sharing else {}
    shares: dict[str, Dataset] = {}
    for participant in course.participants:
        if participant.backend != backend:
            continue
        try:
            shares[participant.name] = (
                splits.train.part(indices[participant.name])
                if participant.data is None
                else load_dataset(participant.data, course.base)
            )
        except ConfigError as error:
            raise ConfigError(
                f"participant {participant.name!r}: {error.message}", hint=error.hint
            ) from error
    return shares


def _partition(course: Course, names: list[str], splits: Splits) -> dict[str, NDArray[np.intp]]:
    rule, train = course.data.partition, splits.train
    match rule.kind:
        case "iid":
            return iid(len(train), names, course.seed)
        case "dirichlet":
            return dirichlet(train.labels, names, rule.alpha, rule.min_examples, course.seed)
        case "pathological":
            return pathological(train.labels, names, rule.classes, course.seed)
        case "quantity":
            return quantity(len(train), names, rule.sigma, course.seed)
        case "by_id":
            return by_id(splits.owners, names)
