"""The FEMNIST example: two models that are one function, LEAF's data, every form of the course."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbackend_fl import load_course, run_course
from xbackend_fl.course import Course
from xbackend_fl.data.femnist_like import write_femnist_like
from xbackend_fl.errors import ConfigError
from xbackend_fl.events import Event, Noted
from xbackend_fl.participant import CourseData

FORMS = {
    "course.yaml": {"torch": 200},
    "all-tensorflow.yaml": {"tensorflow": 200},
    "mixed.yaml": {"torch": 100, "tensorflow": 100},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("femnist")
    write_femnist_like(folder / "data", 6, seed=1)
    return folder / "data"


def small(root: Path, data: Path, participants: str, *settings: str) -> Course:
    quick = ["rounds=2", "federate.cohort=3", "training.steps=3", f"data.source=leaf:{data}"]
    return load_course(
        root / "examples/femnist/course.yaml", [*quick, f"participants={participants}", *settings]
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_differ_in_participants_alone(form: str, root: Path) -> None:
    course = load_course(root / "examples/femnist" / form)
    counts = {backend: sum(p.backend == backend for p in course.participants) for backend in course.models}
    assert {backend: count for backend, count in counts.items() if count} == FORMS[form]
    reference = load_course(root / "examples/femnist/course.yaml")
    assert course.model_dump(exclude={"name", "participants"}) == reference.model_dump(
        exclude={"name", "participants"}
    )


@pytest.mark.slow
def test_a_mixed_course_runs(root: Path, data: Path, tmp_path: Path) -> None:
    course = small(root, data, "{torch: 3, tensorflow: 3}", "federate.cohort=6")
    run = run_course(course, tmp_path / "run", in_process=True)
    assert len(run.history) == 2
    assert run.result is not None
    assert run.result.onnx_error < 1e-4
    assert sum(p.size for p in run.weights.values()) == 6_604_094


def test_every_writer_keeps_what_is_theirs(root: Path, data: Path) -> None:
    course = small(root, data, "{torch: 6}")
    source = CourseData(course, "torch")
    splits = source.splits()
    shares = source.parts(splits)
    assert sum(map(len, shares.values())) == len(splits.train)
    assert len({id(share.inputs[0]) for share in shares.values()}) == 1, "one array for everybody"
    assert splits.train.inputs[0].dtype == "uint8"
    with pytest.raises(ConfigError, match="6 owners for 7 participants"):
        CourseData(small(root, data, "{torch: 7}"), "torch").parts(splits)


@pytest.mark.slow
def test_bytes_without_a_scale_are_said(root: Path, data: Path, tmp_path: Path) -> None:
    """A model may want 0 to 255; whoever forgot the scale reads what it gets."""
    course = small(root, data, "{torch: 6}", "data.scale=null", "rounds=1", "federate.cohort=1")
    events: list[Event] = []
    run_course(course, tmp_path / "run", in_process=True, observer=events.append)
    notes = [event.note for event in events if isinstance(event, Noted)]
    assert any("uint8, read as float32; no value changes" in note for note in notes), notes


def test_labels_beyond_the_classes_are_refused(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import numpy as np\n"
        "def load():\n"
        "    pair = (np.zeros((40, 1, 8, 8), np.float32), np.arange(40) % 11)\n"
        "    return {'train': pair, 'validation': pair, 'test': pair}\n"
    )
    settings = [
        f"data.source={tmp_path / 'data.py'}:load",
        "models={torch: torch_model.py:build}",
        "participants={torch: 2}",
    ]
    course = load_course(digits / "course.yaml", [*settings, "data.partition={kind: iid}"])
    with pytest.raises(ConfigError, match="row 10: the target 10 is not a class of the model, 0 to 9"):
        run_course(course, tmp_path / "run", in_process=True)
