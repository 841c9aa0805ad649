"""The page that sums a course up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xbackend_fl.canonical import Schema
from xbackend_fl.course import Course
from xbackend_fl.events import ParticipantTrained, RoundFinished
from xbackend_fl.metrics import Metrics, shown
from xbackend_fl.report.participants import participants_table, reported_table
from xbackend_fl.text import line

_ROWS = 30


@dataclass(frozen=True)
class Result:
    """Figures of a finished course.

    Attributes:
        test: Metrics of the last weights on the test set.
        best_test: Metrics on the test set of the weights that validation chose; none where parameters are local, of which those of that round are gone.
        onnx_error: Largest relative difference between ONNX Runtime and whoever agrees with it, on test examples; where there is no ONNX
            graph, between an answer and the usual one.
        disagree: The difference of every other answer, by who gave it.
        files: The trained model in every format.
        notes: What else is to be known of the course, one line each.
    """

    test: Metrics
    best_test: Metrics | None
    onnx_error: float
    files: tuple[Path, ...]
    disagree: Mapping[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Participation:
    """How one silo took part.

    Attributes:
        silo: Its name.
        accepted: Updates that entered a mean.
        num_examples: Examples of the last of them.
        refused: Updates that did not.
        late: Rounds without an answer in time.
        bytes: Bytes of its accepted updates.
        seconds: Mean time until its updates were there.
    """

    silo: str
    accepted: int
    num_examples: int
    refused: int
    late: int
    bytes: int
    seconds: float


def summary(
    course: Course,
    schema: Schema,
    history: Sequence[RoundFinished],
    best: RoundFinished,
    digest: str,
    result: Result,
    took_part: Sequence[Participation],
    each: Mapping[str, Mapping[str, float]],
    own: Mapping[str, ParticipantTrained],
) -> str:
    """The page ``summary.md``.

    Args:
        course: The course.
        schema: The schema of its model.
        history: Every evaluated round.
        best: The one whose weights validation chose.
        digest: Of the last weights.
        result: Figures of the finished course.
        took_part: How silos took part; empty in a simulation.
        each: The last round's figures by participant, where participants are evaluated.
        own: The last time that training loops of participants' own reported figures.
    """
    backends = dict.fromkeys(course.backends, 0)
    for participant in course.participants:
        backends[participant.backend] += 1
    parties = ", ".join(f"{count} in {backend}" for backend, count in backends.items())
    names = course.figures.labels
    rows = [
        "| "
        + " | ".join(
            [str(e.round), *(shown(name, e.metrics.get(name)) for name in names), f"{e.seconds:.1f}"]
        )
        + " |"
        for e in history[-_ROWS:]
    ]
    return "\n".join(
        [
            f"# {course.name}",
            "",
            (
                f"{len(course.participants)} participants ({parties}) trained one model of "
                f"{schema.num_values:,} values over {history[-1].round} rounds "
                f"({course.federate.server.name}, {course.training.optimizer.name}, seed {course.seed})."
            ),
            "",
            _test_line(course, "of the last weights", result.test),
            *(
                ()
                if result.best_test is None
                else (
                    _test_line(
                        course, f"of the weights that validation chose (round {best.round})", result.best_test
                    ),
                )
            ),
            f"* {_who(schema, result)} agree on test examples within {result.onnx_error:.1e} (relative)",
            *(
                f"* **{line(name)} computes the trained model otherwise**: by {error:.1e} (relative)"
                for name, error in result.disagree.items()
            ),
            *(f"* {line(note[:1].upper() + note[1:])}" for note in result.notes),
            f"* Schema `{schema.fingerprint}`",
            f"* Weights digest `{digest}`",
            "",
            f"| round | {' | '.join(f'validation {name}' for name in names)} | seconds |",
            "|---" * (2 + len(names)) + "|",
            *rows,
            "",
            *participants_table(course, history[-1], each),
            *reported_table(own),
            *_participation(took_part),
            "Files: " + ", ".join(f"`{path.name}`" for path in result.files),
            "",
        ]
    )


def _who(schema: Schema, result: Result) -> str:
    """Who agrees about the trained model."""
    if schema.opaque:
        return "most answers" if result.disagree else "all backends"
    return f"ONNX Runtime and {'all others' if result.disagree else 'every backend'}"


def _test_line(course: Course, weights: str, metrics: Metrics) -> str:
    """What chooses the best weights first, and in bold."""
    figures, chosen = metrics.figures, course.chosen_by.name
    others = [label for label in course.figures.labels if label != chosen]
    rest = ", ".join(f"{name} {shown(name, figures.get(name))}" for name in others)
    return f"* Test {chosen} {weights}: **{shown(chosen, figures.get(chosen))}** ({rest})"


def _participation(took_part: Sequence[Participation]) -> list[str]:
    if not took_part:
        return []
    rows = [
        f"| {line(p.silo)} | {p.accepted} | {p.refused} | {p.late} | {p.num_examples} | {p.bytes / 1e6:.1f} | {p.seconds:.1f} |"
        for p in took_part
    ]
    head = "| silo | updates | refused | late | examples | MB received | seconds until there |"
    return [head, "|---|---|---|---|---|---|---|", *rows, ""]
