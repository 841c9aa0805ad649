"""``xbfl map``: find and prove the map between two models."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import MODEL, Inputs, Json, print_json
from xbackend_fl.cli.table import print_table

if TYPE_CHECKING:
    from xbackend_fl.mapping import BoundModel


def map_models(
    reference: Annotated[str, typer.Argument(help=MODEL + " Or a schema file (.json).")],
    candidate: Annotated[str, typer.Argument(help=MODEL)],
    inputs: Inputs = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the binding here.")] = None,
    evidence: Annotated[
        Path | None, typer.Option(help="Evidence that was published with a schema file (see xbfl schema).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Map CANDIDATE's tensors onto REFERENCE's and prove it; exit 0 only if proven.

    xbfl map torch:net.py:build tensorflow:keras_net.py:build --input 1,3,64,64
    """
    from xbackend_fl.cli.models import build, examples
    from xbackend_fl.mapping import as_known, bind_trainer, evidence_of
    from xbackend_fl.mapping.probe.memory import MemoryRefused
    from xbackend_fl.mapping.proof.publish import read_evidence, read_schema
    from xbackend_fl.writing import check_new, write_text

    example, found = examples(inputs), None
    if output is not None:
        check_new(output, "choose another file")
    if reference.endswith(".json"):
        known = None
        schema = read_schema(Path(reference))
        found = None if evidence is None else read_evidence(evidence, schema)
    else:
        adapter, model = build(reference)
        trainer = adapter.load_model(model, example)
        known = (adapter, trainer.description.binding)
        schema = trainer.description.schema
        # Of a model that is too large to be proven here, structure still says whether it matches.
        with suppress(MemoryRefused):
            found = evidence_of(trainer, example)
    adapter, model = build(candidate)
    opened = adapter.load_model(model, as_known(schema, example))
    bound = bind_trainer(adapter, opened, schema, example, found, known)
    if output is not None:
        write_text(output, bound.binding.to_json())
    if as_json:
        print_json(_plain(bound))
    else:
        _show(bound)


def _plain(bound: BoundModel) -> dict[str, Any]:
    import json

    return {
        "fingerprint": bound.schema.fingerprint,
        "binding": json.loads(bound.binding.to_json()),
        "proof": bound.proof.to_json(),
        "notes": bound.notes,
    }


def _show(bound: BoundModel) -> None:
    from xbackend_fl.canonical.layout import describe
    from xbackend_fl.cli.models import show_edges
    from xbackend_fl.mapping.match.training import common

    rows = []
    for name, layout in bound.binding.parameters.items():
        parameter, error = bound.schema.by_name[name], bound.proof.parameters.get(name)
        rows.append(
            {
                "canonical": name,
                "shape": list(parameter.shape),
                "kind": str(parameter.kind),
                "native": describe(layout),
                "error": "" if error is None else f"{error:.0e}",
            }
        )
    print_table(rows)
    show_edges(bound.binding)
    for note in bound.notes:
        echo(f"note: {note}")
    for line in common():
        echo(f"training: {line}")
    checks = bound.proof.checks
    echo(
        f"proven: {len(checks)} comparisons ({', '.join(dict.fromkeys(check.what for check in checks))}); "
        f"largest relative error {bound.proof.largest_error:.1e}, tolerance {bound.proof.tolerance:.0e}"
    )
