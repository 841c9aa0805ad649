"""``xbfl serve``, ``join`` and ``up``: a course across real silos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.interrupts import stop_on_interrupt
from xbackend_fl.cli.options import Json, Settings

_COURSE = typer.Argument(help="Course file (YAML), the same on every machine.")
_KEYS = typer.Option(help="Folder of this machine's keys, from xbfl keys or your own.")
_INSECURE = typer.Option(help="Talk to other machines without encryption, in a network that is trusted.")


def serve(
    course: Annotated[Path, typer.Argument(help="Course file (YAML), or a run folder with --resume.")],
    settings: Settings = None,
    address: Annotated[str | None, typer.Option(help="HOST:PORT to listen at.")] = None,
    out: Annotated[Path | None, typer.Option(help="New run folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run folder COURSE.")] = False,
    keys: Annotated[Path | None, _KEYS] = None,
    insecure: Annotated[bool, _INSECURE] = False,
    as_json: Json = False,
) -> None:
    """Run the server of a course, over Flower: xbfl serve course.yaml --address 0.0.0.0:8000.

    It needs no machine-learning framework. Ctrl-C ends the course after the round.
    """
    from xbackend_fl.cli.view import view
    from xbackend_fl.course import load_course
    from xbackend_fl.federation.flower.door import Flower
    from xbackend_fl.federation.serving import continued, serve_course

    stop = stop_on_interrupt()
    with view(as_json=as_json) as observer:
        loaded = (continued if resume else load_course)(course, settings or ())
        serve_course(
            loaded,
            Flower.from_course(loaded, address, keys, insecure=insecure),
            out=course if resume else out,
            resume=resume,
            observer=observer,
            should_stop=stop,
        )


def join(
    course: Annotated[Path, _COURSE],
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Which participant this is.")
    ] = None,
    settings: Settings = None,
    site: Annotated[
        Path | None, typer.Option(help="YAML with this machine's name, data_path, address and keys.")
    ] = None,
    data_path: Annotated[
        str | None,
        typer.Option(help="This silo's .npz file, or a source: images:FOLDER, csv:FILE#COLUMNS:TARGET."),
    ] = None,
    server: Annotated[str | None, typer.Option(help="HOST:PORT of the server.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the trained model.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the framework.")] = None,
    socket: Annotated[
        Path | None, typer.Option(help="Answer a SuperNode of your own here, see xbfl flower-app.")
    ] = None,
    keys: Annotated[Path | None, _KEYS] = None,
    insecure: Annotated[bool, _INSECURE] = False,
) -> None:
    """Take part in a course as one silo: xbfl join course.yaml --as berlin --data-path berlin.npz --server HOST:PORT.

    The silo's model is proven to be the reference's before it trains; code and data stay here.
    """
    from xbackend_fl.course import load_course, site_settings
    from xbackend_fl.federation.flower.door import Flower
    from xbackend_fl.federation.joining import join_course
    from xbackend_fl.report import describe

    said = [*(site_settings(site) if site else ()), *(settings or ())]
    loaded = load_course(course, said)
    join_course(
        loaded,
        Flower.from_course(loaded, server, keys, insecure=insecure),
        name=name,
        data=data_path,
        out=out,
        socket=socket,
        threads=threads,
        observer=lambda event: echo(describe(event)),
        should_stop=stop_on_interrupt(),
    )


def up(
    course: Annotated[Path, _COURSE],
    settings: Settings = None,
    data_path: Annotated[
        str | None,
        typer.Option(help="Folder with NAME.npz for every silo, or a source: 'images:silos/{name}'."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New run folder.")] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="A silo that comes by itself, to deployment.address; repeat for several."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Rehearse a deployment: the server and every silo as processes of this machine."""
    from xbackend_fl.cli.view import view
    from xbackend_fl.course import load_course
    from xbackend_fl.federation.flower.door import rehearse

    stop = stop_on_interrupt()
    with view(as_json=as_json) as observer:
        rehearse(
            load_course(course, settings or ()),
            data=data_path,
            out=out,
            without=without or (),
            observer=observer,
            should_stop=stop,
        )


def keys(
    course: Annotated[Path, _COURSE],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder.")],
    hosts: Annotated[
        list[str] | None, typer.Option("--host", help="Name or address of the server; repeat for several.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long certificates are valid.")] = 365,
) -> None:
    """Make a certificate for the server and a key for every silo: xbfl keys course.yaml -o keys --host fl.example.org.

    keys/server goes to the server, keys/silos/NAME to each silo; keys/ca.key to nobody.
    """
    from xbackend_fl.course import load_course
    from xbackend_fl.federation.credentials import make_keys

    names = [participant.name for participant in load_course(course).participants]
    make_keys(out, hosts or (), names, days)
    echo(f"{out}/server is the server's, {out}/silos/NAME each silo's, {out}/ca.key yours alone")


def flower_app(
    course: Annotated[Path, _COURSE],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder.")],
    settings: Settings = None,
    keys: Annotated[
        Path | None, typer.Option(help="Folder of the server's signing keys, on the SuperLink's machine.")
    ] = None,
) -> None:
    """Write the thin app with which flwr run leads a course on a SuperLink of your own; README.md in it has the steps."""
    from xbackend_fl.course import load_course
    from xbackend_fl.federation.flower.door import write_flower_app

    write_flower_app(load_course(course, settings or ()), out, str(keys or ""))
    echo(f"{out}/README.md has the steps; flwr run {out} CONNECTION starts the course")
