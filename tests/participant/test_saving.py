"""A trained model that cannot be written is one line with the place, whatever its framework raises."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from xbackend_fl.errors import DiskFull, RunFailed
from xbackend_fl.participant.failures import saving


def test_what_pytorch_keeps_for_itself(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    (tmp_path / "model.pt").mkdir()
    for path, words in (
        (tmp_path / "gone" / "model", "No such file"),
        (tmp_path / "model", "Is a directory"),
    ):
        with pytest.raises(RunFailed) as caught, saving(path, "torch"):
            torch.save({"w": torch.zeros(3)}, path.with_suffix(".pt"))
        assert words in caught.value.message
        assert str(path.parent) in caught.value.message
        assert len(caught.value.message.splitlines()) == 1
        assert caught.value.hint is not None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_is_that(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(DiskFull, match="No space left") as caught, saving(tmp_path / "model", "torch"):
        os.write(full, b"weights")
    os.close(full)
    assert "make space" in str(caught.value.hint)


def test_what_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    with (
        pytest.raises(RunFailed, match=r"saving to .*model raised ValueError: of theirs"),
        saving(tmp_path / "model", "torch"),
    ):
        raise ValueError("of theirs")
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunFailed) as caught, saving(tmp_path / "model", "torch"):
        raise OSError(errno.EACCES, "Permission denied", "model.pt")
    assert "Permission denied (model.pt)" in caught.value.message
