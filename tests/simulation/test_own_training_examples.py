"""Lightning, Keras fit, Hugging Face's Trainer and the built-in loop train one model; tutorial scripts join with at most five changed lines."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from xbackend_fl import load_course, run_course
from xbackend_fl.events import Event, ParticipantFailed, ParticipantTrained

LOOPS = {"osaka": "lightning", "lyon": "keras", "kyoto": "transformers", "turin": ""}
SCRIPTS = ("torch_script.py", "keras_script.py", "lightning_script.py", "trainer_script.py")
NO_TORCHVISION = str(Path(__file__).parent / "no_torchvision")
FEW = ["rounds=2", "participants.3.training={steps: 4}"]


@pytest.mark.parametrize("loop", ["lightning_loop.py", "keras_loop.py", "trainer_loop.py"])
def test_a_loop_of_the_examples_has_at_most_60_lines(root: Path, loop: str) -> None:
    assert len((root / "examples/own_training" / loop).read_text().splitlines()) <= 60


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_tutorial_script_joins_with_at_most_five_changed_lines(root: Path, script: str) -> None:
    """What is only indented further is not changed."""
    alone, federated = (
        [
            line.strip()
            for line in (root / "examples/scripts" / kind / script).read_text().splitlines()
            if line.strip()
        ]
        for kind in ("alone", "federated")
    )
    changed = [line for line in difflib.ndiff(alone, federated) if line.startswith(("+ ", "- "))]
    assert 0 < sum(line.startswith("+ ") for line in changed) <= 5
    assert sum(line.startswith("- ") for line in changed) <= 1, "the head of its loop"


@pytest.fixture(scope="module")
def libraries() -> Iterator[None]:
    """What the loops are written with. Processes that a test starts have no torchvision where it cannot be imported: these libraries do without."""
    with pytest.MonkeyPatch.context() as patch:
        if _missing("torchvision"):
            known = os.environ.get("PYTHONPATH", "")
            patch.setenv("PYTHONPATH", os.pathsep.join([NO_TORCHVISION, *known.split(os.pathsep)]))
        if problem := _missing("lightning, accelerate; from transformers import Trainer"):
            pytest.skip(f"pip install 'xbackend-fl[examples]': {problem}")
        yield


def _missing(names: str) -> str:
    """Why these cannot be imported; empty if they can."""
    command = [sys.executable, "-W", "ignore", "-c", f"import {names}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


@pytest.mark.slow
@pytest.mark.usefixtures("libraries")
def test_four_ways_train_one_model(root: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    with warnings.catch_warnings():
        # These libraries warn about this and that, and their warnings are not ours.
        warnings.simplefilter("ignore")
        course = load_course(root / "examples/own_training/course.yaml", FEW)
        run = run_course(course, tmp_path / "run", observer=events.append)
    assert [event.reason for event in events if isinstance(event, ParticipantFailed)] == []
    trained = {
        event.name: event for event in events if isinstance(event, ParticipantTrained) and event.round == 2
    }
    assert trained.keys() == LOOPS.keys()
    assert all(trained[name].figures["loss"] < 2.3 for name, library in LOOPS.items() if library)
    assert run.history[-1].metrics["accuracy"] > 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("libraries")
def test_four_ways_train_one_model_over_flower(root: Path, tmp_path: Path) -> None:
    xbfl = Path(sys.executable).parent / "xbfl"
    settings = [part for setting in FEW for part in ("--set", setting)]
    command = [
        str(xbfl),
        "up",
        str(root / "examples/own_training/course.yaml"),
        *settings,
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in LOOPS:
        assert f"round 2 {name} (" in done.stdout
    assert "left out" not in done.stdout
    assert "map proven, training your own: lightning_loop.py:train trains 'osaka'" in done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_tutorial_script_takes_part_over_flower(root: Path, tmp_path: Path, script: str) -> None:
    digits, course = root / "examples/digits", tmp_path / "course.yaml"
    people = "[{name: amsterdam, backend: torch}, {name: delhi, backend: tensorflow}]"
    text = (digits / "course.yaml").read_text().replace("rounds: 30", "rounds: 2")
    text = text[: text.index("participants:")] + f"participants: {people}\n" + text[text.index("training:") :]
    for name in ("torch_model.py", "keras_model.py", "data.py"):
        text = text.replace(f"{name}:", f"{digits / name}:")
    course.write_text(text)
    command = [sys.executable, str(root / "examples/scripts/federated" / script), str(course)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    name = "delhi" if script.startswith("keras") else "amsterdam"
    for number in (1, 2):
        assert f"  round {number} {name} (" in done.stdout, done.stdout + done.stderr
    assert f"map proven, training your own: {script} trains '{name}'" in done.stdout
    assert "every weight is as it was" not in done.stdout
