"""Arguments and output that several commands share."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from xbackend_fl.cli.console import answer

MODEL = (
    "BACKEND:FILE_OR_MODULE:CALLABLE, e.g. torch:models/net.py:build, or BACKEND:PATH, e.g. onnx:net.onnx."
)

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting, e.g. rounds=5.")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="ONNX layout, e.g. 1,3,64,64 or int64:1,128, or a file of data, x.npy; NAME=SHAPE for a model that takes names; repeatable.",
    ),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="FORMAT", help="Format of the file, if its ending does not tell."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Only tensors whose names match, e.g. 'encoder.*'."),
]
Rename = Annotated[
    list[str] | None,
    typer.Option(metavar="OLD=NEW", help="Rename a tensor, or a beginning that ends in a dot or slash."),
]
External = Annotated[
    bool, typer.Option("--external-data", help="Read tensors that an ONNX model keeps in files beside it.")
]


def print_json(data: Any) -> None:
    """The envelope of every ``--json`` result."""
    answer(json.dumps({"schema_version": 1, "status": "ok", "data": data}))
