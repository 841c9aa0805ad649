"""A silo's end of Flower: its SuperNode, beside the process that has the model."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from xbackend_fl.course.address import Address
from xbackend_fl.deadline import Deadline
from xbackend_fl.errors import RunFailed
from xbackend_fl.events import Noted, Observer
from xbackend_fl.federation.credentials import Keys
from xbackend_fl.federation.flower import processes
from xbackend_fl.federation.flower.processes import free_port
from xbackend_fl.federation.silo.service import serving
from xbackend_fl.federation.silo.silo import Silo

_POLL_S = 0.5
_HEALTH_S = 3.0
_LINGER_S = 60.0
_REMIND_S = 10.0
_AGAIN_S = 2.0
_SKEW_S = 3.0
_STEADY_S = 30.0
"""A SuperNode that ran for so long was let in."""


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
