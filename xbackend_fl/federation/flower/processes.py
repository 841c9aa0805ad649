"""Starts and ends Flower's processes: offline, without telemetry, in folders of their own."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path

from xbackend_fl.course.address import Address
from xbackend_fl.deadline import Deadline
from xbackend_fl.errors import AdapterError, RefusedInput, RunFailed
from xbackend_fl.events import Noted, Observer
from xbackend_fl.federation import flower
from xbackend_fl.federation.credentials import Keys
from xbackend_fl.federation.flower.app import write_app
from xbackend_fl.federation.job import Job
from xbackend_fl.federation.transport import Gone

_PATIENCE_S = 900.0
"""For what takes seconds: as a machine that is busy with other things needs minutes, and a program that ended is seen at once."""
_REMIND_S = 30.0
_POLL_S = 0.1
_HEALTH_S = 15.0
_STOP_S = 10.0
_FORKSERVER = "forkserver"
"""Socket of what Flower's program is forked from."""
_TIED = """\
import ctypes, os, signal, sys
parent, number, *command = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(number))
    if os.getppid() != int(parent):
        os.kill(os.getpid(), int(number))
os.execv(command[0], command)
"""
"""Becomes another program, which gets a signal when the process that started it ends, however that ends (PR_SET_PDEATHSIG)."""


@dataclass(frozen=True)
class Waiting:
    """Whoever waits for a program of Flower's.

    Attributes:
        observer: Hears now and then what is waited for.
        should_stop: Asked all the time; true ends the waiting.
    """

    observer: Observer = lambda _: None
    should_stop: Callable[[], bool] = lambda: False

    def polls(self, what: str, why: Callable[[], str]) -> Iterator[None]:
        """Moments to look again.

        Args:
            what: What is waited for.
            why: What to show if it does not come.

        Raises:
            RunFailed: It took too long, or somebody ended the waiting.
        """
        began = reminded = time.monotonic()
        while True:
            yield
            now = time.monotonic()
            if self.should_stop():
                raise RunFailed(f"stopped while waiting for {what}")
            if now - began > _PATIENCE_S:
                raise RunFailed(f"gave up after waiting {now - began:.0f} s for {what}\n{why()}".rstrip())
            if now - reminded > _REMIND_S:
                reminded = now
                note = f"still waiting for {what}, {now - began:.0f} s so far: this machine is slow or busy"
                self.observer(Noted(backend="server", note=note))
            time.sleep(_POLL_S)


_NOBODY = Waiting()


def flower_environment(home: Path) -> dict[str, str]:
    """The environment of a process of Flower's that asks nobody for anything.

    Args:
        home: Folder of its files; programs in its ``bin`` come before Flower's own.
    """
    binaries = f"{home.resolve() / 'bin'}{os.pathsep}{Path(sys.executable).parent}"
    return {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
        # glibc raises its threshold to the size of what is freed, up to 32 MB, and then keeps such pieces; models are of that size.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
        # Flower finds its other programs by name.
        "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def tied(command: Sequence[str], number: signal.Signals = signal.SIGTERM) -> list[str]:
    """A command that gets a signal when this process ends, on Linux, with the program's whole path first."""
    return [sys.executable, "-c", _TIED, str(os.getpid()), str(int(number)), *command]


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
            tied([str(program), *command[1:]]),
            env=dict(environment),
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def end(
    process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM, patience: float = _STOP_S
) -> None:
    """End the group of a process: by a signal that asks, and by SIGKILL if it has not ended some seconds later."""
    for number, seconds in ((how, patience), (signal.SIGKILL, _STOP_S)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        # Children of the group may be a moment behind.
        time.sleep(0.2)
    process.wait()


@contextmanager
def superlink(
    address: Address, keys: Keys | None, home: Path, waiting: Waiting = _NOBODY
) -> Iterator[subprocess.Popen[bytes]]:
    """Flower's SuperLink at an address, healthy; encrypted, and for known silos only, if there are keys.

    Args:
        address: Where it listens.
        keys: The server's.
        home: Folder of its files.
        waiting: Who is told that it takes long, and may end the waiting.

    Raises:
        Gone: It was killed while it started.
        RunFailed: The address cannot be listened at, or it did not start; the message then has the end of its log.
    """
    _check_free(address)
    command = ["flower-superlink", "--disable-runtime-dependency-installation"]
    command += ["--host", address.host, "--port", str(address.port)]
    if keys is None:
        command += ["--insecure"]
    else:
        command += ["--ssl-ca-certfile", str(keys.authority), "--ssl-certfile", str(keys.certificate)]
        command += ["--ssl-keyfile", str(keys.private), "--enable-supernode-auth"]
    log = home / "superlink.log"
    with ExitStack() as stack:
        forking = None
        if sys.platform == "linux":
            forking = stack.enter_context(forkserver(home, "flwr-serverapp"))
        process = stack.enter_context(running(command, flower_environment(home), log))
        here = Address(address.here)
        for _ in waiting.polls("Flower's SuperLink to start", lambda: tail(log)):
            if not (reason := ill_health(here, keys)):
                break
            if (process.poll() or 0) < 0:
                raise Gone(f"Flower's SuperLink was killed by signal {-process.returncode} while it started.")
            if process.poll() is not None:
                raise RunFailed(f"Flower's SuperLink did not start at {address.text}: {reason}\n{tail(log)}")
        # Or the program would be imported when it is started, and Flower waits 30 s for that.
        for _ in waiting.polls("the server's program to be imported", lambda: tail(home / "forkserver.log")):
            if forking is None or (home / _FORKSERVER).exists() or forking.poll() is not None:
                break
        yield process


def _check_free(address: Address) -> None:
    """A port is free, or becomes so soon: a SuperLink that was ended takes seconds to leave.

    Raises:
        RunFailed: Another program listens there, or the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    deadline = Deadline.within(_STOP_S)
    while True:
        try:
            with socket.socket(family) as probe:
                # As servers do: connections that ended a moment ago do not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address.host, address.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or deadline.passed:
                raise RunFailed(
                    f"cannot listen at {address.text}: {error.strerror}",
                    hint="choose another --address, of this machine and used by no other program",
                ) from error
            time.sleep(0.2)
        else:
            return


def ill_health(address: Address, keys: Keys | None) -> str:
    """Why no SuperLink answers there; empty if one does.

    Raises:
        RefusedInput: One answers with a certificate that is not good for this address.
    """
    try:
        _health(address, keys)
    except urllib.error.URLError as error:
        if keys is not None and isinstance(error.reason, ssl.SSLCertVerificationError):
            raise RefusedInput(
                f"the certificate of the server at {address.text} is refused: {error.reason.verify_message}",
                hint=f"it must name {address.host} and be signed by {keys.authority}, and this machine's clock must be right; "
                f"xbfl keys --host {address.host}",
            ) from error
        return str(error.reason)
    except OSError as error:
        return str(error)
    return ""


def clock_skew(address: Address, keys: Keys | None) -> float:
    """Seconds, to a second or two, by which this machine's clock is ahead of the server's; 0 if the server does not tell."""
    stated = _health(address, keys).get("date")
    if stated is None:
        return 0.0
    return time.time() - parsedate_to_datetime(stated).timestamp()


def _health(address: Address, keys: Keys | None) -> Message:
    """Headers of the SuperLink's answer."""
    if keys is None:
        url, context = f"http://{address.text}/health", None
    else:
        url, context = f"https://{address.text}/health", keys.context()
    with urllib.request.urlopen(url, timeout=_HEALTH_S, context=context) as answer:  # noqa: S310  one of our two
        headers: Message = answer.headers
        return headers


@contextmanager
def supernode(
    address: Address,
    port: int,
    config: Mapping[str, str],
    keys: Keys | None,
    home: Path,
    *,
    fork: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """Flower's SuperNode; it keeps trying to reach the server.

    Args:
        address: The server's.
        port: A free port of this machine, for the node's own processes.
        config: What its apps are told; ``name`` is the silo's.
        keys: The silo's.
        home: Folder of its files.
        fork: Whether messages' processes are forked from one that has imported Flower, rather than started.
    """
    pairs = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
    command = ["flower-supernode", "--superlink", address.text, "--port", str(port), "--node-config", pairs]
    if keys is None:
        command += ["--insecure"]
    else:
        command += ["--root-certificates", str(keys.authority)]
        command += ["--auth-supernode-private-key", str(keys.silo(config["name"]))]
    with ExitStack() as stack:
        if fork and sys.platform == "linux":
            stack.enter_context(forkserver(home, "flwr-clientapp"))
        yield stack.enter_context(running(command, flower_environment(home), home / "supernode.log"))


@contextmanager
def forkserver(home: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process from which those of a program of Flower's are forked, and in ``home/bin`` the program under its name that asks it to."""
    place = home / _FORKSERVER
    place.unlink(missing_ok=True)
    (home / "bin").mkdir(exist_ok=True)
    words = [
        sys.executable,
        "-IS",
        str(Path(flower.__file__).with_name("clientapp_shim.py")),
        str(place.resolve()),
    ]
    words += [str(Path(sys.executable).parent / name)]
    shim = home / "bin" / name
    shim.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    shim.chmod(0o700)
    command = [Path(sys.executable).name, "-m", "xbackend_fl.federation.flower.forkserver", str(place), name]
    # Threads of BLAS would be there before the fork, and none after it.
    environment = {**flower_environment(home), "OPENBLAS_NUM_THREADS": "1"}
    with running(command, environment, home / "forkserver.log") as process:
        yield process


def submit(address: Address, keys: Keys | None, job: Job, home: Path, waiting: Waiting = _NOBODY) -> None:
    """Let the known silos in, and start a run of the thin app.

    Raises:
        RunFailed: Flower did not take it.
    """
    app = home / "app"
    app.mkdir(exist_ok=True)
    write_app(app, job)
    start_app(address, keys, app, home, waiting)


def start_app(address: Address, keys: Keys | None, app: Path, home: Path, waiting: Waiting = _NOBODY) -> None:
    """Let the known silos in, and start a run of any app.

    Raises:
        RunFailed: Flower did not take it.
    """
    security = "insecure = true" if keys is None else f"root-certificates = {json.dumps(str(keys.authority))}"
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "course"\n\n[superlink.course]\naddress = "{address.here}"\n{security}\n',
        encoding="utf-8",
    )
    for name, public in ({} if keys is None else keys.allowed()).items():
        done = _flwr(
            ["supernode", "register", str(public.resolve()), "course", "--name", name], home, waiting
        )
        if done.returncode:
            raise RunFailed(f"Flower did not take the key {public}:\n{(done.stdout + done.stderr)[-2000:]}")
    done = _flwr(["run", str(app), "course"], home, waiting)
    if done.returncode:
        raise RunFailed(f"Flower did not take the course:\n{(done.stdout + done.stderr)[-2000:]}")


def status(home: Path) -> str:
    """Flower's word for the run, such as ``running`` or ``finished:completed``."""
    try:
        done = _flwr(["list", "course", "--format", "json"], home, _NOBODY)
        runs = json.loads(done.stdout)["runs"]
    except (ValueError, KeyError, RunFailed):
        return "unknown"
    return str(runs[0]["status"]) if runs else "unknown"


def _flwr(arguments: Sequence[str], home: Path, waiting: Waiting) -> subprocess.CompletedProcess[str]:
    """One of Flower's commands to its end. It is not tried a second time: the first may be through."""
    command = [str(Path(sys.executable).parent / "flwr"), *arguments]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(  # noqa: S603  our own command, without a shell
            command, env=flower_environment(home), stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        try:
            for _ in waiting.polls(f"Flower's command flwr {arguments[0]}", lambda: ""):
                if process.poll() is not None:
                    break
        finally:
            process.kill()
            process.wait()
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode("utf-8", errors="replace"))
        return subprocess.CompletedProcess(command, process.returncode, *said)


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(log: Path, lines: int = 12) -> str:
    """The end of a log."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return "\n".join(text.splitlines()[-lines:])
