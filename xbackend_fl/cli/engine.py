"""``xbfl engine``: an engine of TensorRT, built of an ONNX file, and brought to other weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import From

app = typer.Typer(help="Build engines of TensorRT, and bring them to other weights.", no_args_is_help=True)


@app.command("build")
def build(
    source: Annotated[
        Path, typer.Argument(help="Folder of a run, or an ONNX file of xbfl run or xbfl convert.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The new engine; a file .graph lies beside it.")
    ],
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=MIN:USUAL:MAX", help="Lengths of a free axis; batch=1:8:64 if left out."),
    ] = None,
    refittable: Annotated[
        bool,
        typer.Option(
            "--refittable", help="Weights can be replaced in it; takes a supported card already now."
        ),
    ] = False,
) -> None:
    """Build an engine, without a card: xbfl engine build runs/one -o net.engine."""
    from xbackend_fl.tensorrt import Sizes, build_engine

    named = dict(text.partition("=")[::2] for text in size or ())
    sizes = {name: Sizes.from_text(ends) for name, ends in named.items()}
    engine = build_engine(source, output, sizes, refittable=refittable)
    echo(
        f"{output}: {output.stat().st_size:,} bytes by TensorRT {engine.version}, schema {engine.fingerprint[:12]}"
    )


@app.command("refit")
def refit(
    engine: Annotated[Path, typer.Argument(help="An engine of xbfl engine build.")],
    weights: Annotated[
        Path,
        typer.Argument(
            help="Canonical weights: last.safetensors of a run, model.onnx, a round of checkpoints/, …."
        ),
    ],
    source_format: From = None,
) -> None:
    """Bring an engine to other WEIGHTS of its schema: in place where it is refittable, else built anew."""
    from xbackend_fl.rounds.checkpoint import weights_in
    from xbackend_fl.tensorrt import refit_engine
    from xbackend_fl.weights import open_weights

    archive = open_weights(weights, source_format)
    done = refit_engine(engine, archive.metadata.get("fingerprint"), weights_in(archive))
    echo(f"{engine}: with {weights}, {done}")
