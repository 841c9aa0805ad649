"""What server and silo must have alike in their course files: a silo does not train otherwise in silence."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from xbackend_fl.course.model import Course
from xbackend_fl.course.settings import flat
from xbackend_fl.course.training import OwnTraining
from xbackend_fl.losses import BuiltIn
from xbackend_fl.metrics import OF


def agreed(course: Course, name: str) -> dict[str, Any]:
    """What a course says of how a participant trains and what it measures, as plain data by dotted key.

    Args:
        course: The course.
        name: The participant.
    """
    training = course.trainings[name].model_dump(mode="json", include=set(OwnTraining.model_fields))
    federate = course.federate.model_dump(mode="json", include={"algorithm", "local", "frozen"})
    evaluation = course.evaluation.model_dump(mode="json", include={"validation", "held_out"})
    heads = course.heads
    measured = {f"{h.name}{OF}{m.label}" if h.name else m.label: m for h in heads.each for m in h.metrics}
    # Of a metric of the user's own the file may be elsewhere.
    evaluation |= {
        "metrics": {
            label: {k: v for k, v in asdict(m).items() if k != "text"} for label, m in measured.items()
        }
    }
    for head in heads.each:
        # Of a loss of the user's own too; that it is one loss everywhere is proven.
        loss = asdict(head.loss) if isinstance(head.loss, BuiltIn) else {"name": head.loss.name}
        reads = {"loss": loss, "ignore_index": head.ignore_index, "class_axis": head.class_axis}
        training |= (
            {f"outputs.{head.name}": reads | {"output": head.output, "weight": head.weight}}
            if head.name
            else reads
        )
    return flat({"seed": course.seed, "training": training, "federate": federate, "evaluation": evaluation})
