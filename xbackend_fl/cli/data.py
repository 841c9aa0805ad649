"""``xbfl data``: data sets for benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.progress import progress_bar

app = typer.Typer(help="Data sets for benchmarks.", no_args_is_help=True)


@app.command("femnist-like")
def femnist_like(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    writers: Annotated[int, typer.Option(min=1, help="FEMNIST has 3,597.")] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write a LEAF data set with FEMNIST's format and published statistics: xbfl data femnist-like data.

    The images are strokes that a network can learn to tell apart, not FEMNIST's letters.
    """
    from xbackend_fl.data.femnist_like import write_femnist_like

    with progress_bar("writing") as on_progress:
        files = write_femnist_like(folder, writers, seed, on_progress)
    echo(f"{folder}: {writers} writers in {len(files)} files; use it as data.source: leaf:{folder}")


@app.command("show")
def show(
    folder: Annotated[Path, typer.Argument(help="A folder of LEAF files, or one file.")],
    deduplicate: Annotated[bool, typer.Option(help="Drop examples that a user has twice.")] = False,
) -> None:
    """Read a LEAF data set, keep it as arrays beside the files, and show its statistics."""
    import numpy as np

    from xbackend_fl.data import read_leaf

    with progress_bar("reading") as on_progress:
        users = read_leaf(folder, deduplicate=deduplicate, on_progress=on_progress)
    sizes = np.diff(users.ends, prepend=0)
    echo(
        f"{len(users.names)} users, {len(users.targets):,} examples; per user {sizes.mean():.2f} ± {sizes.std():.2f} "
        f"({sizes.min()} to {sizes.max()}); inputs {users.inputs.dtype} {list(users.inputs.shape[1:])}, "
        f"{len(np.unique(users.targets))} classes"
    )
