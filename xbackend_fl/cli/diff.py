"""``xbfl diff``: two weight files, tensor by tensor."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import External, Json, Only, Rename, print_json
from xbackend_fl.cli.table import print_table


def diff(
    left: Annotated[Path, typer.Argument(help="A weight file of any format.")],
    right: Annotated[Path, typer.Argument(help="Another, of any format.")],
    left_binding: Annotated[
        Path | None, typer.Option(help="Binding of LEFT's model: its tensors are compared in canonical form.")
    ] = None,
    right_binding: Annotated[Path | None, typer.Option(help="Binding of RIGHT's model, likewise.")] = None,
    only: Only = None,
    rename: Rename = None,
    external_data: External = False,
    as_json: Json = False,
) -> None:
    """Compare two weight files, of any formats; exit 1 if they differ in any bit.

    With bindings (xbfl map -o), files of two frameworks are compared in canonical form. --rename applies to RIGHT.
    """
    from xbackend_fl import weights
    from xbackend_fl.convert import canonical_of, compare, read_side, selected

    sides = [None if path is None else read_side(path) for path in (left_binding, right_binding)]
    one = weights.open_weights(left, external_data=external_data)
    two = selected(weights.open_weights(right, external_data=external_data), rename=rename or ())
    found = compare(canonical_of(one, sides[0]), canonical_of(two, sides[1]), only or ())
    equal = all(item.identical for item in found)
    if as_json:
        print_json({"identical": equal, "tensors": [_plain(vars(item)) for item in found]})
    else:
        rows = [
            {
                "name": item.name,
                "left": item.left or "missing",
                "right": item.right or "missing",
                "max abs": item.max_abs,
                "relative": item.relative,
            }
            for item in found
            if not item.identical
        ]
        print_table(rows)
        same = sum(item.identical for item in found)
        echo(f"{same} of {len(found)} tensors are identical")
    if not equal:
        raise typer.Exit(1)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
