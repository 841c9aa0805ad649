"""Settings of training that a participant has for itself."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tests.algorithms.smooth import course_of
from tests.federation.links import deployed
from tests.federation.local import LocalLink
from xbackend_fl import load_course, run_course
from xbackend_fl.adapter.optimizers.kinds.adagrad import Adagrad
from xbackend_fl.adapter.optimizers.kinds.adam import Adam
from xbackend_fl.adapter.optimizers.kinds.adamw import AdamW
from xbackend_fl.adapter.optimizers.kinds.momentum import Momentum
from xbackend_fl.course import dump
from xbackend_fl.errors import ConfigError, RunFailed
from xbackend_fl.events import Event, Noted
from xbackend_fl.federation import Silo
from xbackend_fl.participant import CourseData

OWN = "participants.1.training={batch_size: 4, optimizer: {lr: 0.3}, clip_norm: null}"


@pytest.mark.quick
def test_what_a_participant_leaves_out_is_the_courses(tmp_path: Path) -> None:
    course = course_of(tmp_path, ["torch"], OWN, "training.clip_norm=5")
    mine, others = course.trainings["ben"], course.trainings["ada"]
    assert others is course.training
    assert (mine.batch_size, mine.optimizer.lr, mine.clip_norm) == (4, 0.3, None)
    assert (mine.epochs, mine.optimizer.name, mine.loss) == (2, "sgd", course.training.loss)
    (tmp_path / "again.yaml").write_text(dump(course))
    again = load_course(tmp_path / "again.yaml", ["training.epochs=7"])
    assert again.trainings["ben"] == mine.model_copy(update={"epochs": 7})


@pytest.mark.quick
def test_an_optimizer_of_another_name_keeps_what_both_have(tmp_path: Path) -> None:
    settings = [
        "training.optimizer={name: adam, lr: 0.3, beta1: 0.8, eps: 1e-5}",
        "participants.0.training={optimizer: {beta1: 0.7}}",
        "participants.1.training={optimizer: {name: adamw, weight_decay: 0.1}}",
        "participants.2.training={optimizer: {name: momentum, momentum: 0.5}}",
        "participants.3.training={optimizer: adagrad}",
    ]
    course = course_of(tmp_path, ["torch"], *settings)
    found = course.trainings
    assert found["ada"].optimizer == Adam(lr=0.3, beta1=0.7, eps=1e-5)
    assert found["ben"].optimizer == AdamW(lr=0.3, beta1=0.8, eps=1e-5, weight_decay=0.1)
    assert found["dora"].optimizer == Adagrad(lr=0.3, eps=1e-5)
    assert found["cem"].optimizer == Momentum(lr=0.3, momentum=0.5)
    (tmp_path / "again.yaml").write_text(dump(course))
    assert load_course(tmp_path / "again.yaml").trainings == found
    assert pickle.loads(pickle.dumps(course)).trainings == found


@pytest.mark.quick
@pytest.mark.parametrize(
    ("setting", "words"),
    {
        "training={loss: cross_entropy}": "`participants.1.training.loss` is the same for everybody",
        "training={ignore_index: 0}": "`participants.1.training.ignore_index` is the same for everybody",
        "training={batch_size: 0}": "`participants.1.training.batch_size`: input should be greater than 0",
        "training={batchsize: 4}": "did you mean `batch_size`",
        "training={schedule: {name: plateau}}": "ben: plateau follows the figures of all",
        "training={schedule: {name: step, every: 1, gamma: 1.0e-9}}": "the learning rate of round 20 is",
        "training={optimizer: {name: adam}}": "ben: scaffold is defined for plain steps",
    }.items(),
)
def test_what_must_be_equal_for_all_is_refused(setting: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        course_of(tmp_path, ["torch"], "federate.algorithm=scaffold", f"participants.1.{setting}")
    assert words in caught.value.message


def test_each_trains_as_it_says(tmp_path: Path) -> None:
    """A course of one whose settings are its own is the course that says them for all."""
    alone = ["participants=[{name: ben, backend: torch}]", "federate.cohort=1"]
    plain = [*alone, "training.batch_size=4", "training.optimizer.lr=0.3", "training.steps=3"]
    own = [*alone, "participants.0.training={batch_size: 4, optimizer: {lr: 0.3}, steps: 3}"]
    events: list[Event] = []
    runs = [
        run_course(
            course_of(tmp_path, ["torch"], *settings, rounds=2), tmp_path / name, in_process=True,
            observer=events.append,
        )
        for name, settings in {"plain": plain, "own": own, "neither": alone}.items()
    ]  # fmt: skip
    assert runs[0].weights.digest == runs[1].weights.digest != runs[2].weights.digest
    said = "settings of their own: ben (optimizer.lr 0.3, batch_size 4, steps 3)"
    assert [event.note for event in events if isinstance(event, Noted)].count(said) == 1
    assert said[1:] in (tmp_path / "own" / "summary.md").read_text()


def test_a_silo_with_another_course_is_refused(tmp_path: Path) -> None:
    course = course_of(tmp_path / "here", ["torch"], OWN, rounds=1)
    other = course_of(tmp_path / "there", ["torch"], rounds=1)
    splits = CourseData(course, "torch").splits()
    silos = [
        Silo.from_course(other if p.name == "ben" else course, p.name, splits, out=tmp_path / p.name)
        for p in course.participants
    ]
    with pytest.raises(RunFailed, match=r"'ben': its training.optimizer.lr is 0\.1, expected 0\.3"):
        deployed(course, LocalLink(silos), tmp_path / "run")
