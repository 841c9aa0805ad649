"""What goes wrong in a course is named, and nothing is lost."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.conftest import Make
from xbackend_fl import load_course, run_course
from xbackend_fl.errors import ConfigError, MismatchError, RunFailed, WorkerDied
from xbackend_fl.events import Event, ParticipantFailed, ParticipantTrained, RoundFinished
from xbackend_fl.simulation import resume_run
from xbackend_fl.simulation.engine import SimulationEngine

POISON = """
import numpy as np
from sklearn.datasets import load_digits

def load():
    digits = load_digits()
    images = (digits.images[:64, None] / 16).astype(np.float32)
    # A number, and so is every answer to it; but no mean takes the statistics of batch normalisation after it.
    images[40, 0, 3, 3] = 3e38
    return images, digits.target[:64]

def nothing():
    images, labels = load()
    return images[:0], labels[:0]
"""

LATER = "not self.training and os.path.exists(__file__ + '.trained')"


@pytest.fixture
def poison(tmp_path: Path) -> str:
    path = tmp_path / "poison.py"
    path.write_text(POISON)
    return str(path)


def test_an_update_that_is_none_names_the_participant_and_stops(
    small: Make, poison: str, tmp_path: Path
) -> None:
    course = small(f"participants.4.data={poison}:load", "rounds=1")
    with pytest.raises(RunFailed, match=r"participant 'edinburgh': parameter .* holds") as caught:
        run_course(course, tmp_path / "run", in_process=True)
    assert "--resume" in str(caught.value)


def test_by_policy_the_round_goes_on_with_the_rest(small: Make, poison: str, tmp_path: Path) -> None:
    course = small(f"participants.4.data={poison}:load", "rounds=1", "federate.on_failure=continue")
    events: list[Event] = []
    done = run_course(course, tmp_path / "run", observer=events.append, in_process=True)
    assert [e.name for e in events if isinstance(e, ParticipantFailed)] == ["edinburgh"]
    trained = [e for e in events if isinstance(e, ParticipantTrained)]
    assert len(trained) == 5
    assert done.history[0].num_examples == sum(e.num_examples for e in trained)


def test_all_refused_is_a_failed_run(small: Make, poison: str, tmp_path: Path) -> None:
    settings = [f"participants.{index}.data={poison}:load" for index in range(6)]
    course = small(*settings, "rounds=1", "federate.on_failure=continue")
    with pytest.raises(RunFailed, match="6 of 6 updates were refused") as caught:
        run_course(course, tmp_path / "run", in_process=True)
    assert caught.value.hint is not None
    assert "on_failure" not in caught.value.hint, "there is no rest to go on with"
    assert caught.value.hint == "its training diverged: lower the learning rate, or set training.clip_norm"


def test_a_participant_without_examples_is_named(small: Make, poison: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"participant 'cairo': .* no examples"):
        run_course(small(f"participants.2.data={poison}:nothing"), tmp_path / "run", in_process=True)
    assert not (tmp_path / "run").exists()


def test_different_models_are_refused_before_training(small: Make, digits: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text((digits / "keras_model.py").read_text().replace("epsilon=1e-5", "epsilon=1e-3"))
    with pytest.raises(MismatchError, match="epsilon") as caught:
        run_course(
            small(f"models={{torch: torch_model.py:build, tensorflow: {other}:build}}"),
            tmp_path / "run",
            in_process=True,
        )
    assert "block1_norm" in str(caught.value)


def test_probabilities_are_refused_for_a_loss_on_logits(small: Make, digits: Path, tmp_path: Path) -> None:
    other = tmp_path / "soft.py"
    source = (digits / "torch_model.py").read_text()
    other.write_text(
        source.replace("return self.classifier(x)", "return torch.softmax(self.classifier(x), 1)")
    )
    with pytest.raises(ConfigError, match="works on logits"):
        run_course(
            small(f"models={{torch: {other}:build, tensorflow: keras_model.py:build}}"),
            tmp_path / "run",
            in_process=True,
        )


def test_data_of_another_shape_are_refused(small: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="channels first"):
        run_course(small("input=['1,1,16,16']"), tmp_path / "run", in_process=True)


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_and_the_checkpoint_stays(digits: Path, tmp_path: Path) -> None:
    settings = ["rounds=3", "training.steps=2", *(f"participants.{i}.backend=torch" for i in range(6))]
    course = load_course(digits / "course.yaml", [*settings, "models={torch: torch_model.py:build}"])
    whole = run_course(course, tmp_path / "whole")

    def kill(event: Event) -> None:
        if isinstance(event, RoundFinished) and event.round == 2:
            *_, pid = (tmp_path / "pids").read_text().split()
            os.kill(int(pid), signal.SIGKILL)

    start = SimulationEngine.__init__

    def remember(self: SimulationEngine, *args: Any, **options: Any) -> None:
        start(self, *args, **options)
        (tmp_path / "pids").write_text(" ".join(str(worker._process.pid) for worker in self._workers))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulationEngine, "__init__", remember)
        with pytest.raises(WorkerDied, match=r"the torch worker .* ended with SIGKILL"):
            run_course(course, tmp_path / "killed", observer=kill)
    assert (tmp_path / "killed" / "checkpoints" / "round-00002.safetensors").exists()
    assert resume_run(tmp_path / "killed").weights.digest == whole.weights.digest


@pytest.mark.parametrize(
    ("condition", "in_process", "words"),
    [
        pytest.param("self.training and images.shape[0] > 4", False, "while training participant 'amsterdam' (torch) in round 1",
                     marks=pytest.mark.slow),
        ("self.training and images.shape[0] > 4", True, "while training participant 'amsterdam' (torch) in round 1"),
        (LATER, True, "round 1: while evaluating on the validation examples (torch)"),
    ],
)  # fmt: skip
def test_what_a_model_raises_is_one_line_with_its_place(
    digits: Path, tmp_path: Path, condition: str, words: str, *, in_process: bool
) -> None:
    broken = tmp_path / "broken.py"
    source = (digits / "torch_model.py").read_text()
    line = f"if {condition}: raise OSError('disk')\n        x = torch.flatten"
    broken.write_text("import os\n" + source.replace("x = torch.flatten", line))

    def trained(event: Event) -> None:
        if isinstance(event, ParticipantTrained):
            Path(f"{broken}.trained").touch()

    settings = ["rounds=1", "training.steps=1", *(f"participants.{i}.backend=torch" for i in range(6))]
    course = load_course(digits / "course.yaml", [*settings, f"models={{torch: {broken}:build}}"])
    with pytest.raises(RunFailed) as caught:
        run_course(course, tmp_path / "run", observer=trained, in_process=in_process)
    assert re.fullmatch(
        rf"{re.escape(words)} the model raised OSError \(at .*broken\.py:\d+\): disk", caught.value.message
    )


def test_a_model_that_wants_to_end_the_program_fails_like_any_other(digits: Path, tmp_path: Path) -> None:
    ending = tmp_path / "ending.py"
    source = (digits / "torch_model.py").read_text()
    line = "if self.training and images.shape[0] > 4: raise SystemExit(0)\n        x = torch.flatten"
    ending.write_text(source.replace("x = torch.flatten", line))
    settings = ["rounds=1", "training.steps=1", *(f"participants.{i}.backend=torch" for i in range(6))]
    course = load_course(digits / "course.yaml", [*settings, f"models={{torch: {ending}:build}}"])
    with pytest.raises(RunFailed, match=r"round 1 the model raised SystemExit \(at .*ending\.py:\d+\): 0"):
        run_course(course, tmp_path / "run", in_process=True)


@pytest.mark.parametrize("online", ["true", "false"])
def test_weights_whose_sum_would_be_infinite_are_refused_and_not_saved(
    online: str, small: Make, tmp_path: Path
) -> None:
    """One step of a far too large rate: the loss before it is finite, and so is every weight after it."""
    settings = ("training.optimizer={name: sgd, lr: 1.0e+34}", "training.steps=1", "rounds=1")
    course = small(*settings, f"federate.online_aggr={online}", "federate.on_failure=continue")
    with pytest.raises(RunFailed, match=r"participant 'berlin': parameter .* is larger than 1.13e\+15"):
        run_course(course, tmp_path / "run", in_process=True)
    assert not list((tmp_path / "run").rglob("*.safetensors"))
