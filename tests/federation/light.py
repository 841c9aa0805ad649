"""Silos without a framework, as processes of their own: a linear model whose training is a known sum.

``python -m tests.federation.light server FOLDER`` and ``… silo FOLDER NAME`` run a course over sockets of this machine, ``… join FOLDER NAME
ADDRESS`` takes part over Flower; ``… real FOLDER NAME`` is a silo with the course's own model and data. The campaigns end and restart them.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.aggregation import MODEL, Update
from xbackend_fl.algorithms.kinds.scaffold import CONTROL
from xbackend_fl.algorithms.vectors import vector
from xbackend_fl.canonical import Binding, Kind, Parameter, Port, Schema
from xbackend_fl.canonical.node import Node
from xbackend_fl.course import Course, load_course
from xbackend_fl.course.address import Address
from xbackend_fl.data import generator
from xbackend_fl.federation import DeploymentEngine, Dispatcher, Ledger, Message, Silo
from xbackend_fl.federation.flower.door import Flower
from xbackend_fl.federation.silo import service
from xbackend_fl.federation.transport import Reply, Session
from xbackend_fl.mapping import Evidence, Proof
from xbackend_fl.mapping.probe.probe import Case, weights_of
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant import Contribution
from xbackend_fl.rounds import RunFolder, run_with
from xbackend_fl.weights import Weights, save_weights

_POLL_S = 0.02


def schema_of(features: int, classes: int) -> Schema:
    """One dense layer."""
    weight = Parameter("dense.weight", "Gemm", "weight", "B", (classes, features), "float32", Kind.TRAINABLE)
    bias = Parameter("dense.bias", "Gemm", "bias", "C", (classes,), "float32", Kind.TRAINABLE)
    roles = {"weight": weight.name, "bias": bias.name}
    return Schema(
        (Port("input", "float32", (1, features)),),
        (Port("output", "float32", (1, classes)),),
        (Node("dense", "Gemm", ("input",), ("output",), roles),),
        (weight, bias),
    )


class Linear:
    """A participant whose training adds noise of its name and round: the mean over any set of updates is known.

    Args:
        name: The participant.
        course: The course; its seed draws everything.
        seconds: What training takes at most.
    """

    def __init__(self, name: str, course: Course, seconds: float = 0.0) -> None:
        self._name, self._seed, self._seconds = name, course.seed, seconds
        features, classes = (int(part) for part in course.models["onnx"].build.split(":")[1].split("x"))
        self._schema = schema_of(features, classes)
        self.trained = 0

    def version(self) -> str:
        return "light 1"

    def num_examples(self) -> dict[str, int]:
        return {self._name: 10 + len(self._name) + ord(self._name[-1]) % 7}

    def initial(self) -> Weights:
        draw = generator(self._seed, "light")
        shapes = {parameter.name: parameter.shape for parameter in self._schema.parameters}
        return Weights.from_schema(
            self._schema, {name: _normal(draw, shape) for name, shape in shapes.items()}
        )

    def evidence(self) -> tuple[Schema, tuple[Evidence, ...]]:
        features = self._schema.inputs[0].shape[1]
        inputs = (_normal(generator(self._seed, "probe"), (2, features)),)
        case = Case("one", 1, inputs)
        return self._schema, (Evidence(case, {}, self._drawn(self._schema, case)),)

    def bind(self, schema: Schema, evidence: Sequence[Evidence]) -> tuple[Binding, Proof, tuple[str, ...]]:
        assert schema.fingerprint == self._schema.fingerprint
        (found,) = self._drawn(schema, evidence[0].case)
        np.testing.assert_allclose(found, evidence[0].outputs[0], rtol=1e-5)
        return Binding("light", schema.fingerprint, {}, {}), Proof(()), ()

    def _drawn(self, schema: Schema, case: Case) -> tuple[NDArray[Any], ...]:
        return self.answers(Weights.from_schema(schema, weights_of(schema, case)), case.inputs)

    def train_alone(
        self,
        number: int,
        weights: Weights,
        name: str,
        vectors: Mapping[str, Weights],
        kept: Mapping[str, NDArray[Any]],
        watched: float = 1.0,  # noqa: ARG002  it has no rate
    ) -> Contribution:
        update, metrics = self.step(number, weights, name)
        if CONTROL not in vectors:
            return Contribution(Update.from_weights(update, self.num_examples()[name]), {}, metrics)
        # What it gives depends on everything that it kept and was sent, so that one lost state shows in the last weights.
        common = vectors[CONTROL]
        own = {n: kept.get(f"{CONTROL}/{n}", np.zeros_like(array)) for n, array in weights.items()}
        after = weights.like({n: array - 0.1 * (own[n] - common[n]) for n, array in update.items()})
        draw = generator(self._seed, "control", number, name)
        change = {n: 0.01 * _normal(draw, array.shape) - 0.5 * own[n] for n, array in weights.items()}
        given = Update({MODEL: after, CONTROL: vector(weights, change)}, self.num_examples()[name])
        return Contribution(given, {f"{CONTROL}/{n}": own[n] + change[n] for n in weights}, metrics)

    def step(self, number: int, weights: Weights, name: str) -> tuple[Weights, Metrics]:
        # Some are fast and some slow, so that rounds are often half done.
        time.sleep(self._seconds * generator(self._seed, "seconds", number, name).random())
        self.trained += 1
        draw = generator(self._seed, "train", number, name)
        return (
            weights.like({n: array + 0.01 * _normal(draw, array.shape) for n, array in weights.items()}),
            Metrics(4, {"loss": 1.5}),
        )

    def evaluate(self, weights: Weights, split: str, *_: object) -> Metrics:
        loss = float(np.abs(weights["dense.bias"]).sum())
        return Metrics(20, {"loss": loss, "accuracy": len(split)})

    def answers(self, weights: Weights, inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        return (inputs[0] @ weights["dense.weight"].T + weights["dense.bias"],)

    def save(self, weights: Weights, path: Path, kept: object = None) -> Path:
        del kept
        save_weights(path.with_suffix(".light"), weights)
        return path.with_suffix(".light")


def _normal(draw: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
    return draw.standard_normal(shape, dtype=np.float32)


class SocketLink:
    """Silos at sockets of this machine; one that starts again has another session. An answer stays in its socket until it is looked for.

    Args:
        folder: Has ``NAME.socket`` for every silo that is there.
        names: The silos.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names
        self._sessions: dict[str, Session] = {}
        self._waiting: dict[str, socket.socket] = {}
        self._failed: list[Reply] = []

    def silos(self) -> Mapping[str, Session]:
        for name in self._names:
            identity = _identity(self._folder / f"{name}.socket")
            if identity == "" or (name in self._sessions and self._sessions[name].identity != identity):
                self._sessions.pop(name, None)
            if identity and name not in self._sessions:
                try:
                    hello = service.ask(self._folder / f"{name}.socket", Message("hello").to_bytes())
                except (OSError, EOFError):
                    continue
                self._sessions[name] = Session(identity, hello)
        return self._sessions

    def send(self, frames: Mapping[str, bytes]) -> None:
        for name, frame in frames.items():
            try:
                connection = service.connect(self._folder / f"{name}.socket")
                service.send(connection, frame)
            except OSError as error:
                self._failed.append(Reply(name, trouble=f"the connection failed: {error!r}"))
            else:
                self._waiting[name] = connection

    def replies(self) -> Iterator[Reply]:
        while self._failed:
            yield self._failed.pop()
        ready, _, _ = select.select(list(self._waiting.values()), [], [], _POLL_S)
        for name in [name for name, connection in self._waiting.items() if connection in ready]:
            with self._waiting.pop(name) as connection:
                try:
                    yield Reply(name, service.receive(connection))
                except (OSError, EOFError) as error:
                    yield Reply(name, trouble=f"the connection ended: {error!r}")

    def forget(self) -> None:
        for connection in self._waiting.values():
            connection.close()
        self._waiting.clear()
        self._failed.clear()


def _identity(path: Path) -> str:
    try:
        status = path.stat()
    except FileNotFoundError:
        return ""
    return f"{status.st_ino} {status.st_ctime_ns}"


def run_server(folder: Path, link: Any = None) -> None:
    """Lead the course of a folder, or go on with it."""
    course = load_course(folder / "course.yaml")
    out = folder / "run"
    begun = out.is_dir()
    run = RunFolder.load(out) if begun else RunFolder.create(course, out)
    names = [participant.name for participant in course.participants]
    dispatcher = Dispatcher(link or SocketLink(folder, names))
    with closing(DeploymentEngine(course, dispatcher, Ledger(run))) as engine:
        run_with(engine, course, run, run.latest() if begun else None)


def run_silo(folder: Path, name: str, *, real: bool = False) -> None:
    """Answer for one participant until the process is ended."""
    course = load_course(folder / "course.yaml")
    seconds = float(os.environ.get("LIGHT_SECONDS", "0.4"))
    own = folder / "silos" / name
    if real:
        silo = Silo.from_course(course, name, out=own)
    else:
        silo = Silo(course, name, Linear(name, course, seconds), out=own)
    path = folder / f"{name}.socket"
    path.unlink(missing_ok=True)
    service.serve(silo, path, partial(bool, 0))


def run_joined(folder: Path, name: str, address: str) -> None:
    """The same over Flower, until the course is over."""
    course = load_course(folder / "course.yaml")
    silo = Silo(course, name, Linear(name, course), out=folder / "silos" / name)
    Flower(Address(address)).connect(silo, 300, partial(print, flush=True), partial(bool, 0))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", place]:
            run_server(Path(place))
        case ["silo", place, who]:
            run_silo(Path(place), who)
        case ["real", place, who]:
            run_silo(Path(place), who, real=True)
        case ["join", place, who, where]:
            run_joined(Path(place), who, where)
        case _:
            sys.exit(__doc__)
