"""A silo: one participant with its own model and data, which answers the server's messages."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import final

from xbackend_fl.canonical import Schema
from xbackend_fl.course import Course
from xbackend_fl.deployment.message import Message
from xbackend_fl.errors import ConfigError, FileError, UpdateRefused, XbflError
from xbackend_fl.mapping import pack_evidence, unpack_evidence
from xbackend_fl.training import Worker
from xbackend_fl.weights import Weights, save_weights

_WEIGHTS = "weights/"


@final
class Silo:
    """Opens the silo's model and data, and answers with them. Neither leaves it; weights and figures do.

    Args:
        course: The course, the same on all sides.
        name: Which participant this is.
        data: Its ``.npz`` file with training, validation and test examples; its part of the course's data if left out.
        out: Folder for the trained model.
        threads: Threads the framework may use.

    Attributes:
        name: The participant's name.
        finished: Whether the course is over for this silo.

    Raises:
        ConfigError: The course has no such participant, or the data cannot be used.
    """

    def __init__(
        self,
        course: Course,
        name: str,
        data: Path | None = None,
        *,
        out: Path | None = None,
        threads: int = 1,
    ) -> None:
        mine = next((p for p in course.participants if p.name == name), None)
        if mine is None:
            known = ", ".join(p.name for p in course.participants)
            raise ConfigError(f"the course has no participant {name!r}", hint=f"it has {known}")
        if data is not None:
            if not data.is_file():
                raise FileError(
                    f"{name}: no such file: {data}", hint="--data-path names this silo's .npz file"
                )
            course = course.alone(name, f"npz:{data.resolve()}")
        self.name, self._out = name, out
        self._worker = Worker(course, mine.backend, threads)
        self._backend = mine.backend
        # Kept: a server that starts again must get the same, and training changes the model.
        self._initial = self._worker.initial() if mine.backend == course.reference else None
        self._schema: Schema | None = None
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

    def answer(self, request: Message) -> Message:
        """The answer; a failure of any kind is one too, so that the course can go on without this silo."""
        try:
            return self._answers.get(request.kind, self._unknown)(request)
        except XbflError as error:
            return Message.refusal(error)
        except Exception:  # noqa: BLE001  whatever a model raises is shown where the course is run
            return Message("raised", {"message": traceback.format_exc()})

    def _unknown(self, request: Message) -> Message:
        raise UpdateRefused(f"{self.name} does not know the request {request.kind!r}")

    def _hello(self, _: Message) -> Message:
        sizes = self._worker.num_examples()
        return Message(
            "hello",
            {
                "name": self.name,
                "backend": self._backend,
                "version": self._worker.version,
                "num_examples": sizes[self.name],
            },
        )

    def _evidence(self, _: Message) -> Message:
        schema, evidence = self._worker.evidence()
        arrays, about = pack_evidence(schema, evidence)
        if self._initial is None:
            raise UpdateRefused(f"{self.name} trains with {self._backend!r}, which is not the reference")
        initial = {f"{_WEIGHTS}{name}": array for name, array in self._initial.items()}
        return Message("evidence", {"schema": schema.to_json(), "about": about}, {**arrays, **initial})

    def _bind(self, request: Message) -> Message:
        schema = Schema.from_json(request.fields["schema"])
        evidence = unpack_evidence(request.arrays, request.fields["about"], schema, "the server's message")
        _, proof, notes = self._worker.bind(schema, evidence)
        self._schema = schema
        found = {"largest_error": proof.largest_error, "notes": [*notes, *proof.notes]}
        return Message("bound", {"fingerprint": schema.fingerprint, **found})

    def _train(self, request: Message) -> Message:
        weights, metrics = self._worker.train_alone(
            request.fields["round"], self._received(request), self.name
        )
        size = self._worker.num_examples()[self.name]
        fields = {"round": request.fields["round"], "base": request.fields["base"], "num_examples": size}
        return Message("trained", {**fields, "metrics": asdict(metrics)}, weights)

    def _evaluate(self, request: Message) -> Message:
        metrics = self._worker.evaluate(self._received(request), request.fields["split"])
        return Message("metrics", asdict(metrics))

    def _outputs(self, request: Message) -> Message:
        inputs, weights = [], {}
        for name, array in request.arrays.items():
            if name.startswith("inputs/"):
                inputs.append(array)
            else:
                weights[name] = array
        outputs = self._worker.answers(self._received(replace(request, arrays=weights)), inputs)
        return Message("outputs", {}, {f"outputs/{i}": array for i, array in enumerate(outputs)})

    def _save(self, request: Message) -> Message:
        """The trained model in the silo's own format and in the canonical one, in its own folder."""
        self.finished = True
        if self._out is None:
            return Message("saved", {"files": []})
        self._out.mkdir(parents=True, exist_ok=True)
        weights = self._received(request)
        native = self._worker.save(weights, self._out / "model")
        canonical = self._out / "model.safetensors"
        save_weights(canonical, weights)
        return Message("saved", {"files": [native.name, canonical.name]})

    def _received(self, request: Message) -> Weights:
        if self._schema is None:
            raise UpdateRefused(f"{self.name} was asked for {request.kind!r} before its model was bound")
        if request.fields.get("fingerprint") != self._schema.fingerprint:
            raise UpdateRefused(
                f"expected weights of schema {self._schema.fingerprint[:12]}, "
                f"received {str(request.fields.get('fingerprint'))[:12]}"
            )
        return Weights.of(self._schema, request.arrays)


def initial_weights(schema: Schema, answer: Message) -> Weights:
    """The reference's weights in its answer to ``evidence``."""
    arrays = {n.removeprefix(_WEIGHTS): a for n, a in answer.arrays.items() if n.startswith(_WEIGHTS)}
    return Weights.of(schema, arrays)


def evidence_alone(answer: Message) -> Message:
    """What the other silos need of that answer: no weight of anybody."""
    kept = {name: array for name, array in answer.arrays.items() if not name.startswith(_WEIGHTS)}
    return Message("bind", answer.fields, kept)
