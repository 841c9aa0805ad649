"""A rehearsal: the server and every silo as processes of one machine, encrypted and with keys as between machines."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path

from xbackend_fl.course import Course, dump, require_files
from xbackend_fl.course.address import Address
from xbackend_fl.errors import ConfigError, RunFailed
from xbackend_fl.events import Noted, Observer
from xbackend_fl.federation.credentials import Keys, make_keys
from xbackend_fl.federation.flower import processes
from xbackend_fl.federation.flower.processes import free_port
from xbackend_fl.federation.flower.transport import Flower
from xbackend_fl.federation.serving import serve_course
from xbackend_fl.rounds import LEAVING_S, RunFolder, owned
from xbackend_fl.writing import explain_unwritable


def rehearse(
    course: Course,
    *,
    data: Path | str | None = None,
    out: Path | None = None,
    without: Collection[str] = (),
    observer: Observer = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """A server and all silos as processes of this machine, encrypted and with keys as between machines.

    Args:
        course: The course.
        data: A folder with ``NAME.npz`` for every silo, or a source with ``{name}`` in the place of its name; parts of the course's data if left out.
        out: A new run folder; what silos write, their logs and all keys lie beside it, in ``OUT-silos``.
        without: Participants that come by themselves, to ``deployment.address`` and with the keys that are told of.
        observer: Told about every event.
        should_stop: Asked all the time.

    Raises:
        RefusedInput: Something cannot be used; the message says which silo's.
        RunFailed: The course could not finish.
    """
    require_files(course)
    names = [participant.name for participant in course.participants]
    if unknown := sorted({*without} - {*names}):
        raise ConfigError(f"the course has no participant {unknown[0]!r}", hint=f"it has {', '.join(names)}")
    server = Address(course.deployment.address if without else f"127.0.0.1:{free_port()}")
    threads = str(max(1, (os.cpu_count() or 1) // len(names)))
    folder = RunFolder.choose_path(course, out).resolve()
    beside = folder.with_name(f"{folder.name}-silos")
    keys = beside / "keys"
    silos: dict[str, subprocess.Popen[bytes]] = {}

    needed, gone = course.deployment.min_silos(len(names)), set[str]()

    def stopped() -> bool:
        for name, process in silos.items():
            if name in gone or not process.poll():
                continue
            gone.add(name)
            said = f"silo {name!r} ended with exit code {process.returncode}:\n{processes.tail(beside / f'{name}.log')}"
            if len(names) - len(gone) < needed:
                raise RunFailed(said)
            observer(Noted(backend="server", note=f"the course goes on without it: {said}"))
        return should_stop()

    with explain_unwritable(beside):
        beside.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # A first try that was killed left keys behind; they were for nothing else.
        stack.enter_context(owned(beside, LEAVING_S))
        shutil.rmtree(keys, ignore_errors=True)
        make_keys(keys, (), names)
        file = beside / "course.yaml"
        with explain_unwritable(file):
            file.write_text(dump(course), encoding="utf-8")
        for name in without:
            note = f"{name} comes by itself, to {server.text} and with the keys in {keys / 'silos' / name}"
            observer(Noted(backend="server", note=note))
        for name in [name for name in names if name not in without]:
            command = ["xbfl", "join", str(file), "--as", name, "--server", server.text, "--threads", threads]
            command += ["--keys", str(keys / "silos" / name)]
            command += ["--out", str(beside / name)]
            command += [] if data is None else ["--data-path", data_of(name, data)]
            environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
            process = processes.running(command, environment, beside / f"{name}.log")
            silos[name] = stack.enter_context(process)
        return serve_course(
            course,
            Flower(server, Keys(keys / "server")),
            out=folder,
            observer=observer,
            should_stop=stopped,
        )


def data_of(name: str, data: Path | str) -> str:
    """Where the data of a silo are, of a folder with ``NAME.npz`` or a source with ``{name}``."""
    own = str(data).replace("{name}", name)
    return own if own != str(data) else str(Path(data) / f"{name}.npz")
