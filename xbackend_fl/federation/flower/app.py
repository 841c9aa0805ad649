"""The thin Flower app: a page of configuration that names the installed package; no code travels with it."""

from __future__ import annotations

import json
from pathlib import Path

from xbackend_fl.course import Course, dump
from xbackend_fl.federation.job import Job
from xbackend_fl.writing import atomic_write, check_new, explain_unwritable

_APP = """\
[project]
name = "xbfl-course"
version = "0.1.0"
description = "A course of xbackend-fl; all code is in the installed package."
license = "Apache-2.0"

[tool.flwr.app]
publisher = "xbackend-fl"

[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "{client}"

[tool.flwr.app.config]
xbfl = {said}
"""

_STEPS = """\
# {name} on your own SuperLink

This app holds the course and names the installed package; models and data stay where they are.

1. In the environment of the SuperLink: `pip install 'xbackend-fl[flower]'`. No framework is needed there. Start it as you always do; where it has no
   network, with `--disable-runtime-dependency-installation`.
2. At every silo, beside its SuperNode, the process that has the model and the data:

   ```sh
   xbfl join course.yaml --as {silo} --data-path {silo}.npz --socket /run/xbfl/{silo}.socket
   ```

   and the SuperNode as always, in an environment with `xbackend-fl[flower]`, with

   ```sh
   flower-supernode … --node-config 'socket="/run/xbfl/{silo}.socket" name="{silo}"'
   ```

   Silos: {silos}. The course file and the silo's model file are the same as in a simulation.
3. `flwr run . CONNECTION`, with your connection's name. Flower's exit code says nothing about the course; `flwr list CONNECTION` does.
4. The run is in `{out}` on the SuperLink's machine, relative to where the SuperLink was started: `events.jsonl` while it goes on, `summary.md` and the model at
   the end. Running the app again goes on after an interruption.
"""


def write_page(folder: Path, server: str, client: str, said: str) -> None:
    """Write a thin app into a folder that exists.

    Args:
        folder: The app.
        server: ``module:name`` of the server's app.
        client: ``module:name`` of a silo's.
        said: What the server's app finds under ``xbfl`` in the run's configuration.
    """
    # A JSON string is a TOML string.
    page = _APP.format(server=server, client=client, said=json.dumps(said))
    (folder / "pyproject.toml").write_text(page, encoding="utf-8")


def write_app(folder: Path, job: Job) -> None:
    """Write the app of a job into a folder that exists."""
    here = "xbackend_fl.federation.flower"
    write_page(folder, f"{here}.server:server_app", f"{here}.client:client_app", job.write())


def write_flower_app(course: Course, folder: Path, keys: str = "") -> None:
    """Write an app for ``flwr run`` against somebody's own SuperLink, with the steps in its README.

    Args:
        course: The course; it travels in the app.
        folder: A new folder.
        keys: Folder of the server's signing keys on the SuperLink's machine; empty without.

    Raises:
        FileError: The folder exists, or cannot be made.
    """
    check_new(folder, "choose a new folder")
    out = f"xbfl-runs/{course.name}"
    names = [participant.name for participant in course.participants]
    steps = _STEPS.format(name=course.name, silo=names[0], silos=", ".join(names), out=out)
    with explain_unwritable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder) as made:
            made.mkdir()
            write_app(made, Job(dump(course), out, keys))
            (made / "README.md").write_text(steps, encoding="utf-8")
