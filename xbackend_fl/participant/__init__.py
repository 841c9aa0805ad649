"""One backend's side of a course: its model, its data, and the participants that train."""

from xbackend_fl.participant.client import LOCAL, Arrays
from xbackend_fl.participant.client_states import ClientStates
from xbackend_fl.participant.contribution import Contribution, PartialSum
from xbackend_fl.participant.examine import Scope, changed
from xbackend_fl.participant.mapped import MappedFile
from xbackend_fl.participant.overtime import has_ended
from xbackend_fl.participant.own_training import Brought, Loop
from xbackend_fl.participant.shards import CourseData, DataSource, OwnSplits
from xbackend_fl.participant.task import Task
from xbackend_fl.participant.usage import Usage
from xbackend_fl.participant.worker import Worker

__all__ = [
    "LOCAL",
    "Arrays",
    "Brought",
    "ClientStates",
    "Contribution",
    "CourseData",
    "DataSource",
    "Loop",
    "MappedFile",
    "OwnSplits",
    "PartialSum",
    "Scope",
    "Task",
    "Usage",
    "Worker",
    "changed",
    "has_ended",
]
