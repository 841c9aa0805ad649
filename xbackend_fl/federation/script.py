"""A script that owns its main loop takes part as a silo: rounds come to it as tasks, ``for task in rounds``."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, final

from xbackend_fl.adapter import Distributed, Peers, adapter_of
from xbackend_fl.algorithms import PlainClient
from xbackend_fl.course import Course, dump, load_course
from xbackend_fl.data import Splits
from xbackend_fl.errors import ConfigError, RunFailed, UpdateRefused
from xbackend_fl.events import Noted, Observer
from xbackend_fl.federation.flower.door import Flower
from xbackend_fl.federation.flower.processes import end, free_port, tied
from xbackend_fl.federation.joining import join_course
from xbackend_fl.federation.ranks import Following, Leading
from xbackend_fl.federation.transport import Transport
from xbackend_fl.participant import Brought, Loop, Task

_POLL_S = 0.1
_LEAVING_S = 60.0
_KEYS_S = 60.0
_ENDING_S = 40.0
"""Seconds in which a rehearsal ends all its silos."""


@final
class Rounds:
    """The rounds of a course, one task after the other, for the loop of a script.

    The weights that ``task.model`` holds when the loop asks for the next task are this round's update; so :meth:`report` only says how many
    examples they stand for, and may be called before or after the training.

    Args:
        peers: The processes of a distributed script, of which this is rank 0; they hear of every round, and get its weights.

    Attributes:
        ended: Whether the server is known to have failed.
        over: Whether the course has ended by itself.
    """

    def __init__(self, peers: Peers | None = None) -> None:
        self._leading = None if peers is None else Leading(peers)
        self._tasks: queue.Queue[Task] = queue.Queue()
        self._answered = threading.Event()
        self._answer: Any = None
        self._open: Task | None = None
        self._reported: dict[str, float] | None = None
        self._left = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.ended: Callable[[], bool] = lambda: False
        self.over = False

    def __iter__(self) -> Iterator[Task]:
        """Wait for the next round, until the course is over.

        Raises:
            XbflError: The silo cannot take part, or not any longer.
        """
        while (task := self._led()) is not None:
            self._open, self._reported = task, None
            yield task
            self._close(self._reported)

    def report(self, num_examples: int, **figures: float) -> None:
        """What the weights of this round stand for.

        A round in which it was not called is skipped: the course gets no update of it, and a reason.

        Args:
            num_examples: How many examples they were trained on: the weight of the update.
            figures: Numbers to be shown with the round.
        """
        if self._open is None:
            raise ConfigError(
                "rounds.report() was called outside of a round",
                hint="for task in rounds: … rounds.report(120)",
            )
        self._reported = {"num_examples": num_examples, **figures}

    def train(self, task: Task) -> Any:
        """The training loop of this silo, as the rest of the toolkit sees it: it hands the task over and waits for the script."""
        if self._left.is_set():
            raise UpdateRefused("has left the course")
        self._answered.clear()
        self._tasks.put(task)
        try:
            # In short steps: a deadline interrupts Python code alone.
            while not self._answered.wait(_POLL_S):
                pass
        except BaseException:
            # Whoever still trains must not get another round: the model is one.
            self._left.set()
            raise
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def run(self, join: Callable[[], None]) -> None:
        """Take part in a thread."""

        def joined() -> None:
            try:
                join()
            except BaseException as error:  # noqa: BLE001  it is raised where the script waits
                self._error = error

        self._thread = threading.Thread(target=joined, name="xbfl-join", daemon=True)
        self._thread.start()

    def leave(self, error: BaseException | None) -> None:
        """The script goes on without the course: a round that is open is answered with the reason."""
        if self._leading is not None and error is None:
            self._leading.end()
        if self._open is not None:
            interrupted = isinstance(error, KeyboardInterrupt | GeneratorExit)
            self._close(
                UpdateRefused("has left the course in the middle of the round")
                if error is None or interrupted
                else error
            )
        self._left.set()
        if self._thread is not None:
            self._thread.join(_LEAVING_S)

    @property
    def left(self) -> bool:
        """Whether the script takes no more rounds."""
        return self._left.is_set()

    def _led(self) -> Task | None:
        """The next task, of which all processes of the script hear; ``None`` at the end."""
        if self._leading is None:
            return self._next()
        try:
            task = self._next()
        except Exception as error:
            self._leading.fail(error)
            raise
        if task is None:
            self._leading.end()
        else:
            self._leading.begin(task)
        return task

    def _next(self) -> Task | None:
        assert self._thread is not None
        while not self._left.is_set():
            try:
                return self._tasks.get(timeout=_POLL_S)
            except queue.Empty:
                if self._leading is not None:
                    self._leading.wait()
                if self.ended():
                    self._left.set()
                    raise RunFailed("the rehearsal has failed; what it said stands above") from None
                if self._thread.is_alive():
                    continue
                if self._error is not None:
                    raise self._error from None
                self.over = True
                return None
        raise RunFailed(
            "the round took longer than training.timeout_s allows, and this silo has left the course",
            hint="raise training.timeout_s in the course",
        )

    def _close(self, answer: Any) -> None:
        """Let the toolkit take the weights, or hear why there are none."""
        assert self._open is not None
        if answer is None:
            answer = UpdateRefused(
                f"was skipped by its script in round {self._open.round}: rounds.report(num_examples) was not called"
            )
        self._open, self._answer = None, answer
        self._answered.set()


@contextmanager
def federate(
    model: object,
    course: Course | str | Path,
    name: str | None = None,
    *,
    data: Path | str | Splits | None = None,
    server: str | None = None,
    keys: str | Path | None = None,
    insecure: bool = False,
    out: str | Path | None = None,
    transport: Transport | None = None,
    rehearse: bool = False,
    observer: Observer | None = None,
) -> Iterator[Rounds | Following]:
    """Take part in a course from a script that has its own main loop.

    ::

        with xb.federate(model, "course.yaml", "osaka") as rounds:
            for task in rounds:
                train_one_epoch(model, loader)
                rounds.report(len(loader.dataset))

    In a distributed script (``torchrun``) every process does the same: rank 0 takes part, and all others get the rounds and their weights from it.

    Every task finds the round's weights in ``model``; what ``model`` holds when the loop comes round again is sent. A round without a report is
    skipped; an exception in the block goes on, and the server is told of it with its line; leaving the loop early leaves the course. With a quorum
    (``deployment.quorum``) the others go on in all three cases.

    Args:
        model: The native model, the one that the script trains. It is proven to be the course's model first.
        course: The course, or its file.
        name: Which participant this is; ``deployment.name`` if left out.
        data: Its training, validation and test examples, or any source of them; its part of the course's data if left out. The script may train on
            others: these are what the course's figures are of.
        server: ``HOST:PORT``; ``deployment.address`` if left out.
        keys: Folder of the silo's keys.
        insecure: Whether other machines may be talked to without keys.
        out: Folder for the trained model and the silo's state; ``silos/NAME`` if left out.
        transport: Another way to the server than Flower.
        rehearse: Start the server and all other silos as processes of this machine, for a trial; ``server`` and ``keys`` are then made.
        observer: Hears of what happens; it is printed if left out.

    Raises:
        RefusedInput: The model is not the course's, or something else cannot be used.
        RunFailed: The server was out of reach.
    """
    found = course if isinstance(course, Course) else load_course(course)
    peers = _peers(model, found)
    if peers is not None and peers.rank:
        following = Following(peers, model)
        yield following
        following.leave()
        return
    chosen = name or found.deployment.name
    if chosen is None:
        raise ConfigError(
            "which participant is this?", hint="xb.federate(model, course, NAME), or deployment.name"
        )
    where = Path(out) if out is not None else Path("silos") / chosen
    rounds, tell = Rounds(peers), observer or _printed
    with ExitStack() as stack:
        if rehearse:
            server, keys = stack.enter_context(_rehearsal(found, chosen, where, rounds))
        way = transport or Flower.from_course(
            found, server, None if keys is None else Path(keys), insecure=insecure
        )
        found_backend = adapter_of(model).name
        wanted = next((p.backend for p in found.participants if p.name == chosen), found_backend)
        if wanted != found_backend:
            raise ConfigError(
                f"the participant {chosen!r} trains with {wanted!r}, and the script's model is one of {found_backend!r}",
                hint=f"participants: [{{name: {chosen}, backend: {found_backend}}}]",
            )
        brought = Brought(model, Loop(Path(sys.argv[0]).name or "a script", rounds.train, own_data=True))
        rounds.run(
            partial(
                join_course,
                found,
                way,
                name=chosen,
                data=data,
                out=where,
                observer=tell,
                should_stop=lambda: rounds.left,
                brought=brought,
            )
        )
        try:
            yield rounds
        except BaseException as error:
            rounds.leave(error)
            raise
        rounds.leave(None)


def _printed(event: Any) -> None:
    if isinstance(event, Noted):
        print(f"{event.backend}: {event.note}", file=sys.stderr)  # noqa: T201  a script's own output stays its own


def _peers(model: object, course: Course) -> Peers | None:
    """The processes of a distributed script; ``None`` if this is the only one.

    Raises:
        ConfigError: They cannot hear of each other, or the course's algorithm adds to every step what one process alone could.
    """
    adapter, rank = adapter_of(model), os.environ.get("RANK", "0")
    peers = adapter.peers() if isinstance(adapter, Distributed) else None
    if peers is None and rank != "0":
        raise ConfigError(
            f"this is rank {rank} of a distributed script, whose processes cannot hear of each other yet",
            hint="torch.distributed.init_process_group() before xb.federate(); then rank 0 takes part, and the others follow it",
        )
    algorithm = course.federate.algorithm
    if peers is not None and type(algorithm.client()) is not PlainClient:
        raise ConfigError(
            f"{algorithm.name} adds to every step, and steps of a distributed script are made of the gradients of several processes",
            hint="federate.algorithm: fedavg, or a script of one process",
        )
    return peers


@contextmanager
def _rehearsal(course: Course, name: str, out: Path, rounds: Rounds) -> Iterator[tuple[str, Path]]:
    """The server and all other silos as processes of this machine; the address, and this silo's keys.

    Where they end before the course does, so do the rounds.

    Raises:
        RunFailed: They ended before there were keys.
    """
    out.mkdir(parents=True, exist_ok=True)
    file, run = out / "course.yaml", out.with_name(f"{out.name}-rehearsal-{time.strftime('%Y%m%d-%H%M%S')}")
    file.write_text(dump(course), encoding="utf-8")
    server = f"127.0.0.1:{free_port()}"
    command = [
        str(Path(sys.executable).parent / "xbfl"),
        "up",
        str(file),
        "--out",
        str(run),
        "--without",
        name,
    ]
    # In a group of its own: Ctrl-C is the script's, and the end of the script is the rehearsal's, whatever it was.
    process = subprocess.Popen(  # noqa: S603  our own command
        tied([*command, "--set", f"deployment.address={server}"], signal.SIGHUP), start_new_session=True
    )
    keys = run.with_name(f"{run.name}-silos") / "keys" / "silos" / name
    try:
        began = time.monotonic()
        while not keys.is_dir():
            if process.poll() is not None or time.monotonic() - began > _KEYS_S:
                raise RunFailed("the rehearsal ended before it began; what it said stands above")
            time.sleep(_POLL_S)
        rounds.ended = lambda: process.poll() not in {None, 0}
        yield server, keys
        if rounds.over or course.deployment.quorum is not None:
            # Else the others wait for this silo, which has left.
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LEAVING_S)
    finally:
        end(process, signal.SIGHUP, _ENDING_S)
