"""A metric of the user's own is what its formula says of all data at once, however these are cut and wherever they lie."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import recall_score

from xbackend_fl import load_course
from xbackend_fl.course import dump
from xbackend_fl.errors import ConfigError, RunFailed, UpdateRefused
from xbackend_fl.losses import LOSSES
from xbackend_fl.metrics import Metrics, Objective, Own

pytestmark = pytest.mark.quick

FILE = Path(__file__).with_name("own_metrics.py")
CLASSES = Objective(LOSSES["cross_entropy"](), (3,), class_axis=1)
VALUES = Objective(LOSSES["mean_squared_error"](), (2,))


def own(name: str) -> Own:
    return Own.from_text(f"{FILE}:{name}")


def drawn(seed: int = 0, count: int = 50) -> tuple[Any, Any]:
    draw = np.random.default_rng(seed)
    return draw.standard_normal((count, 3)).astype(np.float32), draw.integers(0, 3, count)


def test_any_split_has_the_figure_of_all_data() -> None:
    outputs, targets = drawn()
    expected = recall_score(targets, outputs.argmax(1), average="macro")
    for cuts in ([], [1], [7, 7, 30], list(range(1, 50))):
        parts = zip(np.split(outputs, cuts), np.split(targets, cuts), strict=True)
        found = Metrics.total(Metrics.measured(CLASSES, *part, [own("Recall")]) for part in parts)
        assert found.figures["Recall"] == pytest.approx(expected, abs=1e-15)
        assert found.figures.keys() == {"loss", "Recall"}


def test_positions_that_do_not_count_are_not_handed_over() -> None:
    outputs, targets = drawn()
    targets[::3] = -100
    found = Metrics.measured(
        Objective(LOSSES["cross_entropy"](), (3,), 1, -100), outputs, targets, [own("Recall")]
    )
    counted = targets != -100
    expected = recall_score(targets[counted], outputs[counted].argmax(1), average="macro")
    assert found.figures["Recall"] == pytest.approx(expected, abs=1e-15)


def test_numbers_above_and_below_merge_without_cancelling() -> None:
    draw = np.random.default_rng(1)
    outputs, targets = draw.standard_normal((2, 30, 2)).astype(np.float32)
    parts = (slice(0, 4), slice(4, 30))
    found = Metrics.total(Metrics.measured(VALUES, outputs[p], targets[p], [own("MeanBias")]) for p in parts)
    errors = outputs.astype(np.float64) - targets.astype(np.float64)
    assert found.figures["MeanBias"] == pytest.approx(abs(errors.mean()), rel=1e-12)


def test_it_crosses_processes_and_the_wire() -> None:
    found = Metrics.measured(CLASSES, *drawn(), [own("Recall")])
    assert pickle.loads(pickle.dumps(found)) == found
    again = Metrics.from_fields(found.to_fields(), LOSSES["cross_entropy"](), (3,), [own("Recall")])
    assert again == found
    with pytest.raises(UpdateRefused, match="8 entries, expected those of the loss 'cross_entropy'"):
        Metrics.from_fields(found.to_fields(), LOSSES["cross_entropy"](), (3,))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Ratio.one": -1.0}, "Ratio has a negative sum"),
        ({"Ratio.one": float("nan")}, "Ratio.one is no finite number"),
        ({"Ratio.one": None}, "Ratio.one is a NoneType"),
        ({"Ratio.two": 0.0}, "value raised ZeroDivisionError"),
        ({"Ratio.three": 1.0}, "Ratio is not the sums one, two"),
    ],
)
def test_what_no_silo_can_have_is_refused(changes: dict[str, Any], reason: str) -> None:
    fields = {**Metrics.measured(CLASSES, *drawn(), [own("Ratio")]).to_fields(), **changes}
    with pytest.raises(UpdateRefused, match=reason):
        Metrics.from_fields(fields, LOSSES["cross_entropy"](), (3,), [own("Ratio")])
    del fields["Ratio.one"]
    with pytest.raises(UpdateRefused):
        Metrics.from_fields(fields, LOSSES["cross_entropy"](), (3,), [own("Ratio")])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Raises", "measure raised IndexError (own_metrics.py:"),
        ("GivesNan", "measure: one is nan, expected a finite number, 0 or more"),
        ("IsNegative", "measure: one is -1.0, expected a finite number, 0 or more"),
        ("GivesArray", "measure: one is an array of shape [50], expected one number"),
        ("GivesNumber", "measure returned float, expected a dict of one, two"),
        ("GivesOthers", "measure returned one, too, expected a dict of one, two"),
        ("Divides", "value raised ZeroDivisionError (own_metrics.py:"),
        ("HasNanValue", "value returned nan, expected a finite number"),
        ("HasTextValue", "value returned 'high', expected a finite number"),
        ("HasSwitchValue", "value returned True, expected a finite number"),
        ("GivesSwitch", "measure: one is True, expected one number"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FILE.parent)
    with pytest.raises(RunFailed) as caught:
        _ = Metrics.measured(CLASSES, *drawn(), [own(name)]).figures
    assert f"the metric {name} (own_metrics.py:" in caught.value.message
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("HasNoSums", "sums is (), expected 1 to 64 names"),
        ("HasNoDirection", "is no metric: it has no higher_is_better"),
        ("HasSumTwice", "sums is ('one', 'one'), with a name twice"),
        ("TakesOutputsOnly", "measure cannot be called with 2 arguments"),
        ("TakesNoSums", "value cannot be called with 1 argument"),
        ("Nothing", "has no callable 'Nothing'"),
    ],
)
def test_what_is_no_metric_is_refused(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _ = own(name).higher_is_better
    assert words in caught.value.message


def test_a_course_names_one(digits: Path, tmp_path: Path) -> None:
    course = load_course(digits / "course.yaml", [f"evaluation.best={FILE}:Recall"])
    assert course.figures.labels == ["loss", "accuracy", "Recall"]
    assert course.chosen_by.name == "Recall"
    (tmp_path / "course.yaml").write_text(dump(course))
    assert load_course(tmp_path / "course.yaml").heads == course.heads
    listed = load_course(digits / "course.yaml", [f"evaluation.metrics=[auc, {FILE}:Recall]"])
    assert listed.figures.labels == ["loss", "auc", "Recall"]
    assert listed.chosen_by.name == "loss"
    for said, words in (
        (f"{FILE}:accuracy", "a metric called accuracy is there already"),
        ("nowhere.py:recall", "no such file"),
        ("rmse", "evaluation.best is rmse, but the loss is cross_entropy"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_course(digits / "course.yaml", [f"evaluation.best={said}"])
