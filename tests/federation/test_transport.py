"""A course does not know how frames travel: the same bits through one process and over sockets."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.federation.campaign import write_course
from tests.federation.light import SocketLink
from tests.federation.links import deployed, light
from tests.federation.local import LocalLink
from xbackend_fl.events import ParticipantTrained
from xbackend_fl.federation.silo import service


@pytest.mark.parametrize("federate", ["", "cohort: 2, "])
def test_both_transports_end_with_the_same_bits(federate: str, tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=4, silos=3, federate=federate)
    near, told = deployed(course, LocalLink(light(course)), tmp_path / "near")
    sockets, over = tmp_path / "s", threading.Event()
    sockets.mkdir()
    threads = [
        threading.Thread(
            target=service.serve, args=(silo, sockets / f"{silo.name}.socket", over.is_set), daemon=True
        )
        for silo in light(course)
    ]
    for thread in threads:
        thread.start()
    names = [participant.name for participant in course.participants]
    while not all((sockets / f"{name}.socket").exists() for name in names):
        time.sleep(0.01)
    far, heard = deployed(course, SocketLink(sockets, names), tmp_path / "far")
    over.set()
    for name in names:
        if (sockets / f"{name}.socket").exists():
            service.wake(sockets / f"{name}.socket")
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert far.weights.digest == near.weights.digest
    assert {(e.round, e.name) for e in told if isinstance(e, ParticipantTrained)} == {
        (e.round, e.name) for e in heard if isinstance(e, ParticipantTrained)
    }
