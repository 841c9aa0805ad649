"""``xbfl run``: simulate a course on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.interrupts import INTERRUPTED, stop_on_interrupt
from xbackend_fl.cli.options import Json, Settings


def run(
    course: Annotated[Path | None, typer.Argument(help="Course file (YAML).")] = None,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="New run folder.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue this run folder.")] = None,
    in_process: Annotated[bool, typer.Option(help="No worker processes, for debugging.")] = False,
    as_json: Json = False,
) -> None:
    """Run a course: xbfl run examples/digits/course.yaml.

    Ctrl-C finishes the round and writes the checkpoint; a second Ctrl-C stops at once.
    """
    if (course is None) == (resume is None):
        raise typer.BadParameter("give either a COURSE file, or --resume RUN")
    if resume is not None and out is not None:
        raise typer.BadParameter("--resume continues in the same folder; --out does not go with it")
    from xbackend_fl.cli import deploy
    from xbackend_fl.cli.view import view
    from xbackend_fl.course import load_course

    loaded = None if course is None else load_course(course, settings or ())
    if course is not None and loaded is not None and (role := loaded.deployment.role) is not None:
        # The course says what this machine is.
        if role == "server":
            deploy.serve(course, settings, out=out, as_json=as_json)
        else:
            deploy.join(course, settings=settings, out=out)
        return
    from xbackend_fl.simulation import resume_run, run_course

    asked = stop_on_interrupt("interrupted: the round is finished first; Ctrl-C again stops at once")
    with view(as_json=as_json) as observer:
        if resume is not None:
            done = resume_run(
                resume, settings or (), observer=observer, should_stop=asked, in_process=in_process
            )
        else:
            assert loaded is not None
            done = run_course(loaded, out, observer=observer, should_stop=asked, in_process=in_process)
    if asked():
        echo(f"interrupted after round {len(done.history)}: xbfl run --resume {done.path}", err=True)
        raise typer.Exit(INTERRUPTED)
