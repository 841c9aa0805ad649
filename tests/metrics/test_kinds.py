"""Metrics that a course asks for are scikit-learn's, for any data and any division of them."""

from __future__ import annotations

import base64
import functools
import itertools
import json
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    jaccard_score,
    log_loss,
    roc_auc_score,
    top_k_accuracy_score,
)

from tests.metrics.models import schema_with
from xbackend_fl.errors import UpdateRefused
from xbackend_fl.losses import LOSSES
from xbackend_fl.metrics import METRICS, Metrics, objective_of
from xbackend_fl.metrics.ranking import Histogram, log_odds

pytestmark = pytest.mark.quick

Array = NDArray[Any]
CLASSES = [kind(name) for name, kind in METRICS.items() if "classes" in kind.fits and name != "loss"]
SHARES = [kind(name) for name, kind in METRICS.items() if "shares" in kind.fits and name != "loss"]


def made(name: str, **settings: Any) -> Any:
    return METRICS[name](name, **settings)


def drawn(shape: tuple[int, ...], seed: int, kind: str = "normal") -> Array:
    """Scores: spread, crowded, extreme, tied, or one for all."""
    draw = np.random.default_rng(seed)
    scores = draw.standard_normal(shape)
    match kind:
        case "crowded":
            scores = 5 + scores * 1e-6
        case "extreme":
            scores = scores * 10.0 ** draw.integers(-30, 30, shape)
        case "tied":
            scores = np.round(scores)
        case "constant":
            scores = np.ones(shape)
        case _:
            pass
    return scores.astype(np.float32)


KINDS = st.sampled_from(["normal", "crowded", "extreme", "tied", "constant"])


def measured(loss: str, output: Array, targets: Array, metrics: Any, ignore: int | None = None) -> Metrics:
    schema = schema_with(output.shape[1:])
    objective = objective_of(schema, LOSSES[loss](loss), targets, ignore_index=ignore)
    return Metrics.measured(objective, output, targets, metrics)


def macro(score: Any, truth: Array, scores: Array) -> float | None:
    """scikit-learn's figure of every column that has both kinds of positions, and their mean."""
    each = [score(t, s) for t, s in zip(truth.T, scores.T, strict=True) if 0 < t.sum() < len(t)]
    return float(np.mean(each)) if each else None


@settings(max_examples=25)
@given(
    count=st.integers(1, 60),
    classes=st.integers(2, 7),
    kind=KINDS,
    seed=st.integers(0, 999),
    ignored=st.booleans(),
)
def test_classes(count: int, classes: int, kind: str, seed: int, *, ignored: bool) -> None:
    output = drawn((count, classes), seed, kind)
    targets = np.random.default_rng(seed + 1).integers(0, classes, count)
    kept = np.random.default_rng(seed).random(count) < (0.7 if ignored else 1.1)
    metrics = [m for m in CLASSES if m.name != "top_k"] + [made("top_k", k=k) for k in range(1, classes)]
    found = measured("cross_entropy", output, np.where(kept, targets, -100), metrics, -100).figures
    output, targets = output[kept].astype(np.float64), targets[kept]
    if not kept.any():
        assert not found
        return
    chosen = output.argmax(1)
    assert found["f1"] == pytest.approx(f1_score(targets, chosen, average="macro"), abs=1e-12)
    assert found["dice"] == found["f1"]
    assert found["iou"] == pytest.approx(jaccard_score(targets, chosen, average="macro"), abs=1e-12)
    if kind not in {"extreme", "tied", "constant"} and classes > 2:
        for k in range(1, classes):
            # Of equal scores scikit-learn takes the last, and this the first.
            expected = top_k_accuracy_score(targets, output[:, ::-1][:, ::-1], k=k, labels=range(classes))
            ties = len(np.unique(output, axis=None)) < output.size
            assert ties or found[f"top_{k}"] == pytest.approx(expected, abs=1e-12)
    assert found["top_1"] == found["accuracy"]
    truth = targets[:, None] == np.arange(classes)
    scores = log_odds(output)
    for name, score in (("auc", roc_auc_score), ("average_precision", average_precision_score)):
        expected = macro(score, truth, scores)
        assert found.get(name) == (None if expected is None else pytest.approx(expected, abs=1e-9))
    if kind == "normal":
        expected = np.exp(log_loss(targets, np.exp(log_softmax(output, 1)), labels=range(classes)))
        assert found["perplexity"] == pytest.approx(expected, rel=1e-9)
        probabilities = np.exp(log_softmax(output, 1))
        assert found.get("auc") == (
            None
            if (best := macro(roc_auc_score, truth, probabilities)) is None
            else pytest.approx(best, abs=1e-9)
        )


@settings(max_examples=20)
@given(
    count=st.integers(1, 40),
    shape=st.sampled_from([(), (1,), (3,), (2, 4)]),
    kind=KINDS,
    seed=st.integers(0, 999),
)
def test_labels_that_are_questions_of_their_own(
    count: int, shape: tuple[int, ...], kind: str, seed: int
) -> None:
    output = drawn((count, *shape), seed, kind)
    truth = np.random.default_rng(seed + 1).integers(0, 2, output.shape)
    kept = np.random.default_rng(seed).random(output.shape) < 0.7
    targets = np.where(kept, truth, -100)
    found = measured("binary_cross_entropy", output, targets, SHARES, -100)
    columns = 3 if shape == (3,) else 1
    logits, labels, there = (a.reshape(-1, columns) for a in (output, truth, kept))
    each: dict[str, list[float]] = {"f1": [], "iou": [], "auc": [], "average_precision": []}
    for column in range(columns):
        rows = there[:, column]
        t, s = labels[rows, column], logits[rows, column].astype(np.float64)
        if (t | (s > 0)).any():
            each["f1"].append(f1_score(t, s > 0))
            each["iou"].append(jaccard_score(t, s > 0))
        if 0 < t.sum() < len(t):
            each["auc"].append(roc_auc_score(t, s))
            each["average_precision"].append(average_precision_score(t, s))
    for name, values in each.items():
        assert found.figures.get(name) == (pytest.approx(np.mean(values), abs=1e-12) if values else None)
        assert values or not found.positions or any(name in note for note in found.notes)


@settings(max_examples=12)
@given(
    cuts=st.lists(st.integers(0, 60), max_size=8),
    kind=KINDS,
    seed=st.integers(0, 99),
    shares=st.booleans(),
    bins=st.sampled_from([1 << 10, 1 << 18]),
)
def test_any_division_has_the_same_figures(
    cuts: list[int], kind: str, seed: int, *, shares: bool, bins: int
) -> None:
    """Also where ranks are dropped: 60 positions of 5 classes have more scores than 1024 bins for 20 classes hold."""
    loss, metrics = ("binary_cross_entropy", SHARES) if shares else ("cross_entropy", CLASSES)
    metrics = [made(m.name, bins=bins) if hasattr(m, "bins") else m for m in metrics]
    output = drawn((60, 20), seed, kind)
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, 2, (60, 20)) if shares else draw.integers(0, 20, 60)
    edges = [0, *sorted(cuts), 60]
    parts = [
        measured(loss, output[a:b], targets[a:b], metrics) for a, b in itertools.pairwise(edges) if b > a
    ]
    sent = [
        Metrics.from_fields(json.loads(json.dumps(part.to_fields())), LOSSES[loss](loss), (20,), metrics)
        for part in parts
    ]
    half = len(sent) // 2
    found = Metrics.total([Metrics.total(sent[half:]), Metrics.total(sent[:half])])
    whole = measured(loss, output, targets, metrics)
    assert found.figures == pytest.approx(whole.figures, rel=1e-12)
    exact = {k: v for k, v in whole.to_fields().items() if isinstance(v, str)}
    assert exact
    assert {k: v for k, v in found.to_fields().items() if isinstance(v, str)} == exact


@given(
    scores=st.lists(st.floats(allow_nan=False), min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    bins=st.integers(2, 16),
)
def test_few_bins_drop_the_same_bits_in_any_division(scores: list[float], cuts: list[int], bins: int) -> None:
    values, own = np.array(scores), np.arange(len(scores)) % 3 == 0
    whole = Histogram.from_scores(values, own, bins)
    edges = [0, *sorted(cuts), len(scores)]
    parts = [Histogram.from_scores(values[a:b], own[a:b], bins) for a, b in itertools.pairwise(edges)]
    found = functools.reduce(lambda one, other: one.added(other, bins), parts)
    assert found.sums().tolist() == whole.sums().tolist()
    assert len(whole.ranks) <= bins
    ordered = np.unique(values + 0.0)
    assert whole.shift > 0 or len(whole.ranks) == len(ordered)
    # As few bits as will do: with one less there would be too many bins.
    finer = Histogram.from_scores(ordered, np.zeros(len(ordered), bool), 1 << 20).ranks
    assert whole.shift == 0 or len(np.unique(finer >> (whole.shift - 1))) > bins


@pytest.mark.parametrize("kind", ["normal", "crowded", "extreme"])
@pytest.mark.parametrize(
    ("name", "score"), [("auc", roc_auc_score), ("average_precision", average_precision_score)]
)
def test_more_scores_than_bins(name: str, score: Any, kind: str) -> None:
    draw = np.random.default_rng(0)
    targets = draw.integers(0, 2, 50_000)
    output = drawn((50_000,), 1, kind)
    shift = np.median(np.abs(output - np.median(output)))
    output = np.where(targets, output + shift, output).astype(np.float32)
    expected = score(targets, output)
    for bins in (1 << 10, 1 << 13, 1 << 18):
        found = measured("binary_cross_entropy", output, targets, [made(name, bins=bins)])
        if name in found.figures:
            assert found.figures[name] == pytest.approx(expected, abs=1e-3 if bins < 1 << 18 else 1e-12)
        else:
            assert f"{name} is not known to 0.001" in found.notes[0]
    assert name in found.figures
    few = measured("binary_cross_entropy", output, targets, [made(name, bins=1 << 13)])
    assert (name in few.figures) or kind == "extreme"


def test_a_crowd_among_many_others_is_said_and_not_guessed() -> None:
    """Half of all scores within a millionth, the rest over all of float32: few bins cannot hold both."""
    draw = np.random.default_rng(0)
    crowd, wide = drawn((20_000,), 0, "crowded"), drawn((20_000,), 1, "extreme")
    output, targets = np.concatenate([crowd, wide]), draw.integers(0, 2, 40_000)
    few, many = (
        measured("binary_cross_entropy", output, targets, [made("auc", bins=b)]) for b in (1 << 10, 1 << 18)
    )
    assert "auc" not in few.figures
    assert few.notes == (
        "auc is not known to 0.001, but to 0.1: too many scores lie too close for 1,024 bins ({name: auc, bins: 16384})",
    )
    assert many.figures["auc"] == pytest.approx(roc_auc_score(targets, output), abs=1e-12)


def test_scores_next_to_one_are_in_order() -> None:
    """Softmax is 1 in float64 for all of them; the odds are not."""
    output = np.stack([np.linspace(50, 300, 40), np.zeros(40)], 1).astype(np.float32)
    targets = (np.arange(40) < 10).astype(int)
    assert measured("cross_entropy", output, targets, [made("auc")]).figures["auc"] == 1.0
    odds = log_odds(output.astype(np.float64))
    assert odds[:, 0] == pytest.approx(output[:, 0], rel=1e-12)
    assert odds[:, 1] == pytest.approx(-output[:, 0], rel=1e-12)


def test_segmentation_reads_any_class_axis() -> None:
    for shape, axis in (((3, 4, 5), 1), ((4, 5, 3), 3)):
        output = drawn((6, *shape), 2)
        scores = np.moveaxis(output, axis, -1)
        targets = np.random.default_rng(3).integers(0, 3, scores.shape[:-1])
        kept = np.random.default_rng(4).random(targets.shape) < 0.8
        metrics = [made("dice", background=0, per_class=True), made("iou")]
        found = measured("cross_entropy", output, np.where(kept, targets, 255), metrics, 255).figures
        each = f1_score(targets[kept], scores[kept].argmax(-1), average=None)
        assert [found[f"dice.{n}"] for n in range(3)] == pytest.approx(each)
        assert found["dice"] == pytest.approx(np.mean(each[1:]))
        assert found["iou"] == pytest.approx(
            jaccard_score(targets[kept], scores[kept].argmax(-1), average="macro")
        )


def test_what_is_not_defined_is_said() -> None:
    output, targets = drawn((5, 3), 0), np.zeros(5, np.int64)
    found = measured("cross_entropy", output, targets, [made("auc")])
    assert found.notes == ("auc is not defined: no class has positions and others beside it",)
    found = measured("cross_entropy", output, np.array([0, 0, 1, 1, 0]), [made("auc", per_class=True)])
    assert found.figures.keys() == {"loss", "auc", "auc.0", "auc.1"}
    assert found.notes == (
        "auc is the mean over 2 of 3 classes; of the others there is no position, or nothing else",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        broken = measured(
            "cross_entropy", np.full((2, 3), np.nan, np.float32), np.array([0, 1]), [made("auc")]
        )
    assert broken.notes == ("auc is not defined: some scores are no numbers",)
    huge = np.array([[3e38, -3e38]], np.float32)
    found = measured("cross_entropy", huge, np.ones(1, np.int64), [made("perplexity")])
    assert found.notes == ("perplexity is larger than float64 holds",)
    objective = objective_of(schema_with((3,)), LOSSES["cross_entropy"]("cross_entropy"), targets)
    assert made("top_k", k=3).unfit(objective) == "top_3 is always 1 with 3 classes"
    assert "background is 3" in made("iou", background=3).unfit(objective)


@given(data=st.data())
def test_counts_that_no_data_give_are_refused(data: st.DataObject) -> None:
    """Whatever is changed of an honest silo's counts: what is taken has figures from 0 to 1, and the right number of positions."""
    metrics = [made("auc"), made("f1")]
    fields = measured("cross_entropy", drawn((9, 3), 0), np.arange(9) % 3, metrics).to_fields()
    name = data.draw(st.sampled_from(["auc.0", "auc.2", "f1"]))
    counts = np.frombuffer(base64.b64decode(str(fields[name])), "<i8").copy()
    place = data.draw(st.integers(0, len(counts) - 1))
    counts[place] = data.draw(st.sampled_from([-1, 0, 1, 2, 9, 10, 64, 2**62, -(2**63)]))
    text = base64.b64encode(counts.tobytes()[: data.draw(st.sampled_from([None, None, -8, -3]))])
    try:
        found = Metrics.from_fields(
            fields | {name: text.decode()}, LOSSES["cross_entropy"]("cross_entropy"), (3,), metrics
        )
    except UpdateRefused:
        return
    assert all(0 <= found.figures[name] <= 1 for name in ("auc", "f1") if name in found.figures)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (1.0, "f1 is a float, expected counts"),
        ("!", "f1 is no array of counts"),
        ("A" * 4000, "f1 holds more than 9 counts"),
        ("AAAA", "f1 is no array of counts: 3 bytes"),
        ("", "f1 is not three counts for each class"),
    ],
)
def test_texts_that_are_no_counts_are_refused(value: Any, reason: str) -> None:
    metrics = [made("f1")]
    fields = measured("cross_entropy", drawn((9, 3), 0), np.arange(9) % 3, metrics).to_fields()
    with pytest.raises(UpdateRefused, match=reason):
        Metrics.from_fields(fields | {"f1": value}, LOSSES["cross_entropy"]("cross_entropy"), (3,), metrics)
