"""Several losses as one, as far as their sum has to be bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

from xbackend_fl.losses.protocol import Kernel, Loss


class Bounded(Protocol):
    """What is known of the values of a loss."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def bounds(self) -> tuple[float, float]:
        """See :attr:`Loss.bounds`."""
        ...

    @property
    def kernel(self) -> Kernel | None:
        """See :attr:`Loss.kernel`."""
        ...

    @property
    def weighs(self) -> bool:
        """See :attr:`Loss.weighs`."""
        ...


@final
@dataclass(frozen=True)
class WeightedSum:
    """The sum of several losses, each times its weight.

    Attributes:
        parts: Losses with their weights.
    """

    parts: Sequence[tuple[Loss, float]]
    kernel: Kernel | None = None
    weighs: bool = False

    @property
    def name(self) -> str:
        """Those of the losses."""
        return " + ".join(loss.name for loss, _ in self.parts)

    @property
    def bounds(self) -> tuple[float, float]:
        """Of all together."""
        lows, highs = zip(*(loss.bounds for loss, _ in self.parts), strict=True)
        weights = [weight for _, weight in self.parts]
        low, high = (
            sum(w * bound for w, bound in zip(weights, bounds, strict=True)) for bounds in (lows, highs)
        )
        return low, high
