"""What a killed process left beside a file goes at the next write in that folder, and what somebody is writing stays."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Never

import numpy as np
import pytest

from xbackend_fl.events import Noted, jsonl
from xbackend_fl.weights import save
from xbackend_fl.writing import atomic_write, place_beside, write_text

pytestmark = pytest.mark.quick

WRITE = """
import sys
from pathlib import Path
from xbackend_fl.writing import atomic_write
with atomic_write(Path(sys.argv[1])) as place:
    if sys.argv[2] == "folder":
        (place / "below").mkdir(parents=True)
        place = place / "below" / "file"
    place.write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def writing(path: Path, what: str = "file") -> Iterator[subprocess.Popen[str]]:
    """A process that is writing; a line on its input lets it end."""
    command = [sys.executable, "-c", WRITE, str(path), what]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_was_left_goes_at_the_next_write(tmp_path: Path, what: str) -> None:
    (tmp_path / "net.onnx").write_bytes(b"old")
    for number in range(2):
        with writing(tmp_path / f"{number}-{'n' * 200}", what) as process:
            process.send_signal(signal.SIGKILL)
    assert len(names(tmp_path)) == 2
    with atomic_write(tmp_path / "other") as place:
        place.write_bytes(b"new")
    assert names(tmp_path) == ["net.onnx", "other"]
    assert (tmp_path / "net.onnx").read_bytes() == b"old"


def test_what_somebody_is_writing_stays(tmp_path: Path) -> None:
    with writing(tmp_path / "net.onnx") as dead:
        dead.send_signal(signal.SIGKILL)
    with writing(tmp_path / "net.onnx") as process:
        for _ in range(2):
            with atomic_write(tmp_path / "net.onnx") as place:
                place.write_bytes(b"mine")
        assert len(names(tmp_path)) == 2
        process.communicate("end\n", timeout=60)
        assert process.returncode == 0
    assert (tmp_path / "net.onnx").read_bytes() == b"half"
    assert names(tmp_path) == ["net.onnx"]


def test_what_other_programs_leave_stays(tmp_path: Path) -> None:
    others = [
        ".net.onnx.4711.partial",
        ".net.onnx.partial",
        "net.0123abcd.xbfl.partial",
        ".net.0123abcd.partial",
    ]
    for name in others:
        (tmp_path / name).write_bytes(b"theirs")
    (tmp_path / ".away.0123abcd.xbfl.partial").symlink_to(tmp_path / others[0])
    with atomic_write(tmp_path / "net") as place:
        place.write_bytes(b"new")
    assert names(tmp_path) == sorted([*others, "net"])


def test_a_place_goes_whatever_happens(tmp_path: Path) -> None:
    def fail() -> None:
        with place_beside(tmp_path / "net") as place:
            place.mkdir()
            (place / "inside").write_bytes(b"x")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert names(tmp_path) == []


def test_what_a_link_leads_to_is_written(tmp_path: Path) -> None:
    """Through two links, one of them relative; and both stay."""
    (tmp_path / "deep").mkdir()
    place, one, two = (tmp_path / name for name in ("deep/net.onnx", "deep/one", "two"))
    place.write_bytes(b"old")
    one.symlink_to("net.onnx")
    two.symlink_to(one)
    with atomic_write(two) as partial:
        assert partial.parent == place.parent
        partial.write_bytes(b"new")
    assert (place.read_bytes(), names(place.parent)) == (b"new", ["net.onnx", "one"])
    assert (place.is_symlink(), one.is_symlink(), two.is_symlink()) == (False, True, True)


def test_a_link_to_itself_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "net.onnx"
    link.symlink_to(link)
    with atomic_write(link) as partial:
        partial.write_bytes(b"new")
    assert link.read_bytes() == b"new"


def full(opened: IO[bytes]) -> None:
    """Every byte that is written into a file from now on is one too many, says the kernel."""
    device = os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, opened.fileno())
    os.close(device)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_full_disk_names_the_file_that_people_know(tmp_path: Path, what: str) -> None:
    def fill() -> None:
        with atomic_write(tmp_path / "net.onnx") as place:
            if what == "folder":
                place.mkdir()
            inside = place / "inside" if what == "folder" else place
            with inside.open("wb", buffering=0) as file:
                full(file)
                file.write(b"new")

    (tmp_path / "old").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left on device") as caught:
        fill()
    assert caught.value.filename == str(tmp_path / "net.onnx")
    assert names(tmp_path) == ["old"]


def test_no_name_of_a_passing_place_is_shown(tmp_path: Path) -> None:
    """Two places, one beside the other, as a conversion has them."""

    def fail() -> None:
        with atomic_write(tmp_path / "net") as place, atomic_write(place) as inner:
            inner.mkdir()
            (inner / "deep" / "file").write_bytes(b"")

    with pytest.raises(FileNotFoundError) as caught:
        fail()
    assert caught.value.filename == str(tmp_path / "net" / "deep" / "file")


def test_a_file_in_the_place_of_the_folder_is_no_reason_to_show_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, error in (("file", NotADirectoryError), ("nowhere", FileNotFoundError)):
        with pytest.raises(error) as caught:
            write_text(tmp_path / folder / "net", "")
        assert caught.value.filename == str(tmp_path / folder / "net")


def test_what_is_said_of_another_file_stays(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_write(tmp_path / "net"):
            (tmp_path / "data").read_bytes()

    with pytest.raises(FileNotFoundError) as caught:
        fail()
    assert caught.value.filename == str(tmp_path / "data")
    with pytest.raises(BrokenPipeError) as broken, atomic_write(tmp_path / "net"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert broken.value.filename is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_weights_and_events_name_their_file(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    observe = jsonl(file)
    file.unlink()
    file.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        observe(Noted(backend="server", note="full"))
    assert caught.value.filename == str(file)
    file = tmp_path / "net.safetensors"

    def fill(*_: object) -> Never:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left on device") as caught:
        save(file, {"w": np.zeros(3)}, on_progress=fill)
    assert caught.value.filename == str(file)
    assert names(tmp_path) == ["events.jsonl"]
