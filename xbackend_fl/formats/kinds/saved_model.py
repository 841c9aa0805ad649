"""The folder of a TensorFlow SavedModel: a checkpoint beside a graph, which is not looked at."""

from __future__ import annotations

from pathlib import Path

from xbackend_fl.formats.format import Format
from xbackend_fl.formats.kinds import checkpoint


def _is_at(path: Path) -> bool:
    return (path / checkpoint.GRAPH).is_file()


FORMAT = Format("saved-model", checkpoint.read, is_at=_is_at)
