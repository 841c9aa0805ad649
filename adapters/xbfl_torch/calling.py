"""How a model takes its inputs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch


def arguments_of(
    model: torch.nn.Module, inputs: Sequence[torch.Tensor]
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Inputs as ``forward`` takes them: by position, and by name where it takes them so alone."""
    parameters = inspect.signature(model.forward).parameters.values()
    if any(item.kind is item.VAR_POSITIONAL for item in parameters):
        return tuple(inputs), {}
    count = sum(item.kind in {item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD} for item in parameters)
    named = [item.name for item in parameters if item.kind is item.KEYWORD_ONLY]
    if len(inputs) - count > len(named):
        # What does not fit, the model itself says.
        return tuple(inputs), {}
    return tuple(inputs[:count]), dict(zip(named, inputs[count:], strict=False))
