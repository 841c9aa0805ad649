"""A silo: one participant with its own model and data, which answers the server's messages."""

from __future__ import annotations

import json
import logging
import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, final

from blake3 import blake3
from numpy.typing import NDArray

from xbackend_fl.aggregation import MODEL
from xbackend_fl.canonical import Binding, Kind, Schema
from xbackend_fl.course import Course
from xbackend_fl.course.agreed import agreed
from xbackend_fl.data import Splits, absolute
from xbackend_fl.errors import ConfigError, Diverged, FileError, RunFailed, UpdateRefused, XbflError
from xbackend_fl.events import Noted, Observer
from xbackend_fl.federation.protocol.message import UNBOUND, Message
from xbackend_fl.federation.protocol.payload import Payload, encode
from xbackend_fl.federation.protocol.requests import (
    BindRequest,
    EvaluateRequest,
    SaveRequest,
    TrainRequest,
    asked,
)
from xbackend_fl.federation.protocol.signatures import SERVER, Frame, Signatures
from xbackend_fl.federation.protocol.vectors import digest_of, packed, received, split, split_frozen, unpacked
from xbackend_fl.federation.silo.outbox import Outbox
from xbackend_fl.federation.silo.served import Served
from xbackend_fl.mapping import Evidence, Proof, pack_evidence, unpack_evidence
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant import LOCAL, Arrays, Brought, Contribution, CourseData, OwnSplits, Scope, Worker
from xbackend_fl.participant.failures import traceback_kept
from xbackend_fl.rounds import retry_until_space
from xbackend_fl.text import line, lines
from xbackend_fl.weights import Weights, save_weights

T = TypeVar("T")

_LOG = logging.getLogger("xbfl")
_WEIGHTS = "weights/"
_RESIDUAL, _KEPT = "residual/", "kept/"


class Learner(Protocol):
    """One participant's model and data; :class:`~xbackend_fl.participant.Worker` is one for every adapter."""

    def version(self) -> str:
        """Framework and version."""
        ...

    def num_examples(self) -> Mapping[str, int | None]:
        """Examples by participant; ``None`` where only a training loop of its own can say."""
        ...

    def initial(self) -> Weights:
        """The model's current weights."""
        ...

    def evidence(self) -> tuple[Schema, tuple[Evidence, ...]]:
        """The reference's schema and what it does with the probes."""
        ...

    def bind(self, schema: Schema, evidence: Sequence[Evidence]) -> tuple[Binding, Proof, tuple[str, ...]]:
        """Bind the model to the schema, with proof."""
        ...

    def train_alone(
        self,
        number: int,
        weights: Weights,
        name: str,
        vectors: Mapping[str, Weights],
        kept: Arrays,
        watched: float = 1.0,
    ) -> Contribution:
        """What a participant gives after training from ``weights``.

        Args:
            number: The round.
            weights: What it starts from.
            name: Who trains.
            vectors: What the algorithm sends beside the weights.
            kept: What it kept from its last round.
            watched: Factor of the learning rate by schedules that follow validation figures.
        """
        ...

    def evaluate(
        self, weights: Weights, split: str, kept: Arrays | None, refused: Callable[[RunFailed], None], /
    ) -> Metrics:
        """Metrics of ``weights`` on a split, with the participant's own parameters of what it ``kept``; ``refused`` hears why its own code gives none."""
        ...

    def answers(self, weights: Weights, inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """The model's outputs for inputs, both in ONNX layout."""
        ...

    def save(self, weights: Weights, path: Path, kept: Arrays | None = None) -> Path:
        """Write ``weights`` in the model's own format, with the participant's own parameters of what it ``kept``."""
        ...


@final
class Silo:
    """Answers with a model and data. Neither leaves it; weights and figures do.

    Args:
        course: The course, the same on all sides.
        name: Which participant this is.
        learner: Its model and data.
        out: Folder for the trained model, and for what must outlive this process; nothing is kept without one.
        signatures: The silo's key and the server's.
        data: Digest of its data, which stays here: what a run is trained on is compared when it goes on.

    Attributes:
        name: The participant's name.
        finished: Whether the course is over for this silo.
    """

    def __init__(
        self,
        course: Course,
        name: str,
        learner: Learner,
        *,
        out: Path | None = None,
        signatures: Signatures | None = None,
        data: str = "",
    ) -> None:
        self._data = data
        self.name, self._out, self._learner = name, out, learner
        self._signatures = signatures or Signatures()
        self._outbox = None if out is None else Outbox(out / "state", keeps_state=course.keeps_state)
        self._vectors = course.federate.algorithm.vectors
        self._agreed = agreed(course, name)
        self._kinds_of, self._kinds = course.kinds, dict[str, Kind]()
        self._frozen, self._frozen_digest = dict[str, NDArray[Any]](), ""
        if self._outbox is None and course.keeps_state:
            raise ConfigError(
                f"{name} keeps something from one of its rounds to the next ({course.federate.algorithm.name}), and has no folder for it",
                hint="give it one: xbfl join … --out FOLDER",
            )
        self._backend = next(p.backend for p in course.participants if p.name == name)
        # Kept: a server that starts again must get the same, and training changes the model.
        self._initial = learner.initial() if self._backend == course.reference else None
        self._schema: Schema | None = None
        serve = course.deployment.serve
        self._served = None if serve is None else Served(course.base / serve.engine)
        self.finished = False
        self._answers: dict[str, Callable[[Message], Message]] = {
            "hello": self._hello,
            "evidence": self._evidence,
            "bind": self._bind,
            "train": self._train,
            "evaluate": self._evaluate,
            "outputs": self._outputs,
            "save": self._save,
        }

    @staticmethod
    def from_course(
        course: Course,
        name: str,
        data: Path | str | Splits | None = None,
        *,
        out: Path | None = None,
        threads: int = 1,
        signatures: Signatures | None = None,
        brought: Brought | None = None,
        observer: Observer = lambda _: None,
    ) -> Silo:
        """Open a participant's model and data, and try everything but the training.

        Args:
            course: The course.
            name: Which participant this is.
            data: Its training, validation and test examples, or any source of them, or an ``.npz`` file; its part of the course's data if
                left out.
            out: Folder for the trained model and the silo's state.
            threads: Threads the framework may use.
            signatures: The silo's key and the server's.
            brought: A model and a training loop that a script has handed over.
            observer: Hears what is done to the data.

        Raises:
            ConfigError: The course has no such participant, or the data cannot be used.
        """
        mine = next((p for p in course.participants if p.name == name), None)
        if mine is None:
            known = ", ".join(p.name for p in course.participants)
            raise ConfigError(f"the course has no participant {name!r}", hint=f"it has {known}")
        own = absolute(str(data), Path()) if isinstance(data, Path | str) else data
        if isinstance(own, str) and own.startswith("npz:") and not Path(own.removeprefix("npz:")).is_file():
            raise FileError(
                f"{name}: no such file: {own.removeprefix('npz:')}",
                hint="--data-path names this silo's .npz file, or a source: images:FOLDER, parquet:FILE#COLUMNS:TARGET, data.py:load",
            )
        # What others bring is theirs, and no reason to refuse this one.
        source = CourseData(course, mine.backend, {name}) if own is None else OwnSplits(name, own, course)
        worker = Worker(course, mine.backend, threads, source, brought=brought)
        found = worker.examine(Scope())
        found.raise_any()
        for note in found.notes:
            observer(Noted(backend=name, note=note))
        digest = blake3(json.dumps(dict(sorted(found.contents.items()))).encode()).hexdigest()
        return Silo(course, name, worker, out=out, signatures=signatures, data=digest)

    def reply(self, sealed: Frame) -> bytes:
        """The answer to a frame, as a frame; both signed where keys are known."""
        try:
            answer = self.answer(Message.from_bytes(self._signatures.verify(sealed, SERVER), SERVER))
        except UpdateRefused as error:
            answer = Message.refusal(error)
        return self._signatures.sign(bytes(answer.frame) if answer.frame else answer.to_bytes())

    def answer(self, request: Message) -> Message:
        """The answer; a failure of any kind is one too, so that the course can go on without this silo."""
        try:
            return self._answers.get(request.kind, self._unknown)(request)
        except _UnboundError:
            return Message(UNBOUND, {"message": f"{self.name} has not bound its model yet"})
        except XbflError as error:
            return Message.refusal(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  whatever a model raises is an answer
            # All of it is shown here, where the model is; the server hears in a line what it was.
            where = lines(traceback.format_exc())
            _LOG.error("%s: the request %s failed\n%s", self.name, line(request.kind, 40), where)
            return Message.raised(error)

    @contextmanager
    def _tracebacks(self, name: str) -> Iterator[None]:
        """What breaks is said here, and kept if a user's code raised it: here somebody can mend it. The server hears in a line what it was."""
        try:
            yield
        except XbflError as error:
            folder = None if self._out is None else self._out / "failures"
            _LOG.error("%s: %s%s", self.name, error.message, traceback_kept(folder, name, error))
            raise

    def _unknown(self, request: Message) -> Message:
        raise UpdateRefused(f"{self.name} does not know the request '{line(request.kind, 40)}'")

    def _hello(self, _: Message) -> Message:
        sizes = self._learner.num_examples()
        return Message(
            "hello",
            {
                "name": self.name,
                "backend": self._backend,
                "version": self._learner.version(),
                "num_examples": sizes[self.name],
                **self._agreed,
            },
        )

    def _evidence(self, _: Message) -> Message:
        schema, evidence = self._learner.evidence()
        arrays, about = pack_evidence(schema, evidence)
        if self._initial is None:
            raise UpdateRefused(f"{self.name} trains with {self._backend!r}, which is not the reference")
        initial = {f"{_WEIGHTS}{name}": array for name, array in self._initial.items()}
        return Message("evidence", {"schema": schema.to_json(), "about": about}, {**arrays, **initial})

    def _bind(self, request: Message) -> Message:
        wanted = asked(BindRequest, request)
        schema = Schema.from_json(wanted.text)
        arrays, frozen = split_frozen(request.arrays)
        evidence = unpack_evidence(arrays, wanted.about, schema, "the server's message")
        _, proof, notes = self._learner.bind(schema, evidence)
        if self._served is not None:
            self._served.require(schema.fingerprint)
        self._schema, self._kinds = schema, self._kinds_of(schema)
        # Copies: a view would keep the whole frame.
        self._frozen = {name: array.copy() for name, array in frozen.items()}
        self._frozen_digest = digest_of({n: a for n, a in request.arrays.items() if n not in arrays})
        if self._outbox is not None:
            self._on_disk(self._outbox.folder, partial(self._outbox.bind, request))
        found = {"largest_error": proof.largest_error, "notes": [*notes]}
        return Message("bound", {"fingerprint": schema.fingerprint, **found})

    def _train(self, request: Message) -> Message:
        wanted = asked(TrainRequest, request)
        run, number, start, split = wanted.run, wanted.round, wanted.base, wanted.evaluate
        if self._outbox is not None:
            self._outbox.receipt(wanted.receipts.get(self.name))
            made = self._outbox.answer(run, number, start)
            if made is not None and made.fields.get("payload") == wanted.payload.model_dump():
                return made
        base, beside = self._received(request, wanted.fingerprint)
        vectors = unpacked(beside, self._vectors, base)
        residual, kept = self._carried(wanted.receipts.get(self.name))
        if self._served is not None and number > 1:
            self._served.update(self._own(base, kept))
        # Before hours of training that cannot help.
        before, unable = (None, []) if split is None else self._evaluated_before(base, split, kept)
        with self._tracebacks(f"round-{number}"):
            given = self._learner.train_alone(number, base, self.name, vectors, kept, wanted.watched)
        update = given.update
        arrays, left = encode(update.model, base, Payload(**wanted.payload.model_dump()), residual)
        arrays |= packed({name: vector for name, vector in update.vectors.items() if name != MODEL})
        carried = {f"{_RESIDUAL}{name}": array for name, array in left.items()}
        carried |= {f"{_KEPT}{name}": array for name, array in given.kept.items()}
        fields = {
            "run": run,
            "round": number,
            "base": start,
            "silo": self.name,
            "payload": wanted.payload.model_dump(),
            "num_examples": update.num_examples,
            "metrics": _sent(given.metrics, "its training"),
            "figures": dict(given.figures),
            "notes": [*given.notes, *unable],
            "before": before,
        }
        if self._outbox is None:
            return Message("trained", fields, arrays)
        if self._outbox.has_other_data(run, self._data):
            _LOG.warning("%s: the examples are not those that this run was trained on before", self.name)
            fields["data_changed"] = True
        answer = Message("trained", fields, arrays)
        made = self._on_disk(self._outbox.folder, partial(self._outbox.keep, answer, carried))
        # Now: or a silo that is killed before would never say it.
        self._on_disk(self._outbox.folder, partial(self._outbox.trained_on, run, self._data))
        return made

    def _evaluated_before(
        self, weights: Weights, split: str, kept: Arrays
    ) -> tuple[dict[str, int | float | str] | None, list[str]]:
        """Figures of the weights that a round starts from, or why there are none: whoever cannot evaluate still trains.

        Raises:
            RunFailed: The weights lead to NaN or infinity.
        """
        try:
            found, unable = self._figures(weights, split, kept)
        except RunFailed as error:
            if Message.refusal(error).diverged:
                raise
            return None, [f"it is not in the {split} figures: {error.message}"]
        return _sent(found, f"the course's weights on its {split} examples"), unable

    def _figures(self, weights: Weights, split: str, kept: Arrays) -> tuple[Metrics, list[str]]:
        """What is measured here; and why the silo's own code has no part in it, if that failed."""
        unable: list[str] = []

        def refused(error: RunFailed) -> None:
            with suppress(RunFailed), self._tracebacks("evaluation"):
                raise error
            unable.append(f"it is not in the {split} figures of its own code: {error.message}")

        with self._tracebacks("evaluation"):
            return self._learner.evaluate(weights, split, kept, refused), unable

    def _evaluate(self, request: Message) -> Message:
        wanted = asked(EvaluateRequest, request)
        weights, _ = self._received(request, wanted.fingerprint)
        _, kept = self._carried(wanted.receipts.get(self.name))
        if self._served is not None:
            self._served.update(self._own(weights, kept))
        found = {split: self._figures(weights, split, kept) for split in wanted.splits}
        fields: dict[str, Any] = {
            split: _sent(metrics, f"the course's weights on its {split} examples")
            for split, (metrics, _) in found.items()
        }
        return Message(
            "metrics", {**fields, "notes": [note for _, notes in found.values() for note in notes]}
        )

    def _outputs(self, request: Message) -> Message:
        inputs, weights = [], {}
        for name, array in request.arrays.items():
            if name.startswith("inputs/"):
                inputs.append(array)
            else:
                weights[name] = array
        fingerprint = str(request.fields.get("fingerprint"))
        base, _ = self._received(replace(request, arrays=weights), fingerprint)
        outputs = self._learner.answers(base, inputs)
        return Message("outputs", {}, {f"outputs/{i}": array for i, array in enumerate(outputs)})

    def _save(self, request: Message) -> Message:
        """The trained model in the silo's own format and in the canonical one, in its own folder."""
        wanted = asked(SaveRequest, request)
        weights, _ = self._received(request, wanted.fingerprint)
        try:
            if self._out is None or self._outbox is None:
                return Message("saved", {"files": []})
            self._outbox.receipt(wanted.receipts.get(self.name))
            canonical = self._out / "model.safetensors"
            _, kept = self._carried(wanted.receipts.get(self.name))
            weights = self._own(weights, kept)
            if self._served is not None:
                self._served.update(weights)
            native = self._on_disk(self._out, partial(self._learner.save, weights, self._out / "model", kept))
            self._on_disk(self._out, partial(save_weights, canonical, weights))
            return Message("saved", {"files": [native.name, canonical.name]})
        finally:
            self.finished = True

    def _own(self, weights: Weights, kept: Arrays) -> Weights:
        """The course's weights with the parameters that stay here."""
        return weights.like({**weights, **{n: kept[f"{LOCAL}/{n}"] for n in self._local if kept}})

    def _on_disk(self, folder: Path, write: Callable[[], T]) -> T:
        """What ``write`` returns; a full disk is waited for, since the server waits too."""
        return retry_until_space(
            write, folder, partial(_LOG.warning, "%s: no space (%s); waiting", self.name)
        )

    def _carried(self, identity: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the updates up to one that counts left out, and what the participant kept from them."""
        found = {} if self._outbox is None else self._outbox.carried(identity)
        left, kept = (
            {name.removeprefix(prefix): array for name, array in found.items() if name.startswith(prefix)}
            for prefix in (_RESIDUAL, _KEPT)
        )
        return left, kept

    def _received(self, request: Message, fingerprint: str) -> tuple[Weights, Arrays]:
        """The weights of a request, and the arrays beside them."""
        if self._schema is None and self._outbox is not None and (kept := self._outbox.binding()):
            # This process is a new one; the proof is made again, since the model may be another.
            self._bind(kept)
        if self._schema is None or fingerprint != self._schema.fingerprint:
            raise _UnboundError
        arrays, beside = split(request.arrays)
        if request.fields.get("frozen", self._frozen_digest) != self._frozen_digest:
            raise _UnboundError
        return received(self._schema, arrays, self._kinds, self._frozen), beside

    @property
    def _local(self) -> list[str]:
        return [name for name, kind in self._kinds.items() if kind is Kind.LOCAL]


def _sent(metrics: Metrics, of: str) -> dict[str, int | float | str]:
    """Figures as fields of a message.

    Raises:
        Diverged: One is NaN or infinite, which no message carries.
    """
    fields = metrics.to_fields()
    for name, value in fields.items():
        if not isinstance(value, str) and not math.isfinite(value):
            raise Diverged(f"the {name} of {of} is {value}")
    return fields


class _UnboundError(Exception):
    """A request needs a model that is bound to the schema of the request."""


def initial_weights(schema: Schema, answer: Message) -> Weights:
    """The reference's weights in its answer to ``evidence``."""
    arrays = {n.removeprefix(_WEIGHTS): a for n, a in answer.arrays.items() if n.startswith(_WEIGHTS)}
    return Weights.from_schema(schema, arrays)


def evidence_alone(answer: Message) -> Message:
    """What the other silos need of that answer: no weight of anybody."""
    # Copies: a view would keep the whole frame, and with it the initial weights, as long as the course lasts.
    kept = {name: array.copy() for name, array in answer.arrays.items() if not name.startswith(_WEIGHTS)}
    return Message("bind", answer.fields, kept)
