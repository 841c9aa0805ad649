"""Kills and faults, in short; ``python -m tests.federation.campaign`` is the long form."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Figure
from tests.federation.campaign import kills, write_course
from tests.federation.light import Linear
from tests.federation.links import Passing
from xbackend_fl.aggregation import MODEL, Merged, OnlineMean
from xbackend_fl.events import Event, ParticipantFailed, RoundCollected
from xbackend_fl.federation import DeploymentEngine, Dispatcher, Ledger, Message, Silo
from xbackend_fl.federation.transport import Reply
from xbackend_fl.rounds import RunFolder, run_with


@pytest.mark.parametrize("algorithm", ["fedavg", pytest.param("scaffold", marks=pytest.mark.slow)])
def test_kills_lose_and_double_nothing(
    tmp_path: Path, figure: Figure, algorithm: str, *, thorough: bool
) -> None:
    count = 200 if thorough else 2
    figure(f"killed, {algorithm}", kills(tmp_path / "light", count, seed=1, algorithm=algorithm))


class Faulty(Passing):
    """A link on which silos drop out, are slow, answer twice, and send damage and NaN.

    Args:
        silos: The silos.
        seed: Draws the faults.
    """

    def __init__(self, silos: Sequence[Silo], seed: int) -> None:
        super().__init__(silos)
        self._draw = random.Random(seed)
        self._late: list[tuple[float, Reply]] = []
        self.faults: dict[str, int] = {}

    def forget(self) -> None:
        self._late.clear()
        super().forget()

    def replies(self) -> Iterator[Reply]:
        now = time.monotonic()
        yield from (reply for due, reply in self._late if due <= now)
        self._late = [(due, reply) for due, reply in self._late if due > now]
        for reply in super().replies():
            if Message.from_bytes(reply.frame, reply.name).kind != "trained":
                yield reply
                continue
            kinds = ["drop", "slow", "twice", "damage", "nan", "fine"]
            fault = self._draw.choices(kinds, [30, 20, 10, 5, 5, 30])[0]
            self.faults[fault] = self.faults.get(fault, 0) + 1
            match fault:
                case "drop":
                    continue
                case "slow":
                    self._late.append((now + self._draw.uniform(0.02, 0.6), reply))
                case "twice":
                    yield reply
                    yield reply
                case "damage":
                    frame = bytearray(reply.frame)
                    frame[self._draw.randrange(len(frame))] ^= 0x10
                    yield Reply(reply.name, bytes(frame))
                case "nan":
                    yield Reply(reply.name, _spoilt(reply.frame))
                case _:
                    yield reply


def _spoilt(frame: bytes) -> bytes:
    update = Message.from_bytes(frame, "a silo")
    name, array = next(iter(update.arrays.items()))
    changed = array.copy()
    changed.reshape(-1)[3] = np.nan
    return Message(update.kind, update.fields, {**update.arrays, name: changed}).to_bytes()


def test_faults_of_every_kind(tmp_path: Path, figure: Figure, *, thorough: bool) -> None:
    """The mean of every round is that of the accepted updates, no more and no less."""
    rounds = 100 if thorough else 15
    more = "deployment: {quorum: 1, round_timeout_s: 0.25}\n"
    course = write_course(tmp_path, rounds, silos=10, more=more)
    learners = {p.name: Linear(p.name, course) for p in course.participants}
    silos = [Silo(course, name, learner, out=tmp_path / name) for name, learner in learners.items()]
    link, events = Faulty(silos, seed=3), list[Event]()
    folder = RunFolder.create(course, tmp_path / "run")
    ledger = Ledger(folder)
    with closing(DeploymentEngine(course, Dispatcher(link), ledger)) as engine:
        run = run_with(engine, course, folder, None, events.append)
        accepted = {number: set(ledger.accepted(number)) for number in range(1, rounds + 1)}
        history = ledger.participation()
    collected = [event for event in events if isinstance(event, RoundCollected)]
    assert [set(event.accepted) for event in collected] == list(accepted.values())
    assert {event.round: event.missing for event in collected} == _missing(events, rounds)
    assert sum(entry.accepted + entry.refused + entry.late for entry in history) == 10 * rounds
    rule = course.server_algorithm
    weights = next(iter(learners.values())).initial()
    state = rule.init(weights)
    for number, names in accepted.items():
        mean = OnlineMean(weights, "exact")
        plain: dict[str, Any] = dict.fromkeys(weights, 0.0)
        for name in sorted(names, reverse=True):
            update, _ = learners[name].step(number, weights, name)
            mean.add(update, learners[name].num_examples()[name])
            for key, array in update.items():
                plain[key] = plain[key] + array.astype(np.float64) * learners[name].num_examples()[name]
        for key, array in mean.result().items():
            np.testing.assert_allclose(array, plain[key] / mean.total, rtol=0, atol=1e-6)
        weights, state = rule.apply(weights, Merged({MODEL: mean.result()}, mean.count), state)
    assert weights.digest == run.weights.digest
    assert min(link.faults.values()) > 0
    figure("faults", link.faults)


def _missing(events: list[Event], rounds: int) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = dict.fromkeys(range(1, rounds + 1), ())
    for event in events:
        if isinstance(event, ParticipantFailed):
            found[event.round] += (event.name,)
    return found
