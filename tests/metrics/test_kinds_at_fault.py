"""Metrics that write into what they read, raise, or have no figure: named, and the others are not touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from xbackend_fl.errors import RunFailed
from xbackend_fl.losses.kinds.cross_entropy import CrossEntropy
from xbackend_fl.metrics import Metrics, Objective
from xbackend_fl.metrics.kinds.accuracy import Accuracy
from xbackend_fl.metrics.metric import ANY, Mean
from xbackend_fl.metrics.own import Own
from xbackend_fl.metrics.pairs import Pairs

pytestmark = pytest.mark.quick

OUTPUTS, TARGETS = np.array([[2.0, 1.0], [3.0, 0.0], [1.0, 0.0]], np.float32), np.array([0, 1, 1])
OBJECTIVE = Objective(CrossEntropy(), (2,), class_axis=1)


@dataclass(frozen=True)
class Faulty(Mean):
    """What a new file of the toolkit may be."""

    fits = ANY
    name: Literal["faulty"] = "faulty"
    mean: float | None = None

    def per_position(self, pairs: Pairs) -> NDArray[Any]:
        if self.mean is None:
            raise ZeroDivisionError("no classes")
        return np.ones(pairs.positions)

    def figure(self, mean: float) -> float:
        assert self.mean is not None
        return mean * self.mean


def measured(metric: Any) -> Metrics:
    return Metrics.measured(OBJECTIVE, OUTPUTS, TARGETS, [metric, Accuracy()])


def test_one_that_raises_is_named_with_its_line() -> None:
    with pytest.raises(
        RunFailed,
        match=r"the metric faulty: measure raised ZeroDivisionError .*test_kinds_at_fault.py.*no classes",
    ):
        measured(Faulty())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_figure_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(RunFailed, match=f"the metric faulty: figures returned {value} for faulty"):
        _ = measured(Faulty(mean=value)).figures


@pytest.mark.parametrize("array", ["outputs", "targets"])
def test_one_cannot_change_what_the_others_read(array: str, tmp_path: Any) -> None:
    file = tmp_path / "metric.py"
    file.write_text(
        "class Writing:\n"
        "    sums, higher_is_better = ('a',), True\n"
        "    def measure(self, outputs, targets):\n"
        f"        {array}[:] = 0\n"
        "        return {'a': 1}\n"
        "    def value(self, sums):\n"
        "        return 1.0\n"
    )
    with pytest.raises(RunFailed, match=r"the metric Writing .*metric.py:4.*read-only"):
        measured(Own.from_text(f"{file}:Writing"))
    assert measured(Faulty(mean=1)).figures["accuracy"] == pytest.approx(1 / 3)


def test_a_whole_number_that_no_float_holds_is_refused(tmp_path: Any) -> None:
    file = tmp_path / "metric.py"
    file.write_text(
        "class Huge:\n"
        "    sums, higher_is_better = ('a',), True\n"
        "    def measure(self, outputs, targets):\n"
        "        return {'a': 10 ** 400}\n"
        "    def value(self, sums):\n"
        "        return 1.0\n"
    )
    with pytest.raises(RunFailed, match="measure: a is inf, expected a finite number"):
        measured(Own.from_text(f"{file}:Huge"))
