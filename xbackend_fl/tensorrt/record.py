"""The SHA-256 of an engine and of the graph beside it, in a third file, so that damage is known without a card.

``net.engine.sha256`` is as ``sha256sum`` writes and reads it: the graph, then the engine. While an engine is replaced the one before has a line, too,
so that whichever lies there is recorded at any time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from pathlib import Path

from xbackend_fl.errors import FileError
from xbackend_fl.text import line
from xbackend_fl.writing import atomic_write, write_text

_LINE = re.compile(r"([0-9a-f]{64})  \S.*")
_LONGEST = 1 << 16
_SHOWN = 12


def graph_beside(path: Path) -> Path:
    """The graph of an engine."""
    return path.with_name(f"{path.name}.graph")


def record_beside(path: Path) -> Path:
    """The record of an engine."""
    return path.with_name(f"{path.name}.sha256")


def new_engine(path: Path, plan: bytes, graph: bytes) -> None:
    """Write an engine and what lies beside it, the engine last."""
    with atomic_write(graph_beside(path)) as partial:
        partial.write_bytes(graph)
    _record(path, _sha256(graph), [_sha256(plan)])
    with atomic_write(path) as partial:
        partial.write_bytes(plan)


def replace_engine(path: Path, plan: bytes) -> None:
    """Let an engine have other bytes: the file is the old one or the new one at any time, and recorded."""
    graph, known = recorded(path)
    before, after = _sha256(path.read_bytes()), _sha256(plan)
    _record(path, graph, {after, before} if before in known else [after])
    with atomic_write(path) as partial:
        partial.write_bytes(plan)
    _record(path, graph, [after])


def recorded(path: Path) -> tuple[str, Collection[str]]:
    """The SHA-256 of the graph of an engine, and those of which the engine may have one.

    Raises:
        FileError: The record is damaged.
    """
    file = record_beside(path)
    with file.open("rb") as opened:
        text = opened.read(_LONGEST).decode("utf-8", "replace")
    found = [match[1] for match in map(_LINE.fullmatch, text.splitlines()) if match]
    if len(found) < 2 or len(found) != len(text.splitlines()):
        raise FileError(f"{file} is damaged: it is no record of SHA-256", hint="build the engine again")
    return found[0], found[1:]


def damage(file: Path, known: Collection[str]) -> str:
    """What is wrong with a file that should have one of some SHA-256, in words; empty if nothing is."""
    found = _sha256(file.read_bytes())
    if found in known:
        return ""
    wanted = " or ".join(f"{digest[:_SHOWN]}…" for digest in known)
    return line(f"{file} is damaged: its SHA-256 is {found[:_SHOWN]}…, and {wanted} was written", 400)


def _record(path: Path, graph: str, engines: Collection[str]) -> None:
    names = [(graph, graph_beside(path)), *((digest, path) for digest in sorted(engines))]
    write_text(record_beside(path), "".join(f"{digest}  {file.name}\n" for digest, file in names))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
