"""What a pair is, and the values that its inputs are drawn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from torch import nn

from tests.networks.textbook.truth import Array, Truth

Arrays = tuple[Array, ...]
Draw = Callable[[Generator], Array]
Axes = tuple[int, ...]

SERIES: Axes = (0, 2, 1)
IMAGE: Axes = (0, 2, 3, 1)
VIDEO: Axes = (0, 1, 3, 4, 2)
VOLUME: Axes = (0, 2, 3, 4, 1)


Converter = Callable[["Pair", nn.Module, Any], dict[str, Array]]
"""Makes the values of the Keras variables, by path, of the PyTorch model's."""


@dataclass(frozen=True)
class Pair:
    """One function twice, or nearly (``cause`` is not empty), and the map of its weights.

    ``example`` draws the inputs as the PyTorch model takes them: batch first, channels first. ``inputs`` and
    ``outputs`` say, by position, how the Keras model orders the axes of an array where it differs.
    ``cause`` holds words of which a good diagnosis has one. ``symmetric``: other maps are right too.
    ``keys``: names of the Keras inputs in the order of the example. ``declared``: nothing in the Keras model tells the axes of its inputs, so its author says them.
    """

    name: str
    family: str
    torch: Callable[[], nn.Module]
    keras: Callable[[], Any]
    example: Callable[[Generator], Arrays]
    truth: Truth | Converter
    inputs: Mapping[int, Axes] = dataclasses.field(default_factory=dict)
    outputs: Mapping[int, Axes] = dataclasses.field(default_factory=dict)
    symmetric: bool = False
    declared: bool = False
    keys: tuple[str, ...] = ()
    cause: frozenset[str] = frozenset()

    def alike(self, name: str, cause: Iterable[str], **changed: Any) -> Pair:
        """Nearly this pair: what is changed makes another function of it, for the cause named."""
        return dataclasses.replace(self, name=f"{self.name}: {name}", cause=frozenset(cause), **changed)


def draws(*each: Draw) -> Callable[[Generator], Arrays]:
    """One array per input."""
    return lambda rng: tuple(draw(rng) for draw in each)


def floats(*shape: int) -> Draw:
    """Standard normal."""
    return lambda rng: rng.standard_normal(shape).astype(np.float32)


def uniform(low: float, high: float, *shape: int) -> Draw:
    """Pixels, coordinates, times, rates."""
    return lambda rng: rng.uniform(low, high, shape).astype(np.float32)


def ids(below: int, *shape: int, low: int = 0, kind: str = "int64") -> Draw:
    """Integers from ``low`` on."""
    return lambda rng: rng.integers(low, below, shape).astype(kind)


def padded(below: int, *shape: int, kind: str = "int64") -> Draw:
    """Token ids from 1 on, with zeros behind the end of each text; at least two tokens are left."""

    def draw(rng: Generator) -> Array:
        text = rng.integers(1, below, shape)
        ends = rng.integers(2, shape[-1] + 1, shape[:-1])
        return np.where(np.arange(shape[-1]) < ends[..., None], text, 0).astype(kind)

    return draw


def mask(*shape: int, kind: str = "float32") -> Draw:
    """Ones, and zeros behind the end of each row; at least two ones."""
    return lambda rng: (padded(9, *shape)(rng) > 0).astype(kind)


def adjacency(batch: int, nodes: int, kind: str = "float32") -> Draw:
    """Undirected graphs with a loop at every node."""

    def draw(rng: Generator) -> Array:
        edges = rng.random((batch, nodes, nodes)) < 0.4
        return (edges | edges.transpose(0, 2, 1) | np.eye(nodes, dtype=bool)).astype(kind)

    return draw
