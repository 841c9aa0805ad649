"""Which axis holds the classes, what a target may be, and what is refused with which cure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.metrics.models import schema_with
from xbackend_fl.canonical import Axes
from xbackend_fl.canonical.node import Node
from xbackend_fl.errors import ConfigError
from xbackend_fl.losses import LOSSES
from xbackend_fl.metrics import Head, Heads, Objective, objective_of, objectives_of

pytestmark = pytest.mark.quick

CONV = Node("head", "Conv", ("x",), ("head",))
DENSE = Node("head", "Gemm", ("x",), ("head",))


def after(node: Node, operator: str, **attributes: Any) -> tuple[Node, Node]:
    return node, Node("last", operator, ("head",), ("last",), {}, attributes)


@pytest.mark.parametrize(
    ("output", "nodes", "targets", "declared", "axis"),
    [
        ((7,), (), (), None, 1),
        ((7,), (), (1,), None, 1),
        ((7, 1), (), (), None, 1),
        ((1, 7), (), (), None, 2),
        ((5, 7), (), (5,), None, 2),
        ((7, 5), (), (5,), None, 1),
        ((4, 5, 6), (), (5, 6), None, 1),
        ((4, 4, 6), (), (4, 6), 1, 1),
        ((4, 4, 4), (CONV,), (4, 4), None, 1),
        ((4, 4, 4), (CONV,), (4, 4), -1, 3),
        ((5, 5), (DENSE,), (5,), None, 2),
        ((5, 5), (CONV,), (5,), None, 1),
        ((5, 5), after(DENSE, "Relu"), (5,), None, 2),
        ((5, 5), after(DENSE, "Transpose", perm=(0, 2, 1)), (5,), None, 1),
        ((5, 5, 5), after(CONV, "Transpose", perm=(0, 2, 3, 1)), (5, 5), None, 3),
        ((5, 5), (), (5,), 1, 1),
        ((5, 5), (), (5,), -1, 2),
    ],
)
def test_the_axis_that_targets_lack(
    output: tuple[int, ...], nodes: Any, targets: tuple[int, ...], declared: int | None, axis: int
) -> None:
    labels = np.zeros((3, *targets), np.int64)
    found = objective_of(schema_with(output, *nodes), LOSSES["cross_entropy"](), labels, class_axis=declared)
    assert found.class_axis == axis
    assert found.num_classes == output[axis - 1]
    assert found.arranged(labels).shape == (3, *(n for i, n in enumerate(output, 1) if i != axis))


@pytest.mark.parametrize(
    ("output", "nodes"), [((5, 5), ()), ((5, 5), after(DENSE, "Reshape", shape=(0, 5, 5))), ((4, 4, 4), ())]
)
def test_what_is_truly_open_is_refused_with_the_cure(output: tuple[int, ...], nodes: Any) -> None:
    labels = np.zeros((3, *output[1:]), np.int64)
    with pytest.raises(ConfigError, match=r"the classes may be each of the axes 1, 2") as caught:
        objective_of(schema_with(output, *nodes), LOSSES["cross_entropy"](), labels)
    assert str(caught.value.hint).startswith("training.class_axis: 1, or ")
    cured = objective_of(schema_with(output, *nodes), LOSSES["cross_entropy"](), labels, class_axis=1)
    assert cured.class_axis == 1


REFUSED = [
    ("cross_entropy", (7,), np.zeros((3, 7)), "without its class axis", "np.argmax"),
    ("cross_entropy", (7,), np.zeros((3, 4), int), r"output is \[N, 7\], the targets are \[N, 4\]", "targets [N]"),
    ("cross_entropy", (5, 7), np.zeros((3, 4), int), r"output is \[N, 5, 7\]", "targets [N, 5] for 7 classes"),
    ("cross_entropy", (), np.zeros(3, int), "without its class axis", "binary_cross_entropy"),
    ("cross_entropy", (1,), np.zeros(3, int), "has one", "binary_cross_entropy"),
    ("cross_entropy", (7,), np.array(["cat"] * 3), "no numbers", "int64"),
    ("cross_entropy", (7,), np.array([1, 2, None]), "no numbers", "int64"),
    ("binary_cross_entropy", (7,), np.zeros(3), r"output \[N, 7\] with targets \[N\]", "targets [N, 7]"),
    ("mean_squared_error", (4, 3), np.zeros((3, 3, 4)), r"output \[N, 4, 3\] with targets \[N, 3, 4\]", "ONNX"),
    ("mean_squared_error", (1,), np.array(1.0), "one number", None),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "output", "targets", "message", "hint"), REFUSED)
def test_shapes_that_do_not_fit(loss: Any, output: Any, targets: Any, message: str, hint: str | None) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        objective_of(schema_with(output), LOSSES[loss](), targets)
    assert hint is None or hint in str(caught.value.hint)


def test_a_declared_axis_must_fit() -> None:
    with pytest.raises(ConfigError, match=r"training\.class_axis is 1"):
        objective_of(schema_with((5, 7)), LOSSES["cross_entropy"](), np.zeros((3, 5), int), class_axis=1)
    for axis in (0, 3, -3, 9):
        with pytest.raises(ConfigError, match="class_axis"):
            objective_of(
                schema_with((5, 5)), LOSSES["cross_entropy"](), np.zeros((3, 5), int), class_axis=axis
            )


FAULTS = [
    ("cross_entropy", (4,), [0, 1, 4], 2, "the target 4 is not a class of the model, 0 to 3"),
    ("cross_entropy", (4,), [0, -1, 9], 1, "the target -1 is not"),
    ("cross_entropy", (4,), [0.0, 1.5, 2.0], 1, "the target 1.5 is not"),
    ("cross_entropy", (4,), [0.0, 1.0, np.nan], 2, "the target nan is not"),
    ("cross_entropy", (4,), [0.0, np.inf, 1.0], 1, "the target inf is not"),
    ("cross_entropy", (4,), np.array([250, 0, 1], np.uint8), 0, "the target 250 is not"),
    ("cross_entropy", (2, 4), [[0, 1], [1, 2], [1, 7]], 2, "the target 7 at [1] is not"),
    ("binary_cross_entropy", (1,), [0.0, 1.0, 2.0], 2, "the target 2.0 is not a number from 0 to 1"),
    ("binary_cross_entropy", (1,), [0, -1, 1], 1, "the target -1 is not"),
    ("binary_cross_entropy", (2,), [[0, 1], [0, np.nan], [0, 0]], 1, "the target nan at [1] is not"),
    (
        "mean_squared_error",
        (1,),
        [0.0, np.nan, 1.0],
        1,
        "the target nan is not a number up to 9.2e+18, whose squared error and its derivative's square",
    ),
    ("mean_squared_error", (1,), [-np.inf, 0.0, 1.0], 0, "the target -inf is not"),
    ("mean_squared_error", (1,), [-9e18, 9e18, -1e19], 2, "the target -1e+19 is not"),
]


@pytest.mark.parametrize(("loss", "output", "targets", "row", "reason"), FAULTS)
def test_targets_out_of_range(loss: Any, output: Any, targets: Any, row: int, reason: str) -> None:
    array = np.asarray(targets)
    fault = objective_of(schema_with(output), LOSSES[loss](), array).fault(array)
    assert fault is not None
    assert fault.row == row
    assert reason in fault.reason


@pytest.mark.parametrize(
    ("loss", "output", "targets"),
    [
        ("cross_entropy", (4,), [0, 3, -100]),
        ("cross_entropy", (4,), [0.0, 3.0, -100.0]),
        ("cross_entropy", (2,), [True, False, True]),
        ("binary_cross_entropy", (1,), [True, False, True]),
        ("binary_cross_entropy", (1,), [0.25, 1.0, -100.0]),
        ("mean_squared_error", (1,), [-100, 9e18, 3]),
    ],
)
def test_targets_that_are_accepted(loss: Any, output: Any, targets: Any) -> None:
    array = np.asarray(targets)
    objective = objective_of(schema_with(output), LOSSES[loss](), array, ignore_index=-100)
    assert objective.fault(array) is None
    assert (objective.counting(array).ignore_index is None) == (
        loss == "mean_squared_error" or -100 not in array
    )


@pytest.mark.parametrize("ignored", [-100, 0])
def test_something_must_count(ignored: int) -> None:
    labels = np.full((3, 4), ignored)
    schema, loss = schema_with((4, 5)), LOSSES["cross_entropy"]()
    heads = Heads((Head("", loss, (), ignore_index=ignored),))
    with pytest.raises(ConfigError, match=f"no target counts: all are {ignored}") as caught:
        objectives_of(schema, heads, labels)
    assert "training.ignore_index: null" in str(caught.value.hint)
    labels[2, 3] = 1
    (read,) = objectives_of(schema, heads, labels).each
    assert read.objective.ignore_index == ignored


def test_what_is_ignored_is_a_choice() -> None:
    labels = np.array([0, 1, 2, -100])
    schema = schema_with((3,))
    fault = objective_of(schema, LOSSES["cross_entropy"](), labels, ignore_index=None).fault(labels)
    assert fault == (3, "the target -100 is not a class of the model, 0 to 2")
    padding = objective_of(schema, LOSSES["cross_entropy"](), labels[:3], ignore_index=0)
    assert padding.fault(labels[:3]) is None
    counted = padding.counted(labels[:3])
    assert counted is not None
    assert counted.tolist() == [False, True, True]


@pytest.mark.parametrize("perm", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 1, 0, 2), (2, 0, 1, 3)])
def test_native_order_and_back(perm: tuple[int, ...]) -> None:
    """Beside a turned output, targets stay beside their scores."""
    generator = np.random.default_rng(0)
    output, labels = generator.standard_normal((2, 3, 4, 5)), generator.integers(0, 3, (2, 4, 5))
    objective = objective_of(schema_with((3, 4, 5)), LOSSES["cross_entropy"](), labels)
    axes = Axes(perm)
    turned, targets = axes.to_native(output), axes.without(objective.class_axis).to_native(labels)
    scores = np.moveaxis(turned, perm.index(1), -1)
    expected = np.take_along_axis(np.moveaxis(output, 1, -1), labels[..., None], -1)
    found = np.take_along_axis(scores, targets[..., None], -1)
    np.testing.assert_array_equal(np.sort(found.ravel()), np.sort(expected.ravel()))


@pytest.mark.parametrize(
    ("output", "class_axis", "perm"),
    [
        ((4, 4), None, (0, 2, 1)),
        ((4, 1, 4), None, (0, 2, 3, 1)),
        ((4, 4, 4), None, (0, 2, 3, 1)),
        ((7, 4, 4), 1, (0, 3, 2, 1)),
    ],
)
def test_an_order_that_the_shape_does_not_show_is_said(
    output: tuple[int, ...], class_axis: int | None, perm: tuple[int, ...]
) -> None:
    objective = Objective(
        LOSSES["mean_squared_error" if class_axis is None else "cross_entropy"](), output, class_axis
    )
    assert "read in ONNX layout" in objective.layout_note(perm)
    # Somebody can be wrong unseen: the values lie elsewhere, in the same shape but for axes of length 1.
    values = np.arange(9 * np.prod(objective.targets)).reshape(9, *objective.targets)
    turned = Axes(perm).without(class_axis).to_native(values)
    assert np.squeeze(turned).shape == np.squeeze(values).shape
    assert not np.array_equal(np.squeeze(turned), np.squeeze(values))


@pytest.mark.parametrize(
    ("output", "class_axis", "perm"),
    [
        ((4, 5), None, (0, 2, 1)),
        ((4, 4), None, (0, 1, 2)),
        ((1, 4), None, (0, 2, 1)),
        ((3, 4, 4), None, (0, 2, 3, 1)),
        ((7, 4, 4), 1, (0, 2, 3, 1)),
        ((4, 4), 1, (0, 2, 1)),
    ],
)
def test_an_order_that_the_shape_shows_is_not_said(
    output: tuple[int, ...], class_axis: int | None, perm: tuple[int, ...]
) -> None:
    objective = Objective(
        LOSSES["mean_squared_error" if class_axis is None else "cross_entropy"](), output, class_axis
    )
    assert not objective.layout_note(perm)
    values = np.arange(9 * np.prod(objective.targets)).reshape(9, *objective.targets)
    turned = np.squeeze(Axes(perm).without(class_axis).to_native(values))
    assert turned.shape != np.squeeze(values).shape or np.array_equal(turned, np.squeeze(values))
