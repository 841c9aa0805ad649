"""``xbfl map``: find and prove the map between two models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xbackend_fl.cli.options import Inputs, Json, print_json

if TYPE_CHECKING:
    from xbackend_fl.adapter import Adapter
    from xbackend_fl.mapping import Bound

_SPEC = "BACKEND:FILE_OR_MODULE:CALLABLE, e.g. torch:models/net.py:build."


def map_models(
    reference: Annotated[str, typer.Argument(help=_SPEC)],
    candidate: Annotated[str, typer.Argument(help=_SPEC)],
    inputs: Inputs = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the binding here.")] = None,
    as_json: Json = False,
) -> None:
    """Map CANDIDATE's tensors onto REFERENCE's and prove it; exit 0 only if proven.

    xbfl map torch:net.py:build tensorflow:keras_net.py:build --input 1,3,64,64
    """
    from xbackend_fl.course import example_arrays
    from xbackend_fl.errors import FileError
    from xbackend_fl.mapping import bind_trainer, evidence_of

    if not inputs:
        raise typer.BadParameter("give one --input per model input, e.g. --input 1,3,64,64")
    if output is not None and output.exists():
        raise FileError(f"{output} exists", hint="choose another file")
    example = example_arrays(inputs)
    first, second = build(reference), build(candidate)
    trainer = first[0].open(first[1], example)
    schema = trainer.description.schema
    evidence = evidence_of(trainer, example)
    known = (first[0], trainer.description.binding)
    bound = bind_trainer(second[0], second[0].open(second[1], example), schema, example, evidence, known)
    if output is not None:
        output.write_text(bound.binding.to_json(), encoding="utf-8")
    if as_json:
        print_json(_plain(bound))
    else:
        _show(bound)


def build(spec: str) -> tuple[Adapter, object]:
    """The adapter and a fresh model of a model specification."""
    from xbackend_fl.adapter import load
    from xbackend_fl.errors import ConfigError
    from xbackend_fl.locate import call

    backend, colon, rest = spec.partition(":")
    if not colon or ":" not in rest:
        raise ConfigError(f"{spec!r} is not {_SPEC}")
    adapter = load(backend)
    adapter.configure_process(1, 0)
    model = call(rest, Path.cwd())
    if not adapter.handles(model):
        raise ConfigError(
            f"{spec} returned a {type(model).__name__}, which the {backend!r} adapter does not handle"
        )
    return adapter, model


def _plain(bound: Bound) -> dict[str, Any]:
    import json

    return {
        "fingerprint": bound.schema.fingerprint,
        "binding": json.loads(bound.binding.to_json()),
        "proof": bound.proof.to_json(),
        "notes": bound.notes,
    }


def _show(bound: Bound) -> None:
    from rich.console import Console
    from rich.table import Table

    from xbackend_fl.canonical.layout import describe

    table = Table("canonical", "shape", "kind", "native")
    for name, layout in bound.binding.parameters.items():
        parameter = bound.schema.by_name[name]
        table.add_row(name, "×".join(map(str, parameter.shape)), str(parameter.kind), describe(layout))
    Console().print(table)
    for index, axes in enumerate(bound.binding.inputs):
        typer.echo(f"input {index}: native axes {list(axes.perm)} {axes.note}".rstrip())
    for name, reason in bound.binding.local.items():
        typer.echo(f"local: {name} ({reason})")
    for note in (*bound.notes, *bound.proof.notes):
        typer.echo(f"note: {note}")
    checks = bound.proof.checks
    typer.echo(
        f"proven: {len(checks)} comparisons of outputs, gradients, an optimizer step and ONNX Runtime; "
        f"largest relative error {bound.proof.largest_error:.1e}, tolerance {bound.proof.tolerance:.0e}"
    )
