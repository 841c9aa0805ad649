"""What a machine can be in a deployment: the server, a silo, or all of them for a rehearsal."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from xbackend_fl.course import Course, load_course
from xbackend_fl.deployment import processes, service
from xbackend_fl.deployment.keys import Keys, make_keys
from xbackend_fl.deployment.processes import Address
from xbackend_fl.deployment.silo import Silo
from xbackend_fl.errors import ConfigError, RefusedInput, RunFailed
from xbackend_fl.events import CourseFinished, Event, Observer, from_line
from xbackend_fl.server import RunFolder

_POLL_S = 0.5
_STATUS_S = 5.0
_LINGER_S = 60.0
_REMIND_S = 10.0
_JOIN_S = 2.0
_AGAIN_S = 2.0


def serve_course(
    course: Path,
    settings: Sequence[str] = (),
    *,
    address: str | None = None,
    out: Path | None = None,
    resume: bool = False,
    keys: Path | None = None,
    insecure: bool = False,
    observer: Observer = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Run a course's server until the course is over.

    Args:
        course: The course file; with ``resume``, the run folder to go on with.
        settings: ``a.b=value`` overrides.
        address: ``HOST:PORT`` to listen at; ``deployment.address`` if left out.
        out: A new run folder.
        resume: Continue at the last checkpoint of a run folder.
        keys: Folder of the server's keys (:class:`~xbackend_fl.deployment.keys.Keys`); ``deployment.keys`` if left out.
        insecure: Whether others than this machine may be served without keys.
        observer: Told about every event.
        should_stop: Asked all the time; true ends the course after a complete round.

    Returns:
        The run folder.

    Raises:
        RefusedInput: Course, address or folder cannot be used, or a silo's model is not the reference's.
        RunFailed: The course could not finish; the checkpoint of the last complete round stays.
    """
    loaded = load_course(course / "course.yaml" if resume else course, settings)
    place = Address(address or loaded.deployment.address)
    own = _keys_for(loaded, place, keys, insecure=insecure)
    folder = (course if resume else RunFolder.place(loaded, out)).resolve()
    with tempfile.TemporaryDirectory(prefix="xbfl-") as name:
        home = Path(name)
        told: dict[str, Any] = {
            "course": str(course.resolve()),
            "settings": list(settings),
            "out": str(folder),
            "resume": resume,
            "stop": str(home / "stop"),
            "failure": str(home / "failure.json"),
        }
        with processes.superlink(place, own, home):
            processes.submit(place, own, told, home)
            _follow(folder, home, observer, should_stop, resume=resume)
    return folder


def _follow(
    folder: Path, home: Path, observer: Observer, should_stop: Callable[[], bool], *, resume: bool
) -> None:
    """Tell what the server's process writes down, until the course is over."""
    log = folder / "events.jsonl"
    start = log.stat().st_size if resume and log.is_file() else 0
    events = _events(log, start)
    checked = time.monotonic()
    while True:
        for event in events:
            if event is None:
                break
            observer(event)
            if isinstance(event, CourseFinished):
                return
        if (home / "failure.json").is_file():
            _raise(json.loads((home / "failure.json").read_text(encoding="utf-8")))
        if should_stop():
            (home / "stop").touch()
        if time.monotonic() - checked > _STATUS_S:
            checked = time.monotonic()
            if processes.status(home).startswith("finished"):
                raise RunFailed(
                    f"the server's process ended before the course did:\n{processes.tail(home / 'superlink.log', 40)}",
                    hint=f"xbfl serve --resume {folder}",
                )
        time.sleep(_POLL_S)


def _events(log: Path, start: int) -> Iterator[Event | None]:
    """Events as they are written; ``None`` when there is no other yet."""
    while not log.is_file():
        yield None
    with log.open(encoding="utf-8") as file:
        file.seek(start)
        held = ""
        while True:
            held += file.readline()
            if held.endswith("\n"):
                yield from_line(held)
                held = ""
            else:
                yield None


def _raise(failure: dict[str, Any]) -> None:
    kind = RefusedInput if failure["exit_code"] == RefusedInput.exit_code else RunFailed
    raise kind(failure["message"], hint=failure["hint"])


def join_course(
    course: Path,
    settings: Sequence[str] = (),
    *,
    name: str | None = None,
    data: Path | None = None,
    server: str | None = None,
    out: Path | None = None,
    keys: Path | None = None,
    insecure: bool = False,
    threads: int | None = None,
    say: Callable[[str], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Take part in a course as one of its silos, until the course is over.

    Args:
        course: The course file.
        settings: ``a.b=value`` overrides.
        name: Which participant this is; ``deployment.name`` if left out.
        data: The silo's ``.npz`` file; ``deployment.data_path`` if left out, and its part of the course's data without either.
        server: The server's ``HOST:PORT``; ``deployment.address`` if left out.
        out: Folder for the trained model; ``silos/NAME`` if left out.
        keys: Folder of the silo's keys; ``deployment.keys`` if left out.
        insecure: Whether a server elsewhere may be talked to without keys.
        threads: Threads of the framework; all cores if left out.
        say: Told what happens, in words.
        should_stop: Asked all the time.

    Raises:
        RefusedInput: The course, the model, the data or the address cannot be used.
        RunFailed: The server was out of reach for ``deployment.join_within_s``.
    """
    loaded = load_course(course, settings)
    rules = loaded.deployment
    chosen = name or rules.name
    if chosen is None:
        raise ConfigError("which participant is this?", hint="--as NAME, or deployment.name")
    place = Address(server or rules.address)
    own = _keys_for(loaded, place, keys, insecure=insecure)
    if own is not None:
        own.silo(chosen)
    path = data or (loaded.base / rules.data_path if rules.data_path else None)
    silo = Silo(
        loaded, chosen, path, out=out or Path("silos") / chosen, threads=threads or os.cpu_count() or 1
    )
    say(f"{chosen}: model and data are open")
    _wait_for(place, own, rules.join_within_s, say, should_stop)
    with tempfile.TemporaryDirectory(prefix="xbfl-") as home, _serving(silo, Path(home) / "silo") as path_of:
        config = {"socket": str(path_of), "name": chosen}
        tried = time.monotonic()
        while not should_stop():
            with processes.supernode(place, _free_port(), config, own, Path(home)) as node:
                say(f"{chosen}: connecting to {place.text}")
                if _stay(silo, (place, own), node, rules.join_within_s, should_stop):
                    break
            # A server that has just started may not know this silo's key yet.
            if time.monotonic() - tried > rules.join_within_s:
                why = processes.tail(Path(home) / "supernode.log")
                raise RunFailed(f"Flower's SuperNode could not stay connected to {place.text}:\n{why}")
            say(f"{chosen}: Flower's SuperNode ended; trying again")
            time.sleep(_AGAIN_S)
    say(f"{chosen}: {'the course is over' if silo.finished else 'stopped'}")


def _wait_for(
    place: Address,
    keys: Keys | None,
    within_s: float,
    say: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> None:
    began = reminded = time.monotonic()
    while (reason := processes.ill_health(place, keys)) and not should_stop():
        if time.monotonic() - began > within_s:
            raise RunFailed(f"no server answered at {place.text} within {within_s:g} s: {reason}")
        if time.monotonic() - reminded > _REMIND_S:
            reminded = time.monotonic()
            say(f"no server answers at {place.text} ({reason}); trying again")
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
    seen, ended = time.monotonic(), 0.0
    while not should_stop():
        now = time.monotonic()
        if silo.finished:
            ended = ended or now
        healthy = not processes.ill_health(*server)
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
def _serving(silo: Silo, path: Path) -> Iterator[Path]:
    """The silo's service in a thread, until the block ends."""
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


def rehearse(
    course: Path,
    settings: Sequence[str] = (),
    *,
    data: Path | None = None,
    out: Path | None = None,
    observer: Observer = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """A server and all silos as processes of this machine, encrypted and with keys as between machines.

    Args:
        course: The course file.
        settings: ``a.b=value`` overrides.
        data: A folder with ``NAME.npz`` for every silo; parts of the course's data if left out.
        out: A new run folder; silos write into ``silos`` in it when the course is over, and their logs beside it.
        observer: Told about every event.
        should_stop: Asked all the time.

    Raises:
        RefusedInput: Something cannot be used; the message says which silo's.
        RunFailed: The course could not finish.
    """
    loaded = load_course(course, settings)
    names = [participant.name for participant in loaded.participants]
    server = f"127.0.0.1:{_free_port()}"
    threads = str(max(1, (os.cpu_count() or 1) // len(names)))
    folder = RunFolder.place(loaded, out).resolve()
    logs = folder.with_name(f"{folder.name}-logs")
    logs.mkdir(parents=True)
    keys = logs / "keys"
    make_keys(keys, (), names)
    silos: dict[str, subprocess.Popen[bytes]] = {}

    def stopped() -> bool:
        for name, process in silos.items():
            if process.poll():
                raise RunFailed(
                    f"silo {name!r} ended with exit code {process.returncode}:\n{processes.tail(logs / f'{name}.log')}"
                )
        return should_stop()

    with ExitStack() as stack:
        for name in names:
            command = ["xbfl", "join", str(course), "--as", name, "--server", server, "--threads", threads]
            command += ["--keys", str(keys / "silos" / name)]
            command += ["--out", str(folder / "silos" / name)]
            command += [] if data is None else ["--data-path", str(data / f"{name}.npz")]
            for setting in settings:
                command += ["--set", setting]
            environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
            process = processes.running(command, environment, logs / f"{name}.log")
            silos[name] = stack.enter_context(process)
        return serve_course(
            course,
            settings,
            address=server,
            out=folder,
            keys=keys / "server",
            observer=observer,
            should_stop=stopped,
        )


def _keys_for(course: Course, place: Address, keys: Path | None, *, insecure: bool) -> Keys | None:
    named = course.deployment.keys
    folder = keys or (course.base / named if named else None)
    if folder is not None and not insecure:
        return Keys(folder)
    if not place.is_loopback and not insecure:
        raise RefusedInput(
            f"{place.text} is reached by other machines, and nothing would be encrypted",
            hint="--keys DIR (xbfl keys makes a set); --insecure only in a network that is trusted, such as a VPN",
        )
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
