"""What participants keep from one of their rounds to the next, on disk and in memory.

A state is a file of its participant and round. A round that begins reads the newest file of an earlier round, so that a round which is repeated after an
interruption reads what it read before, and writes over what came of it. A state is written only for an update that was accepted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from numpy.typing import NDArray

from xbackend_fl.errors import FileError
from xbackend_fl.text import line
from xbackend_fl.weights import read_tensors, write_tensors

Arrays = Mapping[str, NDArray[Any]]
_SUFFIX = ".safetensors"
_CURE = "put the run's own file back, or start a new run"


@final
class ClientStates:
    """States of a run's participants.

    Args:
        folder: Where they are; it is made when there is one.
        memory_bytes: Most that is also held in memory; what was used longest ago goes first.
        kept_rounds: So many of the latest rounds may be repeated.
    """

    def __init__(self, folder: Path, memory_bytes: int, kept_rounds: int) -> None:
        self._folder, self._budget, self._kept = folder, memory_bytes, kept_rounds
        self._memory: OrderedDict[Path, Arrays] = OrderedDict()
        self._held = 0

    @property
    def spool(self) -> Path:
        """Beside the states: where updates may lie for a round."""
        return self._folder.with_name("updates")

    @property
    def failures(self) -> Path:
        """Beside the states: where tracebacks of training loops lie."""
        return self._folder.with_name("failures")

    def trace(self, name: str, number: int) -> Path:
        """Of a training loop in a round."""
        return self.failures / f"{name}-round-{number}.txt"

    def trace_of_evaluation(self, name: str, number: int) -> Path:
        """Of code that evaluates after a round."""
        return self.failures / f"{name}-evaluation-{number}.txt"

    def read(self, name: str, before: int) -> Arrays:
        """What a participant has kept before a round; empty if nothing.

        Raises:
            FileError: Its file is damaged.
        """
        numbers = [number for number in self._rounds(name) if number < before]
        if not numbers:
            return {}
        path = self._path(name, max(numbers))
        if path in self._memory:
            self._memory.move_to_end(path)
            return self._memory[path]
        arrays, _ = read_tensors(path)
        self._hold(path, arrays)
        return arrays

    def write(self, name: str, number: int, arrays: Arrays) -> str:
        """Keep what came of a round, and what earlier ones need that may be repeated; the digest of what is kept.

        Raises:
            OSError: There is no space.
        """
        path = self._path(name, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        written = write_tensors(path, arrays, {})
        self._hold(path, arrays)
        old = [earlier for earlier in self._rounds(name) if earlier <= number - self._kept]
        for earlier in sorted(old)[:-1]:
            self._drop(self._path(name, earlier))
        return written

    def require(self, expected: Mapping[str, str], number: int) -> None:
        """Look at what a course needs that goes on after a round.

        Args:
            expected: Digest of what each participant keeps, by its name; who keeps nothing is not in it.
            number: The round.

        Raises:
            FileError: A file is missing, damaged, or another one.
        """
        found = {path.parent.name for path in self._folder.glob(f"*/*{_SUFFIX}")}
        for name in sorted(found | expected.keys()):
            rounds = [earlier for earlier in self._rounds(name) if earlier <= number]
            path = self._path(name, max(rounds, default=number))
            if name in expected and not rounds:
                raise _refused(path.parent, f"does not hold what {name!r} kept by round {number}")
            if name not in expected and rounds:
                raise _refused(path, f"is there, and {name!r} had kept nothing by round {number}")
            if rounds and self._digest(path) != expected[name]:
                raise _refused(path, f"is not what {name!r} had kept by round {number}")

    def _digest(self, path: Path) -> str:
        try:
            return read_tensors(path)[1]["digest"]
        except KeyError:
            return ""
        except FileError as error:
            raise FileError(error.message, hint=_CURE) from error

    def forget_from(self, number: int) -> None:
        """Nothing of this round, or of a later one, is there any more: it begins."""
        for path in self._folder.glob(f"*/*{_SUFFIX}"):
            if int(path.stem) >= number:
                self._drop(path)

    def _rounds(self, name: str) -> list[int]:
        return [int(path.stem) for path in (self._folder / name).glob(f"*{_SUFFIX}") if path.stem.isdigit()]

    def _path(self, name: str, number: int) -> Path:
        return self._folder / name / f"{number:08d}{_SUFFIX}"

    def _hold(self, path: Path, arrays: Arrays) -> None:
        self._release(path)
        size = _bytes(arrays)
        if size > self._budget:
            return
        self._memory[path] = arrays
        self._held += size
        while self._held > self._budget:
            _, oldest = self._memory.popitem(last=False)
            self._held -= _bytes(oldest)

    def _release(self, path: Path) -> None:
        held = self._memory.pop(path, None)
        if held is not None:
            self._held -= _bytes(held)

    def _drop(self, path: Path) -> None:
        self._release(path)
        path.unlink(missing_ok=True)


def _refused(path: Path, why: str) -> FileError:
    return FileError(line(f"{path} {why}: the run would go on with another model"), hint=_CURE)


def _bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
