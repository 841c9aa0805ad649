"""``xbfl check``: everything but the training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import Json, Settings, print_json


def check(
    course: Annotated[Path, typer.Argument(help="Course file (YAML).")],
    settings: Settings = None,
    in_process: Annotated[bool, typer.Option(help="No worker processes, for debugging.")] = False,
    as_json: Json = False,
) -> None:
    """Try everything of a course but the training: the file, all data, a batch and its loss, the proof of every model."""
    from contextlib import closing

    from xbackend_fl.course import load_course
    from xbackend_fl.course.own_training import shown_own
    from xbackend_fl.events import Event, ModelBound
    from xbackend_fl.federation.silo.served import Served
    from xbackend_fl.report import describe
    from xbackend_fl.rounds.initial import initial_weights
    from xbackend_fl.simulation import SimulationEngine

    loaded = load_course(course, settings or ())
    found: list[Event] = []
    with closing(SimulationEngine(loaded, in_process=in_process, thorough=True)) as engine:
        prepared = engine.prepare(found.append)
        sizes = engine.num_examples()
        initial_weights(loaded, engine, prepared.schema, prepared.initial)
    if serve := loaded.deployment.serve:
        Served(loaded.base / serve.engine).require(prepared.schema.fingerprint)
    if as_json:
        print_json(
            {
                "fingerprint": prepared.schema.fingerprint,
                "models": [event.model_dump(mode="json") for event in found],
                "num_examples": sizes,
            }
        )
        return
    for event in found:
        echo(describe(event))
    proofs = {event.backend: event for event in found if isinstance(event, ModelBound)}
    for participant in loaded.participants:
        error = proofs[participant.backend].largest_error
        echo(
            f"  {participant.name} ({participant.backend}): model proven against the schema, "
            f"largest error {error:.1e}; {sizes[participant.name]} examples"
            + (f"; its own: {shown_own(participant.training)}" if participant.training else "")
        )
    echo(f"ok: schema {prepared.schema.fingerprint[:12]}, {prepared.schema.num_values:,} values")
