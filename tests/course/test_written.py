"""Courses that are written in Python: what becomes of objects, and what is said of mistakes."""

from __future__ import annotations

import functools
import gc
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbackend_fl as xb
from xbackend_fl.course import complete, dump, load_course, require_files
from xbackend_fl.errors import ConfigError
from xbackend_fl.locate import call, load_callable

pytestmark = pytest.mark.quick

PART = (np.zeros((4, 2), np.float32), np.zeros(4, np.int64))
DATA = {"train": PART, "validation": PART, "test": PART}


def build() -> list[int]:
    """A function that this file has."""
    return [1]


class Model:
    """Called for its outputs, not for a model."""

    def __init__(self) -> None:
        self.weights = [0]

    def __call__(self, inputs: Any) -> Any:
        return inputs


def course(**keys: Any) -> xb.Course:
    """A small course."""
    given = {
        "name": "small",
        "rounds": 1,
        "models": {"torch": build},
        "input": ["1,2"],
        "data": DATA,
        "participants": [xb.Participant("osaka", "torch")],
    }
    return xb.Course(**{**given, **keys})


def test_a_function_of_a_file_goes_by_its_file(tmp_path: Path) -> None:
    made = course(models={"torch": build}, data="data.py:load")
    assert made.models["torch"].build == f"{build.__module__}:build"
    assert call(made.models["torch"].build, tmp_path) == [1]
    require_files(made)
    (tmp_path / "net_of_a_file.py").write_text("def make():\n    return 'made'\n")
    function = load_callable("net_of_a_file.py:make", tmp_path)
    assert course(models={"torch": function}).models["torch"].build == f"{tmp_path / 'net_of_a_file.py'}:make"


def test_any_other_object_is_held_by_its_course(tmp_path: Path) -> None:
    bias = 3
    made = course(
        models={"torch": lambda: bias},
        participants=[xb.Participant("osaka", "torch", data=PART, train=functools.partial(print, "x"))],
    )
    text = made.models["torch"].build
    assert text.startswith("object:models.torch#")
    assert call(text, tmp_path) == 3
    assert made.participants[0].data is not None
    assert call(made.participants[0].data, tmp_path)[0] is PART[0]
    with pytest.raises(
        ConfigError, match=r"'data', 'models.torch', 'osaka.data' and 1 more .* objects of Python"
    ):
        require_files(made)
    copied = xb.Course(**{**dict(made), "rounds": 7})
    del made
    gc.collect()
    assert call(copied.models["torch"].build, tmp_path) == 3
    del copied
    gc.collect()
    with pytest.raises(ConfigError, match=r"models\.torch was an object of Python") as caught:
        call(text, tmp_path)
    assert "resume_run" in str(caught.value.hint)


def test_settings_of_a_loop_are_what_a_file_could_say() -> None:
    given = {
        "lr": np.float32(0.5),
        "deep": {"n": np.int64(3), "on": np.bool_(1)},
        "pair": (1, "a"),
        "none": None,
    }
    found = course(training={"settings": given}).training.settings
    assert found == {"lr": 0.5, "deep": {"n": 3, "on": True}, "pair": [1, "a"], "none": None}
    assert type(found["lr"]) is float


def test_a_participant_may_be_called_settings(tmp_path: Path) -> None:
    made = course(
        participants=[xb.Participant("settings", "torch", data=PART, train=functools.partial(print, "x"))]
    )
    assert made.participants[0].data is not None
    assert call(made.participants[0].data, tmp_path)[0] is PART[0]


@pytest.mark.parametrize("value", [print, lambda: 1, dict, np.zeros(3), b"x", {1, 2}, object()])
def test_a_setting_that_no_file_could_say_is_refused_by_its_key(value: object) -> None:
    name = type(value).__name__
    with pytest.raises(
        ConfigError, match=rf"`training\.settings\.f\.0` is a {name}; settings are numbers"
    ) as refused:
        course(training={"settings": {"f": [value]}})
    assert refused.value.hint


def test_another_process_has_the_objects_of_a_course(tmp_path: Path) -> None:
    offset = np.arange(3)
    made = course(models={"torch": lambda: offset + 1})
    sent = pickle.dumps(made)
    text = made.models["torch"].build
    del made
    gc.collect()
    received = pickle.loads(sent)
    assert call(received.models["torch"].build, tmp_path).tolist() == [1, 2, 3]
    assert received.models["torch"].build == text


def test_a_model_is_copied_for_everybody_who_trains_it(tmp_path: Path) -> None:
    model = Model()
    made = course(models={"torch": model})
    text = made.models["torch"].build
    first, second = call(text, tmp_path), call(text, tmp_path)
    first.weights.append(1)
    assert (model.weights, second.weights) == ([0], [0])


def test_texts_tell_objects_apart_by_what_they_are() -> None:
    one, same, other = (course(data={**DATA, "train": (PART[0] + n, PART[1])}) for n in (0, 0, 1))
    assert one.data.source == same.data.source != other.data.source
    assert one == same != other


def test_a_course_of_objects_is_read_back_without_them(tmp_path: Path) -> None:
    made = course(models={"torch": lambda: 1})
    path = tmp_path / "course.yaml"
    path.write_text(dump(made))
    assert complete(load_course(path)) == complete(made)


def test_mistakes_are_told_in_the_words_of_a_course_file() -> None:
    with pytest.raises(ConfigError) as caught:
        xb.Course(name="small", rounds="many", modles={"torch": build}, input=["1,2"], data=DATA)
    said = caught.value.message
    assert "`rounds`: input should be a whole number" in said
    assert "did you mean `models`?" in said
    assert "missing key `participants`" in said
    assert "pydantic" not in said
    with pytest.raises(ConfigError, match=r"missing key `backend`"):
        xb.Participant("osaka")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="Participant takes name, backend by position, received 3 values"):
        xb.Participant("osaka", "torch", PART)  # type: ignore[misc]
    with pytest.raises(ConfigError, match="received name twice"):
        xb.Participant("osaka", "torch", name="lyon")  # type: ignore[misc]


class Locked:
    """Examples that no other process can be sent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


UNSENT = {
    "a function": ("models.torch", lambda lock: {"models": {"torch": lambda: lock}}, "let the function make what it needs"),
    "an object": ("data", lambda lock: {"data": lock}, "data=load; or in_process=True"),
    "a part": ("data: train", lambda lock: {"data": {**DATA, "train": lock}}, "data=load; or in_process=True"),
    "a participant's": (
        "osaka.data",
        lambda lock: {"participants": [xb.Participant("osaka", "torch", data=lock)]},
        "data=load; or in_process=True",
    ),
    "a generator": ("data", lambda _: {"data": (n for n in range(3))}, "begins anew in every round"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSENT)
def test_what_cannot_be_sent_is_taken_here_and_refused_with_its_key_where_it_is_sent(
    case: str, tmp_path: Path
) -> None:
    key, keys, help_ = UNSENT[case]
    made = course(**keys(Locked()))
    again = course(**keys(Locked()))
    assert made != again, "nothing tells what two such objects are"
    (text,) = {made.models["torch"].build, made.data.source, str(made.participants[0].data)} - {
        f"{build.__module__}:build",
        course().data.source,
        "None",
    }
    assert call(text, tmp_path) is not None
    with pytest.raises(
        ConfigError,
        match=rf"^{key}: workers are processes .*, and a \w+ cannot be sent .*pickling it raised TypeError",
    ) as caught:
        pickle.dumps(made)
    assert help_ in str(caught.value.hint)


def test_data_are_a_text_alone_or_a_mapping(tmp_path: Path) -> None:
    assert course(data="data.py:load").data == course(data={"source": "data.py:load"}).data
    path = tmp_path / "course.yaml"
    (tmp_path / "net.py").write_text("def build(): ...\n")
    path.write_text(
        "name: a\nrounds: 1\nmodels: {torch: net.py:build}\ninput: ['1,2']\ndata: net.py:build\nparticipants: {torch: 1}\n"
    )
    assert load_course(path).data.source == "net.py:build"
