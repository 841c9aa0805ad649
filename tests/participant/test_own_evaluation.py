"""Figures that participants report by code of their own: right ones merge by examples, and wrong ones are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

import xbackend_fl as xb
from tests.federation.links import deployed
from tests.federation.local import LocalLink
from tests.participant import own_judges
from tests.participant.test_own_training import FILES
from xbackend_fl import load_course, run_course
from xbackend_fl.errors import ConfigError, RunFailed
from xbackend_fl.events import Event, Noted, ParticipantEvaluated
from xbackend_fl.federation import Silo
from xbackend_fl.participant import Worker

JUDGES = "tests.participant.own_judges"
ERROR = "evaluation.reported={error: min}"
TWO = "participants=[{name: osaka, backend: torch}, {name: lyon, backend: torch}]"
Open = Callable[..., Worker]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    for name, text in FILES.items():
        (folder / name).write_text(dedent(text))
    return folder


@pytest.fixture
def opened(room: Path) -> Open:
    def make(judge: str, *settings: str, backend: str = "torch") -> Worker:
        own = [f"participants.0.evaluate={JUDGES}:{judge}", ERROR]
        course = load_course(room / "course.yaml", [f"participants.0.backend={backend}", *own, *settings])
        return Worker(course, backend, 1)

    return make


def evaluated(worker: Worker) -> dict[str, float]:
    return worker.evaluate(worker.initial(), "validation").figures


@pytest.mark.parametrize(
    ("judge", "backend"),
    [("judge", "torch"), ("keras_judge", "tensorflow"), ("keras_evaluate", "tensorflow")],
)
def test_code_of_the_users_own_finds_what_the_built_in_evaluation_finds(
    opened: Open, judge: str, backend: str
) -> None:
    found = evaluated(opened(judge, backend=backend))
    assert found["error"] == pytest.approx(found["loss"], rel=1e-6)


def test_a_model_that_drops_in_training_is_lent_in_evaluation_mode(opened: Open) -> None:
    worker = opened("judge", "models={torch: torch_net.py:normalised}")
    found = evaluated(worker)
    assert found["error"] == pytest.approx(found["loss"], rel=1e-6)
    assert evaluated(worker) == found


def test_a_task_to_evaluate_has_the_settings_and_no_round(opened: Open) -> None:
    assert evaluated(opened("settled", "training.settings={error: 7}"))["error"] == 7.0


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ("nothing", r"returned nothing \(None\), expected the number of examples it went through"),
        ("a_number", "returned no figure, and evaluation.reported names 'error'"),
        ("no_examples", "expected a mapping with num_examples"),
        ("too_many", "num_examples 65, and the participant has 64 examples"),
        ("another", "returned 'recall', and evaluation.reported names 'error'"),
        ("endless", "'error' of nan, expected a finite number"),
        ("raises", r"raised ValueError \(at .*own_judges.py:\d+\): no scanner today, osaka"),
        ("trains", "changed '1.running_mean', .*, and whoever evaluates leaves the weights as they are"),
        ("another_layer", "changed the model: 3.bias was"),
        ("waits", r"did not return within 0.2 s \(training.timeout_s\)"),
    ],
)
def test_wrong_code_is_refused_with_its_name_and_the_model_is_as_it_was(
    opened: Open, judge: str, said: str
) -> None:
    timeout = ["training.timeout_s=0.2"] if judge == "waits" else []
    worker = opened(judge, "models={torch: torch_net.py:normalised}", *timeout)
    before, model = worker.initial(), worker._model.trainer
    with pytest.raises(RunFailed, match=said) as caught:
        evaluated(worker)
    start = f"the evaluation of osaka (torch, {JUDGES}:{judge}) on the validation examples "
    assert caught.value.message.startswith(start)
    after = model.read()
    assert all(np.array_equal(array, after[name]) for name, array in before.items() if name in after)


def test_data_that_its_code_alone_reads_are_handed_on_as_they_are(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def judge(task: Any) -> dict[str, float]:
        seen.append(task.data)
        return {"num_examples": 1000, "error": 1.0}

    monkeypatch.setattr(own_judges, "judge", judge)
    loop = "participants.0.train=tests.participant.own_loops:train"
    evaluated(opened("judge", loop, "participants.0.data=data.py:scanner"))
    assert [type(data).__name__ for data in seen] == ["Scanner"]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["participants.0.evaluate=own.py:judge"], "evaluation.reported names, and it names none"),
        (["models.torch={build: torch_net.py:build, evaluate: own.py:judge}"], "it names none"),
        (["deployment.evaluate=own.py:judge"], "it names none"),
        (["evaluation.reported={rmse: min}"], "the name of a metric of the course's"),
        (["evaluation.reported={error: low}"], "error"),
        (["evaluation.reported={a-b: min}"], "a-b"),
        (["evaluation.best=recall", ERROR], "which has"),
        (["early_stopping={patience: 2, metric: recall}", ERROR], "watches 'recall'"),
    ],
)
def test_a_course_is_refused_that_names_figures_of_nobody(room: Path, settings: list[str], said: str) -> None:
    (room / "own.py").write_text("def judge(task): ...")
    with pytest.raises(ConfigError, match=re_safe(said)):
        load_course(room / "course.yaml", settings)


def re_safe(text: str) -> str:
    return text.replace(".", r"\.")


def both(room: Path, judge: str, *settings: str) -> xb.Course:
    names = ["osaka", "lyon"]
    own = [f"participants.{index}.evaluate={JUDGES}:{judge}" for index in range(len(names))]
    return load_course(room / "course.yaml", [TWO, *own, ERROR, *settings])


@pytest.mark.parametrize("validation", ["common", "participants"])
def test_figures_merge_by_examples_in_both_engines(room: Path, tmp_path: Path, validation: str) -> None:
    best = "evaluation.best={metric: error, over: worst_tenth}"
    course = both(room, "by_name", f"evaluation.validation={validation}", best)
    told: list[Event] = []
    simulated = run_course(course, tmp_path / "simulated", in_process=True, observer=told.append)
    silos = [Silo.from_course(course, name, out=tmp_path / name) for name in ("osaka", "lyon")]
    over_a_transport, events = deployed(course, LocalLink(silos), tmp_path / "deployed")
    for run, heard in ((simulated, told), (over_a_transport, events)):
        (entry,) = run.history
        assert entry.metrics["error"] == (1 * 4.0 + 3 * 8.0) / 4
        assert entry.participants["mean"]["error"] == 6.0
        assert entry.participants["worst_tenth"]["error"] == 8.0
        each = {e.name: e.metrics["error"] for e in heard if isinstance(e, ParticipantEvaluated)}
        assert each == {"osaka": 4.0, "lyon": 8.0}
        page = (run.path / "summary.md").read_text()
        assert "Test error of the last weights: **7.0000**" in page
        assert "| validation error |" in page
    assert simulated.history[0].metrics == pytest.approx(over_a_transport.history[0].metrics)


def test_whoever_fails_is_not_in_the_figures_if_the_course_goes_on(room: Path, tmp_path: Path) -> None:
    told: list[Event] = []
    course = both(room, "at_osaka", "federate.on_failure=continue")
    run = run_course(course, tmp_path / "run", in_process=True, observer=told.append)
    assert run.history[0].metrics["error"] == 4.0
    (note, *_) = [event.note for event in told if isinstance(event, Noted) and "scanner" in event.note]
    assert note.startswith("lyon is not in the figures of its own code: the evaluation of lyon (torch")
    assert "no scanner today" in next((tmp_path / "run" / "failures").glob("lyon-evaluation.txt")).read_text()
    with pytest.raises(RunFailed, match="round 1: the evaluation of lyon"):
        run_course(both(room, "at_osaka"), tmp_path / "stops", in_process=True)


def test_the_toolkit_s_figures_remain_of_whoever_s_own_code_fails(room: Path, tmp_path: Path) -> None:
    """In both engines, and over the examples of all: only the figure of the code is of the others."""
    course = both(room, "at_osaka", "federate.on_failure=continue", "evaluation.validation=participants")
    fine = both(room, "judge", "federate.on_failure=continue", "evaluation.validation=participants")
    expected = run_course(fine, tmp_path / "fine", in_process=True)
    told: list[Event] = []
    simulated = run_course(course, tmp_path / "simulated", in_process=True, observer=told.append)
    silos = [Silo.from_course(course, name, out=tmp_path / name) for name in ("osaka", "lyon")]
    real, events = deployed(course, LocalLink(silos), tmp_path / "deployed")
    for run, heard in ((simulated, told), (real, events)):
        (entry,), (other,) = run.history, expected.history
        assert entry.metrics["error"] == 4.0
        assert {**entry.metrics, "error": 0.0} == pytest.approx({**other.metrics, "error": 0.0})
        each = {e.name: set(e.metrics) for e in heard if isinstance(e, ParticipantEvaluated)}
        assert each["osaka"] - each["lyon"] == {"error"}
        assert each["lyon"] >= {"loss", "mae"}
        said = [event.note for event in heard if isinstance(event, Noted) and "scanner" in event.note]
        assert all("of its own code: the evaluation of lyon (torch" in note for note in said)
        assert said
    assert "no scanner today" in (tmp_path / "lyon" / "failures" / "evaluation.txt").read_text()


def test_a_figure_that_nobody_reports_is_refused_by_name(room: Path, tmp_path: Path) -> None:
    course = both(room, "by_name", "evaluation.reported={error: min, recall: max}", "evaluation.best=recall")
    with pytest.raises(RunFailed, match=r"round 1: evaluation\.best follows 'recall', and no participant"):
        run_course(course, tmp_path / "run", in_process=True)


def test_a_function_of_python_evaluates(room: Path, tmp_path: Path) -> None:
    def judge(task: xb.Task) -> dict[str, float]:
        return {"num_examples": 2, "error": 1.5 * len(task.participant) / 2.5}

    written = load_course(room / "course.yaml")
    course = xb.Course(
        name="python",
        rounds=1,
        models={"torch": str(room / "torch_net.py") + ":build"},
        input=["1,4"],
        data={"source": str(room / "data.py") + ":load"},
        participants=[xb.Participant("osaka", "torch", evaluate=judge)],
        training=written.training,
        evaluation={"reported": {"error": "min"}},
    )
    assert run_course(course, tmp_path / "run", in_process=True).history[0].metrics["error"] == 3.0
