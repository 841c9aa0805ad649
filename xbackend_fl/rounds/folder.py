"""The folder of one run: what lies where."""

from __future__ import annotations

import json
import platform
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from xbackend_fl.course import Course, dump, load_course
from xbackend_fl.errors import FileError, RefusedInput
from xbackend_fl.events import RoundFinished
from xbackend_fl.rounds.changes import require_same
from xbackend_fl.rounds.checkpoint import CourseState, best_of, load_state, save_state
from xbackend_fl.rounds.engine import Prepared
from xbackend_fl.text import line
from xbackend_fl.writing import atomic_write, check_new, explain_unwritable, write_text

_BEFORE = 2
"""Entries of the history that a round adds at most: its own, and that of the round before if it was evaluated with it."""
_CHECKPOINT = re.compile(r"round-([0-9]{1,18})\.safetensors")
_ONNX = re.compile(r"round-([0-9]{1,18})\.onnx")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run.

    Attributes:
        path: The folder.
    """

    path: Path

    @staticmethod
    def choose_path(course: Course, out: Path | None) -> Path:
        """Where a new run goes: ``out``, or ``runs/TIME-NAME``.

        Raises:
            FileError: The folder exists.
        """
        path = out or Path("runs") / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{course.name}"
        check_new(
            path,
            f"choose another --out; `xbfl run --resume {path}`, or `xbfl serve {path} --resume` for a deployed one, goes on with that run",
            "the run folder",
        )
        return path

    @staticmethod
    def create(course: Course, out: Path | None) -> RunFolder:
        """Make a new folder and write the course into it.

        Raises:
            FileError: The folder exists, or cannot be made.
        """
        path = RunFolder.choose_path(course, out)
        with explain_unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as made:
                (made / "checkpoints").mkdir(parents=True)
                RunFolder(made).course.write_text(dump(course), encoding="utf-8")
                RunFolder(made).run.write_text(uuid.uuid4().hex, encoding="utf-8")
        return RunFolder(path)

    @staticmethod
    def load(path: Path) -> RunFolder:
        """An existing run.

        Raises:
            FileError: The folder is not a run.
        """
        folder = RunFolder(path)
        with explain_unwritable(path):
            found = folder.course.is_file()
            in_the_way = folder.course.is_dir()
        if in_the_way:
            copy = f", then cp {folder.begun} {folder.course}" if folder.begun.is_file() else ""
            raise FileError(
                line(f"{folder.course} is a folder, and the course file belongs there"),
                hint=line(
                    f"move it away: mv {folder.course} {folder.course}.moved{copy or ', and put the course file there'}"
                ),
            )
        if not found:
            raise FileError(f"{path} is not a run folder: it has no course.yaml")
        return folder

    def continued(self, overrides: Sequence[str], *, deployed: bool = False) -> Course:
        """The folder's own course with ``a.b=value`` settings, with which the run goes on; see :meth:`go_on_with`."""
        asked = load_course(self.course, overrides)
        self.go_on_with(asked, deployed=deployed)
        return asked

    def go_on_with(self, asked: Course, *, deployed: bool = False) -> None:
        """Keep a course from now on.

        Args:
            asked: The course.
            deployed: Whether participants bring their own data.

        Raises:
            ConfigError: The course is not the run's, but for what may change (:mod:`xbackend_fl.rounds.changes`).
        """
        # People edit the other one; a folder of an earlier version has no copy.
        is_copied = self.begun.is_file()
        kept = load_course(self.begun if is_copied else self.course)
        changed = require_same(kept, asked, grows=deployed)
        text = dump(asked)
        for place, is_old in ((self.course, changed), (self.begun, changed and is_copied)):
            if is_old:
                with explain_unwritable(self.path):
                    write_text(place, text)

    @contextmanager
    def unless_refused(self) -> Iterator[None]:
        """Remove the folder if the block refuses the course before anything was trained: it is not in the next try's way."""
        try:
            yield
        except RefusedInput:
            if not self._checkpoints():
                shutil.rmtree(self.path, ignore_errors=True)
            raise

    @property
    def course(self) -> Path:
        """The course as run."""
        return self.path / "course.yaml"

    @property
    def begun(self) -> Path:
        """A copy of it, since people edit the other one."""
        return self.path / ".course.yaml"

    @property
    def run(self) -> Path:
        """The run's name, which its checkpoints bear too."""
        return self.path / ".run"

    @property
    def events(self) -> Path:
        """One JSON object per event."""
        return self.path / "events.jsonl"

    @property
    def best(self) -> Path:
        """Weights with the best validation result."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """Weights of the last round."""
        return self.path / "last.safetensors"

    @property
    def schema(self) -> Path:
        """The schema."""
        return self.path / "schema.json"

    @property
    def onnx(self) -> Path:
        """The trained model as ONNX."""
        return self.path / "model.onnx"

    @property
    def onnx_rounds(self) -> Path:
        """The model of single rounds as ONNX; only a course with ``onnx_every`` has them."""
        return self.path / "onnx"

    def onnx_of(self, number: int) -> Path:
        """The model of a round as ONNX."""
        return self.onnx_rounds / f"round-{number:05d}.onnx"

    @property
    def ledger(self) -> Path:
        """Which updates were accepted; only a deployed course has one."""
        return self.path / "ledger.sqlite"

    @property
    def summary(self) -> Path:
        """One page for people."""
        return self.path / "summary.md"

    @property
    def data(self) -> Path:
        """Digests of the data that the run was begun with; a deployed course has none."""
        return self.path / "data.json"

    @property
    def initial(self) -> Path:
        """Where the first weights came from, and their digest."""
        return self.path / "initial.json"

    @property
    def environment(self) -> Path:
        """Versions of what computed."""
        return self.path / "environment.json"

    @property
    def bindings(self) -> Path:
        """One file per backend."""
        return self.path / "bindings"

    @property
    def checkpoints(self) -> Path:
        """The latest rounds."""
        return self.path / "checkpoints"

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that a run writes, be it there or not; the trained model's as far as they are there."""
        fixed = (
            self.best,
            self.last,
            self.schema,
            self.onnx,
            self.summary,
            self.data,
            self.environment,
            self.initial,
        )
        rounds = (*self.checkpoints.glob("round-*.safetensors"), *self.onnx_rounds.glob("round-*.onnx"))
        return (*fixed, *self.path.glob("model.*"), *rounds)

    def write_models(self, prepared: Prepared) -> None:
        """Write the schema, every binding, and the environment.

        Raises:
            FileError: The folder cannot be written.
        """
        with explain_unwritable(self.path):
            self._write_models(prepared)

    def keep_course(self) -> None:
        """Copy the course, if there is no copy yet.

        Raises:
            FileError: The folder cannot be written.
        """
        if not self.begun.is_file():
            with explain_unwritable(self.path), atomic_write(self.begun) as path:
                path.write_bytes(self.course.read_bytes())

    def _write_models(self, prepared: Prepared) -> None:
        self.keep_course()
        write_text(self.schema, prepared.schema.to_json())
        self.bindings.mkdir(exist_ok=True)
        for backend, binding in prepared.bindings.items():
            write_text(self.bindings / f"{backend}.json", binding.to_json())
        packages = ("xbackend-fl", "numpy", "onnx", "onnxruntime", "safetensors")
        environment = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "packages": {package: version(package) for package in packages},
        }
        text = json.dumps(environment, indent=1)
        write_text(self.environment, text)

    def save_checkpoint(self, state: CourseState, keep: int, *, back: bool = False) -> None:
        """Write the checkpoint of a round and remove the oldest ones.

        Args:
            state: After the round.
            keep: How many stay.
            back: Whether the course may go back by a round: the one before stays then, and so do the best weights of both, three at most.
        """
        save_state(self._checkpoint(state.round), replace(state, run=self._run()))
        best = {one.round for one in map(best_of, _earlier(state.history)) if one} if back else set[int]()
        for old in self._checkpoints()[: -max(keep, 2 if back else 1)]:
            if old not in map(self._checkpoint, best):
                old.unlink()

    def drop_checkpoint(self, number: int) -> None:
        """Undo a round."""
        self._checkpoint(number).unlink(missing_ok=True)
        self.onnx_of(number).unlink(missing_ok=True)

    @property
    def kept(self) -> list[int]:
        """Rounds that have a checkpoint."""
        return [*_numbered(self.checkpoints, _CHECKPOINT)]

    @property
    def exported(self) -> list[int]:
        """Rounds that have an ONNX file of their own."""
        return [*_numbered(self.onnx_rounds, _ONNX)]

    def latest(self) -> CourseState | None:
        """The latest checkpoint, if there is one.

        Raises:
            FileError: It is corrupt, or another run's; the message names it, and the hint the latest one that is not.
        """
        found = self._checkpoints()
        if not found:
            return None
        try:
            return self._load(found[-1])
        except FileError as error:
            raise FileError(error.message, hint=self._instead(found)) from error

    def checkpoint(self, number: int) -> CourseState:
        """The checkpoint of a round.

        Raises:
            FileError: It is missing, corrupt or another run's.
        """
        return self._load(self._checkpoint(number))

    def readable(self, number: int) -> CourseState | None:
        """The checkpoint of a round; ``None`` if it is missing, corrupt or another run's."""
        try:
            return self.checkpoint(number)
        except FileError:
            return None

    def _run(self) -> str:
        try:
            return self.run.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def _load(self, path: Path) -> CourseState:
        state = load_state(path)
        if state.run != self._run():
            raise FileError(f"{path} is a checkpoint of another run than that of {self.run}")
        return state

    def _instead(self, found: Sequence[Path]) -> str:
        """What helps if the last of some checkpoints is corrupt."""
        corrupt = [found[-1].name]
        for path in reversed(found[:-1]):
            try:
                self._load(path)
            except FileError:
                corrupt.insert(0, path.name)
                continue
            if len(corrupt) == 1:
                return f"delete it to go on from {path.name}"
            return f"delete {' and '.join(corrupt)}, neither of which can be read, to go on from {path.name}"
        which = (
            "it is the only one" if len(found) == 1 else f"none of the {len(found)} checkpoints can be read"
        )
        return f"{which}: delete {self.checkpoints}, and the run begins again"

    def _checkpoint(self, number: int) -> Path:
        return self.checkpoints / f"round-{number:05d}.safetensors"

    def _checkpoints(self) -> list[Path]:
        return [*_numbered(self.checkpoints, _CHECKPOINT).values()]


def _numbered(folder: Path, name: re.Pattern[str]) -> Mapping[int, Path]:
    """Files of rounds by round: the 100,000th has one digit more."""
    found = {int(match[1]): path for path in folder.glob("round-*") if (match := name.fullmatch(path.name))}
    return {number: found[number] for number in sorted(found)}


def _earlier(history: tuple[RoundFinished, ...]) -> list[tuple[RoundFinished, ...]]:
    """A history, and what it may have been a round before."""
    return [history[: len(history) - less] for less in range(min(_BEFORE, len(history)) + 1)]
