"""The running mean of updates: memory of one model, whatever the number of participants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.aggregation.kernels import BLOCK, add_scaled, add_scaled_difference, is_finite
from xbackend_fl.canonical import Kind
from xbackend_fl.errors import RunFailed, UpdateRefused
from xbackend_fl.weights import Weights

Array = NDArray[Any]
Precision: TypeAlias = Literal["float32", "float64", "exact"]

_ONE = 1 << 32
"""Fixed point: an exact sum counts units of ``2**-32``."""
_LIMIT = float(1 << 62)


@dataclass(frozen=True)
class Sums:
    """What a mean has added up: plain data, with which a mean in another process can go on.

    Attributes:
        arrays: By name, the sum of ``num_examples * (weights - base)``; of a counter its largest value, of a frozen parameter its value.
        total: Number of examples.
        count: Number of updates.
        precision: What the arrays hold.
        bound: What no exact sum exceeds in magnitude; 0 if the precision is another.
    """

    arrays: Mapping[str, Array]
    total: int
    count: int
    precision: Precision = "float32"
    bound: float = 0.0

    def mapped(self, convert: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> Sums:
        """The same under a linear change of layout: sums convert as weights do."""
        return replace(self, arrays=convert(self.arrays)) if self.count else self


@final
class OnlineMean:
    """Weighted mean of weights, one at a time.

    Trainable parameters and statistics are averaged with ``num_examples`` as weights, counters keep their
    largest value, frozen parameters those of the base (or of the first weights).

    Args:
        base: Weights that the updates started from. Differences to it are summed, which keeps digits that
            a sum of whole weights would lose.
        precision: ``float32``; ``float64``; or ``exact``: 64-bit integers, the same bits in any order of
            arrival and of merging, for values up to about ``2**30 / total examples``.
    """

    def __init__(self, base: Weights | None = None, precision: Precision = "float32") -> None:
        self.precision: Precision = precision
        self.total = 0
        self.count = 0
        self._base = base
        self._like: Weights | None = base
        self._sums: dict[str, Array] = {}
        self._bound: dict[str, float] = {}

    def add(self, weights: Weights, num_examples: int) -> None:
        """Merge the weights of one participant.

        Args:
            weights: The participant's weights after training.
            num_examples: How many examples they stand for.

        Raises:
            UpdateRefused: Another schema, a wrong shape, NaN or infinity, a weight that is not a positive
                integer, or a value too large for an exact sum. The mean is as it was.
        """
        if isinstance(num_examples, bool) or num_examples != int(num_examples) or num_examples <= 0:
            raise UpdateRefused(f"num_examples must be a positive integer, received {num_examples}")
        num_examples = int(num_examples)
        bounds = self._check(weights, num_examples)
        self._start(weights)
        for name in weights:
            self._merge_one(name, weights[name], num_examples)
        self._bound |= bounds
        self.total += num_examples
        self.count += 1

    @property
    def sums(self) -> Sums:
        """What was added up so far; the arrays are the mean's own."""
        bound = max(self._bound.values(), default=0.0)
        return Sums(self._sums, self.total, self.count, self.precision, bound)

    def absorb(self, sums: Sums) -> None:
        """Go on with sums over other participants, added up elsewhere from the same base. They are copied.

        Raises:
            UpdateRefused: Precision or parameters differ.
        """
        if sums.count == 0:
            return
        like = self._like
        if self.precision != sums.precision or like is None or like.keys() != sums.arrays.keys():
            raise UpdateRefused("two means can only be merged if their base and precision are the same")
        first = not self._sums
        for name, array in sums.arrays.items():
            if first:
                self._sums[name] = np.array(array)
            elif self._kind(name) is Kind.COUNTER:
                np.maximum(self._sums[name], array, out=self._sums[name])
            elif self._kind(name) is not Kind.FROZEN:
                self._sums[name] += array
            self._bound[name] = self._bound.get(name, 0.0) + sums.bound
        self.total += sums.total
        self.count += sums.count

    def merge(self, other: OnlineMean) -> None:
        """Merge another mean over other participants, with the same base and precision.

        Raises:
            UpdateRefused: Base, precision or schema differ.
        """
        if other.count == 0:
            return
        assert other._like is not None
        if not _same(self._base, other._base):
            raise UpdateRefused("two means can only be merged if their base and precision are the same")
        if self._like is not None and self._like.fingerprint != other._like.fingerprint:
            raise UpdateRefused("the means belong to different schemas")
        self._like = self._like or other._like
        self.absorb(other.sums)

    def result(self) -> Weights:
        """The mean.

        Raises:
            RunFailed: Nothing was added.
        """
        if self.count == 0 or self._like is None:
            raise RunFailed("the mean of no updates: no participant delivered one")
        return self._like.like({name: self._mean(name) for name in self._like})

    def _check(self, weights: Weights, num_examples: int) -> dict[str, float]:
        """Refuse what must not enter, before anything is touched."""
        like = self._like
        if like is not None:
            if weights.fingerprint != like.fingerprint:
                raise UpdateRefused(
                    f"expected weights of schema {like.fingerprint[:12]}, received {weights.fingerprint[:12]}"
                )
            if weights.keys() != like.keys():
                raise UpdateRefused(f"parameters differ: {sorted(weights.keys() ^ like.keys())[:5]}")
        bounds = {}
        for name, array in weights.items():
            if like is not None and array.shape != like[name].shape:
                raise UpdateRefused(
                    f"parameter {name!r}: expected shape {list(like[name].shape)}, received {list(array.shape)}"
                )
            if array.dtype.kind == "f" and array.size:
                if not is_finite(array):
                    raise UpdateRefused(f"parameter {name!r} holds NaN or infinity")
                if self.precision == "exact":
                    low, high = float(array.min()), float(array.max())
                    bounds[name] = self._exact_bound(name, low, high, num_examples)
        return bounds

    def _exact_bound(self, name: str, low: float, high: float, num_examples: int) -> float:
        reach = max(abs(low), abs(high))
        if self._base is not None:
            reach += float(np.abs(self._base[name]).max(initial=0))
        bound = self._bound.get(name, 0.0) + reach * num_examples
        if bound * _ONE >= _LIMIT:
            raise UpdateRefused(
                f"parameter {name!r} holds {reach:.3g}, too large for an exact sum over these examples",
                hint="use precision float64",
            )
        return bound

    def _kind(self, name: str) -> Kind:
        assert self._like is not None
        return self._like.kinds[name]

    def _start(self, weights: Weights) -> None:
        if self._sums:
            return
        self._like = self._like or weights
        dtype = {"float32": np.float32, "float64": np.float64, "exact": np.int64}[self.precision]
        for name, array in self._like.items():
            averaged = self._kind(name) in {Kind.TRAINABLE, Kind.STATISTIC}
            self._sums[name] = np.zeros(array.shape, dtype) if averaged else np.array(array)

    def _merge_one(self, name: str, array: Array, num_examples: int) -> None:
        total = self._sums[name]
        kind = self._kind(name)
        if kind is Kind.COUNTER:
            np.maximum(total, array, out=total)
        if kind in {Kind.COUNTER, Kind.FROZEN}:
            return
        flat, value = total.reshape(-1), np.ascontiguousarray(array).reshape(-1)
        base = None if self._base is None else np.ascontiguousarray(self._base[name]).reshape(-1)
        if self.precision != "exact":
            if base is None:
                add_scaled(flat, value, num_examples)
            else:
                add_scaled_difference(flat, value, base, num_examples)
            return
        for start in range(0, flat.size, BLOCK):
            part = slice(start, start + BLOCK)
            block = _fixed(value[part], None if base is None else base[part])
            block *= num_examples
            flat[part] += block

    def _mean(self, name: str) -> Array:
        assert self._like is not None
        total, dtype = self._sums[name], self._like[name].dtype
        if self._kind(name) in {Kind.COUNTER, Kind.FROZEN}:
            return np.array(total)
        mean = np.asarray(total / (float(self.total) * (_ONE if self.precision == "exact" else 1)))
        if self._base is not None:
            np.add(mean, self._base[name], out=mean)
        return np.asarray(mean, dtype)


def _fixed(value: Array, base: Array | None) -> Array:
    """The difference in units of fixed point; each part is rounded by itself, so the order of additions does not matter."""
    block = np.rint(value.astype(np.float64) * _ONE)
    if base is not None:
        block -= np.rint(base.astype(np.float64) * _ONE)
    return block.astype(np.int64)


def _same(left: Weights | None, right: Weights | None) -> bool:
    if left is None or right is None:
        return left is right
    return left is right or (
        left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)
    )
