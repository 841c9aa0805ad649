"""``xbfl certify`` and ``xbfl verify``: a signed statement that models are one function, and its repetition elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import MODEL, Inputs, Json, print_json
from xbackend_fl.text import line

if TYPE_CHECKING:
    from xbackend_fl.certificate import Model


def certify(
    models: Annotated[list[str], typer.Argument(help=f"The reference first. {MODEL}")],
    key: Annotated[Path, typer.Option(help="Your private key, NAME.ed25519, as xbfl keys makes it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The new certificate (JSON).")],
    inputs: Inputs = None,
    embed: Annotated[
        list[Path] | None,
        typer.Option(
            help="Write it into this .onnx or .safetensors file, too, and sign the values there; repeatable."
        ),
    ] = None,
    own_loop: Annotated[
        str, typer.Option(metavar="NAME", help="A training loop of your own; it is named, and not looked at.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Certify that MODELS are one function: probes by seed, outputs, gradients and a step of each, signed.

    xbfl certify torch:net.py:build tensorflow:keras_net.py:build --input 1,3,64,64 --key me.ed25519 -o certificate.json
    """
    from xbackend_fl.certificate import certify as run
    from xbackend_fl.certificate import embed as write_into
    from xbackend_fl.certificate import sign, write
    from xbackend_fl.certificate.embedding import can_hold
    from xbackend_fl.cli.models import examples
    from xbackend_fl.signing import read_private
    from xbackend_fl.writing import check_new

    check_new(output, "choose another file")
    private, example = read_private(key), examples(inputs)
    statement = run(_opened(models), example, inputs or (), own_loop)
    # Before anything is written, and the new file last: where a disk is full the same command can be given again.
    for path in embed or ():
        can_hold(path, statement)
    certificate = sign(statement, private)
    for path in embed or ():
        write_into(path, certificate, private)
    write(output, certificate)
    if as_json:
        found = [
            {"source": model.source, "errors": model.errors, "notes": model.notes}
            for model in statement.models
        ]
        print_json({"path": str(output), "fingerprint": statement.fingerprint, "models": found})
        return
    for model in statement.models:
        errors = ", ".join(f"{what} {error:.1e}" for what, error in model.errors.items())
        echo(f"{model.source} ({model.framework}): {errors or 'the reference'}")
        for note in model.notes:
            echo(f"        note: {line(note)}")
    for text in statement.not_proven:
        echo(f"not proven: {text}")
    echo(
        f"{output}: {len(statement.probes)} probes of schema {statement.fingerprint[:12]}, signed by {certificate.key[:12]}…"
    )


def verify(
    certificate: Annotated[
        Path, typer.Argument(help="certificate.json, or a .onnx or .safetensors file that holds one.")
    ],
    trust: Annotated[
        list[Path] | None,
        typer.Option(help="Public key, NAME.ed25519.pem, of a signer that you know; repeatable."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help=f"Prove this model against it as well; repeatable. {MODEL}")
    ] = None,
    inputs: Inputs = None,
    signed_values: Annotated[
        bool,
        typer.Option(
            "--signed-values", help="Fail, too, if nobody signed the values of the weights in a file."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Repeat a CERTIFICATE here; exit 0 only if every line is so, and else say which is not.

    xbfl verify certificate.json --trust alice.ed25519.pem --model torch:net.py:build
    """
    from xbackend_fl.certificate import certificate_in, lines
    from xbackend_fl.certificate.embedding import lines_of
    from xbackend_fl.certificate.verifying import example_of

    found = certificate_in(certificate)
    signer = found.require_trusted(trust or ())
    if not as_json:
        echo(f"ok      signature: {signer.name}")
    statement = found.statement
    failed, shown = 0, []
    if signed_values and certificate.suffix == ".json":
        raise typer.BadParameter(f"--signed-values is of a file with weights, and {certificate} has none")
    several = [] if certificate.suffix == ".json" else lines_of(certificate, found, signed=signed_values)
    for item in (*several, *lines(statement, example_of(statement, inputs or ()), _opened(model or []))):
        failed += not item.passed
        shown.append(vars(item))
        if not as_json:
            echo(f"{'ok    ' if item.passed else 'FAILED'}  {line(item.name)}: {line(item.said)}")
            for note in item.notes:
                echo(f"        note: {line(note)}")
    if as_json:
        print_json({"signer": signer.name, "lines": shown, "not_proven": statement.not_proven})
    else:
        for text in statement.not_proven:
            echo(f"not proven: {line(text)}")
    sys.exit(int(failed > 0))


def _opened(specs: list[str]) -> list[Model]:
    from xbackend_fl.certificate import Model
    from xbackend_fl.cli.models import build

    return [Model(spec, *build(spec)) for spec in specs]
