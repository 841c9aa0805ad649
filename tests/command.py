"""The command ``xbfl`` for tests: in a process of its own, as users run it, or in this one, where frameworks are imported already."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from xbackend_fl.cli.main import main

XBFL = Path(sys.executable).with_name("xbfl")


def xbfl(*arguments: Any, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The installed program."""
    command = [XBFL, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)


def xbfl_here(*arguments: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The program's ``main`` in this process: five seconds of imports less a call.

    Warnings are errors here, and what a process leaves behind (a signal handler, the folder) is put back.
    """
    command = ["xbfl", *map(str, arguments)]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    code, out, err = 0, io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.object(sys, "path", list(sys.path)),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
