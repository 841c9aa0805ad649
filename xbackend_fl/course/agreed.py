"""What server and silo must have alike in their course files: a silo does not train otherwise in silence."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from xbackend_fl.course.model import Course
from xbackend_fl.course.settings import flat
from xbackend_fl.course.training import OwnTraining


def agreed(course: Course, name: str) -> dict[str, Any]:
    """What a course says of how a participant trains and what it measures, as plain data by dotted key.

    Args:
        course: The course.
        name: The participant.
    """
    training = course.trainings[name].model_dump(mode="json", include=set(OwnTraining.model_fields))
    federate = course.federate.model_dump(mode="json", include={"algorithm", "local", "frozen"})
    evaluation = course.evaluation.model_dump(mode="json", include={"validation", "held_out"})
    # Of a metric of the user's own the file may be elsewhere.
    evaluation |= {
        "metrics": {m.label: {k: v for k, v in asdict(m).items() if k != "text"} for m in course.metrics}
    }
    return flat({"seed": course.seed, "training": training, "federate": federate, "evaluation": evaluation})
