"""The course file: what it may say, and what is wrong with it."""

from xbackend_fl.course.load import dump, example_arrays, load_course, site_settings
from xbackend_fl.course.model import Course, Participant

__all__ = ["Course", "Participant", "dump", "example_arrays", "load_course", "site_settings"]
