"""The command ``xbfl``: parses arguments, calls a room, shows the result. No logic lives here."""

from __future__ import annotations

import errno
import json
import sys
from contextlib import nullcontext

import typer

from xbackend_fl.cli import (
    adapters,
    bench,
    certify,
    check,
    convert,
    data,
    deploy,
    diff,
    doctor,
    engine,
    explain,
    inspect,
    mapping,
    run,
    schema,
)
from xbackend_fl.cli.console import answer, echo, stdout_for_json
from xbackend_fl.cli.interrupts import end_on_interrupt
from xbackend_fl.errors import CombinedError, FormatRefused, RunFailed, XbflError
from xbackend_fl.text import line

_CURES = {
    errno.ENOSPC: "make space, and try again",
    errno.EDQUOT: "make space within the quota, and try again",
    errno.EFBIG: "let this user write larger files (ulimit -f), or name a place where they may be",
    errno.EACCES: "let this user read and write it, or name another place",
    errno.EPERM: "let this user read and write it, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.ENOENT: "make the folder first, or name another place",
    errno.ENOTDIR: "one of its folders is a file: name another place",
    errno.EISDIR: "it is a folder: name a file",
    errno.ENAMETOOLONG: "give it a shorter name",
}

app = typer.Typer(
    name="xbfl",
    help="Federated learning across PyTorch and TensorFlow: one course, one model, proven equal.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("check")(check.check)
app.command("map")(mapping.map_models)
app.command("schema")(schema.schema)
app.command("certify")(certify.certify)
app.command("verify")(certify.verify)
app.command("bench")(bench.bench)
app.command("serve")(deploy.serve)
app.command("join")(deploy.join)
app.command("up")(deploy.up)
app.command("keys")(deploy.keys)
app.command("flower-app")(deploy.flower_app)
app.command("convert")(convert.convert)
app.command("inspect")(inspect.inspect)
app.command("diff")(diff.diff)
app.command("explain")(explain.explain)
app.add_typer(data.app, name="data")
app.add_typer(engine.app, name="engine")
app.command("doctor")(doctor.doctor)
app.command("adapters")(adapters.adapters)


def main() -> None:
    """Entry point. Exit codes: 0 ok, 1 the run failed, 2 usage or refused input, 130 interrupted."""
    end_on_interrupt()
    alone = "--json" in sys.argv and not {"-h", "--help"} & set(sys.argv)
    with stdout_for_json() if alone else nullcontext():
        _command()


def _command() -> None:
    try:
        app()
    except XbflError as error:
        _report(error)
        sys.exit(error.exit_code)
    except OSError as error:
        # Of a file that nobody looked at before: where it is, and what the system says of it.
        where = f"{error.filename}: " if error.filename else ""
        found = RunFailed(line(f"{where}{error.strerror or error}"), hint=_CURES.get(error.errno or 0))
        _report(found)
        sys.exit(found.exit_code)


def _report(error: XbflError) -> None:
    if "--json" in sys.argv:
        plain: dict[str, object] = {"code": error.code, "message": error.message, "hint": error.hint}
        if isinstance(error, FormatRefused):
            plain |= {"path": str(error.path), **error.details}
        if isinstance(error, CombinedError):
            plain["errors"] = [{"code": e.code, "message": e.message, "hint": e.hint} for e in error.errors]
        answer(json.dumps({"schema_version": 1, "status": "error", "error": plain}))
    if isinstance(error, FormatRefused):
        echo(f"error[{error.code}]: {error.message} (xbfl explain {error.code})", err=True)
        return
    # Several mistakes bring their own "error" lines, one each.
    located = error.message.startswith(("error:", "error["))
    echo(error.message if located else f"error[{error.code}]: {error}", err=True)
