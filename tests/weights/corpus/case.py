"""One file of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A hostile file.

    Attributes:
        label: What is wrong with it.
        name: File name, whose ending names the format.
        content: The file; or a function that builds it in an empty folder and returns the path to open.
        codes: Codes with which it may be refused; empty if it is odd but must be read.
    """

    label: str
    name: str
    content: bytes | Callable[[Path], Path]
    codes: frozenset[str]
    options: Mapping[str, bool] | None = None

    def build(self, folder: Path) -> Path:
        """Write it."""
        folder.mkdir(parents=True)
        if callable(self.content):
            return self.content(folder)
        path = folder / self.name
        path.write_bytes(self.content)
        return path


def on_demand(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    """The content of a large file, which is made when a test wants it and not when all tests are collected."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content())
        return path

    return make


def codes(*names: str) -> frozenset[str]:
    """The codes that fit."""
    return frozenset(names)
