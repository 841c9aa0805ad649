"""Undoes what calls of a module do to its tensors, without a copy of those that no call changes."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import numpy as np
import torch
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def undone(model: torch.nn.Module) -> Iterator[None]:
    """Tensors of a model and generators are afterwards as they were before.

    Buffers are copied, for they are small and some kernels move statistics without saying so; parameters only where an operation is
    about to write to one, so that a model which fits into memory once can be called.
    """
    buffers = dict(model.named_buffers())
    before = {name: tensor.detach().clone() for name, tensor in buffers.items()}
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    kept = _Kept(dict(model.named_parameters()))
    try:
        with torch.random.fork_rng(devices=[]), kept:
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        with torch.no_grad():
            kept.bring_back()
            for name, value in before.items():
                if not torch.equal(buffers[name], value):
                    buffers[name].copy_(value)


@final
class _Kept(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation before it runs, and keeps the tensors that it says it writes to."""

    supports_higher_order_operators = True

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sharing: dict[int, list[torch.Tensor]] = defaultdict(list)
        for tensor in tensors.values():
            self._sharing[_place(tensor)].append(tensor)
        self._values: list[tuple[torch.Tensor, torch.Tensor]] = []

    def bring_back(self) -> None:
        """Give the tensors that were kept their values again."""
        for tensor, value in self._values:
            tensor.copy_(value)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Keep what the operation overwrites, and run it."""
        del types
        given = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            # Their branches and bodies write to nothing.
            return func(*args, **given)
        for place, argument in enumerate(func._schema.arguments):  # noqa: SLF001  the only account of what is written
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = args[place] if place < len(args) else given.get(argument.name)
                for tensor in _tensors(written):
                    self._keep(tensor)
        return func(*args, **given)

    def _keep(self, written: torch.Tensor) -> None:
        for tensor in self._sharing.pop(_place(written), ()):
            self._values.append((tensor, tensor.detach().clone()))


def _tensors(written: object) -> Iterable[torch.Tensor]:
    if isinstance(written, torch.Tensor):
        return (written,)
    return [item for item in written if isinstance(item, torch.Tensor)] if isinstance(written, list) else ()


def _place(tensor: torch.Tensor) -> int:
    """What tensors that share memory have in common."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001  a pointer to the memory would be None where there is none
