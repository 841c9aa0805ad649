"""Going on with a run: what its folder lacks is made again or refused before anything is trained, and changed data are seen."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.participant import models
from xbackend_fl import Course, load_course, run_course
from xbackend_fl.adapter import load
from xbackend_fl.certificate import Model, certify, embed, sign
from xbackend_fl.errors import RefusedInput
from xbackend_fl.events import Event, Noted, RoundStarted
from xbackend_fl.rounds import RunFolder
from xbackend_fl.rounds.ready import make_ready, require_same_data
from xbackend_fl.signing import new_pair, read_private
from xbackend_fl.simulation import resume_run
from xbackend_fl.weights import Weights, load_weights, open_weights, save_weights
from xbackend_fl.weights.around import replace_weights

LOADERS = """
import numpy as np
from pathlib import Path

ROOM = Path(__file__).parent

def load():
    found = np.load(ROOM / "data.npz")
    parts = ("train", "validation", "test")
    return {name: (found[name + "_x"], found[name + "_y"]) for name in parts} | {"owners": found["owners"]}

def own():
    found = np.load(ROOM / "own.npz")
    return found["x"], found["y"]
"""
COURSE = f"""
name: small
rounds: 4
models: {{torch: "{models.__file__}:build"}}
input: ["1,8"]
data: {{source: "loaders.py:load", partition: {{kind: by_id}}}}
participants:
  - {{name: a, backend: torch}}
  - {{name: b, backend: torch}}
  - {{name: c, backend: torch, data: "loaders.py:own"}}
training: {{batch_size: 16, optimizer: {{lr: 0.5}}}}
federate: {{on_failure: continue}}
"""
SIZES = {"train": 200, "validation": 90, "test": 90}


def write_data(folder: Path) -> None:
    draw = np.random.default_rng(0)
    arrays = {}
    for name, size in SIZES.items():
        arrays[f"{name}_x"] = draw.standard_normal((size, 8)).astype(np.float32)
        arrays[f"{name}_y"] = draw.integers(0, 3, size)
    np.savez(folder / "data.npz", owners=np.repeat(["a", "b"], 100), **arrays)
    np.savez(folder / "own.npz", x=arrays["train_x"][:70], y=arrays["train_y"][:70])


class Tried:
    """A course whose run was interrupted after two of four rounds, and a copy of its folder."""

    def __init__(self, course: Course, whole: str, run: Path) -> None:
        self.course, self.whole, self.folder = course, whole, RunFolder(run)
        self.events: list[Event] = []

    def resume(self, *settings: str) -> str:
        """The digest of the weights at the end."""
        done = resume_run(self.folder.path, settings, observer=self.events.append, in_process=True)
        return done.weights.digest

    def refused(self, *settings: str) -> RefusedInput:
        """The refusal, which comes before any training and leaves everything in its place."""
        with pytest.raises(RefusedInput) as caught:
            self.resume(*settings)
        assert not any(isinstance(event, RoundStarted) for event in self.events)
        return caught.value

    @property
    def notes(self) -> str:
        return "\n".join(event.note for event in self.events if isinstance(event, Noted))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Course, str, Path]:
    room = tmp_path_factory.mktemp("begun")
    (room / "loaders.py").write_text(LOADERS)
    (room / "course.yaml").write_text(COURSE)
    write_data(room)
    course = load_course(room / "course.yaml")
    whole = run_course(course, room / "whole", in_process=True)
    rounds = iter([False, False, True])
    run_course(course, room / "run", should_stop=lambda: next(rounds), in_process=True)
    return course, whole.weights.digest, room


@pytest.fixture
def tried(begun: tuple[Course, str, Path], tmp_path: Path) -> Tried:
    course, whole, room = begun
    write_data(room)
    return Tried(course, whole, Path(shutil.copytree(room / "run", tmp_path / "run")))


def test_nothing_is_wrong_with_a_run_that_was_interrupted(tried: Tried) -> None:
    assert tried.resume() == tried.whole
    assert tried.notes == ""


# What can be made again.


def without_best(folder: RunFolder) -> None:
    folder.best.unlink()


def truncated_best(folder: RunFolder) -> None:
    folder.best.write_bytes(folder.best.read_bytes()[:-7])


def flipped_best(folder: RunFolder) -> None:
    content = bytearray(folder.best.read_bytes())
    content[-9] ^= 4
    folder.best.write_bytes(content)


def foreign_best(folder: RunFolder) -> None:
    shutil.copy(folder.path / "model.pt", folder.best)


def best_of_another_run(folder: RunFolder) -> None:
    weights = load_weights(folder.best)
    other = {name: array + np.ones_like(array) for name, array in weights.items()}
    save_weights(folder.best, Weights(other, weights.fingerprint, weights.kinds))


HARMS = [without_best, truncated_best, flipped_best, foreign_best, best_of_another_run]


@pytest.mark.parametrize("harm", HARMS)
def test_the_best_weights_are_made_again(tried: Tried, harm: Callable[[RunFolder], None]) -> None:
    best = load_weights(tried.folder.best).digest
    harm(tried.folder)
    assert "made again from the checkpoint of round 1" in "".join(
        make_ready(tried.folder, tried.folder.latest())
    )
    assert load_weights(tried.folder.best).digest == best
    assert not list(make_ready(tried.folder, tried.folder.latest()))


def test_what_can_be_made_again_is(tried: Tried) -> None:
    folder = tried.folder
    for path in (folder.best, folder.last, folder.events, folder.schema, folder.environment, folder.summary):
        path.unlink()
    shutil.rmtree(folder.bindings)
    # Nothing is left to train, so that what is read at the end was made at the beginning.
    tried.resume("rounds=2")
    assert tried.resume("rounds=4") == tried.whole
    assert "best.safetensors is missing: made again" in tried.notes


def test_a_run_without_checkpoints_begins_again(tried: Tried) -> None:
    shutil.rmtree(tried.folder.path / "checkpoints")
    assert tried.resume() == tried.whole
    assert "no checkpoint is left" in tried.notes
    assert [event.round for event in tried.events if isinstance(event, RoundStarted)] == [1, 2, 3, 4]


# What cannot.


def test_best_weights_that_no_checkpoint_has(tried: Tried) -> None:
    state = tried.folder.latest()
    assert state is not None
    assert state.best is not None
    assert state.best.round < state.round
    (tried.folder.path / "checkpoints" / f"round-{state.best.round:05d}.safetensors").unlink()
    tried.folder.best.unlink()
    refused = tried.refused()
    assert "best.safetensors is missing" in refused.message
    assert "\n" not in refused.message
    # The cure.
    shutil.rmtree(tried.folder.path / "checkpoints")
    assert tried.resume() == tried.whole


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints", "bindings",
        "best.safetensors", "last.safetensors", "summary.md", "model.onnx", "model.pt", "schema.json", "environment.json", "data.json",
        "checkpoints/round-00003.safetensors", "checkpoints/round-00004.safetensors",
    ],
)  # fmt: skip
def test_something_else_in_a_place(tried: Tried, name: str) -> None:
    place = tried.folder.path / name
    if place.is_dir():
        shutil.rmtree(place)
        place.write_text("a file")
    else:
        place.unlink(missing_ok=True)
        place.mkdir()
        (place / "kept").touch()
    refused = tried.refused()
    assert name.rsplit("/", maxsplit=1)[-1] in refused.message
    assert "\n" not in refused.message
    assert place.exists()


@pytest.mark.parametrize("name", ["checkpoints", "bindings"])
def test_a_folder_that_lies_elsewhere(tried: Tried, name: str) -> None:
    """Nobody writes into this one; where somebody does, it is not the run's."""
    shutil.rmtree(tried.folder.path / name)
    (tried.folder.path / name).symlink_to("/proc/self/fdinfo")
    refused = tried.refused()
    assert f"{name} is a link to /proc/self/fdinfo" in refused.message
    assert "\n" not in refused.message


def test_a_link_to_nowhere(tried: Tried) -> None:
    shutil.rmtree(tried.folder.path / "checkpoints")
    (tried.folder.path / "checkpoints").symlink_to(tried.folder.path / "nowhere")
    assert "checkpoints" in tried.refused().message


# Which checkpoint to go on from.


def harmed(folder: RunFolder, *numbers: int) -> None:
    for number in numbers:
        path = folder.path / "checkpoints" / f"round-{number:05d}.safetensors"
        path.write_bytes(path.read_bytes()[:-50])


def test_the_hint_names_a_checkpoint_that_reads(tried: Tried) -> None:
    harmed(tried.folder, 2)
    refused = tried.refused()
    assert "round-00002.safetensors" in refused.message
    assert refused.hint == "delete it to go on from round-00001.safetensors"
    (tried.folder.path / "checkpoints" / "round-00002.safetensors").unlink()
    assert tried.resume() == tried.whole


def test_only_one_that_reads(begun: tuple[Course, str, Path], tmp_path: Path) -> None:
    _, whole, room = begun
    tried = Tried(begun[0], whole, Path(shutil.copytree(room / "whole", tmp_path / "run")))
    harmed(tried.folder, 4, 3)
    hint = str(tried.refused().hint)
    assert hint == (
        "delete round-00003.safetensors and round-00004.safetensors, neither of which can be read, "
        "to go on from round-00002.safetensors"
    )
    harmed(tried.folder, 2)
    hint = str(tried.refused().hint)
    assert "none of the 3 checkpoints can be read" in hint
    shutil.rmtree(tried.folder.path / "checkpoints")
    assert tried.resume() == whole


# Rounds that have been run.


@pytest.mark.parametrize("rounds", [1, 2])
def test_rounds_that_have_been_run_already(tried: Tried, rounds: int) -> None:
    before = load_weights(tried.folder.last).digest
    assert tried.resume(f"rounds={rounds}") == before
    assert f"2 rounds have been run already, and `rounds` is {rounds}" in tried.notes


def certified(file: Path, room: Path) -> bytes:
    """Embed a certificate of the model in a file of weights; the file then."""
    example = (np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32),)
    key = room / "a.ed25519"
    key.write_bytes(new_pair()[0])
    private = read_private(key)
    made = sign(
        certify([Model("torch:models.py:build", load("torch"), models.build())], example, ["1,8"]), private
    )
    embed(file, made, private)
    return file.read_bytes()


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("large", [0, 1 << 30])
def test_a_certificate_stays_in_the_same_model(
    tried: Tried, tmp_path: Path, large: int, *, renamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written by a process of its own, and in this one; in the folder of the run, and in one that was renamed."""
    monkeypatch.setattr("xbackend_fl.rounds.export._LARGE", large)
    if renamed:
        tried = Tried(tried.course, tried.whole, tried.folder.path.rename(tmp_path / "moved"))
    before = certified(tried.folder.onnx, tmp_path)
    tried.resume("rounds=2")
    assert tried.folder.onnx.read_bytes() == before
    assert "metadata" not in tried.notes


def test_a_certificate_of_earlier_weights_is_said_to_be_gone(tried: Tried, tmp_path: Path) -> None:
    certified(tried.folder.onnx, tmp_path)
    tried.resume()
    assert "certificate" not in open_weights(tried.folder.onnx).metadata
    assert "so 'certificate', 'certificate_values' of its metadata are gone" in tried.notes


def test_weights_with_a_certificate_keep_it_or_the_run_says_so(tried: Tried, tmp_path: Path) -> None:
    """The same weights, written again; then those of further rounds, which are said once."""
    certified(tried.folder.last, tmp_path)
    weights, before = load_weights(tried.folder.last), open_weights(tried.folder.last).metadata
    assert replace_weights(tried.folder.last, weights) == (weights.digest, "")
    shutil.copy(tried.folder.last, tried.folder.best)
    tried.resume("rounds=2")
    assert open_weights(tried.folder.last).metadata == before
    assert "metadata" not in tried.notes
    tried.resume("rounds=4")
    for file in (tried.folder.last, tried.folder.best):
        assert "certificate" not in open_weights(file).metadata
        said = f"{file.name} is another model than before, and so 'certificate', 'certificate_values'"
        assert tried.notes.count(said) == 1
    assert load_weights(tried.folder.last).digest == tried.whole


@pytest.mark.parametrize(
    "content",
    [lambda data: data + data, lambda data: data[:-9], lambda _: b"none", lambda data: data + b"\x08"],
)
def test_another_file_in_the_place_of_the_model_is_written_anew(
    tried: Tried, content: Callable[[bytes], bytes]
) -> None:
    before = tried.folder.onnx.read_bytes()
    tried.folder.onnx.write_bytes(content(before))
    tried.resume("rounds=2")
    assert tried.folder.onnx.read_bytes() == before


# The data.


def rewrite(path: Path, **changes: Callable[[np.ndarray], np.ndarray]) -> None:
    arrays = dict(np.load(path))
    np.savez(path, **{name: changes.get(name, lambda a: a)(array) for name, array in arrays.items()})


def one_value(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[37, 3] += 1
    return array


CHANGED: dict[str, tuple[str, Any, list[str]]] = {
    "one value of the inputs": ("data.npz", {"train_x": one_value}, ["train: inputs"]),
    "one label": ("data.npz", {"test_y": lambda y: np.where(np.arange(len(y)) == 41, (y + 1) % 3, y)}, ["test: targets"]),
    "the order": ("data.npz", {"validation_x": lambda x: x[::-1], "validation_y": lambda y: y[::-1]}, ["validation: inputs", "validation: targets"]),
    "fewer": ("data.npz", {"validation_x": lambda x: x[:-1], "validation_y": lambda y: y[:-1]}, ["validation: inputs", "validation: targets"]),
    "the owners": ("data.npz", {"owners": lambda o: np.roll(o, 1)}, ["owners"]),
    "a participant's own": ("own.npz", {"x": one_value}, ["participant 'c': inputs"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_changed_data_are_not_gone_on_with(tried: Tried, begun: tuple[Course, str, Path], name: str) -> None:
    file, change, said = CHANGED[name]
    rewrite(begun[2] / file, **change)
    refused = tried.refused()
    assert refused.message == f"the data are not those that the run was begun with: {', '.join(said)}"


def test_data_that_somebody_changes_on_purpose(tried: Tried, begun: tuple[Course, str, Path]) -> None:
    """The cure of the refusal."""
    rewrite(begun[2] / "data.npz", train_x=one_value)
    assert f"delete {tried.folder.data}" in str(tried.refused().hint)
    tried.folder.data.unlink()
    assert tried.resume() != tried.whole
    assert "data.json was missing: the run goes on with the data as they are now" in tried.notes
    tried.events.clear()
    tried.resume("rounds=5")
    assert "data.json" not in tried.notes


def test_equal_data_in_another_form_are_the_same(tried: Tried, begun: tuple[Course, str, Path]) -> None:
    """Memory order is not content."""
    rewrite(begun[2] / "data.npz", train_x=np.asfortranarray)
    assert tried.resume() == tried.whole


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"a": 1}', "[" * 100_000, "\x00"])
def test_a_list_of_data_that_cannot_be_read(tried: Tried, content: str) -> None:
    tried.folder.data.write_text(content)
    with pytest.raises(RefusedInput) as caught:
        require_same_data(tried.folder, {"train: inputs": "0"}, begun=True)
    assert "data" in caught.value.message
    assert "\n" not in caught.value.message
    assert tried.folder.data.read_text() == content
