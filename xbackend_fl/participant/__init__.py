"""One backend's side of a course: its model, its data, and the participants that train."""

from xbackend_fl.participant.examine import Scope, changed
from xbackend_fl.participant.shards import splits_of
from xbackend_fl.participant.usage import Usage
from xbackend_fl.participant.worker import PartialSum, Worker

__all__ = ["PartialSum", "Scope", "Usage", "Worker", "changed", "splits_of"]
