"""Flower as a transport."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from xbackend_fl.course import Course
from xbackend_fl.course.address import Address
from xbackend_fl.errors import RunFailed
from xbackend_fl.events import Observer
from xbackend_fl.federation.credentials import Keys, keys_for
from xbackend_fl.federation.flower import processes
from xbackend_fl.federation.flower.connecting import connect
from xbackend_fl.federation.flower.processes import Waiting
from xbackend_fl.federation.job import Job
from xbackend_fl.federation.silo.silo import Silo
from xbackend_fl.federation.transport import Gone


@final
class SuperLink:
    """Flower's SuperLink, to which silos connect.

    Args:
        process: The process.
        home: Folder of its files.
    """

    name = "Flower's SuperLink"

    def __init__(self, process: subprocess.Popen[bytes], home: Path) -> None:
        self._process, self._home = process, home

    def is_gone(self) -> bool:
        """Whether the process ended."""
        return self._process.poll() is not None

    def has_ended(self) -> bool:
        """Whether Flower says that the run is finished."""
        return processes.status(self._home).startswith("finished")

    def log(self) -> str:
        """The end of its log."""
        return processes.tail(self._home / "superlink.log", 40)


@final
class Flower:
    """Frames through Flower's SuperLink at an address.

    Args:
        address: Where the server listens.
        keys: This machine's; others are not let in without, and frames are not encrypted.
    """

    def __init__(self, address: Address, keys: Keys | None = None) -> None:
        self.address, self.keys = address, keys

    @staticmethod
    def from_course(
        course: Course, address: str | None, keys: Path | None, *, insecure: bool = False
    ) -> Flower:
        """As a course says.

        Args:
            course: The course.
            address: ``HOST:PORT`` of the server; ``deployment.address`` if left out.
            keys: Folder of this machine's keys (:class:`~xbackend_fl.federation.credentials.Keys`); ``deployment.keys`` if left out.
            insecure: Whether other machines may be talked to without keys.

        Raises:
            RefusedInput: Address or keys cannot be used.
        """
        place = Address(address or course.deployment.address)
        return Flower(place, keys_for(course, place.reached, keys, insecure=insecure))

    @contextmanager
    def serve(self, job: Job, observer: Observer, should_stop: Callable[[], bool]) -> Iterator[SuperLink]:
        """Start a SuperLink, and a run of the thin app that leads the job."""
        home, waiting = Path(job.home), Waiting(observer, should_stop)
        with processes.superlink(self.address, self.keys, home, waiting) as process:
            link = SuperLink(process, home)
            try:
                processes.submit(self.address, self.keys, job, home, waiting)
            except RunFailed as error:
                if link.is_gone():
                    raise Gone("Flower's SuperLink ended while it was given the course.") from error
                raise
            yield link

    def connect(
        self, silo: Silo, patience_s: float, observer: Observer, should_stop: Callable[[], bool]
    ) -> None:
        """Keep a SuperNode running beside a silo until the course is over."""
        connect(silo, self.address, self.keys, patience_s, observer, should_stop)
