"""A damaged ledger is refused in one line; SQLite's own check of integrity says which ones are."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.federation.test_durable import update
from xbackend_fl.errors import FileError
from xbackend_fl.federation import Ledger
from xbackend_fl.federation.silo.outbox import Outbox
from xbackend_fl.rounds import RunFolder

pytestmark = pytest.mark.quick

DAMAGES = 120


def whole(folder: Path) -> None:
    """A ledger of some pages."""
    with closing(Ledger(RunFolder(folder))) as ledger:
        for number in range(1, 60):
            for silo in ("oslo", "berlin"):
                ledger.accept(number, silo, f"b{number}", update(number, silo), 7, 0.5)
                ledger.missed(number, "paris", "late", "no answer " * 10)


def damaged(content: bytes, draw: random.Random) -> bytes:
    place, size = draw.randrange(len(content)), draw.choice([1, 8, 512, 4096])
    match draw.randrange(4):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + draw.randbytes(size) + content[place + size :]
        case 2:
            return content[:place] + bytes(size) + content[place + size :]
        case _:
            return content[place:] + content[:place]


def said_by_sqlite(path: Path) -> bool:
    """Whether SQLite finds nothing wrong."""
    with closing(sqlite3.connect(path, isolation_level=None)) as rows:
        try:
            return bool(rows.execute("PRAGMA integrity_check").fetchone() == ("ok",))
        except sqlite3.DatabaseError:
            return False


def used(folder: Path) -> str:
    """Why a ledger cannot be used; empty if it can."""
    try:
        with closing(Ledger(RunFolder(folder))) as ledger:
            ledger.participation()
            list(ledger.begin(59, "b59"))
            ledger.accept(60, "oslo", "b60", update(60, "oslo"), 7, 0.5)
    except FileError as error:
        return error.message
    return ""


def test_damaged_pages(tmp_path: Path) -> None:
    whole(tmp_path / "whole")
    content = (tmp_path / "whole" / "ledger.sqlite").read_bytes()
    draw, refused = random.Random(7), 0
    for index in range(DAMAGES):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "ledger.sqlite").write_bytes(damaged(content, draw))
        shutil.copy(folder / "ledger.sqlite", folder / "copy.sqlite")
        sound = said_by_sqlite(folder / "copy.sqlite")
        said = used(folder)
        refused += bool(said)
        assert "\n" not in said
        assert said or (sound and said_by_sqlite(folder / "ledger.sqlite"))
        shutil.rmtree(folder)
    assert refused > DAMAGES / 3


@pytest.mark.parametrize("name", ["ledger.sqlite", "ledger.sqlite-wal", "spool"])
def test_something_else_in_the_place_of_a_file(tmp_path: Path, name: str) -> None:
    if name == "spool":
        (tmp_path / name).write_text("a file")
    else:
        (tmp_path / name / "kept").mkdir(parents=True)
    with pytest.raises(FileError) as caught:
        Ledger(RunFolder(tmp_path))
    assert "\n" not in caught.value.message
    assert (tmp_path / name).exists()


def test_the_tables_of_another_program(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as rows:
        rows.execute("CREATE TABLE accepted (round INTEGER, who TEXT)")
    with pytest.raises(FileError, match="is no ledger: no such column"):
        Ledger(RunFolder(tmp_path))


def test_an_outbox_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/outbox")):
        with pytest.raises(FileError, match="cannot be written"):
            Outbox(place)
    (tmp_path / "silo" / "answer.xbf").mkdir(parents=True)
    with pytest.raises(FileError, match="is a folder"):
        Outbox(tmp_path / "silo").answer("run", 1, "base")
