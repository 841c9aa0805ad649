"""What a deployed round costs, beside Flower's own empty round on the same machine in the same minutes, and the server's memory.

``python -m tests.speed.deployment`` takes about ten minutes. Silos are light (``tests/federation/light.py``): their training takes no time, so a round is
messages, checks, the ledger and the mean.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.federation.campaign import write_course
from tests.federation.light import Linear
from xbackend_fl.course import Course
from xbackend_fl.course.address import Address
from xbackend_fl.events import CourseFinished, RoundCollected, from_line
from xbackend_fl.federation import Silo
from xbackend_fl.federation.flower import processes
from xbackend_fl.federation.flower.app import write_page
from xbackend_fl.federation.flower.processes import free_port
from xbackend_fl.federation.silo import service

_SIZE = "650x10000"
_VALUES = 651 * 10_000
_ROUNDS = 5
_ROOT = Path(__file__).resolve().parents[2]


def floor(folder: Path, silos: int) -> dict[str, float]:
    """Median seconds of Flower's own rounds with as many nodes: empty, and with a model there and back."""
    folder.mkdir(parents=True)
    place, out = Address(f"127.0.0.1:{free_port()}"), folder / "seconds.json"
    job = {"silos": silos, "values": _VALUES, "rounds": _ROUNDS, "out": str(out)}
    (folder / "app").mkdir()
    here = "tests.speed.floor"
    write_page(folder / "app", f"{here}:server_app", f"{here}:client_app", json.dumps(job))
    os.environ["PYTHONPATH"] = str(_ROOT)
    with ExitStack() as stack:
        stack.enter_context(processes.superlink(place, None, folder))
        for index in range(silos):
            home = folder / f"node{index}"
            home.mkdir()
            config = {"name": f"n{index}"}
            stack.enter_context(processes.supernode(place, free_port(), config, None, home, fork=False))
        processes.start_app(place, None, folder / "app", folder)
        while not out.is_file():
            assert not processes.status(folder).startswith("finished"), processes.tail(
                folder / "superlink.log"
            )
            time.sleep(2)
        seconds = json.loads(out.read_text(encoding="utf-8"))
    return {kind: statistics.median(values) for kind, values in seconds.items()}


def deployed(folder: Path, silos: int) -> dict[str, Any]:
    """The same number of light silos in a course over Flower."""
    course = write_course(folder, _ROUNDS + 1, silos, _SIZE, precision="float32", rule="fedavg")
    address, run = f"127.0.0.1:{free_port()}", folder / "run"
    joins = []
    for participant in course.participants:
        command = ["-m", "tests.federation.light", "join", str(folder), participant.name, address]
        with (folder / f"{participant.name}.log").open("wb") as log:
            joins.append(subprocess.Popen([sys.executable, *command], stdout=log, stderr=log))
    xbfl = str(Path(sys.executable).parent / "xbfl")
    command = [xbfl, "serve", str(folder / "course.yaml"), "--address", address, "--out", str(run)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for join in joins:
        join.wait(120)
    return _figures(run)


def local(folder: Path, silos: int) -> dict[str, Any]:
    """A server's process, and light silos at sockets of this one."""
    course = write_course(folder, 3, silos, _SIZE, precision="float32", rule="fedavg")
    with _hosted(course, folder):
        command = [sys.executable, "-m", "tests.federation.light", "server", str(folder)]
        subprocess.run(command, check=True, env=processes.flower_environment(folder))
    return _figures(folder / "run")


@contextmanager
def _hosted(course: Course, folder: Path) -> Iterator[None]:
    stop = threading.Event()
    for participant in course.participants:
        name = participant.name
        silo = Silo(course, name, Linear(name, course), out=folder / "silos" / name)
        serve = partial(service.serve, silo, folder / f"{name}.socket", stop.is_set)
        threading.Thread(target=serve, daemon=True).start()
    yield
    stop.set()
    for participant in course.participants:
        service.wake(folder / f"{participant.name}.socket")


def _figures(run: Path) -> dict[str, Any]:
    events = [from_line(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    # The first round warms up.
    rounds = [event for event in events if isinstance(event, RoundCollected)][1:]
    last = events[-1]
    assert isinstance(last, CourseFinished)
    return {
        "seconds": statistics.median(event.seconds for event in rounds),
        "MB sent": rounds[-1].sent_bytes / 1e6,
        "MB received": rounds[-1].received_bytes / 1e6,
        "server MB": last.peak_memory_bytes["server"] / 1e6,
    }


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        if "memory" not in sys.argv:
            found = floor(home / "floor", 6)
            print("Flower's own round, six nodes:", {k: f"{v:.2f} s" for k, v in found.items()}, flush=True)
            ours = deployed(home / "deployed", 6)
            print("deployed round, six silos, 26 MB:", {k: f"{v:.2f}" for k, v in ours.items()}, flush=True)
            print(
                {kind: f"{ours['seconds'] / value:.2f} x {kind}" for kind, value in found.items()}, flush=True
            )
        for silos in () if "rounds" in sys.argv else (6, 50):
            figures = local(home / f"local{silos}", silos)
            print(
                f"server with {silos} silos at sockets:",
                {k: f"{v:.2f}" for k, v in figures.items()},
                flush=True,
            )


if __name__ == "__main__":
    main()
