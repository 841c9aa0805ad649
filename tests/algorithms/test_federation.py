"""The same course with real silos: the simulation's bits, and nothing local on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.algorithms.smooth import course_of
from tests.federation.conftest import files_of  # noqa: F401  a fixture
from tests.federation.links import Passing, deployed
from xbackend_fl import Course, run_course
from xbackend_fl.federation import Silo
from xbackend_fl.federation.protocol.message import Message
from xbackend_fl.federation.transport import Reply

SETTINGS = ("federate.precision=exact",)


class Seen(Passing):
    """A link that remembers which arrays crossed it, by kind of message."""

    def __init__(self, silos: list[Silo]) -> None:
        super().__init__(silos)
        self.names: dict[str, set[str]] = {}

    def send(self, frames: Mapping[str, bytes]) -> None:
        for name, frame in frames.items():
            self._see(Message.from_bytes(frame, name))
        super().send(frames)

    def replies(self) -> Iterator[Reply]:
        for reply in super().replies():
            self._see(Message.from_bytes(reply.frame, reply.name))
            yield reply

    def _see(self, message: Message) -> None:
        self.names.setdefault(message.kind, set()).update(message.arrays)


@pytest.mark.parametrize(
    ("algorithm", "norm", "aggregator"),
    [
        ("scaffold", False, "mean"),
        ("fedbn", True, "mean"),
        ("{name: fedprox, mu: 0.2}", False, "mean"),
        ("fedavg", False, "median"),
    ],
)
def test_silos_end_with_the_simulations_bits(
    algorithm: str,
    norm: bool,  # noqa: FBT001  a row
    aggregator: str,
    tmp_path: Path,
    files_of: Callable[[Course], Path],  # noqa: F811
) -> None:
    course = course_of(
        tmp_path / "course",
        ["torch"],
        f"federate.algorithm={algorithm}",
        f"federate.aggregator={aggregator}",
        *SETTINGS,
        norm=norm,
        rounds=5,
    )
    run = run_course(course, tmp_path / "simulated", in_process=True)
    data = files_of(course)
    silos = [
        Silo.from_course(course, p.name, data / f"{p.name}.npz", out=tmp_path / p.name)
        for p in course.participants
    ]
    link = Seen(silos)
    real, _ = deployed(course, link, tmp_path / "deployed")
    apart = [name for name, array in run.weights.items() if (real.weights[name] != array).any()]
    assert not apart
    for kind in ("train", "trained", "evaluate"):
        assert link.names[kind]
        assert not any(name.startswith("norm.") for name in link.names[kind])
    assert any(name.startswith("vectors/control/") for name in link.names["trained"]) == (
        algorithm == "scaffold"
    )
