"""What the server's process is told, and how whoever started it learns what became of it."""

from __future__ import annotations

import fcntl
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from xbackend_fl.course import Course, load_course
from xbackend_fl.errors import ConfigError, RefusedInput, RunFailed, XbflError
from xbackend_fl.federation.credentials import Keys
from xbackend_fl.federation.protocol.signatures import Signatures
from xbackend_fl.rounds import LEAVING_S, CourseState, RunFolder, owned
from xbackend_fl.text import line

_LOG = logging.getLogger("xbfl")
_ALIVE, _FAILURE, _NOTICE, _STOP = "alive", "failure.json", "notice", "stop"


@final
@dataclass(frozen=True)
class Job:
    """A course for the server's process.

    Attributes:
        course: The course as YAML, complete, with absolute files (:func:`~xbackend_fl.course.dump`).
        out: The run folder; one that exists is gone on with.
        keys: Folder of the server's keys; empty without.
        home: Folder through which the process and whoever started it see each other; empty if nobody looks.
        starter: Process that waits for the course's end; 0 if none does.
    """

    course: str
    out: str
    keys: str = ""
    home: str = ""
    starter: int = 0

    @staticmethod
    def read(text: str) -> Job:
        """From what :meth:`write` wrote.

        Raises:
            ConfigError: It is something else.
        """
        try:
            return Job(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the run's configuration is no job: {error}") from error

    def write(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    def load(self) -> Course:
        """The course."""
        with tempfile.TemporaryDirectory(prefix="xbfl-") as home:
            path = Path(home) / "course.yaml"
            path.write_text(self.course, encoding="utf-8")
            return load_course(path)

    @contextmanager
    def claim_folder(self, course: Course) -> Iterator[tuple[RunFolder, CourseState | None]]:
        """The course's run folder, which is nobody else's until the block ends, and where to go on in it.

        Raises:
            RefusedInput: The course is not the folder's, or another process owns the folder.
        """
        out = Path(self.out)
        begun = out.is_dir()
        folder = RunFolder.load(out) if begun else RunFolder.create(course, out)
        with owned(folder.path, LEAVING_S, self.starter):
            if begun:
                folder.go_on_with(course, deployed=True)
            yield folder, folder.latest() if begun else None

    def signatures(self) -> Signatures:
        """The server's keys."""
        return Keys(Path(self.keys)).server_signatures() if self.keys else Signatures()

    def should_stop(self) -> bool:
        """Whether somebody asked the course to end."""
        return bool(self.home) and self._file(_STOP).exists()

    def stop(self) -> None:
        """Ask the course to end after a complete round."""
        self._file(_STOP).touch()

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Hold a lock as long as the process lives, however it ends."""
        if not self.home:
            yield
            return
        place = self._file(f"{_ALIVE}.new")
        with place.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            place.replace(self._file(_ALIVE))
            yield

    @property
    def started(self) -> bool:
        """Whether the process has begun."""
        return self._file(_ALIVE).exists()

    @property
    def ended(self) -> bool:
        """Whether the process has begun and is gone."""
        if not self.started:
            return False
        with self._file(_ALIVE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def post_notice(self, notice: str) -> None:
        """Say what cannot be written into the run's folder."""
        _LOG.warning("%s", line(notice))
        if self.home:
            self._replace(_NOTICE, notice)

    def notice(self) -> str:
        """What was said last that nobody has asked for yet; empty if nothing was."""
        try:
            place = self._file(_NOTICE)
            found = place.read_text(encoding="utf-8")
            place.unlink()
        except FileNotFoundError:
            return ""
        return found

    def fail(self, error: XbflError) -> None:
        """Say why the process ends."""
        if self.home:
            found = {"refused": isinstance(error, RefusedInput), "message": error.message, "hint": error.hint}
            self._replace(_FAILURE, json.dumps(found))

    def failure(self) -> XbflError | None:
        """Why the process ended."""
        if not self._file(_FAILURE).is_file():
            return None
        found = json.loads(self._file(_FAILURE).read_text(encoding="utf-8"))
        kind = RefusedInput if found["refused"] else RunFailed
        return kind(found["message"], hint=found["hint"])

    def _replace(self, name: str, text: str) -> None:
        place = self._file(f"{name}.new")
        place.write_text(text, encoding="utf-8")
        place.replace(self._file(name))

    def _file(self, name: str) -> Path:
        return Path(self.home) / name
