"""``xbfl schema``: publish what a model is, for those who will never see its code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import MODEL, Inputs, Json, print_json


def schema(
    model: Annotated[str, typer.Argument(help=MODEL)],
    inputs: Inputs = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the schema (JSON) here.")
    ] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(
            help="Write what MODEL does with the probes here (safetensors); silos prove theirs with it."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe MODEL as the schema of a federation.

    xbfl schema torch:net.py:build --input 1,3,64,64 -o schema.json --evidence evidence.safetensors
    """
    from xbackend_fl.cli.models import build, examples
    from xbackend_fl.mapping import evidence_of
    from xbackend_fl.mapping.proof.publish import write_evidence, write_schema

    example = examples(inputs)
    adapter, native = build(model)
    trainer = adapter.load_model(native, example)
    found = trainer.description.schema
    if output is not None:
        write_schema(output, found)
    if evidence is not None:
        write_evidence(evidence, found, evidence_of(trainer, example))
    for effect in found.training_effects:
        echo(f"note: {effect}. A course refuses it; {effect.cure}", err=True)
    if as_json:
        print_json(
            {
                "fingerprint": found.fingerprint,
                "parameters": len(found.parameters),
                "values": found.num_values,
            }
        )
    elif output is None:
        typer.echo(found.to_json())
    else:
        echo(
            f"{output}: {len(found.nodes)} nodes, {found.num_values:,} values, fingerprint {found.fingerprint}"
        )
