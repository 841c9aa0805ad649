"""Shares a data set out among participants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.data.draws import generator
from xbackend_fl.errors import ConfigError

_ATTEMPTS = 100


def iid(num_examples: int, names: Sequence[str], seed: int) -> dict[str, NDArray[np.intp]]:
    """Equal random shares, by sorted name."""
    order = generator(seed, "partition").permutation(num_examples)
    parts = np.array_split(order, len(names))
    return _checked({name: np.sort(part) for name, part in zip(sorted(names), parts, strict=True)})


def dirichlet(
    targets: NDArray[np.generic], names: Sequence[str], alpha: float, min_examples: int, seed: int
) -> dict[str, NDArray[np.intp]]:
    """Label skew: each class is shared out by a draw from ``Dirichlet(alpha)`` (Hsu et al. 2019).

    Args:
        targets: Class of every example, ``[N]``.
        names: Participants; shares go by sorted name.
        alpha: Concentration; small values give every participant few classes.
        min_examples: Draw again until every participant has this many.
        seed: The course's seed.

    Raises:
        ConfigError: No draw gave every participant enough examples.
    """
    ordered = sorted(names)
    for attempt in range(_ATTEMPTS):
        source = generator(seed, "partition", attempt)
        parts: list[list[NDArray[np.intp]]] = [[] for _ in ordered]
        for label in np.unique(targets):
            members = source.permutation(np.flatnonzero(targets == label))
            shares = source.dirichlet([alpha] * len(ordered))
            cuts = (np.cumsum(shares)[:-1] * len(members)).astype(np.intp)
            for part, piece in zip(parts, np.split(members, cuts), strict=True):
                part.append(piece)
        result = {name: np.sort(np.concatenate(part)) for name, part in zip(ordered, parts, strict=True)}
        if min(map(len, result.values())) >= max(min_examples, 1):
            return result
    smallest = min(result, key=lambda name: len(result[name]))
    raise ConfigError(
        f"participant {smallest!r} has {len(result[smallest])} examples, expected at least {min_examples} "
        f"({_ATTEMPTS} draws of Dirichlet({alpha}) over {len(ordered)} participants)",
        hint="raise data.partition.alpha, lower data.partition.min_examples, or have fewer participants",
    )


def pathological(
    targets: NDArray[np.generic], names: Sequence[str], classes: int, seed: int
) -> dict[str, NDArray[np.intp]]:
    """Few classes each: examples sorted by class are cut into shards, ``classes`` for every participant (McMahan et al. 2017).

    Raises:
        ConfigError: There are more shards than examples.
    """
    ordered = sorted(names)
    source = generator(seed, "partition")
    shuffled = source.permutation(len(targets))
    by_class = shuffled[np.argsort(targets[shuffled], kind="stable")]
    shards = np.array_split(by_class, len(ordered) * classes)
    dealt = source.permutation(len(shards)).reshape(len(ordered), classes)
    return _checked(
        {
            name: np.sort(np.concatenate([shards[i] for i in row]))
            for name, row in zip(ordered, dealt, strict=True)
        }
    )


def quantity(num_examples: int, names: Sequence[str], sigma: float, seed: int) -> dict[str, NDArray[np.intp]]:
    """Random shares of log-normal sizes; every participant has one example at least.

    Args:
        num_examples: Size of the data set.
        names: Participants; shares go by sorted name.
        sigma: Standard deviation of the logarithm of the sizes; 0 gives equal ones.
        seed: The course's seed.
    """
    ordered = sorted(names)
    source = generator(seed, "partition")
    if num_examples < len(ordered):
        raise ConfigError(f"{len(ordered)} participants cannot share {num_examples} examples")
    raw = np.exp(source.normal(0, sigma, len(ordered)))
    cuts = np.floor(np.cumsum(raw)[:-1] / raw.sum() * (num_examples - len(ordered)) + 0.5).astype(int)
    # One example is set aside for everybody, so no share is empty.
    cuts += np.arange(1, len(ordered))
    order = source.permutation(num_examples)
    return {name: np.sort(part) for name, part in zip(ordered, np.split(order, cuts), strict=True)}


def by_id(owners: NDArray[np.generic] | None, names: Sequence[str]) -> dict[str, NDArray[np.intp]]:
    """To every participant the examples of one owner; of every n-th owner, if there are more owners.

    Args:
        owners: Who made each example, ``[N]``.
        names: Participants; owners go by sorted name to sorted owner.

    Raises:
        ConfigError: Nobody knows the owners, or there are fewer than participants.
    """
    if owners is None:
        raise ConfigError(
            "data.partition by_id: the data do not say whose each example is", hint="return 'owners' too"
        )
    _, position = np.unique(owners, return_inverse=True)
    ordered, count = sorted(names), int(position.max()) + 1
    if count < len(ordered):
        raise ConfigError(f"data.partition by_id: {count} owners for {len(ordered)} participants")
    by_owner = np.argsort(position, kind="stable")
    starts = np.searchsorted(position[by_owner], np.arange(count + 1))
    parts = [by_owner[starts[i] : starts[i + 1]] for i in range(count)]
    return {name: np.sort(np.concatenate(parts[index :: len(ordered)])) for index, name in enumerate(ordered)}


def _checked(parts: dict[str, NDArray[np.intp]]) -> dict[str, NDArray[np.intp]]:
    empty = [name for name, part in parts.items() if not len(part)]
    if empty:
        raise ConfigError(f"participant {empty[0]!r} has no examples ({len(empty)} in all)")
    return parts
