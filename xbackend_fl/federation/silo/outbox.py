"""What a silo must not forget: its answer until the server has a receipt for it, and how its model is bound.

A silo that is asked again for a round that it has trained answers with the same bytes; training again might give others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from numpy.typing import NDArray

from xbackend_fl.errors import FileError, UpdateRefused
from xbackend_fl.federation.protocol.message import Message
from xbackend_fl.rounds import unwritable_said
from xbackend_fl.weights import read_tensors, write_tensors
from xbackend_fl.weights.store import atomic_write


@final
class Outbox:
    """A folder of one silo.

    Args:
        folder: Made if it is not there.

    Attributes:
        folder: The same.

    Raises:
        FileError: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        with unwritable_said(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._answer, self._binding = folder / "answer.xbf", folder / "binding.xbf"
        self._data = folder / "data.json"

    def answer(self, run: str, number: int, base: str) -> Message | None:
        """The answer to a round of a run from given weights, if it was made before."""
        found = self._read(self._answer)
        key = (run, number, base)
        if found is None or tuple(found.fields.get(k) for k in ("run", "round", "base")) != key:
            return None
        return found

    def keep(self, answer: Message, residual: Mapping[str, NDArray[Any]]) -> Message:
        """Put an answer on disk before it is sent.

        Args:
            answer: The update.
            residual: What its encoding left out, for the next one if this one is accepted.

        Returns:
            The answer as it will be read back.
        """
        kept = Message.of_bytes(answer.to_bytes(), "this silo")
        current = {self._residual(kept.fields["run"]), self._pending(kept)}
        for old in self.folder.glob("*.residual"):
            if old not in current:
                old.unlink()
        if residual:
            write_tensors(self._pending(kept), residual, {})
        with atomic_write(self._answer) as path:
            path.write_bytes(kept.frame)
        return kept

    def receipt(self, identity: str | None) -> None:
        """The server has an update for good: forget it, and go on with what its encoding left out."""
        found = self._read(self._answer)
        if found is None or found.identity != identity:
            return
        if self._pending(found).is_file():
            self._pending(found).replace(self._residual(found.fields["run"]))
        self._answer.unlink()

    def residual(self, run: str) -> dict[str, NDArray[Any]]:
        """What the encoding of a run's accepted updates has left out so far."""
        path = self._residual(run)
        return read_tensors(path)[0] if path.is_file() else {}

    def has_other_data(self, run: str, digest: str) -> bool:
        """Whether a run was last trained here on other data than those of this digest."""
        try:
            kept = json.loads(self._data.read_text(encoding="utf-8"))
            return bool(kept["run"] == run and kept["digest"] != digest)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            # Nothing is known, or nothing that can be read.
            return False

    def trained_on(self, run: str, digest: str) -> None:
        """Remember the data of a run, instead of those of the one before."""
        text = json.dumps({"run": run, "digest": digest})
        if not self._data.is_file() or self._data.read_text(encoding="utf-8", errors="replace") != text:
            with atomic_write(self._data) as path:
                path.write_text(text, encoding="utf-8")

    def bind(self, request: Message) -> None:
        """Remember what bound the model."""
        with atomic_write(self._binding) as path:
            path.write_bytes(request.frame)

    def binding(self) -> Message | None:
        """What bound the model."""
        return self._read(self._binding)

    def _residual(self, run: str) -> Path:
        return self.folder / f"{run}.residual"

    def _pending(self, answer: Message) -> Path:
        return self.folder / f"{answer.identity}.residual"

    def _read(self, path: Path) -> Message | None:
        """What is damaged counts as not there: the server asks again."""
        try:
            return Message.of_bytes(path.read_bytes(), str(path))
        except (FileNotFoundError, FileError, UpdateRefused):
            return None
        except IsADirectoryError as error:
            raise FileError(f"{path} is a folder, not a silo's answer", hint="remove it") from error
