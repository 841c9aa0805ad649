"""A silo's role: its model and data are opened, and answer the server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from xbackend_fl.course import Course
from xbackend_fl.data import Splits, absolute
from xbackend_fl.errors import ConfigError
from xbackend_fl.events import Noted, Observer
from xbackend_fl.federation.protocol.signatures import Signatures
from xbackend_fl.federation.silo import service
from xbackend_fl.federation.silo.silo import Silo
from xbackend_fl.federation.transport import Transport
from xbackend_fl.participant import Brought
from xbackend_fl.rounds import LEAVING_S, owned
from xbackend_fl.writing import explain_unwritable

_POLL_S = 0.5


def join_course(
    course: Course,
    transport: Transport,
    *,
    name: str | None = None,
    data: Path | str | Splits | None = None,
    out: Path | None = None,
    socket: Path | None = None,
    threads: int | None = None,
    brought: Brought | None = None,
    observer: Observer = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Take part in a course as one of its silos, until the course is over.

    Args:
        course: The course.
        transport: The silo's end of the way to the server.
        name: Which participant this is; ``deployment.name`` if left out.
        data: The silo's ``.npz`` file, or any source; ``deployment.data_path`` if left out, and its part of the course's data without either.
        out: Folder for the trained model; ``silos/NAME`` if left out.
        socket: Where to answer whoever brings frames, instead of connecting.
        threads: Threads of the framework; all cores if left out.
        brought: A model and a training loop that a script has handed over.
        observer: Hears of what happens.
        should_stop: Asked all the time.

    Raises:
        RefusedInput: The course, the model, the data or the folder cannot be used.
        RunFailed: The server was out of reach for ``deployment.join_timeout_s``.
    """
    rules = course.deployment
    chosen = name or rules.name
    if chosen is None:
        raise ConfigError("which participant is this?", hint="--as NAME, or deployment.name")
    course = course.at_site(chosen)
    signatures = Signatures()
    if transport.keys is not None:
        transport.keys.silo(chosen)
        signatures = transport.keys.silo_signatures(chosen)
    path = data or (absolute(rules.data_path, course.base) if rules.data_path else None)
    where = out or Path("silos") / chosen
    with explain_unwritable(where):
        where.mkdir(parents=True, exist_ok=True)
    with owned(where, LEAVING_S):
        silo = Silo.from_course(
            course,
            chosen,
            path,
            out=where,
            threads=threads or os.cpu_count() or 1,
            signatures=signatures,
            brought=brought,
            observer=observer,
        )
        observer(Noted(backend=chosen, note="model and data are open"))
        if socket is not None:
            with service.serving(silo, socket):
                observer(Noted(backend=chosen, note=f"answering at {socket}"))
                while not should_stop() and not silo.finished:
                    time.sleep(_POLL_S)
        else:
            transport.connect(silo, rules.join_timeout_s, observer, should_stop)
        observer(Noted(backend=chosen, note="the course is over" if silo.finished else "stopped"))
