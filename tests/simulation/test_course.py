"""Whole courses: backend invariance, resets, switches, thousands of participants, resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.conftest import Figure
from tests.simulation.conftest import Make
from xbackend_fl import Run, load_course, load_weights, run_course
from xbackend_fl.errors import ConfigError, FileError, SchemaError
from xbackend_fl.events import Event, ParticipantTrained, from_line
from xbackend_fl.locate import load_callable
from xbackend_fl.simulation import resume_run

EVERYONE = {
    backend: [f"participants.{index}.backend={backend}" for index in range(6)]
    for backend in ("torch", "tensorflow")
}


EXAMPLES = "models={torch: torch_model.py:build, tensorflow: keras_model.py:build}"


def run(course: Any, out: Path, **options: Any) -> tuple[Run, list[Event]]:
    events: list[Event] = []
    done = run_course(course, out, observer=events.append, in_process=True, **options)
    return done, events


def updates(events: list[Event]) -> dict[tuple[int, str], tuple[int, float]]:
    return {
        (event.round, event.name): (event.num_examples, event.loss)
        for event in events
        if isinstance(event, ParticipantTrained)
    }


def apart(course_file: Path, out: Path, *settings: str, rounds: int = 5) -> float:
    """Largest distance between the mixed run and the runs with one framework only."""
    runs = {}
    for name in ("mixed", "torch", "tensorflow"):
        chosen = [f"rounds={rounds}", "training.dropout=false", *EVERYONE.get(name, []), *settings]
        runs[name], _ = run(load_course(course_file, chosen), out / name)
    assert runs["mixed"].history[-1].accuracy > 0.5
    return max(
        runs[name].weights.relative_distance(runs["mixed"].weights) for name in ("torch", "tensorflow")
    )


@pytest.mark.slow
def test_the_backend_of_a_participant_does_not_matter(
    digits: Path, tmp_path: Path, figure: Figure, *, thorough: bool
) -> None:
    """All PyTorch, all TensorFlow, and mixed end with the same weights.

    Max pooling and ReLU pick by comparing. Of the millions of comparisons of a course, one or two are
    between values that differ by rounding alone; two frameworks then pick differently, and a larger
    step amplifies it more. So the bound is held where steps are small, and the distance of the course's
    own setting is printed beside it.
    """
    settings = ["training.optimizer={name: sgd, lr: 0.02}", "training.batch_size=32"]
    for seed in (7, 8, 9) if thorough else (7,):
        value = apart(digits / "course.yaml", tmp_path / str(seed), f"seed={seed}", *settings)
        figure(f"digits, SGD, apart after 5 rounds, seed {seed}", f"{value:.1e}")
        assert value <= 1e-3
    own = apart(digits / "course.yaml", tmp_path / "own")
    figure("digits as it is (momentum), apart after 5 rounds, seed 7", f"{own:.1e}")


def test_the_backend_does_not_matter_at_all_without_comparisons(
    digits: Path, tmp_path: Path, figure: Figure, *, thorough: bool
) -> None:
    """The same course with tanh and average pooling has no ties, and every seed agrees to rounding."""
    smooth = {
        "torch": [("nn.ReLU()", "nn.Tanh()"), ("torch.relu", "torch.tanh"), ("MaxPool2d", "AvgPool2d")],
        "tensorflow": [('"relu"', '"tanh"'), ("MaxPooling2D", "AveragePooling2D")],
    }
    settings = []
    for backend, name in (("torch", "torch_model.py"), ("tensorflow", "keras_model.py")):
        text = (digits / name).read_text()
        for old, new in smooth[backend]:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / name).write_text(text)
        settings.append(f"models.{backend}={tmp_path / name}:build")
    rounds = 5 if thorough else 2
    for seed in (7, 8) if thorough else (8,):
        value = apart(digits / "course.yaml", tmp_path / str(seed), f"seed={seed}", *settings, rounds=rounds)
        figure(f"smooth model, apart after {rounds} rounds, seed {seed}", f"{value:.1e}")
        assert value <= 1e-5


@pytest.mark.slow
def test_shuffling_the_participants_changes_nothing(small: Make, tmp_path: Path) -> None:
    course = small()
    shuffled = course.model_copy(update={"participants": list(reversed(course.participants))}).with_base(
        course.base
    )
    one, events = run(course, tmp_path / "one")
    two, others = run(shuffled, tmp_path / "two")
    assert one.weights.digest == two.weights.digest
    assert updates(events) == updates(others)


@pytest.mark.slow
def test_a_participant_never_sees_the_one_before(small: Make, tmp_path: Path) -> None:
    """With one model each nothing can leak: statistics, optimizer state and masks are the same as with one
    shared model. Dropout is on, so generators count too."""
    shared, _ = run(small("training.dropout=true", "training.optimizer.name=adam"), tmp_path / "shared")
    apart, _ = run(
        small("training.dropout=true", "training.optimizer.name=adam", "federate.share_local_model=false"),
        tmp_path / "apart",
    )
    assert shared.weights.digest == apart.weights.digest


@pytest.mark.slow
def test_merging_as_they_come_equals_keeping_all(small: Make, tmp_path: Path) -> None:
    online, _ = run(small(), tmp_path / "online")
    kept, _ = run(small("federate.online_aggr=false"), tmp_path / "kept")
    assert online.weights.digest == kept.weights.digest


@pytest.mark.parametrize(
    "server",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("fedavgm", "fedadagrad", "fedyogi")),
        "fedadam",
    ],
)
def test_server_optimizers_and_exact_sums_run(server: str, small: Make, tmp_path: Path) -> None:
    settings = [
        f"federate.server={{name: {server}, lr: 0.05}}",
        "federate.precision=exact",
        "federate.cohort=3",
    ]
    done, events = run(small(*settings), tmp_path / "run")
    assert len(updates(events)) == 6
    assert all(np.isfinite(array).all() for array in done.weights.values())


def test_a_resumed_run_ends_with_the_same_bits(small: Make, tmp_path: Path) -> None:
    settings = ["rounds=4", "training.dropout=true", "federate.server={name: fedadam, lr: 0.02}"]
    whole, _ = run(small(*settings), tmp_path / "whole")
    rounds = iter([False, False, True])
    first, _ = run(small(*settings), tmp_path / "half", should_stop=lambda: next(rounds))
    assert len(first.history) == 2
    again = resume_run(tmp_path / "half", in_process=True)
    assert again.weights.digest == whole.weights.digest
    assert [entry.loss for entry in again.history] == [entry.loss for entry in whole.history]
    for name in ("best.safetensors", "last.safetensors"):
        assert load_weights(tmp_path / "half" / name).digest == load_weights(tmp_path / "whole" / name).digest


def test_the_run_folder(small: Make, digits: Path, tmp_path: Path) -> None:
    done, events = run(small(EXAMPLES), tmp_path / "run")
    path = done.path
    lines = [from_line(line) for line in (path / "events.jsonl").read_text().splitlines()]
    assert lines == events
    assert load_course(path / "course.yaml").rounds == 2
    last = load_weights(path / "last.safetensors")
    assert last.digest == done.weights.digest
    assert load_weights(path / "best.safetensors").fingerprint == last.fingerprint
    assert "Test accuracy" in (path / "summary.md").read_text()
    assert json.loads((path / "environment.json").read_text())["packages"]["numpy"]
    checkpoints = [file.name for file in sorted((path / "checkpoints").iterdir())]
    assert checkpoints == ["round-00001.safetensors", "round-00002.safetensors"]

    images = load_callable("data.py:load", digits)()["test"][0][:50]
    net = load_callable("torch_model.py:build", digits)().eval()
    net.load_state_dict(torch.load(path / "model.pt", weights_only=True))
    expected = net(torch.from_numpy(images)).detach().numpy()
    model = load_callable("keras_model.py:build", digits)()
    model.load_weights(path / "model.weights.h5")
    received = model(images.transpose(0, 2, 3, 1)).numpy()
    onnx.checker.check_model(str(path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(str(path / "model.onnx"))
    (ran,) = session.run(None, {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(ran, expected, rtol=0, atol=1e-4)
    assert np.abs(expected).max() > 0.1


def test_thousands_of_participants_need_two_models(digits: Path, tmp_path: Path) -> None:
    settings = [
        "rounds=1",
        "participants={torch: 700, tensorflow: 500}",
        "data.partition={kind: iid}",
        "federate.cohort=40",
        "training.steps=1",
    ]
    course = load_course(digits / "course.yaml", settings)
    assert len(course.participants) == 1200
    _, events = run(course, tmp_path / "run")
    assert len(updates(events)) == 40
    assert {event.backend for event in events if isinstance(event, ParticipantTrained)} == {
        "torch",
        "tensorflow",
    }


def test_an_existing_folder_is_not_touched(small: Make, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(FileError, match="exists"):
        run(small(), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_corrupt_checkpoint_is_named_and_the_one_before_offered(small: Make, tmp_path: Path) -> None:
    done, _ = run(small(), tmp_path / "run")
    latest = max((done.path / "checkpoints").iterdir())
    content = bytearray(latest.read_bytes())
    content[-7] ^= 1
    latest.write_bytes(content)
    with pytest.raises(FileError, match=r"round-00002\.safetensors is corrupt") as caught:
        resume_run(done.path, in_process=True)
    assert "round-00001" in str(caught.value)
    latest.write_bytes(content[:100])
    with pytest.raises(FileError, match="is corrupt"):
        resume_run(done.path, in_process=True)


def test_a_changed_model_cannot_be_resumed(small: Make, digits: Path, tmp_path: Path) -> None:
    done, _ = run(small(*EVERYONE["torch"], "models={torch: torch_model.py:build}"), tmp_path / "run")
    changed = tmp_path / "changed.py"
    changed.write_text((digits / "torch_model.py").read_text().replace("128", "96"))
    with pytest.raises(ConfigError, match=r"models\.torch: .*torch_model\.py:build → .*changed\.py:build"):
        resume_run(done.path, [f"models.torch={changed}:build", "rounds=3"], in_process=True)
    # The model behind the name may have changed, too.
    for kept in (done.path / "course.yaml", done.path / ".course.yaml"):
        kept.write_text(kept.read_text().replace(str(digits / "torch_model.py"), str(changed)))
    with pytest.raises(SchemaError, match="the checkpoint is of schema"):
        resume_run(done.path, ["rounds=3"], in_process=True)
