"""Participants that train their own way, in a course: with the built-in ones, and without the course when they fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import small_models
from tests.federation.links import deployed
from tests.federation.local import LocalLink
from tests.simulation.conftest import Make
from xbackend_fl import Course, run_course
from xbackend_fl.errors import RunFailed
from xbackend_fl.events import Event, ModelBound, Noted, ParticipantFailed, ParticipantTrained
from xbackend_fl.federation import Silo
from xbackend_fl.simulation import resume_run

LOOP = """
import collections
import itertools

import torch
from torch.nn import functional


class Momentum:
    '''The course's own formula: torch.optim.SGD rounds it once less.'''

    def __init__(self, model, lr):
        self.pairs = [(value, torch.zeros_like(value)) for value in model.parameters()]
        self.lr = lr

    @torch.no_grad()
    def step(self):
        for value, buffer in self.pairs:
            buffer.copy_(0.9 * buffer + value.grad)
            value.copy_(value - self.lr * buffer)
            value.grad = None


def train(task):
    optimizer = Momentum(task.model, task.lr)
    total = count = 0
    for inputs, targets in task.batches():
        loss = functional.cross_entropy(task.model(inputs), targets, reduction='sum') / len(targets)
        loss.backward()
        optimizer.step()
        total, count = total + float(loss.detach()) * len(targets), count + len(targets)
    return {'num_examples': len(task.data[1]), 'loss': total / count, 'recall': 0.5}


def counting(task):
    task.state['rounds'] = task.state.get('rounds', 0) + 1
    return {**train(task), 'rounds': task.state['rounds']}


def fails(task):
    raise OSError(28, 'the scanner is full')


def forgets(task):
    return 3


def says_nothing(task):
    train(task)


def raises_once(task):
    if (task.participant, task.round) == ('berlin', 1):
        raise OSError(28, 'the scanner is full')
    return train(task)


def hangs_once(task):
    if (task.participant, task.round) == ('berlin', 1):
        # A loop of C that holds Python's lock and looks at no signal.
        collections.deque(itertools.repeat(0), maxlen=0)
    return train(task)


def judges(task):
    if task.participant == 'berlin':
        raise ValueError('no scanner today')
    return {'num_examples': 4, 'hits': 0.5}


def hangs_judging(task):
    if task.participant == 'berlin':
        collections.deque(itertools.repeat(0), maxlen=0)
    return {'num_examples': 4, 'hits': 0.5}
"""
SHA_OF_DIGITS = "6ecbb2a8370ad26a63b9ac683f81cae59621b87130055122ac99b0170d5a2ffd"


@pytest.fixture
def loop(tmp_path: Path) -> str:
    (tmp_path / "loop.py").write_text(LOOP)
    return str(tmp_path / "loop.py")


def own(loop: str, name: str, build: str = f"{small_models.__file__}:in_torch") -> str:
    return f"models.torch={{build: '{build}', train: '{loop}:{name}'}}"


def alone(loop: str, name: str) -> str:
    return f"models={{torch: {{build: '{small_models.__file__}:in_torch', train: '{loop}:{name}'}}}}"


def test_a_course_with_a_loop_ends_with_the_bits_of_the_built_in_one(
    small: Make, loop: str, tmp_path: Path
) -> None:
    settings = ["rounds=1", "training.steps=2", "federate.cohort=4"]
    events: list[Event] = []
    one = run_course(small(*settings), tmp_path / "one", in_process=True)
    other = run_course(
        small(*settings, own(loop, "train")), tmp_path / "other", in_process=True, observer=events.append
    )
    assert other.weights.digest == one.weights.digest
    assert other.history[0].metrics == one.history[0].metrics
    trained = {e.name: e for e in events if isinstance(e, ParticipantTrained)}
    assert {name for name, event in trained.items() if event.figures} == {
        name for name, event in trained.items() if event.backend == "torch"
    }
    page = (other.path / "summary.md").read_text()
    berlin = next(event for event in trained.values() if event.name == "berlin")
    assert "| training of its own | round | examples | loss | recall |" in page
    assert f"| berlin | 1 | {berlin.num_examples} | {berlin.figures['loss']:.4f} | 0.5000 |" in page
    assert "training of its own" not in (one.path / "summary.md").read_text()
    (said,) = [
        n
        for e in events
        if isinstance(e, ModelBound)
        for n in e.notes
        if n.startswith("map proven, training your own")
    ]
    assert "loop.py:train trains 'amsterdam', 'berlin', 'cairo'" in said


@pytest.mark.slow
def test_the_digits_end_with_their_published_bits(digits: Path, loop: str, tmp_path: Path) -> None:
    import hashlib

    from xbackend_fl import load_course

    run = run_course(
        load_course(digits / "course.yaml", [own(loop, "train", "torch_model.py:build")]), tmp_path / "run"
    )
    assert hashlib.sha256((run.path / "last.safetensors").read_bytes()).hexdigest() == SHA_OF_DIGITS


def test_a_loop_that_fails_is_left_out_with_its_line_and_its_traceback(
    small: Make, loop: str, tmp_path: Path
) -> None:
    events: list[Event] = []
    settings = [f"participants.1.train={loop}:fails", f"participants.2.train={loop}:forgets"]
    small_one = small(
        "rounds=1", "training.steps=1", "federate.on_failure=continue", "federate.cohort=6", *settings
    )
    run = run_course(small_one, tmp_path / "run", in_process=True, observer=events.append)
    (failed,) = [event for event in events if isinstance(event, ParticipantFailed)]
    line = LOOP.splitlines().index("    raise OSError(28, 'the scanner is full')") + 1
    assert failed.name == "berlin"
    assert f"in round 1 raised OSError (at {loop}:{line}): " in failed.reason
    assert failed.reason.endswith("(traceback: failures/berlin-round-1.txt)")
    written = (run.path / "failures" / "berlin-round-1.txt").read_text()
    assert written.startswith("Traceback")
    assert "raise OSError(28, 'the scanner is full')" in written
    (note,) = [
        event.note
        for event in events
        if isinstance(event, Noted) and event.note.startswith("cairo, trained by")
    ]
    assert "every weight is as it was before" in note


def test_by_default_a_loop_that_fails_stops_the_course(small: Make, loop: str, tmp_path: Path) -> None:
    course = small("rounds=1", "training.steps=1", f"participants.1.train={loop}:fails")
    with pytest.raises(
        RunFailed,
        match=r"participant 'berlin': the training of berlin \(torch, loop.py:fails\) in round 1 raised",
    ):
        run_course(course, tmp_path / "run", in_process=True)


@pytest.mark.slow
def test_the_state_of_a_loop_goes_on_with_the_run(small: Make, loop: str, tmp_path: Path) -> None:
    """A round that is made again finds what was there before it; one that goes on finds what came of the last."""
    course = small("rounds=2", "training.steps=1", f"participants.0.train={loop}:counting")
    run_course(course, tmp_path / "run", in_process=True)
    resume_run(tmp_path / "run", ["rounds=3"], in_process=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    found = [
        r["figures"]["rounds"]
        for r in rows
        if r["event"] == "participant_trained" and "rounds" in r["figures"]
    ]
    assert found == [1, 2, 3]


def test_the_cure_of_a_loop_that_failed_alone_is_to_mend_it(small: Make, loop: str, tmp_path: Path) -> None:
    one = "participants=[{name: berlin, backend: torch}]"
    with pytest.raises(RunFailed, match="round 1: 1 of 1 updates were refused") as caught:
        run_course(small(one, alone(loop, "fails"), "federate.cohort=1"), tmp_path / "run", in_process=True)
    assert (
        caught.value.hint
        == "no update is left to go on with: mend what their own training loops did, and --resume"
    )


@pytest.mark.parametrize("where", ["simulation", "silos"])
def test_reasons_that_have_cures_keep_them_each_once(
    small: Make, loop: str, where: str, tmp_path: Path
) -> None:
    people = "participants=[{name: berlin, backend: torch}, {name: cairo, backend: torch}]"
    course = small(people, alone(loop, "says_nothing"), "federate.cohort=2", "rounds=1")
    cure = 'end it with: return {"num_examples": 120, "loss": 0.25}'
    names = [one.name for one in course.participants] if where == "silos" else []
    silos = [Silo.from_course(course, name, out=tmp_path / name) for name in names]
    with pytest.raises(RunFailed, match="round 1: ") as caught:
        _ = (
            deployed(course, LocalLink(silos), tmp_path / "deployed")
            if silos
            else run_course(course, tmp_path / "run", in_process=True)
        )
    rest = ["with deployment.quorum a course goes on without some silos"] if where == "silos" else []
    assert str(caught.value.hint).split("\n          ") == [cure, *rest]


@pytest.mark.slow
def test_a_loop_that_nothing_interrupts_costs_its_process_and_not_the_course(
    small: Make, loop: str, tmp_path: Path
) -> None:
    """All participants of PyTorch share one process: the others train again in a new one, with the bits of a course in which the loop had raised."""
    people = ", ".join(f"{{name: {name}, backend: torch}}" for name in ("amsterdam", "berlin", "cairo"))
    course = [f"participants=[{people}]", "rounds=2", "training.steps=2", "federate.cohort=3"]
    settings = [*course, "federate.workers=1", "training.timeout_s=5"]
    goes_on = [*settings, "federate.on_failure=continue"]
    events: list[Event] = []
    expected = run_course(small(*goes_on, alone(loop, "raises_once")), tmp_path / "raised")
    run = run_course(small(*goes_on, alone(loop, "hangs_once")), tmp_path / "hung", observer=events.append)
    assert run.weights.digest == expected.weights.digest
    assert [entry.metrics for entry in run.history] == [entry.metrics for entry in expected.history]
    (failed,) = [event for event in events if isinstance(event, ParticipantFailed)]
    assert (failed.name, failed.round) == ("berlin", 1)
    assert "did not return within 5 s (training.timeout_s), and could not be interrupted" in failed.reason
    assert failed.reason.endswith("(traceback: failures/berlin-round-1.txt)")
    assert f'File "{loop}"' in (tmp_path / "hung" / "failures" / "berlin-round-1.txt").read_text()
    assert [path.name for path in (tmp_path / "hung" / "failures").iterdir()] == ["berlin-round-1.txt"]
    told = [(e.round, e.name) for e in events if isinstance(e, ParticipantTrained)]
    assert len(told) == len({*told}) == 5
    with pytest.raises(RunFailed, match="the training of berlin in round 1 did not return within 5 s"):
        run_course(small(*settings, alone(loop, "hangs_once")), tmp_path / "stops")


@pytest.mark.slow
@pytest.mark.parametrize("validation", ["common", "participants"])
def test_an_evaluation_that_nothing_interrupts_costs_its_process_and_not_the_course(
    small: Make, loop: str, tmp_path: Path, validation: str
) -> None:
    """With the bits and figures of a course in which it had raised."""
    people = ", ".join(f"{{name: {name}, backend: torch}}" for name in ("amsterdam", "berlin", "cairo"))
    settings = [f"participants=[{people}]", "rounds=1", "training.steps=2", "federate.cohort=3"]
    settings += ["federate.workers=1", "training.timeout_s=5", "evaluation.reported={hits: max}"]
    settings += [f"evaluation.validation={validation}"]

    def judged(name: str, *more: str) -> Course:
        model = f"models={{torch: {{build: '{small_models.__file__}:in_torch', evaluate: '{loop}:{name}'}}}}"
        return small(*settings, *more, model)

    goes_on = "federate.on_failure=continue"
    events: list[Event] = []
    expected = run_course(judged("judges", goes_on), tmp_path / "raised")
    run = run_course(judged("hangs_judging", goes_on), tmp_path / "hung", observer=events.append)
    assert run.weights.digest == expected.weights.digest
    assert [entry.metrics for entry in run.history] == [entry.metrics for entry in expected.history]
    said = [event.note for event in events if isinstance(event, Noted) and "berlin is not in" in event.note]
    assert all("did not return within 5 s (training.timeout_s), and could not be" in note for note in said)
    assert len(said) == 2, "of the validation and of the test examples"
    with pytest.raises(RunFailed, match="the evaluation of berlin on the validation examples did not return"):
        run_course(judged("hangs_judging"), tmp_path / "stops")
