"""The running mean of updates: memory of one model, whatever the number of participants."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.aggregation.kernels import (
    MANY,
    ONE,
    add_fixed,
    add_into,
    add_scaled,
    apart,
    divided,
    is_within,
    on_device,
    reach,
)
from xbackend_fl.canonical import Kind
from xbackend_fl.errors import Diverged, RunFailed, UpdateRefused
from xbackend_fl.weights import Weights

Array = NDArray[Any]
Precision: TypeAlias = Literal["float32", "float64", "exact"]

_LIMIT = float(1 << 62)
_AVERAGED = frozenset({Kind.TRAINABLE, Kind.STATISTIC})
_KEPT = frozenset({Kind.FROZEN, Kind.LOCAL})

MAX_EXAMPLES = 1 << 53
"""Of all updates of a mean: more have no exact float64."""

MAX_COUNTED = 1 << 53
"""Of a counter."""

MAX_STEPS = 1 << 32
"""What a counter may grow by in one round, or one participant would fill it for all."""

LARGEST: Mapping[Kind, float] = {Kind.TRAINABLE: 2.0**50, Kind.STATISTIC: 2.0**70}
"""What no averaged value may exceed in magnitude. A float32 sum over all examples that a mean may have is then finite, and so are the squares of
changes that a server optimizer adds up over a hundred million rounds; no trained model comes near."""


class SumFull(UpdateRefused):
    """An exact sum has no room for an update beside what it holds already."""


@dataclass(frozen=True)
class Sums:
    """What a mean has added up: plain data, with which a mean in another process can go on.

    Attributes:
        arrays: By name, the sum of ``num_examples * (weights - base)``; of a counter its largest value, of a frozen or local parameter its value.
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
    largest value, frozen and local parameters those of the base (or of the first weights).

    Args:
        base: Weights that the updates started from. Differences to it are summed, which keeps digits that
            a sum of whole weights would lose.
        precision: ``float32``; ``float64``; or ``exact``: 64-bit integers, the same bits in any order of
            arrival and of merging, for values up to about ``2**30 / total examples``.
        variances: Names of the parameters of which no value is negative; nor is the mean's, as rounding alone could make it.
        uniform: Trainable parameters count once for every update; statistics count with their examples all the same.
        like: Names, shapes and dtypes of what is merged, where there is no base.
    """

    def __init__(
        self,
        base: Weights | None = None,
        precision: Precision = "float32",
        variances: frozenset[str] = frozenset(),
        *,
        uniform: bool = False,
        like: Weights | None = None,
    ) -> None:
        self.precision: Precision = precision
        self._variances = variances
        self._uniform = uniform
        self.total = 0
        self.count = 0
        self._base = base
        self._like: Weights | None = base or like
        self._sums: dict[str, Array] = {}
        self._absorbed: list[Mapping[str, Array]] = []
        self._spare: dict[str, Array] = {}
        self._bound: dict[str, float] = {}
        self._base_reach: dict[str, float] = {}
        self._borrowed = self._many = False

    def add(self, weights: Weights, num_examples: int, *, given: bool = False) -> None:
        """Merge the weights of one participant.

        Args:
            weights: The participant's weights after training.
            num_examples: How many examples they stand for.
            given: Whether their arrays are given away: the sums may take their memory, which holds anything if they are refused.
                Every value is then read once, not twice.

        Raises:
            UpdateRefused: Another schema, a wrong shape, NaN or infinity, a negative variance, a weight that is not a positive
                integer, or a value too large for an exact sum. The mean is as it was.
        """
        if not (given and self._taken(weights, num_examples)):
            self.add_all([(weights, num_examples)])
            return
        self.total += int(num_examples)
        self.count += 1

    def check(self, weights: Weights, num_examples: int) -> None:
        """Raise :class:`UpdateRefused` where :meth:`add` would, and add nothing."""
        self._checked([(weights, num_examples)])

    def add_all(self, updates: Sequence[tuple[Weights, int]]) -> None:
        """Merge several at once: the sums are read and written once, not once per update. Same bits as one after the other.

        Args:
            updates: Weights and how many examples they stand for.

        Raises:
            UpdateRefused: As :meth:`add`; then none of them is merged.
        """
        if not updates:
            return
        if not self._tried(updates):
            bounds = self._checked(updates)
            self._start(updates[0][0])
            for name in self._sums:
                self._merge_one(name, updates)
            self._bound = bounds
        self.total += sum(int(num_examples) for _, num_examples in updates)
        self.count += len(updates)

    def _tried(self, updates: Sequence[tuple[Weights, int]]) -> bool:
        """On a device, add beside the sums and look at the same time; whether that was done, which it is not where a value is refused."""
        if self.precision == "exact" or not self._sums or not all(map(on_device, self._sums.values())):
            return False
        self._checked(updates, look=False)
        from xbackend_fl.aggregation import device_kernels  # noqa: PLC0415  CuPy is there if an array of its is

        self._start(updates[0][0])
        trial = device_kernels.Trial()
        found: dict[str, Array] = {}
        for name, total in self._sums.items():
            kind = self._kind(name)
            if kind not in _AVERAGED or not total.size:
                continue
            result = found[name] = self._spare[name] if name in self._spare else np.empty_like(total)
            arrays = [_flat(weights[name]) for weights, _ in updates]
            base = None if self._base is None else _flat(self._base[name])
            smallest = 0.0 if name in self._variances else -math.inf
            largest = min(LARGEST[kind], *(float(np.finfo(array.dtype).max) for array in arrays))
            scales = self._scales(name, updates)
            trial.add_scaled(total.reshape(-1), result.reshape(-1), arrays, scales, base, (smallest, largest))
        if not trial.good():
            return False
        self._spare = {name: self._sums[name] for name in found}
        self._sums |= found
        for name in self._sums.keys() - found.keys():
            self._merge_one(name, updates)
        return True

    def _taken(self, weights: Weights, num_examples: int) -> bool:
        """Add to what was given away, and look at the same time; whether that was done. The sums stay until all is well, and then give way."""
        if self._base is None or self.precision != "float32" or not (self._many and self._sums):
            return False
        bounds = self._checked([(weights, num_examples)], look=False)
        self._start(weights)
        averaged = [name for name in self._sums if self._kind(name) in _AVERAGED and self._sums[name].size]
        arrays = [each[name] for each in (weights, self._base, self._sums) for name in averaged]
        if any(map(on_device, arrays)) or not apart(arrays):
            return False
        taken: dict[str, Array] = {}
        for name in averaged:
            array, total, base = weights[name], self._sums[name], self._base[name]
            found = None
            if name not in self._variances and array.flags.c_contiguous:
                (scale,) = self._scales(name, [(weights, num_examples)])
                found = add_into(total.reshape(-1), array.reshape(-1), scale, _flat(base))
            if found is None:
                self._check_values(name, array, num_examples, self._base, bounds)
            else:
                self._check_reach(name, found, self._kind(name), _largest(array, self._kind(name)))
                taken[name] = array
        self._sums |= taken
        for name in self._sums.keys() - taken.keys():
            self._merge_one(name, [(weights, num_examples)])
        return True

    def _checked(self, updates: Sequence[tuple[Weights, int]], *, look: bool = True) -> dict[str, float]:
        """What exact sums will not exceed with these updates, each of which is fit to be merged; ``look`` at their values too."""
        like, bounds = self._like, dict(self._bound)
        for weights, num_examples in updates:
            if not _is_positive_integer(num_examples):
                raise UpdateRefused(f"num_examples must be a positive integer, received {num_examples}")
            like = like or weights
            self._many = sum(array.size for array in like.values()) >= MANY
            self._check(weights, int(num_examples), like, bounds, look=look)
        if self.total + sum(int(num_examples) for _, num_examples in updates) > MAX_EXAMPLES:
            raise UpdateRefused(f"num_examples of the updates add up to more than {MAX_EXAMPLES}")
        return bounds

    @property
    def sums(self) -> Sums:
        """What was added up so far; the arrays are the mean's own."""
        self._join()
        bound = max(self._bound.values(), default=0.0)
        return Sums(self._sums, self.total, self.count, self.precision, bound)

    def absorb(self, sums: Sums) -> None:
        """Go on with sums over other participants, added up elsewhere from the same base.

        They are only read, and must stay as they are until the mean is known or the next update is there.

        Raises:
            UpdateRefused: Precision or parameters differ, this mean knows no parameters yet, or the sums of both are too large for one.
        """
        if sums.count == 0:
            return
        like = self._like
        if self.precision != sums.precision or like is None or like.keys() != sums.arrays.keys():
            raise UpdateRefused("two means can only be merged if their base and precision are the same")
        if any(array.shape != like[name].shape for name, array in sums.arrays.items()):
            raise UpdateRefused("two means can only be merged if the shapes of their parameters are the same")
        if self.total + sums.total > MAX_EXAMPLES:
            raise UpdateRefused(f"num_examples of the updates add up to more than {MAX_EXAMPLES}")
        if (max(self._bound.values(), default=0.0) + sums.bound) * ONE >= _LIMIT:
            raise UpdateRefused("the sums are too large for an exact one", hint="federate.precision: float64")
        # Where a round ends with this, nothing but the mean is ever written.
        if self._sums:
            self._absorbed.append(sums.arrays)
        else:
            self._sums, self._borrowed = dict(sums.arrays), True
        for name in sums.arrays:
            self._bound[name] = self._bound.get(name, 0.0) + sums.bound
        self.total += sums.total
        self.count += sums.count

    def result(self) -> Weights:
        """The mean.

        Raises:
            RunFailed: Nothing was added.
        """
        if self.count == 0 or self._like is None:
            raise RunFailed("the mean of no updates: no participant delivered one")
        return self._like.like({name: self._mean(name) for name in self._like})

    def _check(
        self, weights: Weights, num_examples: int, like: Weights, bounds: dict[str, float], *, look: bool
    ) -> None:
        """Refuse what must not enter, before anything is touched; ``bounds`` grow."""
        if weights.fingerprint != like.fingerprint:
            raise UpdateRefused(
                f"expected weights of schema {like.fingerprint[:12]}, received {weights.fingerprint[:12]}"
            )
        if weights.keys() != like.keys():
            raise UpdateRefused(f"parameters differ: {sorted(weights.keys() ^ like.keys())[:5]}")
        for name, array in weights.items():
            if not _fits(array.dtype, like[name].dtype):
                wanted = like[name].dtype.name if like[name].dtype.kind in "fiub" else "float32"
                raise UpdateRefused(
                    f"parameter {name!r}: expected {wanted}, received {array.dtype}",
                    hint=f"convert the update first: array.astype({wanted!r})",
                )
            if on_device(array) != on_device(like[name]):
                raise UpdateRefused(
                    f"parameter {name!r}: the mean and the update are not on the same device",
                    hint="copy the update with cupy.asarray or cupy.asnumpy first",
                )
            if array.shape != like[name].shape:
                raise UpdateRefused(
                    f"parameter {name!r}: expected shape {list(like[name].shape)}, received {list(array.shape)}"
                )
            if not array.size or like.kinds[name] is Kind.LOCAL:
                continue
            if array.dtype.kind == "f":
                if look or like.kinds[name] not in _AVERAGED:
                    self._check_values(name, array, num_examples, like, bounds)
            elif like.kinds[name] is Kind.COUNTER and array.max() > (limit := self._max_count(name)):
                raise UpdateRefused(
                    f"parameter {name!r} counts to {array.max()}, and can count to {limit} at most"
                )

    def _check_values(
        self, name: str, array: Array, num_examples: int, like: Weights, bounds: dict[str, float]
    ) -> None:
        if self.precision != "exact":
            self._check_size(name, array, like.kinds[name])
        if name in self._variances and (least := float(array.min())) < 0:
            raise UpdateRefused(f"parameter {name!r} holds {least:.3g}, and no variance is negative")
        if self.precision == "exact":
            before = bounds.get(name, 0.0)
            counted = 1 if self._counts_once(name, like) else num_examples
            bounds[name] = before + self._exact_bound(name, array, counted, before)

    def _check_size(self, name: str, array: Array, kind: Kind) -> None:
        largest = _largest(array, kind)
        if not is_within(array, largest, many=self._many):
            self._check_reach(name, reach(array, many=self._many), kind, largest)

    def _check_reach(self, name: str, found: float, kind: Kind, largest: float) -> None:
        if found <= largest:
            return
        _require_finite(name, found)
        raise Diverged(
            f"parameter {name!r} holds {found:.3g}, and no {kind} value is larger than {largest:.3g}",
            hint="its training diverged: lower the learning rate, or set training.clip_norm",
        )

    def _exact_bound(self, name: str, array: Array, num_examples: int, before: float) -> float:
        found = reach(array, many=self._many)
        _require_finite(name, found)
        if self._base is not None:
            if name not in self._base_reach:
                self._base_reach[name] = reach(self._base[name], many=self._many)
            found += self._base_reach[name]
        bound = found * num_examples
        if (before + bound) * ONE >= _LIMIT:
            raise (SumFull if bound * ONE < _LIMIT else Diverged)(
                f"parameter {name!r} holds {found:.3g}, too large for an exact sum over these examples",
                hint="lower training.optimizer.lr, or what else lets weights grow; federate.precision: float64 takes larger ones",
            )
        return bound

    def _max_count(self, name: str) -> int:
        return min(
            MAX_COUNTED, MAX_STEPS + (0 if self._base is None else max(0, int(self._base[name].max())))
        )

    def _counts_once(self, name: str, like: Weights | None) -> bool:
        return self._uniform and like is not None and like.kinds[name] is Kind.TRAINABLE

    def _kind(self, name: str) -> Kind:
        assert self._like is not None
        return self._like.kinds[name]

    def _join(self) -> None:
        """Add up what was absorbed, one after the other."""
        for arrays in self._absorbed:
            for name, array in arrays.items():
                total, kind = self._sums[name], self._kind(name)
                if kind not in _KEPT:
                    join = np.maximum if kind is Kind.COUNTER else np.add
                    out = np.empty_like(total) if self._borrowed else total
                    self._sums[name] = join(total, array, out=out)
                elif self._borrowed:
                    self._sums[name] = total.copy()
            self._borrowed = False
        self._absorbed.clear()

    def _start(self, weights: Weights) -> None:
        self._join()
        if self._borrowed:
            self._sums = {name: array.copy() for name, array in self._sums.items()}
            self._borrowed = False
        if self._sums:
            return
        self._like = self._like or weights
        dtype = {"float32": np.float32, "float64": np.float64, "exact": np.int64}[self.precision]
        for name, array in self._like.items():
            averaged = self._kind(name) in _AVERAGED
            self._sums[name] = np.zeros_like(array, dtype, order="C") if averaged else array.copy()

    def _scales(self, name: str, updates: Sequence[tuple[Weights, int]]) -> list[int]:
        once = self._counts_once(name, self._like)
        return [1 if once else int(num_examples) for _, num_examples in updates]

    def _merge_one(self, name: str, updates: Sequence[tuple[Weights, int]]) -> None:
        total, arrays = self._sums[name], [weights[name] for weights, _ in updates]
        kind = self._kind(name)
        if kind is Kind.COUNTER:
            for array in arrays:
                np.maximum(total, array, out=total)
        if kind in {Kind.COUNTER, *_KEPT}:
            return
        base = None if self._base is None else _flat(self._base[name])
        add = add_fixed if self.precision == "exact" else add_scaled
        flat = [_flat(array) for array in arrays]
        add(total.reshape(-1), flat, self._scales(name, updates), base, many=self._many)

    def _mean(self, name: str) -> Array:
        assert self._like is not None
        total, kind = self._sums[name], self._kind(name)
        others, dtype = [arrays[name] for arrays in self._absorbed], self._like[name].dtype
        if kind is Kind.COUNTER:
            largest = total.copy()
            for other in others:
                np.maximum(largest, other, out=largest)
            return largest
        if kind in _KEPT:
            return total.copy()
        divisor = float(self.count if self._counts_once(name, self._like) else self.total) * (
            ONE if self.precision == "exact" else 1
        )
        mean = divided([total, *others], divisor, None if self._base is None else self._base[name], dtype)
        return np.maximum(mean, 0, out=mean) if name in self._variances else mean


def _is_positive_integer(number: object) -> bool:
    try:
        return not isinstance(number, bool) and number == int(number) > 0  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return False


def _fits(received: np.dtype[Any], expected: np.dtype[Any]) -> bool:
    """Whether values of a dtype may enter a mean of another: floats of any size among floats, nothing else among others."""
    if received.kind == expected.kind == "f":
        return True
    return received.kind in "iub" and received.newbyteorder("=") == expected.newbyteorder("=")


def _largest(array: Array, kind: Kind) -> float:
    """What no value of an array may exceed in magnitude."""
    return LARGEST.get(kind, float(np.finfo(array.dtype).max))


def _require_finite(name: str, found: float) -> None:
    if not math.isfinite(found):
        raise Diverged(f"parameter {name!r} holds NaN or infinity")


def _flat(array: Array) -> Array:
    return (array if array.flags.c_contiguous else array.copy()).reshape(-1)
