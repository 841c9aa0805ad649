"""Metrics of a user's own: right ones, and one of each kind of mistake."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class Recall:
    """Macro recall of three classes."""

    sums = tuple(f"{kind}_{label}" for kind in ("found", "there") for label in range(3))
    higher_is_better = True

    def measure(self, outputs: Any, targets: Any) -> dict[str, Any]:
        chosen = outputs.argmax(1)
        found = {f"found_{label}": ((targets == label) & (chosen == label)).sum() for label in range(3)}
        return found | {f"there_{label}": np.sum(targets == label) for label in range(3)}

    def value(self, sums: Any) -> float | None:
        shares = [sums[f"found_{n}"] / sums[f"there_{n}"] for n in range(3) if sums[f"there_{n}"]]
        return sum(shares) / len(shares) if shares else None


class MeanBias:
    """How far outputs lie above targets, and below, in the mean."""

    sums = ("above", "below", "count")
    higher_is_better = False

    def measure(self, outputs: Any, targets: Any) -> dict[str, Any]:
        errors = outputs - targets
        return {
            "above": errors[errors > 0].sum(),
            "below": -errors[errors < 0].sum(),
            "count": np.array(errors.size),
        }

    def value(self, sums: Any) -> float | None:
        return abs(sums["above"] - sums["below"]) / sums["count"] if sums["count"] else None


class Ratio:
    """Right where both are there."""

    sums = ("one", "two")
    higher_is_better = True

    def measure(self, outputs: Any, targets: Any) -> Any:
        del outputs, targets
        return {"one": 1, "two": 2}

    def value(self, sums: Any) -> Any:
        return sums["one"] / sums["two"]


def _mistaken(**changes: Any) -> type[Ratio]:
    return type("Mistaken", (Ratio,), changes)


Raises = _mistaken(measure=lambda _, outputs, __: {"one": outputs[:, 99].sum(), "two": 1})
GivesNan = _mistaken(measure=lambda *_: {"one": math.nan, "two": 1})
GivesArray = _mistaken(measure=lambda _, outputs, __: {"one": outputs.max(1), "two": 1})
GivesNumber = _mistaken(measure=lambda *_: 0.5)
GivesOthers = _mistaken(measure=lambda *_: {"one": 1, "too": 2})
IsNegative = _mistaken(measure=lambda *_: {"one": -1, "two": 2})
Divides = _mistaken(measure=lambda *_: {"one": 1, "two": 0})
HasNanValue = _mistaken(value=lambda *_: math.nan)
HasTextValue = _mistaken(value=lambda *_: "high")
HasNoSums = _mistaken(sums=())


class HasNoDirection:
    sums = ("one",)

    def measure(self, outputs: Any, targets: Any) -> Any:
        raise NotImplementedError

    def value(self, sums: Any) -> Any:
        raise NotImplementedError


def accuracy() -> Ratio:
    """A name that is taken."""
    return Ratio()


class HasSwitchValue(HasTextValue):
    def value(self, sums: Any) -> Any:
        del sums
        return True


class GivesSwitch(HasTextValue):
    def measure(self, outputs: Any, targets: Any) -> Any:
        del outputs, targets
        return {"one": True, "two": 1.0}


class HasSumTwice(HasTextValue):
    sums = ("one", "one")


class TakesOutputsOnly(HasTextValue):
    def measure(self, outputs: Any) -> Any:
        del outputs
        return {"one": 1.0, "two": 1.0}


class TakesNoSums(HasTextValue):
    def value(self) -> Any:
        return 1.0
