"""What frameworks and their exporters print and log of their own internals, set aside."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile


@dataclass
class Aside:
    """What was written to file descriptor 2; known when the block has ended, however it ended."""

    text: str = ""


@contextmanager
def stderr_aside() -> Iterator[Aside]:
    """Keep what is written to file descriptor 2, where code in C++ writes whatever a log level says."""
    found, saved = Aside(), os.dup(2)
    with TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield found
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            found.text = file.read().decode(errors="replace")


@contextmanager
def hushed(logger: str) -> Iterator[None]:
    """Without warnings, and without what an exporter logs: what it wrote is run afterwards, and tells more."""
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        found.setLevel(level)
