"""The median of every single number (Yin et al. 2018, option I): fewer than half of the updates cannot move it far.

Everybody counts once, since the number of examples is a claim. Of an even number of updates it is the mean of the two in the middle, as NumPy's.
Updates lie on disk until the round is over and are read a block of numbers at a time.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.aggregation.aggregator import Aggregator, PartialAggregate, Rule, Start
from xbackend_fl.aggregation.online import OnlineMean
from xbackend_fl.aggregation.update import MODEL, Merged, Update
from xbackend_fl.canonical import Kind
from xbackend_fl.errors import RunFailed, UpdateRefused
from xbackend_fl.weights import open_weights, write_tensors

_MIN_UPDATES = 3
_BLOCK = 1 << 22
"""Numbers of all updates together that are in memory at a time."""


@final
class CoordinateMedian:
    """The median of every number of the weights.

    Args:
        start: What the round starts from; its folder, or a new one, holds the updates.
    """

    def __init__(self, start: Start) -> None:
        self._base = start.base
        # Refuses what no rule takes: another shape, NaN, a value that is too large.
        self._gate = OnlineMean(start.base, "float64", start.variances)
        self._folder = start.folder
        self._updates: list[tuple[Path, int]] = []

    @property
    def count(self) -> int:
        """How many updates there are."""
        return len(self._updates)

    @property
    def num_examples(self) -> int:
        """Of all updates."""
        return sum(size for _, size in self._updates)

    @property
    def partial(self) -> PartialAggregate:
        """The updates' files."""
        return PartialAggregate(updates=tuple(self._updates))

    def add(self, update: Update) -> None:
        """Keep an update; see :class:`~xbackend_fl.aggregation.aggregator.Aggregator`."""
        if update.vectors.keys() != {MODEL}:
            raise UpdateRefused(f"a median is of weights alone, received {sorted(update.vectors)}")
        self._gate.check(update.model, update.num_examples)
        self._folder = self._folder or Path(mkdtemp(prefix="xbfl-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self.count:06d}.safetensors"
        write_tensors(path, {n: a for n, a in update.model.items() if self._kind(n) not in _KEPT}, {})
        self._updates.append((path, update.num_examples))

    def absorb(self, partial: PartialAggregate) -> None:
        """Go on with updates that lie elsewhere."""
        self._updates += partial.updates

    def result(self) -> Merged:
        """The medians, of counters the largest value; the files of the updates are then gone, and folders that held nothing else."""
        if self.count < _MIN_UPDATES:
            raise RunFailed(
                f"the median of {self.count} updates resists nobody: {_MIN_UPDATES} are the fewest",
                hint="others of the round were refused: mend what the messages above say of them, and --resume",
            )
        files = [open_weights(path) for path, _ in self._updates]
        found: dict[str, NDArray[Any]] = {}
        for name, base in self._base.items():
            if self._kind(name) in _KEPT:
                found[name] = base.copy()
                continue
            columns = [file[name].reshape(-1) for file in files]
            out, width = np.empty(base.size, base.dtype), max(1, _BLOCK // len(columns))
            merge = np.max if self._kind(name) is Kind.COUNTER else np.median
            for first in range(0, base.size, width):
                rows = np.stack([column[first : first + width] for column in columns])
                out[first : first + width] = merge(rows, axis=0)
            found[name] = out.reshape(base.shape)
        del files
        for path, _ in self._updates:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path, _ in self._updates}:
            with suppress(OSError):
                folder.rmdir()
        return Merged({MODEL: self._base.like(found)}, self.count)

    def _kind(self, name: str) -> Kind:
        return self._base.kinds[name]


_KEPT = frozenset({Kind.FROZEN, Kind.LOCAL})


@dataclass(frozen=True)
class Median(Rule):
    """The median of every number; every update of the round lies on disk, none in memory."""

    streams: ClassVar[bool] = False
    vectors: ClassVar[bool] = False
    min_updates: ClassVar[int] = _MIN_UPDATES
    name: Literal["median"] = "median"

    def make(self, start: Start) -> Aggregator:
        """An aggregator for a round."""
        return CoordinateMedian(start)


RULE = Median
