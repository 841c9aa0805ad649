"""What a transform or a later pass of a data set gives is looked at as the data were before the course: the round ends, and the words say whose fault it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xbackend_fl import load_course
from xbackend_fl.errors import ConfigError, RunFailed
from xbackend_fl.participant import Scope, Worker

ROOM = Path(__file__).parent
COURSE = f"""
name: looked_at
rounds: 3
models: {{torch: "{ROOM}/models.py:build", tensorflow: "{ROOM}/models.py:keras_model"}}
input: ["1,8"]
data: {{source: "{ROOM}/loaders.py:good"}}
participants: [{{name: a, backend: torch}}, {{name: b, backend: tensorflow}}]
training: {{batch_size: 12}}
"""
ONE_LABEL = (
    f"models={{torch: '{ROOM}/models.py:one_output'}}",
    f"data.source={ROOM}/handed.py:binary",
    "participants={torch: 2}",
)
WORDS = (
    f"models={{torch: '{ROOM}/models.py:words'}}",
    'input=["int64:1,5"]',
    f"data.source={ROOM}/handed.py:words",
    "participants={torch: 2}",
)


@pytest.fixture
def course(tmp_path: Path) -> Path:
    path = tmp_path / "course.yaml"
    path.write_text(COURSE)
    return path


def transform(name: str, key: str = "transform") -> str:
    return f"data.{key}={ROOM}/transforms.py:{name}"


def own(loader: str, backend: str = "torch") -> str:
    other = {"torch": "tensorflow", "tensorflow": "torch"}[backend]
    return f'participants=[{{name: a, backend: {backend}, data: "{ROOM}/handed.py:{loader}"}}, {{name: b, backend: {other}}}]'


WRONG = {
    "a class that is not there": (
        (transform("beyond"),),
        r"transforms.py:beyond: batch 0: returned targets: row 0: the target [5-7] is not a class of the model, 0 to 2",
    ),
    "a label": (
        (*ONE_LABEL, "training.loss=binary_cross_entropy", transform("beyond")),
        r"the target [56]\.0.* is not a number from 0 to 1",
    ),
    "a count": (
        (*ONE_LABEL, "training.loss=poisson", transform("below")),
        r"the target -[23]\.0.* is not a number from 0 to",
    ),
    "NaN in a target": (
        (*ONE_LABEL, "training.loss=mean_squared_error", transform("no_targets")),
        "the target nan",
    ),
    "NaN in an input": ((transform("not_numbers"),), r"returned inputs: NaN at row 3, column 1"),
    "a word": (
        (*WORDS, transform("far_words")),
        r"returned inputs: the value [23]\d at .* a table of 20 rows",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_transform_is_named_by_the_round_and_by_the_check(course: Path, name: str) -> None:
    settings, words = WRONG[name]
    worker = Worker(load_course(course, settings), "torch", 1)
    (first, *_) = worker.num_examples()
    with pytest.raises(
        RunFailed,
        match=rf"while training participant '{first}' \(torch\) in round 2: data.transform .*{words}",
    ):
        worker.train_alone(2, worker.initial(), first, {}, {})
    with pytest.raises(ConfigError, match=rf"^data.transform .*{words}"):
        worker.examine(Scope(thorough=True)).raise_any()


def test_what_is_evaluated_is_looked_at_too(course: Path) -> None:
    worker = Worker(load_course(course, [transform("beyond", "evaluation_transform")]), "torch", 1)
    message = (
        r"data.evaluation_transform .*: batch 0: returned targets: row 0: the target [5-7] is not a class"
    )
    with pytest.raises(RunFailed, match=rf"while evaluating on the test examples \(torch\): {message}"):
        worker.evaluate_common(worker.initial(), "test")
    with pytest.raises(ConfigError, match=message):
        worker.examine(Scope()).raise_any()


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_a_later_pass_of_a_data_set_is_named(course: Path, backend: str) -> None:
    worker = Worker(load_course(course, [own("later", backend)]), backend, 1)
    start = worker.initial()
    worker.train_alone(1, start, "a", {}, {})
    message = (
        rf"while training participant 'a' \({backend}\) in round 2: \S+handed.py:later: batch 2: targets: row 4: "
        "the target 7 is not a class of the model, 0 to 2"
    )
    with pytest.raises(RunFailed, match=message):
        worker.train_alone(2, start, "a", {}, {})


def test_a_transform_that_leaves_no_target_is_said(course: Path) -> None:
    worker = Worker(load_course(course, [transform("ignored")]), "torch", 1)
    words = r"data.transform \S+:ignored: no target counts: all are -100"
    with pytest.raises(RunFailed, match=rf"participant 'a' \(torch\) in round 1: {words}"):
        worker.train_alone(1, worker.initial(), "a", {}, {})
    with pytest.raises(ConfigError, match=r"no target of the first 48 examples counts after data.transform"):
        worker.examine(Scope(thorough=True)).raise_any()
    evaluated = Worker(load_course(course, [transform("ignored", "evaluation_transform")]), "torch", 1)
    with pytest.raises(ConfigError, match=r"of which no target counts after data.evaluation_transform"):
        evaluated.examine(Scope()).raise_any()


def test_targets_that_a_transform_leaves_out_do_not_count(course: Path) -> None:
    """The data have the same from the beginning: the same bits."""

    def trained(*settings: str) -> dict[str, np.ndarray]:
        worker = Worker(load_course(course, settings), "torch", 1)
        return dict(worker.train_alone(1, worker.initial(), "a", {}, {}).update.model)

    expected, found = trained(own("some_ignored")), trained(own("arrays"), transform("some_ignored"))
    assert all(np.array_equal(array, found[name]) for name, array in expected.items())
    plain = trained(own("arrays"))
    assert not any(np.array_equal(array, plain[name]) for name, array in expected.items())
