"""Courses with algorithms: bits, interruptions, what stays with its participant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.algorithms.smooth import NAMES, course_of
from xbackend_fl import Course, run_course
from xbackend_fl.errors import ConfigError
from xbackend_fl.events import CourseFinished, Event, ParticipantEvaluated
from xbackend_fl.participant import ClientStates, Worker
from xbackend_fl.rounds import Run
from xbackend_fl.simulation import resume_run
from xbackend_fl.weights import load_weights

TORCH = ["torch"]
SCAFFOLD = "federate.algorithm=scaffold"
FEDBN = "federate.algorithm=fedbn"


def finished(course: Course, out: Path, events: list[Event] | None = None) -> Run:
    return run_course(course, out, in_process=True, observer=(events if events is not None else []).append)


def test_without_a_pull_fedprox_is_fedavg_bit_for_bit(tmp_path: Path) -> None:
    plain = finished(course_of(tmp_path, TORCH, rounds=3), tmp_path / "plain")
    still = course_of(tmp_path, TORCH, "federate.algorithm={name: fedprox, mu: 0}", rounds=3)
    pulled = course_of(tmp_path, TORCH, "federate.algorithm={name: fedprox, mu: 0.1}", rounds=3)
    assert finished(still, tmp_path / "still").weights.digest == plain.weights.digest
    assert finished(pulled, tmp_path / "pulled").weights.digest != plain.weights.digest


@pytest.mark.parametrize("algorithm", [SCAFFOLD, FEDBN])
def test_a_course_that_goes_on_ends_with_the_same_bits(algorithm: str, tmp_path: Path) -> None:
    course = course_of(tmp_path, TORCH, algorithm, norm=True, rounds=6)
    whole = finished(course, tmp_path / "whole")
    finished(course_of(tmp_path, TORCH, algorithm, norm=True, rounds=3), tmp_path / "half")
    # What an interrupted round has left does not count: it begins again.
    states = ClientStates(tmp_path / "half" / "clients", 0, 3)
    for name in NAMES:
        if kept := states.read(name, 4):
            states.write(name, 4, {key: array + 1 for key, array in kept.items()})
    again = resume_run(tmp_path / "half", ["rounds=6"], in_process=True)
    assert again.weights.digest == whole.weights.digest
    for name in NAMES:
        one, two = (ClientStates(tmp_path / run / "clients", 0, 3).read(name, 7) for run in ("whole", "half"))
        assert one.keys() == two.keys()
        assert all((one[key] == two[key]).all() for key in one)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("algorithm", [SCAFFOLD, FEDBN])
def test_neither_the_order_nor_a_shared_model_decides_anything(algorithm: str, tmp_path: Path) -> None:
    course = course_of(tmp_path, TORCH, algorithm, "federate.precision=exact", norm=True, rounds=3)
    shared = finished(course, tmp_path / "shared")
    turned = course.model_copy(update={"participants": course.participants[::-1]}).with_base(course.base)
    federate = course.federate.model_copy(update={"share_local_model": False, "online_aggr": False})
    apart = course.model_copy(update={"federate": federate}).with_base(course.base)
    for name, other in (("turned", turned), ("apart", apart)):
        assert finished(other, tmp_path / name).weights.digest == shared.weights.digest, name
        for who in NAMES:
            one, two = (ClientStates(tmp_path / r / "clients", 0, 3).read(who, 9) for r in ("shared", name))
            assert all((one[key] == two[key]).all() for key in one), (name, who)


@pytest.mark.slow
def test_keras_models_of_their_own_give_the_bits_of_a_shared_one(tmp_path: Path) -> None:
    """Layers without a name are numbered through a whole process, and participants have different numbers of examples."""
    settings = (FEDBN, "federate.cohort=5", "training.batch_size=64", "federate.precision=exact")
    mixed = ["torch", "tensorflow"]
    shared, apart = (
        finished(
            course_of(tmp_path / name, mixed, *settings, own, norm=True, rounds=3), tmp_path / name / "run"
        )
        for name, own in (("shared", "seed=3"), ("apart", "federate.share_local_model=false"))
    )
    assert shared.weights.digest == apart.weights.digest


def test_what_is_local_stays_with_its_participant(tmp_path: Path) -> None:
    events: list[Event] = []
    course = course_of(tmp_path, TORCH, FEDBN, norm=True, rounds=4)
    run = finished(course, tmp_path / "run", events)
    first = {name: array for name, array in run.weights.items() if name.startswith("norm.")}
    assert len(first) >= 4
    # Nobody's scale or statistics are in the common weights: they are as they were.
    assert (first["norm.weight"] == 1).all()
    assert (first["norm.bias"] == 0).all()
    kept = {name: ClientStates(tmp_path / "run" / "clients", 0, 3).read(name, 9) for name in NAMES}
    scales = [found["local/norm.weight"] for found in kept.values() if found]
    assert len(scales) > 1
    assert not any(np.allclose(one, 1) for one in scales)
    assert not np.allclose(scales[0], scales[1])
    told = {event.name for event in events if isinstance(event, ParticipantEvaluated)}
    assert told == set(NAMES)
    assert {path.stem for path in (tmp_path / "run" / "participants").iterdir()} == set(NAMES)
    # Nobody has the local parameters of a round that is gone, so that nothing can be said of its model.
    last = events[-1]
    assert isinstance(last, CourseFinished)
    is_last = last.best_round == last.rounds
    assert last.best_test_metrics == (last.test_metrics if is_last else {})
    assert ("weights that validation chose" in (run.path / "summary.md").read_text()) == is_last


def test_a_state_of_another_course_is_not_read(tmp_path: Path) -> None:
    """A run folder is a course's own; a fresh one knows nobody."""
    course = course_of(tmp_path, TORCH, SCAFFOLD, rounds=2)
    one = finished(course, tmp_path / "one")
    two = finished(course, tmp_path / "two")
    assert one.weights.digest == two.weights.digest


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["federate.local=[heads]"], "'heads' chooses no parameter of the model"),
        (["federate.local=['*']"], "nothing is left to train together"),
        ([FEDBN], "'norm' chooses no parameter of the model"),
        ([SCAFFOLD, "training.optimizer.name=adam"], "training.optimizer is adam"),
        ([SCAFFOLD, "federate.server.name=fedadam"], "federate.server is fedadam"),
        (["federate.algorithm=fedprocks"], "did you mean `fedprox`?"),
        (["federate.algorithm={name: fedprox, mu: -1}"], "greater than or equal to 0"),
        (["federate.local=norm"], "several stand in brackets, and so does one: [norm]"),
        (["federate.local=[heads]"], "a pattern of these names, such as 'hidden.*'"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_is_not_defined_is_refused(settings: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        finished(course_of(tmp_path, TORCH, *settings), tmp_path / "run")
    assert words in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_last_weights_are_read_back(tmp_path: Path) -> None:
    run = finished(course_of(tmp_path, TORCH, SCAFFOLD, rounds=2), tmp_path / "run")
    assert load_weights(run.path / "last.safetensors").digest == run.weights.digest


def test_a_course_that_merges_by_the_median(tmp_path: Path) -> None:
    """A rule that needs every update, with several backends: NumPy's median of what each trained to."""
    settings = ("federate.aggregator=median", "federate.precision=float64", "federate.cohort=5")
    course = course_of(tmp_path, ["torch", "tensorflow"], *settings, rounds=1)
    run = finished(course, tmp_path / "run")
    alone = {}
    for backend in course.backends:
        worker = Worker(course, backend, 1)
        if backend == "torch":
            schema, evidence = worker.evidence()
            start = worker.initial()
        worker.bind(schema, evidence)
        for participant in course.participants:
            if participant.backend == backend:
                update = worker.train_alone(1, start, participant.name, {}, {}).update
                alone[participant.name] = update.model
    for name, array in run.weights.items():
        expected = np.median(np.stack([alone[who][name] for who in NAMES]), axis=0)
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-7)
    again = course.model_copy(update={"participants": course.participants[::-1]}).with_base(course.base)
    assert finished(again, tmp_path / "again").weights.digest == run.weights.digest


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["federate.aggregator=media"], "did you mean `median`?"),
        (["federate.aggregator=median", SCAFFOLD], "merges weights alone, and scaffold sends control too"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused(settings: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        course_of(tmp_path, TORCH, *settings)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        (["federate.cohort=2"], "federate.cohort: 3"),
        (
            ["federate.cohort=null", "participants=[{name: a, backend: torch}, {name: b, backend: torch}]"],
            "federate.aggregator: mean",
        ),
    ],
)
def test_a_median_of_two_is_refused_before_anything_is_trained(
    settings: list[str], cure: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="median needs 3 updates a round, and 2 take part") as caught:
        course_of(tmp_path, TORCH, "federate.aggregator=median", *settings)
    assert cure in str(caught.value)
    course_of(tmp_path, TORCH, "federate.aggregator=median", *settings, cure.replace(": ", "="))


def test_a_participant_with_steps_of_another_kind_is_told_its_own_key(tmp_path: Path) -> None:
    people = "{name: a, backend: torch}, {name: b, backend: torch, training: {optimizer: {name: adam}}}"
    settings = ["federate.cohort=null", f"participants=[{people}]", SCAFFOLD]
    with pytest.raises(ConfigError, match=r"participants\.1\.training\.optimizer: \{name: sgd\}"):
        course_of(tmp_path, TORCH, *settings)
    course_of(tmp_path, TORCH, *settings, "participants.1.training.optimizer={name: sgd}")
