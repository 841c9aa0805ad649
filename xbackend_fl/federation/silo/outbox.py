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
from xbackend_fl.weights import read_tensors, write_tensors
from xbackend_fl.writing import atomic_write, explain_unwritable, write_text

_GENERATIONS = 3
"""Updates whose state is kept: the server may take the latest ones out of its rounds again."""


@final
class Outbox:
    """A folder of one silo.

    Args:
        folder: Made if it is not there.
        keeps_state: Whether what an update carries on belongs to the course, so that the next one cannot be trained without.

    Attributes:
        folder: The same.

    Raises:
        FileError: The folder cannot be made.
    """

    def __init__(self, folder: Path, *, keeps_state: bool = False) -> None:
        with explain_unwritable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._keeps_state = folder, keeps_state
        self._answer, self._binding = folder / "answer.xbf", folder / "binding.xbf"
        self._data = folder / "data.json"
        self._certain: str | None = None

    def answer(self, run: str, number: int, base: str) -> Message | None:
        """The answer to a round of a run from given weights, if it was made before."""
        found = self._read(self._answer)
        key = (run, number, base)
        if found is None or tuple(found.fields.get(k) for k in ("run", "round", "base")) != key:
            return None
        return found

    def keep(self, answer: Message, carried: Mapping[str, NDArray[Any]]) -> Message:
        """Put an answer on disk before it is sent.

        Args:
            answer: The update.
            carried: What goes on to the next one if this one is accepted.

        Returns:
            The answer as it will be read back.
        """
        kept = Message.from_bytes(answer.to_bytes(), "this silo")
        run, number = kept.fields["run"], kept.fields["round"]
        earlier = sorted(path for path in self.folder.glob(f"{run}.*.carried") if _round(path) < number)
        certain = self._place(self._certain)
        for old in self.folder.glob("*.carried"):
            if old != certain and old not in earlier[1 - _GENERATIONS :]:
                old.unlink()
        if carried or self._keeps_state:
            path = self.folder / f"{run}.{number:08d}.{kept.identity}.carried"
            write_tensors(path, carried, {"update": kept.identity})
        with atomic_write(self._answer) as path:
            path.write_bytes(kept.frame)
        return kept

    def receipt(self, identity: str | None) -> None:
        """The server has this update for good, the latest that counts: it need not be sent again."""
        self._certain = identity
        found = self._read(self._answer)
        if found is not None and found.identity == identity:
            self._answer.unlink()

    def carried(self, identity: str | None) -> dict[str, NDArray[Any]]:
        """What a run's updates have carried on, up to the latest that counts.

        Args:
            identity: That update, by the server's word. One that came after it does not count, or does not any more.

        Raises:
            FileError: The file is damaged or another update's; or it is missing, and the course needs it.
        """
        path = self._place(identity)
        if path is None:
            if identity is not None and self._keeps_state:
                raise FileError(
                    f"{self.folder} does not hold what this silo kept from its update {identity[:12]}, which counts",
                    hint="put the folder back as it was; a silo that has lost it can only join a new run",
                )
            return {}
        arrays, metadata = read_tensors(path)
        if metadata.get("update", identity) != identity:
            raise FileError(
                f"{path} holds what was kept from another update", hint="put back the file as it was"
            )
        return arrays

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
            write_text(self._data, text)

    def bind(self, request: Message) -> None:
        """Remember what bound the model."""
        with atomic_write(self._binding) as path:
            path.write_bytes(request.frame)

    def binding(self) -> Message | None:
        """What bound the model."""
        return self._read(self._binding)

    def _place(self, identity: str | None) -> Path | None:
        return None if identity is None else next(self.folder.glob(f"*.{identity}.carried"), None)

    def _read(self, path: Path) -> Message | None:
        """What is damaged counts as not there: the server asks again."""
        try:
            return Message.from_bytes(path.read_bytes(), str(path))
        except (FileNotFoundError, FileError, UpdateRefused):
            return None
        except IsADirectoryError as error:
            raise FileError(f"{path} is a folder, not a silo's answer", hint="remove it") from error


def _round(path: Path) -> int:
    return int(path.name.split(".")[-3])
