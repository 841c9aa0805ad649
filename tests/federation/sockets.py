"""A transport over sockets of this machine. ``python -m tests.federation.sockets FOLDER`` leads the job that it reads."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

from tests.federation.light import SocketLink
from xbackend_fl.events import Observer
from xbackend_fl.federation import Silo
from xbackend_fl.federation.job import Job
from xbackend_fl.federation.server.lead import lead
from xbackend_fl.federation.silo.service import serving

ROOT = Path(__file__).parents[2]


@final
class Led:
    """The process that leads a course."""

    name = "the process"

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    def is_gone(self) -> bool:
        # Silos' sockets are their own, and nothing stands between.
        return False

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")


@final
class Sockets:
    """``NAME.socket`` of every silo in one folder.

    Args:
        folder: The folder.
    """

    keys = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def serve(self, job: Job, observer: Observer, should_stop: Callable[[], bool]) -> Iterator[Led]:
        """A process that finds silos at their sockets."""
        del observer, should_stop
        log = Path(job.home) / "log"
        command = [sys.executable, "-m", "tests.federation.sockets", str(self._folder)]
        with (
            log.open("wb") as file,
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=file, stderr=file) as process,
        ):
            assert process.stdin is not None
            process.stdin.write(job.write().encode())
            process.stdin.close()
            try:
                yield Led(process, log)
                process.wait(60)
            finally:
                process.kill()

    def connect(
        self, silo: Silo, patience_s: float, observer: Observer, should_stop: Callable[[], bool]
    ) -> None:
        """Answer at a socket; the server comes."""
        del patience_s, observer
        with serving(silo, self._folder / f"{silo.name}.socket"):
            while not silo.finished and not should_stop():
                time.sleep(0.01)

    def link(self, names: Sequence[str], hello: bytes) -> SocketLink:
        """The leading process's own end."""
        del hello
        return SocketLink(self._folder, names)


if __name__ == "__main__":
    lead(Job.read(sys.stdin.read()), Sockets(Path(sys.argv[1])).link)
