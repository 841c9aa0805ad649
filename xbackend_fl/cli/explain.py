"""``xbfl explain``: what an error code means, and what to do."""

from __future__ import annotations

from typing import Annotated

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import Json, print_json


def explain(
    code: Annotated[str | None, typer.Argument(help="The word in error[…]; all codes, if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Explain an error code: xbfl explain pickle-global."""
    import difflib

    from xbackend_fl.errors import ConfigError
    from xbackend_fl.weights.refusals import CODES

    if code is not None and code not in CODES:
        close = difflib.get_close_matches(code, CODES, n=1)
        raise ConfigError(
            f"there is no error code {code!r}",
            hint=f"did you mean {close[0]!r}?" if close else "xbfl explain",
        )
    chosen = CODES if code is None else {code: CODES[code]}
    if as_json:
        print_json({name: vars(item) for name, item in chosen.items()})
    elif code is None:
        for name, item in chosen.items():
            echo(f"{name:24} {item.meaning}")
    else:
        echo(f"{code}: {chosen[code].meaning}\nWhat to do: {chosen[code].cure}")
