"""What figures can be at all, and beside each other: outputs are float32, and targets of a regression at most its root."""

from __future__ import annotations

import math

from xbackend_fl.losses.protocol import LARGEST_OUTPUT, LARGEST_TARGET, LARGEST_WEIGHT
from xbackend_fl.losses.summed import Bounded
from xbackend_fl.metrics.kinds.loss import WEIGHT
from xbackend_fl.metrics.metric import Sums

_ERROR = LARGEST_OUTPUT + LARGEST_TARGET
_ROUNDED = 1.0 + 1e-6
"""No sum in float64 is further from the exact one, as a factor."""

_RIGHT = 32 * math.log(2)
"""Cross entropy of a position that is right: of equal scores at most the logarithm of the number of classes, which is below 2**32."""


_WRONG = math.log(2) / 8
"""Cross entropy of a position that is wrong: another class has as large a share, so that this one has half at most. An eighth of it leaves room for
losses that weigh classes."""


def impossible_beside(loss: Bounded, positions: int, sums: Sums, *, training: bool) -> str | None:
    """Why no model and no data have all these sums; ``None`` if some have.

    Args:
        loss: What is known of the course's loss.
        positions: How many targets were counted.
        sums: Of the loss, and of what was measured beside it; of metrics of the user's own nothing is known.
        training: Whether they were seen in training, which has means of batches alone.
    """
    squares, classes = loss.kernel == "squared_error", loss.kernel == "softmax_cross_entropy"
    if (WEIGHT in sums) != (loss.weighs and not training):
        return f"{WEIGHT} is of a loss with weights, evaluated"
    low, high = loss.bounds
    if sums["loss"] < low * positions:
        return f"loss is {sums['loss']:.6g} over {positions} positions, and can be {low:.3g} at least"
    highest = {"loss": high, WEIGHT: LARGEST_WEIGHT, "rmse": _ERROR**2, "mae": _ERROR}
    highest |= {"r2.spread": LARGEST_TARGET**2, "r2.errors": _ERROR**2}
    for name, value in sums.items():
        kind = name if name in highest else name.rpartition(".")[0]
        if kind != "r2.mean" and kind not in highest:
            continue
        limit = LARGEST_TARGET if kind == "r2.mean" else positions * highest[kind]
        if abs(value) > limit * _ROUNDED:
            return f"{name} is {value:.3g} over {positions} positions, and can be {limit:.3g} at most"
    if reason := _unequal_squares(positions, sums, squares=squares):
        return reason
    if classes and "accuracy" in sums:
        wrong = positions - sums["accuracy"]
        limit = sums["accuracy"] * _RIGHT + wrong * 2 * LARGEST_OUTPUT
        if sums["loss"] < (least := wrong * _WRONG):
            return f"loss is {sums['loss']:.3g} over {positions} positions of which {wrong:.0f} are wrong, and can be {least:.3g} at least"
        if sums["loss"] > limit * _ROUNDED:
            return f"loss is {sums['loss']:.3g} over {positions} positions of which {wrong:.0f} are wrong, and can be {limit:.3g} at most"
    return None


def _unequal_squares(positions: int, sums: Sums, *, squares: bool) -> str | None:
    """Metrics of numbers, and the loss if it is of squares, have one sum of squared errors, and the sum of their sizes is bounded by it from both sides."""
    errors = [value for name, value in sums.items() if name.startswith("r2.errors.")]
    found = {"rmse": sums["rmse"]} if "rmse" in sums else {}
    found |= {"r2.errors": math.fsum(errors)} if errors else {}
    found |= {"loss": sums["loss"]} if squares else {}
    if not found:
        return None
    (first, squared), *others = found.items()
    for name, value in others:
        if not math.isclose(value, squared, rel_tol=_ROUNDED - 1):
            return f"{name} has {value:.6g} as the sum of squared errors, and {first} {squared:.6g}"
    size = sums.get("mae", math.sqrt(squared)) ** 2
    if size > positions * squared * _ROUNDED or squared > size * _ROUNDED:
        return f"mae is {math.sqrt(size):.6g} over {positions} positions whose squared errors add up to {squared:.6g}"
    return None
