"""How a module is called with the arrays of an example."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from xbackend_fl.adapter.axes import Declared
from xbackend_fl.adapter.calling import Parameters, Way, first_taken, likeliest, not_callable
from xbackend_fl.adapter.contract import Array
from xbackend_fl.adapter.structure import Given
from xbfl_torch.modes import evaluation_mode
from xbfl_torch.preserve import modules_kept


def chosen_way(model: torch.nn.Module, given: Given, batch: Sequence[Array], declared: Declared) -> Way:
    """The likeliest way to call a module that it takes.

    Args:
        model: The module.
        given: The example.
        batch: Two examples, in the order and the layout of the example.
        declared: What the user says about the order of axes.

    Raises:
        UnsupportedError: There are more or fewer inputs than it takes, or it takes containers and none of these.
    """
    what, parameters = f"forward of {type(model).__name__}", Parameters.from_function(model.forward)
    return first_taken(
        likeliest(what, parameters, given),
        lambda way: _raised(model, way, batch, declared),
        lambda failed: not_callable(what, parameters, failed),
    )


def _raised(
    model: torch.nn.Module, way: Way, batch: Sequence[Array], declared: Declared
) -> BaseException | None:
    with evaluation_mode(model), modules_kept(model), torch.no_grad():
        try:
            own, _ = tensors_in_own_order(way, batch, declared)
            way.call(model, own)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  a model may raise anything
            return error
    return None


def tensors_in_own_order(
    way: Way, batch: Sequence[Array], declared: Declared
) -> tuple[list[torch.Tensor], list[tuple[int, ...] | None]]:
    """Examples as tensors in the module's own order of inputs and axes, and the orders that were declared."""
    own = way.own(batch)
    told = [declared.input(index, array.ndim) for index, array in enumerate(own)]
    turned = [
        array if order is None else array.transpose(order) for order, array in zip(told, own, strict=True)
    ]
    return [torch.from_numpy(array.copy()) for array in turned], told


@contextmanager
def called_flat(model: torch.nn.Module, way: Way, names: Sequence[str]) -> Iterator[None]:
    """Inside, a module takes its inputs one by one, whatever containers it takes them in."""
    if way.plain and not way.options:
        yield
        return
    original, own = model.forward, vars(model).get("forward")

    def forward(*inputs: torch.Tensor) -> Any:
        return way.call(original, inputs)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    words = [name if name.isidentifier() else f"input_{index}" for index, name in enumerate(names)]
    forward.__signature__ = inspect.Signature([inspect.Parameter(word, kind) for word in words])  # type: ignore[attr-defined]
    model.forward = forward
    try:
        yield
    finally:
        if own is None:
            del model.forward
        else:
            model.forward = own
