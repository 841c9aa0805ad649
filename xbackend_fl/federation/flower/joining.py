"""A silo's role: its model and data behind a socket of this machine, and Flower's SuperNode beside it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xbackend_fl.course import Course
from xbackend_fl.course.address import Address
from xbackend_fl.deadline import Deadline
from xbackend_fl.errors import ConfigError, RunFailed
from xbackend_fl.events import Noted, Observer
from xbackend_fl.federation.credentials import Keys, keys_for
from xbackend_fl.federation.flower import processes
from xbackend_fl.federation.flower.processes import free_port
from xbackend_fl.federation.protocol.signatures import Signatures
from xbackend_fl.federation.silo import service
from xbackend_fl.federation.silo.silo import Silo
from xbackend_fl.rounds import LEAVING_S, owned
from xbackend_fl.writing import unwritable_said

_POLL_S = 0.5
_HEALTH_S = 3.0
_LINGER_S = 60.0
_REMIND_S = 10.0
_JOIN_S = 2.0
_AGAIN_S = 2.0
_SKEW_S = 3.0
_STEADY_S = 30.0
"""A SuperNode that ran for so long was let in."""


def join_course(
    course: Course,
    *,
    name: str | None = None,
    data: Path | None = None,
    server: str | None = None,
    out: Path | None = None,
    keys: Path | None = None,
    insecure: bool = False,
    socket: Path | None = None,
    threads: int | None = None,
    observer: Observer = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Take part in a course as one of its silos, until the course is over.

    Args:
        course: The course.
        name: Which participant this is; ``deployment.name`` if left out.
        data: The silo's ``.npz`` file; ``deployment.data_path`` if left out, and its part of the course's data without either.
        server: The server's ``HOST:PORT``; ``deployment.address`` if left out.
        out: Folder for the trained model; ``silos/NAME`` if left out.
        keys: Folder of the silo's keys; ``deployment.keys`` if left out.
        insecure: Whether a server elsewhere may be talked to without keys.
        socket: Where to answer a SuperNode that somebody else runs; one is started if left out.
        threads: Threads of the framework; all cores if left out.
        observer: Hears of what happens.
        should_stop: Asked all the time.

    Raises:
        RefusedInput: The course, the model, the data, the address or the folder cannot be used.
        RunFailed: The server was out of reach for ``deployment.join_timeout_s``.
    """
    rules = course.deployment
    chosen = name or rules.name
    if chosen is None:
        raise ConfigError("which participant is this?", hint="--as NAME, or deployment.name")
    place = Address(server or rules.address)
    own = keys_for(course, place.reached, keys, insecure=insecure)
    signatures = Signatures()
    if own is not None:
        own.silo(chosen)
        signatures = own.silo_signatures(chosen)
    path = data or (course.base / rules.data_path if rules.data_path else None)
    where = out or Path("silos") / chosen
    with unwritable_said(where):
        where.mkdir(parents=True, exist_ok=True)
    with owned(where, LEAVING_S):
        silo = Silo.open(
            course,
            chosen,
            path,
            out=where,
            threads=threads or os.cpu_count() or 1,
            signatures=signatures,
            observer=observer,
        )
        observer(Noted(backend=chosen, note="model and data are open"))
        if socket is not None:
            with serving(silo, socket):
                observer(Noted(backend=chosen, note=f"answering at {socket}"))
                while not should_stop() and not silo.finished:
                    time.sleep(_POLL_S)
        else:
            connect(silo, place, own, rules.join_timeout_s, observer, should_stop)
        observer(Noted(backend=chosen, note=f"{'the course is over' if silo.finished else 'stopped'}"))


def connect(
    silo: Silo,
    place: Address,
    keys: Keys | None,
    patience_s: float,
    observer: Observer,
    should_stop: Callable[[], bool],
) -> None:
    """Wait for a server, and keep a SuperNode running beside a silo until the course is over.

    Args:
        silo: Answers.
        place: The server's address.
        keys: The silo's keys.
        patience_s: Seconds without a server after which to give up.
        observer: Hears of what happens.
        should_stop: Asked all the time.

    Raises:
        RefusedInput: The server's certificate is not good.
        RunFailed: The server was out of reach for too long.
    """
    _wait_for((silo.name, place), keys, patience_s, observer, should_stop)
    if should_stop():
        return
    if keys is not None and (note := clock_note(processes.clock_skew(place, keys))):
        observer(Noted(backend=silo.name, note=note))
    with tempfile.TemporaryDirectory(prefix="xbfl-") as home, serving(silo, Path(home) / "silo") as path:
        config = {"socket": str(path), "name": silo.name}
        deadline = Deadline.within(patience_s)
        while not should_stop():
            with processes.supernode(place, free_port(), config, keys, Path(home)) as node:
                observer(Noted(backend=silo.name, note=f"connecting to {place.text}"))
                began = time.monotonic()
                if _stay(silo, (place, keys), node, patience_s, should_stop):
                    break
                if time.monotonic() - began > _STEADY_S:
                    deadline = Deadline.within(patience_s)
            # A server that has just started may not know this silo's key yet.
            if deadline.passed:
                why = processes.tail(Path(home) / "supernode.log")
                raise RunFailed(f"Flower's SuperNode could not stay connected to {place.text}:\n{why}")
            observer(Noted(backend=silo.name, note="Flower's SuperNode ended; trying again"))
            time.sleep(_AGAIN_S)


def clock_note(skew_s: float) -> str:
    """What to say of a clock that is so many seconds ahead of the server's; empty if Flower will not mind."""
    if abs(skew_s) <= _SKEW_S:
        return ""
    direction = "ahead of" if skew_s > 0 else "behind"
    return (
        f"this machine's clock is {abs(skew_s):.0f} s {direction} the server's: Flower lets in silos "
        "that are at most 5 s ahead or 305 s behind; set the clock if this one stays out"
    )


def _wait_for(
    ends: tuple[str, Address],
    keys: Keys | None,
    within_s: float,
    observer: Observer,
    should_stop: Callable[[], bool],
) -> None:
    name, place = ends
    began = reminded = time.monotonic()
    while (reason := processes.ill_health(place, keys)) and not should_stop():
        if time.monotonic() - began > within_s:
            raise RunFailed(f"no server answered at {place.text} within {within_s:g} s: {reason}")
        if time.monotonic() - reminded > _REMIND_S:
            reminded = time.monotonic()
            observer(Noted(backend=name, note=f"no server answers at {place.text} ({reason}); trying again"))
        time.sleep(_POLL_S)


def _stay(
    silo: Silo,
    server: tuple[Address, Keys | None],
    node: subprocess.Popen[bytes],
    patience_s: float,
    should_stop: Callable[[], bool],
) -> bool:
    """Until the server has gone after the course; false if the connection's process ended before.

    Raises:
        RunFailed: The server was out of reach for too long.
    """
    seen, ended, checked, healthy = time.monotonic(), 0.0, 0.0, False
    while not should_stop():
        now = time.monotonic()
        if silo.finished:
            ended = ended or now
        if now - checked > _HEALTH_S:
            healthy, checked = not processes.ill_health(*server), now
        if healthy:
            seen = now
        # The last answer is still on its way; the server leaves when it has all of them.
        if ended and (not healthy or now - ended > _LINGER_S):
            return True
        if node.poll() is not None:
            return False
        if now - seen > patience_s:
            raise RunFailed(f"the server at {server[0].text} was out of reach for {patience_s:g} s")
        time.sleep(_POLL_S)
    return True


@contextmanager
def serving(silo: Silo, path: Path) -> Iterator[Path]:
    """A silo's service in a thread, until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=service.serve, args=(silo, path, stop.is_set), name="xbfl-silo")
    thread.daemon = True
    thread.start()
    try:
        yield path
    finally:
        stop.set()
        with suppress(OSError):
            service.wake(path)
        # It removes its socket; a model in the middle of an epoch is not waited for.
        thread.join(_JOIN_S)
