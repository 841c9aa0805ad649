"""Starts and ends Flower's processes: offline, without telemetry, in folders of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from xbackend_fl.errors import AdapterError, ConfigError, RunFailed

_START_S = 60.0
_STOP_S = 10.0
_APP = """\
[project]
name = "xbfl-course"
version = "0.1.0"
description = "A course of xbackend-fl; all code is in the installed package."
license = "Apache-2.0"

[tool.flwr.app]
publisher = "xbackend-fl"

[tool.flwr.app.components]
serverapp = "xbackend_fl.deployment.flower:server_app"
clientapp = "xbackend_fl.deployment.flower:client_app"

[tool.flwr.app.config]
xbfl = "{}"
"""


@final
class Address:
    """``HOST:PORT``.

    Raises:
        ConfigError: It is something else.
    """

    def __init__(self, text: str) -> None:
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise ConfigError(f"{text!r} is no address", hint="HOST:PORT, for example 127.0.0.1:8000")
        self.host, self.port, self.text = host.strip("[]"), int(port), text

    @property
    def here(self) -> str:
        """How this machine reaches itself, if it listens at all of its addresses."""
        return f"127.0.0.1:{self.port}" if self.host in {"0.0.0.0", "::"} else self.text  # noqa: S104

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in {"127.0.0.1", "::1", "localhost"}


def flower_environment(home: Path) -> dict[str, str]:
    """The environment of a process of Flower's that asks nobody for anything."""
    binaries = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        # Flower finds its other programs by name.
        "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}",
    }


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own; the group is ended with the block.

    Raises:
        AdapterError: The program is not installed.
    """
    program = Path(sys.executable).parent / command[0]
    if not program.is_file():
        raise AdapterError(f"{command[0]} is not installed", hint="pip install 'xbackend-fl[flower]'")
    with log.open("ab") as file:
        process = subprocess.Popen(  # noqa: S603  our own command, without a shell
            [str(program), *command[1:]],
            env=dict(environment),
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for how, patience in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        # Children of the group may be a moment behind.
        time.sleep(0.2)
    process.wait()


@contextmanager
def superlink(address: Address, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Flower's SuperLink at an address, healthy.

    Raises:
        RunFailed: It did not start; the message has the end of its log.
    """
    command = [
        *("flower-superlink", "--insecure", "--disable-runtime-dependency-installation"),
        *("--host", address.host, "--port", str(address.port)),
    ]
    log = home / "superlink.log"
    with running(command, flower_environment(home), log) as process:
        deadline = time.monotonic() + _START_S
        while not is_healthy(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RunFailed(
                    f"Flower's SuperLink did not start at {address.text}:\n{tail(log)}",
                    hint="another program may use the port; choose another --address",
                )
            time.sleep(0.1)
        yield process


def is_healthy(address: Address) -> bool:
    """Whether a SuperLink answers there."""
    try:
        with urllib.request.urlopen(f"http://{address.here}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def supernode(
    address: Address, port: int, config: Mapping[str, str], home: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Flower's SuperNode; it keeps trying to reach the server.

    Args:
        address: The server's.
        port: A free port of this machine, for the node's own processes.
        config: What its apps are told.
        home: Folder of its files.
    """
    pairs = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
    command = [
        *("flower-supernode", "--insecure", "--superlink", address.text, "--port", str(port)),
        *("--node-config", pairs),
    ]
    with running(command, flower_environment(home), home / "supernode.log") as process:
        yield process


def submit(address: Address, settings: Mapping[str, Any], home: Path) -> None:
    """Start a run of the thin app.

    Raises:
        RunFailed: Flower did not take it.
    """
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "course"\n\n[superlink.course]\naddress = "{address.here}"\ninsecure = true\n',
        encoding="utf-8",
    )
    app = home / "app"
    app.mkdir(exist_ok=True)
    (app / "pyproject.toml").write_text(_APP, encoding="utf-8")
    job = home / "job.toml"
    job.write_text(f"xbfl = {json.dumps(json.dumps(settings))}\n", encoding="utf-8")
    done = _flwr(["run", str(app), "course", "-c", str(job)], home)
    if done.returncode:
        raise RunFailed(f"Flower did not take the course:\n{(done.stdout + done.stderr)[-2000:]}")


def status(home: Path) -> str:
    """Flower's word for the run, such as ``running`` or ``finished:completed``."""
    done = _flwr(["list", "course", "--format", "json"], home)
    try:
        runs = json.loads(done.stdout)["runs"]
    except (ValueError, KeyError):
        return "unknown"
    return str(runs[0]["status"]) if runs else "unknown"


def _flwr(arguments: Sequence[str], home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  our own command, without a shell
        [str(Path(sys.executable).parent / "flwr"), *arguments],
        env=flower_environment(home),
        capture_output=True,
        text=True,
        check=False,
        timeout=_START_S,
    )


def tail(log: Path, lines: int = 12) -> str:
    """The end of a log."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return "\n".join(text.splitlines()[-lines:])
