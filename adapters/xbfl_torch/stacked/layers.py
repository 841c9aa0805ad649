"""Which functions of PyTorch have a rule of their own while a model runs for all participants at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from xbfl_torch.stacked import convolution, embedding, pooling, recurrent
from xbfl_torch.stacked.chains import Chains
from xbfl_torch.stacked.dense import Dense
from xbfl_torch.stacked.dropout import Drawing


@final
class StackedLayers(TorchFunctionMode):
    """Calls rules instead of functions, inside a function that ``vmap`` runs for every participant.

    Args:
        count: How many examples of this participant's batch count, a scalar that ``vmap`` holds for all of them.
        dense: How dense layers compute.
        drawing: Draws the masks of dropout.
    """

    def __init__(self, count: torch.Tensor, dense: Dense, drawing: Drawing) -> None:
        super().__init__()
        self._count = count
        self._rules: Mapping[Any, Callable[..., Any]] = {
            functional.linear: dense.linear,
            torch.conv2d: convolution.conv2d,
            functional.adaptive_avg_pool2d: pooling.adaptive_avg_pool2d,
            functional.embedding: embedding.embedding,
            torch.embedding: embedding.looked_up,
            torch.lstm: recurrent.lstm,
            torch.gru: recurrent.gru,
            torch.rnn_tanh: recurrent.rnn_tanh,
            torch.rnn_relu: recurrent.rnn_relu,
            **Chains().rules,
            **drawing.rules,
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make a call, by its rule if it has one that can make it."""
        del types
        kwargs = kwargs or {}
        rule = self._rules.get(func)
        found = NotImplemented if rule is None else rule(self._count, *args, **kwargs)
        return func(*args, **kwargs) if found is NotImplemented else found
