"""The course file: what it may say, and what is wrong with it."""

from xbackend_fl.course.load import dump, load_course, site_settings
from xbackend_fl.course.model import Course, Participant
from xbackend_fl.course.shapes import example_arrays

__all__ = ["Course", "Participant", "dump", "example_arrays", "load_course", "site_settings"]
