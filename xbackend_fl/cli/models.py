"""Models as the command line names them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from xbackend_fl.cli.console import echo

if TYPE_CHECKING:
    from xbackend_fl.adapter import Adapter
    from xbackend_fl.adapter.example import Example
    from xbackend_fl.canonical import Binding


def examples(inputs: list[str] | None) -> Example:
    """One array per ``--input``, under their names if they have names."""
    from xbackend_fl.course import example_arrays, named

    if not inputs:
        raise typer.BadParameter("give one --input per model input, e.g. --input 1,3,64,64")
    return named(inputs, example_arrays(inputs))


def build(spec: str) -> tuple[Adapter, object]:
    """The adapter and a fresh model of a model specification.

    Raises:
        ConfigError: The specification is not one, or what it names is no model of that backend.
    """
    from xbackend_fl.adapter import load, wrong_model
    from xbackend_fl.cli.options import MODEL
    from xbackend_fl.errors import ConfigError
    from xbackend_fl.locate import call

    backend, colon, rest = spec.partition(":")
    if not colon or not rest:
        raise ConfigError(f"{spec!r} is not {MODEL}")
    adapter = load(backend)
    adapter.configure_process(1, 0)
    if ":" not in rest:
        return adapter, adapter.load(Path(rest))
    model = call(rest, Path.cwd())
    if not adapter.handles(model):
        raise wrong_model(spec, model, backend)
    return adapter, model


def show_edges(binding: Binding) -> None:
    """Print in which order of axes a model reads and returns its data, and what of it is nobody else's."""
    for word, edges in (("input", binding.inputs), ("output", binding.outputs)):
        for index, axes in enumerate(edges):
            echo(f"{word} {index}: native axes {list(axes.perm)} {axes.note}".rstrip())
    for name, reason in binding.local.items():
        echo(f"local: {name} ({reason})")
