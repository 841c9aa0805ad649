"""``xbfl inspect``: look into a weight file, a checkpoint, a schema, a binding, a run or a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import External, From, Inputs, Json, Only, print_json
from xbackend_fl.cli.table import print_table
from xbackend_fl.text import line

_SHORT = 200

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def inspect(
    target: Annotated[str, typer.Argument(metavar="FILE|RUN|MODEL", help="What to look into.")],
    inputs: Inputs = None,
    source_format: From = None,
    only: Only = None,
    external_data: External = False,
    as_json: Json = False,
) -> None:
    """Show what a weight file, a run folder or a model (with --input) holds: xbfl inspect net.pt."""
    path = Path(target)
    if inputs:
        _model(target, inputs, as_json=as_json)
    elif (path / "events.jsonl").is_file():
        _run(path, as_json=as_json)
    elif path.suffix == ".json" and not path.name.endswith(".index.json"):
        _json_file(path, as_json=as_json)
    else:
        _tensors(path, source_format, only or [], external_data=external_data, as_json=as_json)


def _tensors(
    path: Path, source_format: str | None, only: list[str], *, external_data: bool, as_json: bool
) -> None:
    from xbackend_fl import weights
    from xbackend_fl.convert import selected

    archive = selected(weights.open_weights(path, source_format, external_data=external_data), only)
    aliases = archive.aliases
    rows = [_row(name, array) for name, array in archive.items()]
    if as_json:
        print_json(
            {
                "format": archive.format,
                "metadata": archive.metadata,
                "aliases": aliases,
                "notes": archive.notes,
                "tensors": rows,
            }
        )
        return
    print_table(rows)
    for name, owner in aliases.items():
        echo(f"tied: {name} is {owner}")
    for note in archive.notes:
        echo(f"note: {note}")
    for key, value in archive.metadata.items():
        if len(value) <= _SHORT:
            echo(f"{line(key)}: {line(value)}")
    echo(f"{archive.format}: {len(archive)} tensors, {archive.num_bytes:,} bytes")


def _row(name: str, array: NDArray[Any]) -> dict[str, Any]:
    import math

    import numpy as np

    row: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
    plain = np.abs(array) if array.dtype.kind == "c" else array.astype(np.float64)
    figures = {"mean": plain.mean, "std": plain.std, "max_abs": np.abs(plain).max} if plain.size else {}
    with np.errstate(invalid="ignore", over="ignore"):
        numbers = {key: float(figure()) for key, figure in figures.items()}
    return row | {key: number if math.isfinite(number) else str(number) for key, number in numbers.items()}


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
            print_table(rows)
            echo(f"{binding.backend} binding of schema {binding.fingerprint}")


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
    print_table(rows)
    echo(f"{len(schema.nodes)} nodes, {schema.num_values:,} values, fingerprint {schema.fingerprint}")


def _run(path: Path, *, as_json: bool) -> None:
    from xbackend_fl.rounds import RunFolder

    folder = RunFolder.load(path)
    state = folder.latest()
    history: list[Mapping[str, Any]] = [
        {"round": e.round, "loss": e.loss, **e.metrics, "seconds": e.seconds, "best": e.best}
        for e in (state.history if state else ())
    ]
    if as_json:
        print_json({"path": str(path), "rounds": history})
        return
    print_table([dict(entry) for entry in history])
    echo(f"{len(history)} rounds in {path}; continue with: xbfl run --resume {path}")


def _model(target: str, inputs: list[str], *, as_json: bool) -> None:
    from xbackend_fl.cli.models import build, examples, show_edges

    adapter, model = build(target)
    description = adapter.load_model(model, examples(inputs)).description
    _schema(description.schema, as_json=as_json)
    if not as_json:
        binding = description.binding
        show_edges(binding)
        for remark in filter(None, (binding.one_way, binding.inference_only, *map(str, binding.obstacles))):
            echo(f"note: {remark}")
