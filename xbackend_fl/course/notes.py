"""What people should know of a course's settings, beside its figures."""

from __future__ import annotations

from collections.abc import Iterator

from xbackend_fl.course.model import Course
from xbackend_fl.course.own_training import own_training_note, precision_note


def settings_notes(course: Course) -> Iterator[str]:
    """One line each about settings of participants' own, about rounded forward passes, and about a key that plays no part.

    Args:
        course: The course.
    """
    federate = course.federate
    if own := own_training_note({p.name: p.training for p in course.participants}):
        yield own
    if rounded := precision_note(course.trainings):
        yield rounded
    if federate.precision != "float32" and not federate.aggregator.streams:
        yield (
            f"the precision of sums, federate.precision {federate.precision}, plays no part: "
            f"federate.aggregator {federate.aggregator.name} looks at every update"
        )
