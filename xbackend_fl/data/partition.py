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


def _checked(parts: dict[str, NDArray[np.intp]]) -> dict[str, NDArray[np.intp]]:
    empty = [name for name, part in parts.items() if not len(part)]
    if empty:
        raise ConfigError(f"participant {empty[0]!r} has no examples ({len(empty)} in all)")
    return parts
