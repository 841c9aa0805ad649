"""The course file: what it may say, and what is wrong with it."""

from xbackend_fl.course.in_python import require_files
from xbackend_fl.course.load import complete, dump, load_course
from xbackend_fl.course.model import Course
from xbackend_fl.course.participant import Participant, checked_name
from xbackend_fl.course.shapes import example_arrays, input_names, named, sequence_axis
from xbackend_fl.course.site import site_settings

__all__ = [
    "Course",
    "Participant",
    "checked_name",
    "complete",
    "dump",
    "example_arrays",
    "input_names",
    "load_course",
    "named",
    "require_files",
    "sequence_axis",
    "site_settings",
]
