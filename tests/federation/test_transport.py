"""A course does not know how frames travel: the same bits through one process, over sockets and over Flower."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.federation.campaign import write_course
from tests.federation.light import Linear, SocketLink
from tests.federation.links import deployed, light
from tests.federation.local import LocalLink
from tests.federation.sockets import Sockets
from xbackend_fl.course.address import Address
from xbackend_fl.errors import RefusedInput
from xbackend_fl.events import Event, ParticipantTrained
from xbackend_fl.federation import Silo
from xbackend_fl.federation.flower.door import Flower
from xbackend_fl.federation.flower.processes import free_port
from xbackend_fl.federation.serving import serve_course
from xbackend_fl.federation.silo import service
from xbackend_fl.federation.transport import Transport
from xbackend_fl.weights import load_weights


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


def trained(events: list[Event]) -> set[tuple[int, str]]:
    return {(event.round, event.name) for event in events if isinstance(event, ParticipantTrained)}


@pytest.mark.parametrize("way", ["sockets", pytest.param("flower", marks=pytest.mark.slow)])
def test_a_transport_serves_and_connects(way: str, tmp_path: Path) -> None:
    """Both ends as ``xbfl serve`` and ``xbfl join`` have them: the process that leads is another one."""
    course = write_course(tmp_path / "course", rounds=3, silos=2)
    near, told = deployed(course, LocalLink(light(course)), tmp_path / "near")
    sockets = tmp_path / "s"
    sockets.mkdir()
    transport: Transport = (
        Flower(Address(f"127.0.0.1:{free_port()}")) if way == "flower" else Sockets(sockets)
    )
    over, heard = threading.Event(), list[Event]()
    silos = [Silo(course, p.name, Linear(p.name, course), out=tmp_path / p.name) for p in course.participants]
    threads = [
        threading.Thread(target=transport.connect, args=(silo, 300, lambda _: None, over.is_set), daemon=True)
        for silo in silos
    ]
    for thread in threads:
        thread.start()
    serve_course(course, transport, out=tmp_path / "far", observer=heard.append)
    assert all(silo.finished for silo in silos)
    over.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert load_weights(tmp_path / "far" / "last.safetensors").digest == near.weights.digest
    assert trained(heard) == trained(told)


def test_why_a_process_cannot_lead_is_said(tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=1, silos=1)
    (tmp_path / "far").mkdir()
    with pytest.raises(RefusedInput, match="is not a run folder"):
        serve_course(course, Sockets(tmp_path / "nowhere"), out=tmp_path / "far", resume=True)
