"""A course that begins with weights from a file, of whatever format and model, or from another run."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.algorithms.smooth import NAMES, course_of
from tests.federation.conftest import files_of  # noqa: F401  a fixture
from tests.federation.links import deployed
from tests.federation.local import LocalLink
from xbackend_fl import Course, run_course, weights
from xbackend_fl.errors import FileError, RefusedInput, SchemaError
from xbackend_fl.events import Event, Noted
from xbackend_fl.federation import Silo
from xbackend_fl.rounds import RunFolder
from xbackend_fl.rounds.initial import initial_weights
from xbackend_fl.simulation import SimulationEngine
from xbackend_fl.weights import load_weights, save_weights


def beginning_with(course: Course, path: Path) -> Course:
    return course.model_copy(update={"initial": str(path)}).with_base(course.base)


@pytest.mark.parametrize(
    "backends", [["torch"], pytest.param(["torch", "tensorflow"], marks=pytest.mark.slow)]
)
def test_any_file_of_any_of_its_models(backends: list[str], tmp_path: Path) -> None:
    course = course_of(tmp_path / "course", backends, norm=True, rounds=1)
    run = run_course(course, tmp_path / "run", in_process=True)
    own = {"torch": "model.pt", "tensorflow": "model.weights.h5"}
    files = ["", "best.safetensors", "last.safetensors", *(own[name] for name in backends)]
    with closing(SimulationEngine(course, in_process=True)) as engine:
        prepared = engine.prepare(lambda _: None)
        assert prepared.initial.digest != run.weights.digest
        for name in files:
            given = beginning_with(course, tmp_path / "run" / name)
            found, said = initial_weights(given, engine, prepared.schema, prepared.initial)
            assert found.digest == run.weights.digest, name
            assert ("model" in said) == name.startswith("model"), said
        other = dict(weights.open_weights(tmp_path / "run" / "model.pt"))
        for change, words in {
            "shape": r"'out.weight' has the shape \[3, 6\]; the model's 'out.weight' has \[2, 6\]",
            "missing": "it has no 'out.weight'",
            "dtype": "'out.weight' is float64; the model has float32",
            "nan": "'out.weight' of .* holds NaN or infinity",
            "variance": "'norm.variance' of .* holds a negative variance",
        }.items():
            bad = {name: np.array(array) for name, array in other.items()}
            weight = bad.pop("out.weight")
            changed = {
                "shape": np.zeros((3, 6), np.float32), "dtype": weight.astype(np.float64), "nan": weight * np.nan,
            }  # fmt: skip
            if change != "missing":
                bad["out.weight"] = changed.get(change, weight)
            if change == "variance":
                bad["norm.running_var"] = -bad["norm.running_var"]
            path = tmp_path / f"{change}.pt"
            weights.save(path, bad)
            with pytest.raises(RefusedInput, match=words):
                initial_weights(beginning_with(course, path), engine, prepared.schema, prepared.initial)


def test_it_begins_there_in_both_engines(tmp_path: Path, files_of: Callable[[Course], Path]) -> None:  # noqa: F811
    settings = ("federate.precision=exact", "federate.frozen=[hidden.*]")
    course = course_of(tmp_path / "course", ["torch"], *settings, rounds=2)
    first = run_course(course, tmp_path / "first", in_process=True)
    moved = first.weights.like({name: array + np.float32(0.5) for name, array in first.weights.items()})
    save_weights(tmp_path / "start.safetensors", moved)
    again = beginning_with(course, tmp_path / "start.safetensors")
    events: list[Event] = []
    run = run_course(again, tmp_path / "again", in_process=True, observer=events.append)
    kept = json.loads(RunFolder(tmp_path / "again").initial.read_text())
    assert kept["digest"] == load_weights(tmp_path / "start.safetensors").digest
    assert any("begins with" in event.note for event in events if isinstance(event, Noted))
    assert (run.weights["hidden.weight"] == moved["hidden.weight"]).all()
    # Of the silos' own course the file is nothing that they need.
    data = files_of(course)
    silos = [Silo.from_course(course, n, data / f"{n}.npz", out=tmp_path / n) for n in NAMES]
    real, _ = deployed(again, LocalLink(silos), tmp_path / "deployed")
    assert real.weights.digest == run.weights.digest
    with pytest.raises(RefusedInput, match="only the silos have the code of the model"):
        deployed(
            beginning_with(course, tmp_path / "first" / "model.pt"), LocalLink(silos), tmp_path / "native"
        )


def test_what_is_not_there_or_of_another_model_is_refused(tmp_path: Path) -> None:
    course = course_of(tmp_path / "course", ["torch"], rounds=1)
    with pytest.raises(FileError, match=r"initial: .*nowhere.pt"):
        run_course(beginning_with(course, Path("nowhere.pt")), tmp_path / "run", in_process=True)
    other = course_of(tmp_path / "other", ["torch"], norm=True, rounds=1)
    run_course(other, tmp_path / "other-run", in_process=True)
    with pytest.raises(SchemaError, match="expected weights of schema"):
        run_course(beginning_with(course, tmp_path / "other-run"), tmp_path / "run", in_process=True)
    assert not (tmp_path / "run").exists()
