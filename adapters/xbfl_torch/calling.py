"""How a model takes its inputs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch

from xbackend_fl.errors import UnsupportedError


def arguments_of(
    model: torch.nn.Module, inputs: Sequence[torch.Tensor]
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Inputs as ``forward`` takes them: by position, and by name where it takes them so alone.

    Raises:
        UnsupportedError: There are more or fewer than it takes.
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    placed = [item for item in parameters if item.kind in {item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD}]
    named = [item for item in parameters if item.kind is item.KEYWORD_ONLY]
    takes_all = any(item.kind is item.VAR_POSITIONAL for item in parameters)
    count = len(inputs) if takes_all else len(placed)
    unfilled = [
        item
        for item in (*placed[len(inputs) :], *named[max(len(inputs) - count, 0) :])
        if item.default is item.empty
    ]
    if unfilled or len(inputs) > count + len(named):
        most = len(placed) + len(named)
        signature = ", ".join(item.name for item in (*placed, *named))
        needed = sum(item.default is item.empty for item in (*placed, *named))
        takes = f"{needed}" if needed == most or takes_all else f"{needed} to {most}"
        raise UnsupportedError(
            f"forward of {type(model).__name__} takes {takes} inputs ({signature}); the example has {len(inputs)}",
            hint="give one --input per input of the model, or give what is no data a default",
        )
    names = [item.name for item in named]
    return tuple(inputs[:count]), dict(zip(names, inputs[count:], strict=False))
