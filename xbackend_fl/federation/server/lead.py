"""The process that leads a course: it runs the round loop, and says how that ended."""

from __future__ import annotations

import sqlite3
import traceback
from contextlib import closing

from xbackend_fl.course import Course
from xbackend_fl.errors import DiskFull, RunFailed, XbflError
from xbackend_fl.federation.job import Job
from xbackend_fl.federation.protocol.message import Message
from xbackend_fl.federation.server.dispatcher import Dispatcher
from xbackend_fl.federation.server.engine import DeploymentEngine
from xbackend_fl.federation.server.ledger import Ledger
from xbackend_fl.federation.transport import MakeLink
from xbackend_fl.rounds import explain_full_disk, run_with, wait_for_space


def lead(job: Job, make_link: MakeLink) -> None:
    """Lead a job's course to its end; whoever started the process learns of it through the job.

    Args:
        job: Says which course, and where its folder is.
        make_link: From the transport.
    """
    with job.alive():
        try:
            course = job.load()
            while not _run(job, course, make_link):
                continue
        except XbflError as error:
            job.fail(error)
            raise
        except (OSError, sqlite3.OperationalError) as error:
            hint = f"make space, or mend the disk; xbfl serve {job.out} --resume goes on"
            job.fail(RunFailed(f"the run could not be written: {error}", hint=hint))
            raise
        except Exception:
            job.fail(XbflError(f"the server's process raised\n{traceback.format_exc()}"))
            raise


def _run(job: Job, course: Course, make_link: MakeLink) -> bool:
    """Lead the course to its end, or until the disk is full and has space again; whether it ended."""
    with job.claim_folder(course) as (folder, state):
        signatures = job.signatures()
        hello = signatures.sign(Message("hello").to_bytes())
        link = make_link([participant.name for participant in course.participants], hello)
        try:
            with (
                explain_full_disk(folder.path),
                closing(DeploymentEngine(course, Dispatcher(link, signatures), Ledger(folder))) as engine,
            ):
                run_with(engine, course, folder, state, should_stop=job.should_stop)
        except DiskFull as error:
            # Silos stay connected meanwhile, and what was accepted is on disk.
            job.post_notice(f"{error.message}; waiting for space")
            if wait_for_space(folder.path, job.should_stop):
                return False
            raise
        return True
