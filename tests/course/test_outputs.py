"""`training.outputs`: what is written is kept, and what does not go together is refused at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

import xbackend_fl as xb
from xbackend_fl import load_course
from xbackend_fl.course.agreed import agreed
from xbackend_fl.course.load import dump
from xbackend_fl.errors import ConfigError

pytestmark = pytest.mark.quick
OUTPUTS = "training.outputs={organ: {loss: cross_entropy, metrics: [accuracy, {name: f1, per_class: true}]}, age: {loss: {name: huber, delta: 2.0}, weight: 0.1}}"


@pytest.fixture
def digits(digits: Path, tmp_path: Path) -> Path:
    """The example, whose course says nothing of its loss."""
    for file in digits.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_text(file.read_text().replace("  loss: cross_entropy\n", ""))
    return tmp_path


def test_what_is_written_is_kept(digits: Path, tmp_path: Path) -> None:
    course = load_course(digits / "course.yaml", [OUTPUTS, "evaluation.reported={dose: min}"])
    assert course.figures.labels == [
        *("loss", "organ/loss", "organ/accuracy", "organ/f1", "age/loss", "age/mae", "age/r2", "age/rmse"),
        "dose",
    ]
    assert [(h.name, h.output, h.weight, h.loss.name) for h in course.heads.each] == [
        ("organ", "organ", 1.0, "cross_entropy"),
        ("age", "age", 0.1, "huber"),
    ]
    assert (course.chosen_by.name, course.chosen_by.direction) == ("loss", "min")
    (tmp_path / "again.yaml").write_text(dump(course))
    again = load_course(tmp_path / "again.yaml")
    assert again.heads == course.heads
    assert dump(again) == dump(course)


@pytest.mark.parametrize(
    ("figure", "direction"),
    [
        ("organ/accuracy", "max"),
        ("organ/f1.3", "max"),
        ("age/mae", "min"),
        ("loss", "min"),
        ("age/loss", "min"),
    ],
)
def test_any_figure_may_choose(figure: str, direction: str, digits: Path) -> None:
    course = load_course(digits / "course.yaml", [OUTPUTS, f"evaluation.best={figure}"])
    assert (course.chosen_by.name, course.chosen_by.direction) == (figure, direction)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["training.loss=huber"], "`training.loss` is of one loss, and training.outputs has one for each of organ, age"),
        (["training.ignore_index=-1"], "`training.ignore_index` is of one loss"),
        (["training.class_axis=1"], "training.outputs.organ.class_axis"),
        (["evaluation.metrics=[accuracy]"], "training.outputs.organ.metrics"),
        (["training.outputs.age.weight=0"], "greater than 0"),
        (["training.outputs.age.weight=-1"], "greater than 0"),
        (["training.outputs.age.weight=.nan"], "finite"),
        (["training.outputs.age.weight=1e7"], "1000000"),
        (["training.outputs.age.weight=1e-50"], "float32"),
        (["training.outputs.age.loss=hubber"], "did you mean `huber`"),
        (["training.outputs.age.metrics=[accuracy]"], "accuracy does not fit the loss huber"),
        (["training.outputs.age.metrics=[accurracy]"], "training.outputs.OUTPUT.metrics"),
        (["training.outputs.age.metrics=[mae, mae]"], "has mae twice"),
        (["training.outputs.age={weight: 1}"], "missing key `training.outputs.age.loss`"),
        (["training.outputs.age.wieght=1"], "unknown key `training.outputs.age.wieght`"),
        (["training.outputs.age.wieght=1"], "did you mean `weight`"),
        (["models.torch={build: a:b, trian: c:d}"], "did you mean `train`"),
        (["training.outputs={}"], "has 0 entries, and needs 1 at least"),
        (["training.outputs={a/b: {loss: huber}}"], "without dots and slashes, and 'a/b' is not"),
        (["training.outputs={main.organ: {loss: cross_entropy}}"], 'training.outputs: {organ: {output: "main.organ", loss: …}}'),
        (["training.outputs.age.ignore_index=0"], "`training.outputs.age.ignore_index` leaves out classes and labels, and huber is of quantities"),
        (["evaluation.best=organ/acuracy"], "organ/accuracy"),
        (["evaluation.best=accuracy"], "what is measured is loss, organ/loss, organ/accuracy"),
        (["early_stopping={metric: age/accuracy}"], "evaluation.metrics has loss, organ/loss"),
        (["training.schedule={name: plateau, metric: accuracy}"], "organ/accuracy"),
        (["evaluation.reported={accuracy: max}"], "the name of a metric"),
        (["evaluation.best={metric: loss, over: mean}"], "over participants (mean), who are not evaluated"),
        (["participants=[{name: a, backend: torch, training: {outputs: {a: {loss: huber}}}}]"], "same for everybody"),
        (["training.outputs.age.loss={torch: 'losses.py:a'}"], "training.outputs.age.loss has no function for tensorflow"),
        (["training.outputs.age.loss='nowhere.py:a'"], "nowhere.py"),
        (["training.outputs.age.metrics=['nowhere.py:a']"], "nowhere.py"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(settings: list[str], words: str, digits: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_course(digits / "course.yaml", [OUTPUTS, *settings])
    assert words in str(caught.value)


def test_an_output_of_quantities_may_say_that_all_count(digits: Path) -> None:
    course = load_course(digits / "course.yaml", [OUTPUTS, "training.outputs.age.ignore_index=null"])
    assert course.heads.each[1].ignore_index is None


def test_a_name_with_a_dot_is_cured_as_is_said(digits: Path) -> None:
    cure = '{organ: {output: "main.organ", loss: cross_entropy}}'
    (head,) = load_course(digits / "course.yaml", [f"training.outputs={cure}"]).heads.each
    assert (head.name, head.output) == ("organ", "main.organ")


def test_a_silo_trains_and_measures_the_same(digits: Path) -> None:
    course = load_course(digits / "course.yaml", [OUTPUTS])
    name = course.participants[0].name
    mine = agreed(course, name)
    for change in ("age.weight=0.2", "age.loss.delta=1.0", "organ.output=0", "organ.metrics=[accuracy]"):
        other = agreed(load_course(digits / "course.yaml", [OUTPUTS, f"training.outputs.{change}"]), name)
        assert other != mine, change


def test_in_python_it_is_the_same(digits: Path) -> None:
    outputs = {"organ": {"loss": "cross_entropy"}, 1: {"loss": "huber", "weight": 0.1}}
    course = xb.Course(
        name="scans",
        rounds=1,
        models={"torch": f"{digits}/torch_model.py:build"},
        input=["1,6"],
        data={"source": f"{digits}/data.py:load"},
        participants=[xb.Participant("osaka", "torch")],
        training={"outputs": outputs},
    )
    assert course.heads.names == ("organ", "1")
    with pytest.raises(ConfigError, match="loss"):
        xb.Course(**{**dict(course), "training": {"outputs": outputs, "loss": "huber"}})
