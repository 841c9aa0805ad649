"""The guide to metrics has a row for each, courses that are read, and a metric of one's own that is scikit-learn's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import recall_score

from xbackend_fl import load_course
from xbackend_fl.losses import LOSSES
from xbackend_fl.metrics import METRICS, Metrics, Objective, Own

pytestmark = pytest.mark.quick


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs/guides/metrics.md").read_text(encoding="utf-8")


def test_there_is_a_row_for_each(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert not {name for name in METRICS if name != "loss"} - named


def test_courses_on_the_page_are_read(page: str, digits: Path, tmp_path: Path) -> None:
    found = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(found) == 2
    for number, text in enumerate(found):
        course = tmp_path / f"{number}.yaml"
        course.write_text((digits / "course.yaml").read_text() + text)
        for name in ("data.py", "torch_model.py", "keras_model.py"):
            (tmp_path / name).write_text((digits / name).read_text())
        assert load_course(course).chosen_by.direction == "max"


def test_the_metric_on_the_page_is_scikit_learns(page: str, tmp_path: Path) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "metrics.py").write_text(text)
    draw = np.random.default_rng(0)
    outputs, targets = draw.standard_normal((50, 2)), draw.integers(0, 2, 50)
    classes = Objective(LOSSES["cross_entropy"]("cross_entropy"), (2,), class_axis=1)
    own = Own.from_text(f"{tmp_path}/metrics.py:macro_recall")
    expected = recall_score(targets, outputs.argmax(1), average="macro")
    assert Metrics.measured(classes, outputs, targets, [own]).figures["macro_recall"] == pytest.approx(
        expected
    )
