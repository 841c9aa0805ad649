"""What happens during a run, as plain data, one JSON object per event."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from xbackend_fl.text import line
from xbackend_fl.writing import naming_file


def _line(value: object) -> object:
    return line(value) if isinstance(value, str) else value


# Before pydantic looks: half of a character is no text to it.
Line: TypeAlias = Annotated[str, BeforeValidator(_line)]
"""Text that may come from elsewhere: one line, harmless to whoever prints it."""

_METRICS = "figure by name: the loss, and every metric that fits it"
_ACCURACY = "the same figure as in the metrics; null where outputs are no classes"


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    time: datetime = Field(default_factory=lambda: datetime.now(UTC))


class CourseStarted(_Event):
    """The run folder exists; nothing has been trained."""

    event: Literal["course_started"] = "course_started"
    name: Line
    path: Line
    participants: dict[Line, Line] = Field(description="name to backend")
    rounds: int
    resumed_from: int = Field(0, description="last finished round of the run that is continued")


class ModelBound(_Event):
    """A backend's model is proven to be the reference model."""

    event: Literal["model_bound"] = "model_bound"
    backend: Line
    version: Line
    fingerprint: Line
    reference: bool
    largest_error: float
    notes: tuple[Line, ...] = ()
    seconds: float


class Noted(_Event):
    """Something was decided that people may want to know."""

    event: Literal["noted"] = "noted"
    backend: Line
    note: Line


class RoundStarted(_Event):
    """A cohort was chosen."""

    event: Literal["round_started"] = "round_started"
    round: int
    cohort: tuple[Line, ...]


class ParticipantTrained(_Event):
    """An update entered the mean."""

    event: Literal["participant_trained"] = "participant_trained"
    round: int
    name: Line
    backend: Line
    num_examples: int
    loss: float | None = Field(
        description="mean over training; null if every target was one that does not count"
    )
    seconds: float
    figures: dict[Line, float] = Field(
        {}, description="what a training loop of the participant's own reports, by name"
    )


class ParticipantFailed(_Event):
    """An update was refused, or did not come; the mean is without it."""

    event: Literal["participant_failed"] = "participant_failed"
    round: int
    name: Line
    backend: Line
    reason: Line


class RoundCollected(_Event):
    """Every update of a round over a network is merged, or left out."""

    event: Literal["round_collected"] = "round_collected"
    round: int
    accepted: tuple[Line, ...]
    missing: tuple[Line, ...] = Field(description="late or refused; events before say why")
    sent_bytes: int = Field(description="of frames to silos, as sent")
    received_bytes: int = Field(description="of frames from silos, as sent")
    seconds: float


class RoundFinished(_Event):
    """The new global weights were evaluated on the validation set."""

    event: Literal["round_finished"] = "round_finished"
    round: int
    loss: float
    accuracy: float | None = Field(None, description=_ACCURACY)
    metrics: dict[str, float] = Field({}, description=_METRICS)
    participants: dict[str, dict[str, float]] = Field(
        {},
        description="where participants are evaluated: mean, the mean of their figures, and worst_tenth, that over the tenth where each is worst",
    )
    best: bool
    num_examples: int
    seconds: float


class ParticipantEvaluated(_Event):
    """The weights at one participant: on its own validation examples, or with its own parameters on the course's."""

    event: Literal["participant_evaluated"] = "participant_evaluated"
    round: int
    name: Line
    backend: Line
    split: Line
    metrics: dict[str, float] = Field(description=_METRICS)


class CourseFinished(_Event):
    """Everything is on disk."""

    event: Literal["course_finished"] = "course_finished"
    path: Line
    rounds: int
    interrupted: bool
    stopped_early: Line = Field(
        "", description="why the course ended before its last round; empty if it did not"
    )
    best_round: int
    metric: str = Field("accuracy", description="what chose the best round, on the validation set")
    validation_metrics: dict[str, float] = Field({}, description=f"of the best round; {_METRICS}")
    test_metrics: dict[str, float] = Field({}, description=f"of the last weights; {_METRICS}")
    best_test_metrics: dict[str, float] = Field(
        {},
        description=f"of the best round's weights, unless parameters of that round were local and are gone; {_METRICS}",
    )
    test_loss: float
    validation_accuracy: float | None = Field(None, description=_ACCURACY)
    test_accuracy: float | None = Field(None, description=_ACCURACY)
    best_test_accuracy: float | None = Field(None, description=_ACCURACY)
    onnx_error: float = Field(
        description="largest relative difference of ONNX Runtime's outputs; between backends where the model has no ONNX graph"
    )
    seconds: float
    peak_memory_bytes: dict[str, int] = Field(description="largest resident set of each process")
    device_memory_bytes: dict[str, int] = Field(
        default_factory=dict,
        description="most that each backend had allocated on devices; none without a device",
    )


Event: TypeAlias = Annotated[
    CourseStarted
    | ModelBound
    | Noted
    | RoundStarted
    | ParticipantTrained
    | ParticipantFailed
    | RoundCollected
    | RoundFinished
    | ParticipantEvaluated
    | CourseFinished,
    Field(discriminator="event"),
]
Observer: TypeAlias = Callable[[Event], None]

_BLOCK = 1 << 16

_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def to_line(event: Event) -> str:
    """An event as one line of JSON."""
    return event.model_dump_json()


def from_line(line: str) -> Event:
    """Read one line of JSON."""
    return _ADAPTER.validate_json(line)


def jsonl(path: Path) -> Observer:
    """An observer that appends events to a file, each line complete on disk when it returns, or not there when it raises.

    Half a last line, which a process that was killed leaves behind, is taken away first.

    Raises:
        OSError: The file cannot be written.
    """
    with path.open("ab") as file:
        file.truncate(complete_bytes(path))

    def observe(event: Event) -> None:
        line = f"{to_line(event)}\n".encode()
        with naming_file(path), path.open("ab", buffering=0) as file:
            start = file.tell()
            if file.write(line) != len(line):
                # The beginning of a line fitted; nothing could be read behind it.
                file.truncate(start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    return observe


def complete_bytes(path: Path) -> int:
    """How many bytes of a file are whole lines; 0 if there is no file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - _BLOCK)
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                end = start
    except FileNotFoundError:
        pass
    return 0


def json_schema() -> dict[str, object]:
    """JSON Schema of an event, as published in ``schemas/``."""
    return _ADAPTER.json_schema()
