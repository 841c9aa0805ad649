"""Whether two computations of a loss are one: what they make of drawn outputs and targets, in value and gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import MismatchError, RefusedInput
from xbackend_fl.losses.mean import mean_loss
from xbackend_fl.losses.operations import NumpyOperations
from xbackend_fl.losses.protocol import Loss, Targets

Array = NDArray[Any]

TOLERANCE = 1e-4
"""Largest difference, relative to the largest number of either, that rounding in float32 explains."""

_MAX_CLASSES = 4096
_STEP = 1e-4
_STEPS = (2e-2, 2e-3)
_ROUGH = 0.02
"""Share of the slope that float32 and corners on the way may hide."""

_ROUNDING = 32 * float(np.finfo(np.float32).eps)
"""Of a value in float32, relative: what it may be wrong by."""

_MANY = 1 << 18

_REACH = {"classes": 100.0, "shares": 100.0, "values": 50.0, "counts": 20.0}
"""Outputs that a model may reach when it is sure, or wrong."""


@dataclass(frozen=True)
class Question:
    """How a loss reads an output, in ONNX layout.

    Attributes:
        loss: The loss.
        output: Shape of the output, without the batch axis.
        class_axis: Where the classes are, the batch counted; ``None`` if there are none.
        ignore_index: Targets of this value do not count; ``None`` if all do.
    """

    loss: Loss
    output: tuple[int, ...]
    class_axis: int | None
    ignore_index: int | None


class Draw(NamedTuple):
    """Outputs ``[N, *output]``, float32, and targets as the loss takes them.

    Attributes:
        label: What is drawn, for people.
        outputs: The outputs.
        targets: The targets.
        ignoring: Whether some do not count.
    """

    label: str
    outputs: Array
    targets: Array
    ignoring: bool = False


class Answer(NamedTuple):
    """The mean loss, and its gradient with respect to the outputs."""

    value: float
    gradient: Array


def draws(asked: Question) -> Iterator[Draw]:
    """The same draws in every process."""
    kind, reach = asked.loss.targets, _REACH[asked.loss.targets]
    classes = asked.output[asked.class_axis - 1] if asked.class_axis is not None else 0
    for seed, (label, scale) in enumerate(
        (("usual outputs", 1.0), ("large outputs", reach / 8), ("outputs of zero", 0.0))
    ):
        outputs = np.random.default_rng(seed).standard_normal((4, *asked.output)) * scale
        yield Draw(label, outputs.astype(np.float32), _targets(asked, 4, kind, seed))
    signs = np.random.default_rng(7).choice([-reach, reach], (4, *asked.output))
    yield Draw(f"extreme outputs, ±{reach:g}", signs.astype(np.float32), _targets(asked, 4, kind, 7))
    if classes:
        rows = -(-min(classes, _MAX_CLASSES) * classes // prod(asked.output))
        targets = _targets(asked, rows, kind, 8)
        targets.flat[:classes] = np.arange(min(classes, targets.size))
        outputs = np.random.default_rng(8).standard_normal((rows, *asked.output))
        yield Draw("every class", outputs.astype(np.float32), targets)
    if asked.ignore_index is not None:
        targets = _targets(asked, 4, kind, 9)
        left_out = np.random.default_rng(9).random(targets.shape) < 0.5
        left_out.flat[0], left_out.flat[-1] = True, False
        outputs = np.random.default_rng(10).standard_normal((4, *asked.output))
        targets = np.where(left_out, asked.ignore_index, targets).astype(targets.dtype)
        yield Draw("targets that do not count", outputs.astype(np.float32), targets, ignoring=True)


def _targets(asked: Question, rows: int, kind: Targets, seed: int) -> Array:
    draw = np.random.default_rng(100 + seed)
    shape = (rows, *(n for axis, n in enumerate(asked.output, 1) if axis != asked.class_axis))
    match kind:
        case "classes":
            assert asked.class_axis is not None
            return draw.integers(0, asked.output[asked.class_axis - 1], shape)
        case "shares":
            sure = draw.random(shape) < 0.5
            return np.where(sure, draw.integers(0, 2, shape), draw.random(shape)).astype(np.float32)
        case "values":
            return (draw.standard_normal(shape) * 3).astype(np.float32)
        case "counts":
            return draw.poisson(3, shape).astype(np.float32)


def check_alone(what: str, draw: Draw, found: Answer) -> None:
    """Refuse an answer that nothing can be trained by.

    Args:
        what: Whose answer it is.
        draw: What was drawn.
        found: The answer.

    Raises:
        RefusedInput: It is not finite.
    """
    bad = "NaN" if np.isnan(found.value) or np.isnan(found.gradient).any() else "infinity"
    where = "value" if not np.isfinite(found.value) else "gradient"
    if np.isfinite(found.value) and np.isfinite(found.gradient).all():
        return
    raise RefusedInput(
        f"{what} has a {where} of {bad} for {draw.label}",
        hint="exp and log overflow where a model is sure: compose it of ops.softmax_cross_entropy, ops.sigmoid_cross_entropy or "
        "ops.log_softmax, or of the framework's losses of logits",
    )


def check_equal(one: str, other: str, draw: Draw, found: Answer, expected: Answer) -> float:
    """Refuse answers that differ by more than rounding.

    Args:
        one: Whose answer is ``found``.
        other: Whose is ``expected``.
        draw: What was drawn.
        found: One answer.
        expected: The other.

    Returns:
        The largest relative difference.

    Raises:
        MismatchError: They differ; the message has the draw, both values and the largest difference.
    """
    apart = abs(found.value - expected.value) / max(1.0, abs(found.value), abs(expected.value))
    if not apart <= TOLERANCE:
        steep = float(np.abs(found.gradient - expected.gradient).max())
        ratio = found.value / expected.value if expected.value else np.nan
        scaled = f" ({ratio:.6g} times as much)" if np.isfinite(ratio) else ""
        also = f", and the gradients differ by up to {steep:.3g}" if steep else ""
        raise MismatchError(
            f"{one} and {other} are two losses: for {draw.label} the values are {found.value:.7g} and {expected.value:.7g}{scaled}{also}",
            hint="a sum against a mean, a factor, a smoothing or a reduction that only one of them has",
        )
    largest = max(float(np.abs(found.gradient).max()), float(np.abs(expected.gradient).max()), 1e-6)
    differences = np.abs(found.gradient - expected.gradient)
    steep = float(differences.max()) / largest
    if not steep <= TOLERANCE:
        place = np.unravel_index(int(differences.argmax()), differences.shape)
        raise MismatchError(
            f"{one} and {other} are two losses: for {draw.label} the values agree ({found.value:.7g}), and the gradients differ by up to "
            f"{differences.max():.3g}: {found.gradient[place]:.7g} and {expected.gradient[place]:.7g} at {[int(i) for i in place]}",
            hint="a part of one of them is cut off from the gradient: detach, stop_gradient, or a comparison",
        )
    return max(apart, steep)


def by_numpy(asked: Question, draw: Draw, direction: Array) -> tuple[float, float]:
    """The loss in float64, and how fast it changes along a direction.

    Args:
        asked: How it reads outputs.
        draw: What was drawn.
        direction: Like the outputs.
    """
    counted = draw.targets != asked.ignore_index if draw.ignoring else None
    targets = draw.targets if asked.class_axis is not None else draw.targets.astype(np.float64)
    ops = NumpyOperations(asked.class_axis or 1)

    def at(step: float) -> float:
        outputs = draw.outputs.astype(np.float64) + step * direction
        with np.errstate(all="ignore"):
            return float(mean_loss(asked.loss, outputs, targets, counted, ops)[0])

    return at(0.0), (at(_STEP) - at(-_STEP)) / (2 * _STEP)


def check_numpy(what: str, asked: Question, draw: Draw, found: Answer) -> None:
    """Refuse an answer that is not the formula's in float64, which any backend's must be.

    Raises:
        MismatchError: They differ.
    """
    if draw.label == "outputs of zero":
        # Where a formula may have a corner.
        direction: Array = np.zeros(draw.outputs.shape)
    else:
        direction = np.random.default_rng(11).standard_normal(draw.outputs.shape)
    value, slope = by_numpy(asked, draw, direction)
    along = float((found.gradient.astype(np.float64) * direction).sum())
    size = float(np.abs(found.gradient * direction).sum())
    check_equal(
        what, "its formula in float64", draw, found._replace(gradient=np.zeros(1)), Answer(value, np.zeros(1))
    )
    if not abs(along - slope) <= 10 * TOLERANCE * max(size, abs(slope), 1e-6):
        raise _not_its_slope(what, draw, slope, along)


def check_slope(what: str, draw: Draw, found: Answer, value: Callable[[Array], float]) -> None:
    """Refuse a gradient that is not the slope of its own value, where nothing but float32 says the value.

    The value is looked at on both sides along the signs of the gradient, which show a factor, and along random signs, which show a part that is cut
    off. Two steps must agree about the slope, else there is a corner, or noise, and nothing is said.

    Args:
        what: Whose answer it is.
        draw: What was drawn.
        found: The answer.
        value: The value for other outputs.

    Raises:
        MismatchError: It is not.
    """
    if draw.label == "outputs of zero" or draw.outputs.size > _MANY:
        # Where a formula may have a corner, and where each look takes long; there are other draws.
        return
    signs = np.random.default_rng(11).choice([-1.0, 1.0], draw.outputs.shape)
    for direction in (np.sign(found.gradient), signs):
        products = found.gradient.astype(np.float64) * direction
        along, size = float(products.sum()), float(np.abs(products).sum())
        for step in _STEPS:
            slope, allowed = _slope(draw, found.value, value, direction, step, size)
            if slope is not None and not abs(along - slope) <= allowed:
                raise _not_its_slope(what, draw, slope, along)
            if slope is not None:
                break


def _slope(
    draw: Draw, middle: float, value: Callable[[Array], float], direction: Array, step: float, size: float
) -> tuple[float | None, float]:
    """How fast a value in float32 changes along a direction, if two steps agree about it; and what it may be wrong by.

    A corner beside the middle is not seen in the slopes over both sides, which agree, but in what the sides differ by: that is half as much for half a
    step where the value is smooth, and the same where there is a corner.
    """

    def sides(step: float) -> tuple[float, float]:
        ahead, behind = (
            value((draw.outputs + sign * step * direction).astype(np.float32)) for sign in (1, -1)
        )
        return (ahead - behind) / (2 * step), (ahead - 2 * middle + behind) / step

    (one, bend), (other, half) = sides(step), sides(step / 2)
    allowed = _ROUGH * max(size, abs(one))
    agree = abs(one - other) <= allowed / 4 and abs(2 * half - bend) <= allowed / 2
    return other if agree else None, allowed + _ROUNDING * max(1.0, abs(middle)) / step


def _not_its_slope(what: str, draw: Draw, slope: float, along: float) -> MismatchError:
    return MismatchError(
        f"{what} has a gradient that is not its own value's: for {draw.label} the value changes by {slope:.7g} along a direction, and the gradient says {along:.7g}",
        hint="a part of it is cut off from the gradient: detach, stop_gradient, or a comparison",
    )
