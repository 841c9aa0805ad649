"""Kills and faults: whatever happens, every accepted update is in the mean once.

``python -m tests.federation.campaign kills 200`` ends the server or a silo, at random, so many times during one course, and compares its last weights
with those of an undisturbed run; ``… kills 200 1 scaffold`` with seed 1 and an algorithm that keeps state; ``… flower 20`` does so over Flower, and kills Flower's processes too. The suite runs short versions.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.federation.light import Linear
from tests.federation.local import LocalLink
from xbackend_fl.course import Course, load_course
from xbackend_fl.federation import DeploymentEngine, Dispatcher, Ledger, Silo
from xbackend_fl.federation.flower.processes import free_port
from xbackend_fl.rounds import RunFolder, run_with
from xbackend_fl.weights import load_weights

COURSE = """\
name: light
seed: 5
rounds: {rounds}
models: {{onnx: "none:{size}"}}
input: ["1,{features}"]
data: {{source: "none:none"}}
participants: {{onnx: {silos}}}
federate: {{{federate}precision: {precision}, server: {{name: {rule}}}}}
"""


def write_course(
    folder: Path,
    rounds: int,
    silos: int,
    size: str = "40x30",
    more: str = "",
    federate: str = "",
    precision: str = "exact",
    rule: str = "fedavgm",
) -> Course:
    """A course of light silos in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"rounds": rounds, "silos": silos, "size": size, "features": size.partition("x")[0]}
    text = COURSE.format(**values, federate=federate, precision=precision, rule=rule)
    (folder / "course.yaml").write_text(text + more, encoding="utf-8")
    return load_course(folder / "course.yaml")


def undisturbed(course: Course, out: Path) -> str:
    """Digest of the last weights when nothing goes wrong."""
    own = out.with_name(f"{out.name}-silos")
    silos = [Silo(course, p.name, Linear(p.name, course), out=own / p.name) for p in course.participants]
    folder = RunFolder.create(course, out)
    engine = DeploymentEngine(course, Dispatcher(LocalLink(silos)), Ledger(folder))
    return run_with(engine, course, folder, None).weights.digest


class Processes:
    """The server and the silos of one folder, which start again whenever they are gone.

    Args:
        folder: Has the course, and receives the logs.
        commands: How each is started; the server is ``server``.
    """

    def __init__(self, folder: Path, commands: Mapping[str, Callable[[], list[str]]]) -> None:
        self._folder, self._commands = folder, commands
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.starts = 0

    def start(self, *, server: bool = True) -> None:
        """Start who is gone."""
        for who, command in self._commands.items():
            process = self._running.get(who)
            if (process is None or process.poll() is not None) and (server or who != "server"):
                with (self._folder / f"{who}.log").open("ab") as log:
                    self._running[who] = subprocess.Popen(command(), stdout=log, stderr=log)
                self.starts += 1

    def kill(self, who: str) -> None:
        """End one without any warning."""
        self._running[who].send_signal(signal.SIGKILL)
        self._running[who].wait()

    def server_ended(self) -> int | None:
        """The server's exit code, if it ended by itself."""
        return self._running["server"].poll()

    def below(self) -> dict[int, str]:
        """Processes that these have started, and those of them, by number: Flower's programs by their names."""
        parents, lines = dict[int, int](), dict[int, str]()
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError, ValueError):
                line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                lines[int(path.name)] = line
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        ours = {process.pid for process in self._running.values()}
        found = {}
        for number, line in lines.items():
            above = parents.get(number, 0)
            while above not in ours and above > 1:
                above = parents.get(above, 0)
            name = next((part for part in FLOWER if part in line), "")
            if above in ours and name and "python" in line:
                found[number] = name
        return found

    def close(self) -> None:
        """End all."""
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()


FLOWER = ("flower-superlink", "flwr-serverapp", "flower-supernode", "flwr-clientapp", "flower.forkserver")
FLOWER_KILLS = ("xbfl serve", "xbfl join", *FLOWER)


_MANY = 20


def kills(
    folder: Path, count: int, seed: int, algorithm: str = "fedavg", silos: int = 4
) -> dict[str, object]:
    """Kill the server or a silo ``count`` times during one course over sockets; what was found.

    Raises:
        AssertionError: The course did not end with the undisturbed run's weights, or an update is missing in a round or there twice.
    """
    draw = random.Random(seed)
    course = _course_of(folder, 3 * count, silos, algorithm)
    names = [participant.name for participant in course.participants]
    light = [sys.executable, "-m", "tests.federation.light"]
    commands = {name: partial(list, [*light, "silo", str(folder), name]) for name in names}
    processes = Processes(folder, {"server": lambda: [*light, "server", str(folder)], **commands})

    def kill() -> str:
        who = "server" if draw.random() < 0.6 else draw.choice(names)
        processes.kill(who)
        return "server" if who == "server" else "silo"

    found = _disturbed(course, folder, processes, count, Pace(draw, updates=9, seconds=0.3), kill)
    # A few kills may all fall between rounds.
    assert found["half"] or count < _MANY
    return found


def _course_of(folder: Path, rounds: int, silos: int, algorithm: str) -> Course:
    rule = "fedavgm" if algorithm == "fedavg" else "fedavg"
    return write_course(folder, rounds, silos, federate=f"algorithm: {{name: {algorithm}}}, ", rule=rule)


def flower_kills(
    folder: Path,
    count: int,
    seed: int,
    algorithm: str = "fedavg",
    silos: int = 2,
    kinds: Sequence[str] = FLOWER_KILLS,
) -> dict[str, object]:
    """The same over Flower: any process of its is killed as well, and only ``xbfl serve`` and ``xbfl join`` are started again from here.

    Args:
        folder: Of the course.
        count: Kills.
        seed: Draws them.
        algorithm: The course's.
        silos: Silos.
        kinds: What is killed: in turn if there are ``count``, else at random.

    Raises:
        AssertionError: As :func:`kills`.
    """
    draw = random.Random(seed)
    course = _course_of(folder, 2 * count, silos, algorithm)
    names = [participant.name for participant in course.participants]
    address, run = f"127.0.0.1:{free_port()}", folder / "run"
    xbfl = [str(Path(sys.executable).parent / "xbfl"), "serve"]
    order = iter(kinds if len(kinds) == count else iter(lambda: draw.choice(kinds), ""))

    def serve() -> list[str]:
        if run.is_dir():
            return [*xbfl, str(run), "--resume", "--address", address]
        return [*xbfl, str(folder / "course.yaml"), "--address", address, "--out", str(run)]

    def join(name: str) -> list[str]:
        return [sys.executable, "-m", "tests.federation.light", "join", str(folder), name, address]

    def kill() -> str:
        kind = next(order)
        if kind in {"xbfl serve", "xbfl join"}:
            processes.kill("server" if kind == "xbfl serve" else draw.choice(names))
            return kind
        # The SuperLink or another may be about to start again.
        while not (chosen := [number for number, name in processes.below().items() if name == kind]):
            # This one comes back with its SuperNode only; until then Flower's own program does its work.
            kind = draw.choice(FLOWER) if kind == "flower.forkserver" else kind
            processes.start()
            time.sleep(0.05)
        with suppress(ProcessLookupError):
            os.kill(draw.choice(chosen), signal.SIGKILL)
        return kind

    processes = Processes(folder, {"server": serve, **{name: partial(join, name) for name in names}})
    return _disturbed(course, folder, processes, count, Pace(draw, updates=4, seconds=6), kill)


@dataclass(frozen=True)
class Pace:
    """When to kill: mostly some updates later, in the middle of rounds; sometimes while the server starts.

    Attributes:
        draw: Draws.
        updates: Fewer than so many.
        seconds: At most so many seconds more.
    """

    draw: random.Random
    updates: int
    seconds: float

    def wait(self, folder: Path) -> None:
        """Until the next."""
        if self.draw.random() < 0.8:
            _until_trained(folder, self.draw.randrange(1, self.updates))
        time.sleep(self.draw.uniform(0, self.seconds))


def _disturbed(
    course: Course, folder: Path, processes: Processes, count: int, pace: Pace, kill: Callable[[], str]
) -> dict[str, object]:
    """Run a course to its end with ``count`` kills, and look at what it left."""
    done: dict[str, int] = {}
    try:
        while sum(done.values()) < count:
            processes.start()
            pace.wait(folder)
            _still_running(processes, folder)
            kind = kill()
            done[kind] = done.get(kind, 0) + 1
        processes.start()
        _wait(processes, folder)
    finally:
        processes.close()
    half = _check(course, folder)
    return {**done, "rounds": course.rounds, "starts": processes.starts, "half": half}


def _until_trained(folder: Path, count: int) -> None:
    """Until so many more updates were merged, or half a minute is over."""
    events, deadline = folder / "run" / "events.jsonl", time.monotonic() + 30
    trained = [_trained(events)]
    while trained[-1] < trained[0] + count and time.monotonic() < deadline:
        time.sleep(0.02)
        trained.append(_trained(events))


def _trained(events: Path) -> int:
    return events.read_text(encoding="utf-8").count('"participant_trained"') if events.is_file() else 0


def _still_running(processes: Processes, folder: Path) -> None:
    assert processes.server_ended() is None, (folder / "server.log").read_text(encoding="utf-8")[-3000:]


def _wait(processes: Processes, folder: Path) -> None:
    """Until the server has finished, with silos that are started again."""
    while (code := processes.server_ended()) is None:
        processes.start(server=False)
        time.sleep(0.05)
    assert code == 0, (folder / "server.log").read_text(encoding="utf-8")[-3000:]


def _check(course: Course, folder: Path) -> int:
    """How many rounds were gone on with that were half done."""
    names = sorted(participant.name for participant in course.participants)
    with closing(Ledger(RunFolder(folder / "run"))) as ledger:
        for number in range(1, course.rounds + 1):
            accepted = ledger.accepted(number)
            assert sorted(accepted) == names, (number, accepted)
            assert len(set(accepted.values())) == len(names)
    last = load_weights(folder / "run" / "last.safetensors")
    assert last.digest == undisturbed(course, folder / "undisturbed")
    text = (folder / "run" / "events.jsonl").read_text(encoding="utf-8")
    return text.count("updates that were on disk")


if __name__ == "__main__":
    match sys.argv[1:]:
        case [("kills" | "flower") as kind, number, *rest]:
            campaign = kills if kind == "kills" else flower_kills
            with tempfile.TemporaryDirectory() as where:
                began = time.monotonic()
                seed, algorithm = (*rest, *("0", "fedavg")[len(rest) :])
                print(campaign(Path(where), int(number), int(seed), algorithm), end=" ")
                print(f"{time.monotonic() - began:.0f} s")
        case _:
            sys.exit(__doc__)
