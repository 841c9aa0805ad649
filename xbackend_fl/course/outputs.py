"""The section ``training.outputs``: several outputs of the model, with a loss and metrics each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import InitErrorDetails, PydanticCustomError

from xbackend_fl.course.diagnostics import mistake
from xbackend_fl.course.evaluation import EvaluationSection, OutputEntry
from xbackend_fl.course.numbers import HELD
from xbackend_fl.course.registered import OutputLoss
from xbackend_fl.course.section import Section
from xbackend_fl.losses import QUANTITIES
from xbackend_fl.losses.protocol import LARGEST_WEIGHT

_LONGEST = 60
_IGNORED = -100
_NAME = r"^[A-Za-z0-9_]+$"
OutputName = Annotated[str, Field(pattern=_NAME, max_length=_LONGEST)]


class OutputSection(Section):
    """What training minimises of one output, and what is measured of it."""

    loss: OutputLoss
    weight: Annotated[float, Field(gt=0, le=LARGEST_WEIGHT), HELD] = Field(
        1.0, description="what its loss counts in the sum of all, which training minimises"
    )
    metrics: list[OutputEntry] | None = Field(
        None, description="as evaluation.metrics; a figure is called OUTPUT/METRIC"
    )
    output: str | int | None = Field(
        None,
        description="the name under which the model returns it, or its place from 0 on where outputs have no names; the key that this section stands under if left out",
    )
    ignore_index: int | None = Field(_IGNORED, description="as training.ignore_index")
    class_axis: int | None = Field(None, description="as training.class_axis")

    @property
    def evaluation(self) -> EvaluationSection:
        """What is measured of it, as a section that measures nothing else."""
        return EvaluationSection.model_construct(metrics=self.metrics)


def _texts(value: Any) -> Any:
    """A place may be a key in Python, too; a name that no figure can begin with is refused with one that it can."""
    if not isinstance(value, Mapping):
        return value
    found = {str(key) if type(key) is int else key: one for key, one in value.items()}
    for key in found:
        if isinstance(key, str) and not (re.match(_NAME, key) and len(key) <= _LONGEST):
            raise _misnamed(key)
    return found


def _misnamed(key: str) -> PydanticCustomError:
    words = [word for word in re.split(r"[^A-Za-z0-9_]+", key) if word]
    name = words[-1][:_LONGEST] if words else "NAME"
    said = f"`training.outputs`: a name is up to {_LONGEST} letters, digits and _, without dots and slashes, and {key!r} is not"
    hint = f"training.outputs: {{{name}: {{output: {json.dumps(key)}, loss: …}}}}"
    return PydanticCustomError("course", "{said}", {"said": said, "hint": hint})


OutputSections = Annotated[dict[OutputName, OutputSection], Field(min_length=1), BeforeValidator(_texts)]
ONE_LOSS = ("loss", "ignore_index", "class_axis")
"""Keys of ``training`` that several outputs have each for themselves."""


def mistakes(
    outputs: Mapping[str, OutputSection], said: Mapping[str, Any], evaluation: EvaluationSection
) -> Iterator[InitErrorDetails]:
    """What several outputs do not go with, each at its place from the course.

    Args:
        outputs: The section.
        said: What ``training`` says itself, and not by default.
        evaluation: The section ``evaluation``.
    """
    first = next(iter(outputs))
    for key in ONE_LOSS:
        if key in said:
            yield mistake(
                f"`training.{key}` is of one loss, and training.outputs has one for each of {', '.join(outputs)}",
                ("training", key),
                said[key],
                hint=f"training.outputs.{first}.{key}, or no training.outputs",
                at_key=True,
                beside=("training", "outputs"),
            )
    if evaluation.metrics is not None:
        yield mistake(
            f"`evaluation.metrics` is of one output, and training.outputs has {', '.join(outputs)}",
            ("evaluation", "metrics"),
            evaluation.metrics,
            hint=f"training.outputs.{first}.metrics",
            at_key=True,
            beside=("training", "outputs"),
        )
    for name, output in outputs.items():
        place = ("training", "outputs", name)
        if output.loss.targets in QUANTITIES and output.ignore_index not in {None, _IGNORED}:
            yield mistake(
                f"`training.outputs.{name}.ignore_index` leaves out classes and labels, and {output.loss.name} is of quantities, which all count",
                (*place, "ignore_index"),
                output.ignore_index,
                hint="leave it out",
                at_key=True,
                beside=(*place, "loss"),
            )
        for found in output.evaluation.mistakes(output.loss, (*place, "loss")):
            yield {**found, "loc": (*place, *found.get("loc", ()))}
