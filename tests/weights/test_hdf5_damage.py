"""Damaged HDF5 data are refused, never read as other numbers; the HDF5 library is the judge."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from xbackend_fl import weights
from xbackend_fl.errors import FormatRefused
from xbackend_fl.formats import confined, hdf5_child

ROOT = Path(__file__).resolve().parents[2]
PACKED: dict[str, dict[str, Any]] = {
    "fletcher32": {"fletcher32": True},
    "fletcher32 of small pieces": {"fletcher32": True, "chunks": (2,)},
    "gzip": {"compression": "gzip"},
    "all": {"compression": "gzip", "shuffle": True, "fletcher32": True},
}


@pytest.mark.parametrize("how", PACKED)
def test_a_flipped_bit_is_refused(how: str, tmp_path: Path) -> None:
    path, values = tmp_path / "x.h5", np.arange(8.0)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("w", data=values, **{"chunks": (8,), **PACKED[how]})
        chunk = dataset.id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    for at in range(chunk.byte_offset, chunk.byte_offset + chunk.size):
        content[at] ^= 4
        path.write_bytes(content)
        content[at] ^= 4
        code, received = _opened(path)
        # A few bits of gzip say nothing about the content.
        assert code in {"bad-hdf5", "size-mismatch"} or (how == "gzip" and received == values.tolist())


def _opened(path: Path) -> tuple[str, list[float]]:
    try:
        return "", weights.open_weights(path)["w"].tolist()
    except FormatRefused as error:
        return error.code, []


def test_mutations_are_refused_or_read_as_the_library_reads_them(
    request: pytest.FixtureRequest,
) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.weights.hdf5_mutations"]
    done = subprocess.run(
        [*command, "--count", "20000" if request.getfixturevalue("thorough") else "80"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (
            "_frame(connection, _DATA, index, piece)",
            "_send(connection, {'code': 'bad-hdf5', 'message': 'no'})",
        ),
        ("_frame(connection, _DATA, index, piece)", "_frame(connection, _DATA, index + 1, piece)"),
        (
            "_frame(connection, _DATA, index, piece)",
            "_frame(connection, _DATA, index, memoryview(bytes(999)))",
        ),
        ("_frame(connection, _DATA, index, piece)", "_frame(connection, b'?', index, piece)"),
        ("_frame(connection, _DATA, index, piece)", "connection.sendall(piece)"),
        ("_frame(connection, _DATA, index, piece)", "os._exit(1)"),
        ("zlib.crc32(content)))", "zlib.crc32(content) ^ (kind == _DATA)))"),
        ("_frame(connection, _ANSWER, 0,", "_frame(connection, _DATA, 0,"),
        ('{"code": error.code,', '{"code": "\\x1b[2J",'),
    ],
)
def test_no_answer_is_taken_for_values_and_no_values_for_an_answer(
    right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("w", data=np.arange(64.0), chunks=(64,), compression="gzip")
        if "error.code" in right:
            file["link"] = h5py.SoftLink("/w")
    program = Path(hdf5_child.__file__).read_text()
    assert right in program
    (tmp_path / "lies.py").write_text(program.replace(right, wrong))
    monkeypatch.setattr(confined, "_PROGRAM", tmp_path / "lies.py")
    monkeypatch.setattr(confined._Server, "control", None)
    try:
        with pytest.raises(FormatRefused) as caught:
            weights.open_weights(path)["w"]
        assert caught.value.code in {"bad-hdf5", "parser-stopped"}
        assert caught.value.message.isprintable()
    finally:
        confined._Server.control = None
