"""A run folder has one owner and one course, and whatever it is that cannot be read or written is said in one line."""

from __future__ import annotations

import errno
import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.federation.campaign import write_course
from tests.federation.light import Linear
from xbackend_fl import Course, load_course
from xbackend_fl.errors import ConfigError, FileError, RefusedInput, RunFailed
from xbackend_fl.events import Noted, from_line, jsonl
from xbackend_fl.rounds import CourseState, RunFolder, explain_full_disk, load_state, owned, save_state
from xbackend_fl.rounds.changes import MAY_CHANGE
from xbackend_fl.simulation import resume_run, run_course
from xbackend_fl.weights import load_weights, write_tensors

HOLD = """
import sys, time
from pathlib import Path
from xbackend_fl.rounds import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return write_course(tmp_path / "course", rounds=2, silos=3)


@pytest.fixture
def folder(course: Course, tmp_path: Path) -> RunFolder:
    return RunFolder.create(course, tmp_path / "run")


def one_line(error: BaseException) -> str:
    """What a refusal says, besides its help."""
    assert isinstance(error, RefusedInput)
    assert "\n" not in error.message
    return error.message


def test_a_folder_has_one_owner_until_it_is_killed(folder: RunFolder) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "owned\n"
        with pytest.raises(FileError) as caught, owned(folder.path):
            pass
        said = one_line(caught.value)
        assert f"in use by process {process.pid} of {platform.node()} since 2" in said
        with pytest.raises(FileError, match=f"process {process.pid}"):
            resume_run(folder.path, in_process=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        # What it left behind is no obstacle, and the new owner is the one that is named.
        with (
            owned(folder.path),
            pytest.raises(FileError, match=f"process {os.getpid()} of"),
            owned(folder.path, 0.1),
        ):
            pass
    finally:
        process.kill()
        process.communicate()


LEAVE = """
import sys, time
from pathlib import Path
from xbackend_fl.rounds import owned
with owned(Path(sys.argv[1]), 0.0, int(sys.argv[2])):
    print("owned", flush=True)
    time.sleep(1.5)
"""


def leaving(folder: RunFolder, starter: int) -> subprocess.Popen[str]:
    """A process that owns a folder for another second and a half."""
    command = [sys.executable, "-c", LEAVE, str(folder.path), str(starter)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "owned\n"
    return process


def test_an_owner_whose_starter_is_gone_has_time_to_leave(folder: RunFolder) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with leaving(folder, gone.pid):
        # Whoever has no patience at all asks for an answer now.
        with pytest.raises(FileError, match="in use by process"), owned(folder.path):
            pass
        with owned(folder.path, 0.1):
            pass


@pytest.mark.slow
def test_an_owner_whose_starter_is_there_stays(folder: RunFolder) -> None:
    with leaving(folder, os.getpid()), pytest.raises(FileError, match="in use by"), owned(folder.path, 0.1):
        pass


def test_an_owner_that_cannot_be_read(folder: RunFolder) -> None:
    with owned(folder.path):
        for content in (
            b"{",
            b"[]",
            b'{"pid": "\\u001b[2J", "host": 1, "since": 2}',
            b"[" * 100_000,
            b"\xff",
            b'{"starter": 1e400}',
            b'{"starter": 99999999999999999999, "host": 1}',
        ):
            (folder.path / "owner.json").write_bytes(content)
            with pytest.raises(FileError) as caught, owned(folder.path, 0.01):
                pass
            assert one_line(caught.value).isprintable()
        (folder.path / "owner.json").unlink()
        with pytest.raises(FileError, match="in use by another process"), owned(folder.path):
            pass


CHANGES = {
    "seed=7": "seed: 5 → 7",
    "name=other": "name: light → other",
    "federate.precision=float32": "federate.precision: exact → float32",
    "federate.server={name: fedadam}": "federate.server.name: fedavgm → fedadam",
    "federate.server.momentum=0.5": "federate.server.momentum: 0.9 → 0.5",
    "federate.cohort=2": "federate.cohort: nothing → 2",
    "federate.online_aggr=false": "federate.online_aggr: True → False",
    "training.optimizer.lr=0.5": "training.optimizer.lr: 0.01 → 0.5",
    "training.optimizer.name=adam": "training.optimizer.name: sgd → adam",
    "training.batch_size=7": "training.batch_size: 32 → 7",
    "training.clip_norm=1": "training.clip_norm: nothing → 1.0",
    "training.loss={name: cross_entropy, label_smoothing: 0.1}": "training.loss.label_smoothing: 0.0 → 0.1",
    "training.dropout=off": "training.dropout: True → False",
    "input.0='1,9'": "input.0: 1,40 → 1,9",
    "input=['1,40', '1,2']": "input.1: nothing → 1,2",
    "data.source=npz:other.npz": "data.source: ",
    "data.partition.kind=quantity": "data.partition.kind: iid → quantity",
    "data.splits=[0.5, 0.2, 0.2]": "data.splits.0: 0.6 → 0.5",
    "deployment.payload=int8": "deployment.payload: float32 → int8",
    "participants.1.name=other": "participants.1.name: ",
    "models.onnx=nothing:9x9": "models.onnx: ",
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_course_is_not_gone_on_with(folder: RunFolder, change: str) -> None:
    before = folder.course.read_text()
    with pytest.raises(ConfigError) as caught:
        folder.continued([change], deployed=True)
    assert CHANGES[change] in caught.value.message
    assert len(caught.value.message.splitlines()) == 2
    assert "start a new run" in str(caught.value.hint)
    assert folder.course.read_text() == before


def test_all_differing_keys_are_listed(folder: RunFolder) -> None:
    with pytest.raises(ConfigError) as caught:
        folder.continued(["seed=7", "rounds=9", "federate.server.lr=2", "training.epochs=3"], deployed=True)
    listed = [line.split(":")[0].strip() for line in caught.value.message.splitlines()[1:]]
    assert listed == ["seed", "training.epochs", "federate.server.lr"]


def test_an_edit_of_the_folders_own_course_is_another_course(folder: RunFolder) -> None:
    """It was taken for the course that was begun."""
    folder.keep_course()
    text = folder.course.read_text(encoding="utf-8")
    for old, new, key in (
        ("seed: 5", "seed: 6", "seed"),
        ("precision: exact", "precision: float64", "federate.precision"),
    ):
        assert old in text
        folder.course.write_text(text.replace(old, new), encoding="utf-8")
        for deployed in (True, False):
            with pytest.raises(ConfigError, match=rf"another course:\n  {key}: "):
                folder.continued((), deployed=deployed)
    folder.course.write_text(text.replace("rounds: 2", "rounds: 7"), encoding="utf-8")
    assert folder.continued((), deployed=True).rounds == 7
    folder.course.write_text(text.replace("seed: 5", "seed: 6"), encoding="utf-8")
    folder.begun.unlink()
    assert folder.continued((), deployed=True).seed == 6, "a folder of an earlier version has no copy"
    folder.keep_course()
    folder.course.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="seed: 6 → 5"):
        folder.continued((), deployed=True)


def test_what_may_change_is_kept(folder: RunFolder) -> None:
    values = {
        "rounds": "9", "keep_checkpoints": "5", "opset": "20", "onnx_every": "2", "federate.on_failure": "continue", "federate.workers": "2", "federate.device": "cpu",
        "federate.device_memory_mib": "100", "federate.replicas": "auto", "federate.memory": "low", "federate.state_memory_mib": "10", "deployment.role": "server",
        "deployment.name": "silo-0", "deployment.data_path": "a.npz", "deployment.address": "h:1", "deployment.keys": "keys", "deployment.serve.engine": "net.engine", "deployment.quorum": "2",
        "deployment.join_timeout_s": "7", "deployment.round_timeout_s": "8", "deployment.max_examples": "99", "deployment.over_selection": "2",
        "deployment.max_restarts": "1", "early_stopping.patience": "3", "early_stopping.min_delta": "0.1", "early_stopping.metric": "loss", "data.cache": "kept",
    }  # fmt: skip
    assert values.keys() == set(MAY_CHANGE)
    asked = folder.continued([f"{key}={value}" for key, value in values.items()], deployed=True)
    assert (asked.rounds, asked.deployment.quorum) == (9, 2)
    guide = (Path(__file__).parents[2] / "docs/guides/courses.md").read_text(encoding="utf-8")
    listed = guide.partition("### What may change\n")[2].split("\n#", 1)[0]
    assert set(re.findall(r"`(.+?)`", listed)) == set(MAY_CHANGE)
    # Going on once more, without settings, is going on with these.
    assert folder.continued((), deployed=True).rounds == 9


def test_silos_may_join_at_the_end(folder: RunFolder) -> None:
    there = load_course(folder.course).participants
    plain = [{"name": p.name, "backend": p.backend} for p in there]
    more = [*plain, {"name": "new", "backend": "onnx"}]
    with pytest.raises(ConfigError, match=r"participants\.3\.name: nothing → new"):
        folder.continued([f"participants={more}"])
    for others in (plain[:2], plain[::-1], [more[-1], *plain]):
        with pytest.raises(ConfigError, match=r"participants\.\d\.name"):
            folder.continued([f"participants={others}"], deployed=True)
    assert len(folder.continued([f"participants={more}"], deployed=True).participants) == 4


def test_files_mean_the_same_from_the_run_folder(tmp_path: Path) -> None:
    write_course(tmp_path / "course", rounds=1, silos=1)
    said = ["data.source=leaf:leaves", "deployment.keys=keys", "deployment.data_path=mine.npz"]
    begun = load_course(tmp_path / "course" / "course.yaml", said)
    kept = load_course(RunFolder.create(begun, tmp_path / "run").course)
    assert kept.data.source == f"leaf:{tmp_path / 'course' / 'leaves'}"
    assert kept.deployment.keys == str(tmp_path / "course" / "keys")
    assert kept.deployment.data_path == f"npz:{tmp_path / 'course' / 'mine.npz'}"


def test_checkpoints_are_in_order_of_rounds(folder: RunFolder, course: Course) -> None:
    weights = Linear("silo-0", course).initial()
    for number in (99_998, 99_999, 100_000, 100_001, 1_000_000):
        folder.save_checkpoint(CourseState(number, weights, {}), keep=3)
    (folder.path / "checkpoints" / "round-copy.safetensors").write_bytes(b"somebody's own")
    found = folder.latest()
    assert found is not None
    assert found.round == 1_000_000
    left = {path.name for path in (folder.path / "checkpoints").iterdir()}
    assert left == {f"round-{n}.safetensors" for n in (100_000, 100_001, 1_000_000, "copy")}


def test_half_a_line_of_events_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for left_behind in (b"", b'{"event": "no', b"\xff" * 100_000, b'{"event": "noted"}'):
        jsonl(path)(Noted(backend="server", note="whole"))
        with path.open("ab") as file:
            file.write(left_behind)
    jsonl(path)(Noted(backend="server", note="last"))
    events = [from_line(line) for line in path.read_text().splitlines()]
    assert [event.note for event in events if isinstance(event, Noted)] == ["whole"] * 4 + ["last"]


@given(st.binary(max_size=300), st.integers(0, 3))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_checkpoints_are_refused(folder: RunFolder, course: Course, content: bytes, how: int) -> None:
    path = folder.path / "checkpoints" / "round-00001.safetensors"
    save_state(path, CourseState(1, Linear("silo-0", course).initial(), {}))
    whole = path.read_bytes()
    start = (len(content) * 37) % len(whole)
    damaged = [
        content,
        whole[:start],
        whole[:start] + content + whole[start + len(content) :],
        whole + content,
    ][how]
    path.write_bytes(damaged)
    if damaged == whole:
        assert load_state(path).round == 1
        return
    with pytest.raises(FileError) as caught:
        folder.latest()
    assert one_line(caught.value)


def test_places_that_are_no_folders(course: Course, folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        tmp_path / "link",
        tmp_path / ("n" * 300),
        Path("/proc/run"),
        Path("/dev/null/run"),
    ):
        with pytest.raises(FileError) as caught:
            RunFolder.create(course, out)
        assert one_line(caught.value)
    for run in (
        tmp_path / "file",
        tmp_path / "nowhere",
        tmp_path,
        tmp_path / ("n" * 300),
        Path("/proc/self"),
    ):
        with pytest.raises(FileError) as caught:
            resume_run(run)
        assert one_line(caught.value)
    folder.course.write_text("")
    with pytest.raises(ConfigError, match="received nothing"):
        resume_run(folder.path)


@pytest.mark.parametrize(
    "name", ["owner.lock", "owner.json", "events.jsonl", "schema.json", "bindings", "environment.json"]
)
def test_something_else_in_the_place_of_a_file(tmp_path: Path, digits: Path, name: str) -> None:
    """In a folder that a run begins in; what is there is neither replaced nor a traceback."""
    small = load_course(digits / "course.yaml", ["participants={torch: 1}", "rounds=1", "training.steps=1"])
    begun = RunFolder.create(small, tmp_path / "run")
    place = begun.path / name
    if name == "bindings":
        place.write_text("a file")
    else:
        place.mkdir()
        (place / "kept").touch()
    with pytest.raises(FileError) as caught:
        resume_run(begun.path, in_process=True)
    assert one_line(caught.value)
    assert place.exists()


@pytest.mark.parametrize("name", ["owner.lock", "owner.json", "course.yaml", ".course.yaml"])
def test_a_folder_in_the_place_of_a_file_has_a_cure(tmp_path: Path, digits: Path, name: str) -> None:
    small = load_course(digits / "course.yaml", ["participants={torch: 1}", "rounds=1", "training.steps=1"])
    begun = RunFolder.create(small, tmp_path / "run")
    begun.keep_course()
    place = begun.path / name
    place.unlink(missing_ok=True)
    place.mkdir()
    (place / "kept").touch()
    with pytest.raises(FileError) as caught, owned(begun.path):
        RunFolder.load(begun.path).keep_course()
    assert str(caught.value).startswith(f"{place} is a folder, and ")
    assert one_line(caught.value)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"move it away: mv {place} {place}.moved")
    for command in caught.value.hint.removeprefix("move it away: ").split(", then "):
        subprocess.run(command.split(), check=True)
    with owned(begun.path):
        RunFolder.load(begun.path).keep_course()
    assert (begun.path / f"{name}.moved" / "kept").exists()


def test_two_runs_of_one_name(course: Course, tmp_path: Path) -> None:
    run = tmp_path / "run"
    RunFolder.create(course, run)
    with pytest.raises(FileError, match="exists"):
        run_course(course, run, in_process=True)


def test_a_disk_that_becomes_read_only(folder: RunFolder) -> None:
    place = folder.path / "checkpoints" / "round-00002.safetensors"
    with (
        pytest.raises(RunFailed, match="cannot be written: Read-only file system") as caught,
        explain_full_disk(folder.path),
    ):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(place))
    assert "\n" not in caught.value.message
    # What is not the run's has another reason.
    with pytest.raises(FileNotFoundError), explain_full_disk(folder.path):
        (folder.path.parent / "data.npz").read_bytes()


@pytest.mark.parametrize(
    "kinds", ["{", "[]", "7", '{"dense.bias": "other"}', '{"nowhere": "trainable"}', "[" * 100_000]
)
def test_weights_whose_header_is_damaged(tmp_path: Path, kinds: str) -> None:
    path = tmp_path / "best.safetensors"
    write_tensors(path, {"dense.bias": np.zeros(3, np.float32)}, {"fingerprint": "f", "kinds": kinds})
    with pytest.raises(FileError, match="is corrupt"):
        load_weights(path)


@pytest.mark.parametrize("name", ["events.jsonl", "model.pt", "bindings/torch.json", "owner.json"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = tmp_path / "run"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(FileError, match="is a link to") as caught, owned(folder):
        pass
    assert caught.value.hint is not None
    (folder / name).unlink()
    (tmp_path / "again").symlink_to(folder)
    with owned(tmp_path / "again"):
        assert outside.read_text() == "mine"
