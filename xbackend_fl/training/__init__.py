"""One backend's side of a course: its model, its data, and the participants that train."""

from xbackend_fl.training.examine import Scope, changed
from xbackend_fl.training.shares import splits_of
from xbackend_fl.training.usage import Usage
from xbackend_fl.training.worker import Partial, Worker

__all__ = ["Partial", "Scope", "Usage", "Worker", "changed", "splits_of"]
