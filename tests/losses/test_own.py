"""A loss of the user's own trains only where it is one loss on every backend; else a line says what differs, where, and what to do."""

from __future__ import annotations

import pickle
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

import xbfl_tensorflow
import xbfl_torch
from tests.metrics.models import schema_with
from tests.participant import models
from xbackend_fl import load_course
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.course import Course, dump
from xbackend_fl.errors import ConfigError, MismatchError, RefusedInput
from xbackend_fl.losses import LOSSES, Loss, NativeLoss, OwnLoss
from xbackend_fl.mapping import pack_evidence, unpack_evidence
from xbackend_fl.metrics import Head, Metrics, Objective, Objectives, Read, objective_of
from xbackend_fl.participant import Worker
from xbackend_fl.participant.loss_proof import check_against, packed, try_losses

FILE = Path(__file__).with_name("own_losses.py")
ROOM = Path(models.__file__).parent
BACKENDS = ("torch", "tensorflow")


def own(name: str, targets: Any = "classes", **settings: Any) -> OwnLoss:
    return OwnLoss(file=f"{FILE}:{name}", targets=targets, settings=tuple(settings.items()))


def native(**names: str) -> NativeLoss:
    return NativeLoss(functions=tuple((b, f"{FILE}:{name}") for b, name in names.items()), targets="classes")


@cache
def model(backend: str) -> CanonicalModel:
    example = (np.zeros((2, 3), np.float32),)
    if backend == "torch":
        return CanonicalModel.described(xbfl_torch.adapter.load_model(torch.nn.Linear(3, 4), example))
    built = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    return CanonicalModel.described(xbfl_tensorflow.adapter.load_model(built, example))


def reading(loss: Loss, *, ignored: int | None = None) -> Objective:
    return Objective(loss, (4,), 1 if loss.targets == "classes" else None, ignored)


def alone(objective: Objective) -> Objectives:
    """Of a course with one loss."""
    return Objectives((Read(Head("", objective.loss, ()), 0, objective),))


def proven(loss: Any, *, ignored: int | None = None) -> None:
    """As both engines do it: the reference's answers travel, and the others are held against them."""
    objectives = alone(reading(loss, ignored=ignored))
    evidence = packed(try_losses(model("torch"), objectives))
    tried = try_losses(model("tensorflow"), objectives)
    assert len(tried[""]) == 5 + (ignored is not None) - (loss.targets != "classes")
    check_against(tried, evidence, objectives, "tensorflow", "torch")


@pytest.mark.parametrize(
    "loss",
    [
        own("focal"),
        own("focal", gamma=3),
        own("LogCosh", "values", scale=2.0),
        native(torch="torch_smooth", tensorflow="keras_smooth"),
        native(torch="torch_each", tensorflow="keras_smooth", numpy="numpy_mean"),
    ],
    ids=lambda loss: loss.name,
)
def test_one_loss_on_both_sides_is_proven(loss: Any) -> None:
    proven(loss)


@pytest.mark.parametrize(
    ("wrong", "words", "cured"),
    [
        (
            "naive",
            r"the loss naive \(own_losses.py:\d+\) in \w+ has a value of \w+ for extreme outputs, ±100",
            "naive_cured",
        ),
        ("raises", r"the loss raises raised KeyError \(own_losses.py:\d+\)", None),
        ("of_two", r"the loss of_two raised TypeError \(own_losses.py:\d+\)", "of_two_cured"),
        (
            "of_classes",
            r"of_classes \(own_losses.py:\d+\) returned the shape \[4, 4\], expected \[4\]: one number per position",
            "of_classes_cured",
        ),
        (
            "number",
            r"number \(own_losses.py:\d+\) returned a float, expected one number per position",
            "number_cured",
        ),
        ("steps", r"steps \(own_losses.py:\d+\) in \w+ has no gradient", "steps_cured"),
        ("WithoutEach", "is a class without each", None),
        ("nothing", "has no callable 'nothing'", None),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_wrong_is_said_with_its_place_and_a_cure(
    backend: str, wrong: str, words: str, cured: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FILE.parent)
    with pytest.raises(RefusedInput, match=words) as caught:
        try_losses(model(backend), alone(reading(own(wrong))))
    assert "\n" not in caught.value.message
    if cured is not None:
        assert caught.value.hint or "expected [4]" in caught.value.message
        try_losses(model(backend), alone(reading(own(cured))))


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        *(("torch", name) for name in ("torch_twice", "torch_bit_more", "torch_normed", "torch_cut")),
        ("tensorflow", "keras_twice"),
    ],
)
def test_a_gradient_that_is_not_its_value_s_is_refused_where_nobody_else_contradicts(
    backend: str, name: str
) -> None:
    words = (
        rf"the loss {name} .* has a gradient that is not its own value's: for \w+ \w+ the value changes by"
    )
    with pytest.raises(MismatchError, match=words):
        try_losses(model(backend), alone(reading(native(**{backend: name}))))


@pytest.mark.parametrize("size", [4, 400])
@pytest.mark.parametrize(
    "name",
    ["torch_hinge", "torch_l1", "torch_huge", "torch_sharp", "torch_clipped", "torch_smooth", "torch_sum"],
)
def test_corners_large_values_and_steep_ones_are_no_wrong_gradient(name: str, size: int) -> None:
    example = (np.zeros((2, 3), np.float32),)
    wide = CanonicalModel.described(xbfl_torch.adapter.load_model(torch.nn.Linear(3, size), example))
    assert try_losses(wide, alone(Objective(native(torch=name), (size,), 1, None)))[""]


def test_a_formula_that_is_steep_where_a_model_is_sure_is_found() -> None:
    """``x ** 0.5`` has no derivative at 0, which only a draw with sure answers reaches."""
    for backend in BACKENDS:
        with pytest.raises(RefusedInput, match="has a gradient of NaN for extreme outputs, ±100"):
            try_losses(model(backend), alone(reading(own("focal", gamma=0.5))))


def test_a_setting_that_it_has_not_is_said() -> None:
    with pytest.raises(RefusedInput, match="unexpected keyword argument 'gama'") as caught:
        try_losses(model("torch"), alone(reading(own("focal", gama=1.0))))
    assert "def focal(outputs, targets, ops)" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("torch_smooth", "keras_less"), r"for usual outputs the values are [\d.]+ and [\d.]+ \([\d.]+ times as much\), and the gradients differ by up to"),
        (("torch_sum", "keras_smooth"), r"for usual outputs the values are [\d.]+ and [\d.]+ \(0\.25 times as much\)"),
        (("torch_cut", "keras_smooth"), "torch_cut .* has a gradient that is not its own value's: for usual outputs the value changes by"),
        (("torch_numpy", "keras_smooth"), r"torch_numpy \(own_losses.py:\d+\).* has no gradient"),
    ],
)  # fmt: skip
def test_two_losses_are_told_apart(
    pair: tuple[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FILE.parent)
    with pytest.raises(RefusedInput, match=words):
        proven(native(torch=pair[0], tensorflow=pair[1]))


def test_a_gradient_that_is_not_its_value_s_is_seen_by_one_backend_alone() -> None:
    loss = native(torch="torch_cut", tensorflow="keras_smooth", numpy="numpy_smooth")
    with pytest.raises(MismatchError, match="a gradient that is not its own value's"):
        try_losses(model("torch"), alone(reading(loss)))
    with pytest.raises(MismatchError, match="its formula in float64"):
        try_losses(model("tensorflow"), alone(reading(native(tensorflow="keras_less", numpy="numpy_smooth"))))


def test_targets_that_do_not_count_need_one_number_per_position() -> None:
    proven(own("focal"), ignored=-100)
    proven(native(torch="torch_each", tensorflow="keras_smooth"), ignored=-100)
    with pytest.raises(ConfigError, match="gave one number, and some targets do not count") as caught:
        try_losses(model("torch"), alone(reading(native(torch="torch_smooth"), ignored=-100)))
    assert "reduction='none'" in str(caught.value.hint)


def test_figures_are_of_the_formula_or_of_the_backend_that_is_asked() -> None:
    draw = np.random.default_rng(0)
    outputs, targets = draw.standard_normal((9, 4)).astype(np.float32), draw.integers(0, 4, 9)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(outputs), torch.tensor(targets), label_smoothing=0.1
    )
    for numpy in ("numpy_smooth", "numpy_mean"):
        objective = objective_of(schema_with((4,)), native(torch="torch_smooth", numpy=numpy), targets)
        assert Metrics.measured(objective, outputs, targets).loss == pytest.approx(expected.item(), rel=1e-6)
    objective = objective_of(
        schema_with((4,)), own("focal", gamma=0.0), targets, ignore_index=int(targets[0])
    )
    plain = objective_of(schema_with((4,)), LOSSES["cross_entropy"](), targets, ignore_index=int(targets[0]))
    found, wanted = (Metrics.measured(one, outputs, targets) for one in (objective, plain))
    assert found.figures == pytest.approx(wanted.figures)


def course_of(folder: Path, loss: str, participants: str = "{torch: 1, tensorflow: 1}") -> Course:
    (folder / "course.yaml").write_text(f"""
name: small
rounds: 1
models: {{torch: "{ROOM}/models.py:normalised", tensorflow: "{ROOM}/models.py:keras_normalised"}}
input: ["1,8"]
data: {{source: "{ROOM}/loaders.py:good"}}
participants: {participants}
training: {{batch_size: 16, loss: {loss}}}
""")
    return load_course(folder / "course.yaml")


def test_a_course_names_one(tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text(FILE.read_text())
    said = {
        "{name: 'losses.py:focal', targets: classes, settings: {gamma: 1.5}, applies: [Softmax]}": OwnLoss,
        "'losses.py:LogCosh'": OwnLoss,
        "{torch: 'losses.py:torch_smooth', tensorflow: 'losses.py:keras_smooth', targets: classes}": NativeLoss,
    }
    for text, kind in said.items():
        course = course_of(tmp_path, text)
        (head,) = course.heads.each
        assert isinstance(head.loss, kind)
        assert pickle.loads(pickle.dumps(head)) == head
        (tmp_path / "again.yaml").write_text(dump(course))
        assert load_course(tmp_path / "again.yaml").heads == course.heads
    for text, words in (
        ("{torch: 'losses.py:torch_smooth', targets: classes}", "no function for tensorflow"),
        ("{torch: 'losses.py:a', tensorflow: 'losses.py:b', jax: 'losses.py:c'}", "a function for jax"),
        ("'nowhere.py:focal'", "no such file"),
        ("{name: 'losses.py:focal', target: classes}", "target"),
        ("[cross_entropy, huber]", "the loss is a list, and an output has one"),
        ("{name: 'losses.py:focal', targets: labels}", "classes"),
    ):
        with pytest.raises(ConfigError, match=words):
            course_of(tmp_path, text)


def test_the_reference_s_answers_travel_with_its_evidence(tmp_path: Path) -> None:
    """What a simulation hands on between workers, and a server between silos, is the same."""
    (tmp_path / "losses.py").write_text(FILE.read_text())
    text = "{torch: 'losses.py:torch_smooth', tensorflow: 'losses.py:keras_%s', targets: classes}"
    same = course_of(tmp_path, text % "smooth")
    schema, evidence = Worker(same, "torch", 1).evidence()
    arrays, about = pack_evidence(schema, evidence)
    sent = unpack_evidence(arrays, about, schema, "a message")
    worker = Worker(same, "tensorflow", 1)
    worker.bind(schema, sent)
    # Figures are the backend's where NumPy has no formula.
    found = worker.evaluate(worker.initial(), "validation")
    assert 0.5 < found.loss < 5
    with pytest.raises(
        MismatchError, match=r"the loss keras_less .* and the loss torch_smooth .* are two losses"
    ):
        Worker(course_of(tmp_path, text % "less"), "tensorflow", 1).bind(schema, sent)
