"""``xbfl inspect``: look into a weight file, a checkpoint, a schema, a binding, a run or a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xbackend_fl.cli.options import Inputs, Json, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def inspect(
    target: Annotated[str, typer.Argument(metavar="FILE|RUN|MODEL", help="What to look into.")],
    inputs: Inputs = None,
    as_json: Json = False,
) -> None:
    """Show what a file, a run folder or a model (with --input) holds: xbfl inspect runs/x/last.safetensors."""
    from xbackend_fl.errors import FileError

    path = Path(target)
    if inputs:
        _model(target, inputs, as_json=as_json)
    elif path.is_dir():
        _run(path, as_json=as_json)
    elif path.suffix == ".json":
        _json_file(path, as_json=as_json)
    elif path.suffix == ".safetensors":
        _tensors(path, as_json=as_json)
    else:
        raise FileError(
            f"cannot inspect {target}",
            hint="a .safetensors file, a schema or binding (.json), a run folder, or a model with --input",
        )


def _tensors(path: Path, *, as_json: bool) -> None:
    from xbackend_fl.weights import read_tensors

    arrays, metadata = read_tensors(path)
    rows = [_row(name, array) for name, array in arrays.items()]
    if as_json:
        print_json({"metadata": metadata, "tensors": rows})
        return
    _table(rows)
    for key in ("fingerprint", "digest", "round"):
        if key in metadata:
            typer.echo(f"{key}: {metadata[key]}")


def _row(name: str, array: NDArray[Any]) -> dict[str, Any]:
    plain = array.astype("float64")
    return {
        "name": name,
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "mean": float(plain.mean()) if plain.size else 0.0,
        "std": float(plain.std()) if plain.size else 0.0,
        "max_abs": float(abs(plain).max(initial=0.0)),
    }


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0]) if rows else Table()
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console().print(table)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return "×".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _json_file(path: Path, *, as_json: bool) -> None:
    from xbackend_fl.canonical import Binding, Schema
    from xbackend_fl.canonical.layout import describe
    from xbackend_fl.errors import FileError, SchemaError

    if not path.is_file():
        raise FileError(f"no such file: {path}")
    text = path.read_bytes()
    try:
        _schema(Schema.from_json(text), as_json=as_json)
    except SchemaError:
        binding = Binding.from_json(text)
        rows = [
            {"canonical": name, "native": describe(layout)} for name, layout in binding.parameters.items()
        ]
        if as_json:
            print_json({"backend": binding.backend, "fingerprint": binding.fingerprint, "parameters": rows})
        else:
            _table(rows)
            typer.echo(f"{binding.backend} binding of schema {binding.fingerprint}")


def _schema(schema: Any, *, as_json: bool) -> None:
    rows = [
        {
            "name": p.name,
            "shape": list(p.shape),
            "operator": p.operator,
            "input": p.formal,
            "kind": str(p.kind),
        }
        for p in schema.parameters
    ]
    if as_json:
        print_json({"fingerprint": schema.fingerprint, "parameters": rows})
        return
    _table(rows)
    typer.echo(f"{len(schema.nodes)} nodes, {schema.num_values:,} values, fingerprint {schema.fingerprint}")


def _run(path: Path, *, as_json: bool) -> None:
    from xbackend_fl.server import RunFolder

    folder = RunFolder.open(path)
    state = folder.latest()
    history: list[Mapping[str, Any]] = [
        {"round": e.round, "loss": e.loss, "accuracy": e.accuracy, "seconds": e.seconds, "best": e.best}
        for e in (state.history if state else ())
    ]
    if as_json:
        print_json({"path": str(path), "rounds": history})
        return
    _table([dict(entry) for entry in history])
    typer.echo(f"{len(history)} rounds in {path}; continue with: xbfl run --resume {path}")


def _model(target: str, inputs: list[str], *, as_json: bool) -> None:
    from xbackend_fl.cli.models import build, examples, show_edges

    adapter, model = build(target)
    description = adapter.open(model, examples(inputs)).description
    _schema(description.schema, as_json=as_json)
    if not as_json:
        binding = description.binding
        show_edges(binding)
        for remark in filter(None, (binding.one_way, binding.inference_only)):
            typer.echo(f"note: {remark}")
