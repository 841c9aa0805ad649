"""A module in half precision computes in float32: master weights stand in for its own while the toolkit computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch.amp.autocast_mode import autocast
from torch.overrides import TorchFunctionMode

from xbackend_fl.adapter.contract import Array
from xbackend_fl.canonical.dtypes import HALVES, check_fits, coarsest, widened

_HALVES = frozenset(getattr(torch, name) for name in HALVES)
_BITS = torch.int16

_Put: TypeAlias = Callable[[torch.Tensor], None]


@dataclass
class _MasterWeight:
    """A tensor in half precision, its master, and what finds or puts a tensor where the module has it."""

    own: torch.Tensor
    master: torch.Tensor
    get: Callable[[], torch.Tensor]
    put: list[_Put]


@final
class Masters:
    """The float32 numbers behind the half-precision tensors of a module.

    A master holds as long as the module holds its rounding; where the module holds something else, somebody else has
    written it, and that is what counts from then on.

    Args:
        model: The module. It is itself again, with the rounding of its masters, whenever nothing computes.

    Attributes:
        dtypes: NumPy dtype names of its parameters and buffers in half precision, by name.
        computes: Dtypes of ``torch.autocast`` in the module's code, as far as it ran: that computes in float32 here.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.computes: set[str] = set()
        self._inside = False
        self._held: dict[int, _MasterWeight] = {}
        self._names: dict[str, _MasterWeight] = {}
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                if _is_half(parameter):
                    self._hold(
                        parameter, partial(getattr, parameter, "data"), partial(setattr, parameter, "data")
                    )
            # Buffers, and tensors that nobody registered.
            for places in (module._buffers, vars(module)):  # noqa: SLF001
                for key, tensor in places.items():
                    if isinstance(tensor, torch.Tensor) and _is_half(tensor):
                        get: Any = partial(places.__getitem__, key)
                        self._hold(tensor, get, partial(places.__setitem__, key))
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if id(tensor) in self._held:
                self._names[name] = self._held[id(tensor)]
        self.dtypes = {name: _dtype_name(held.own) for name, held in self._names.items()}

    def _hold(self, tensor: torch.Tensor, get: Callable[[], torch.Tensor], put: _Put) -> None:
        held = self._held.get(id(tensor))
        if held is None:
            own = tensor.data if isinstance(tensor, torch.nn.Parameter) else tensor
            self._held[id(tensor)] = _MasterWeight(own, own.detach().float(), get, [put])
        elif not isinstance(tensor, torch.nn.Parameter):
            held.put.append(put)

    def __bool__(self) -> bool:
        return bool(self._held)

    @property
    def precision(self) -> str:
        """NumPy dtype name of the coarsest numbers that the module itself computes with."""
        return coarsest({*self.dtypes.values(), *self.computes})

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The module computes in float32 inside, with its masters; afterwards it holds their rounding.

        May be nested. Its parameters are the same objects inside; its buffers are others.
        """
        if self._inside:
            yield
            return
        with ExitStack() as stack:
            stack.enter_context(self._without_autocast())
            stack.callback(self._leave)
            self._enter()
            if self._held:
                stack.enter_context(_HalvesAsFloats(self))
            yield

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Within :meth:`inside`, the module as it is by itself, with the rounding of its masters."""
        self._leave()
        try:
            yield
        finally:
            self._enter()

    @property
    def active(self) -> bool:
        """Whether the module computes with its masters now."""
        return self._inside

    def put_bits(self, name: str, array: Array) -> bool:
        """Give a tensor these bits, if it is of their dtype; its master is what they are.

        Args:
            name: A parameter or buffer.
            array: Numbers in half precision.
        """
        held = self._names.get(name)
        if held is None or _dtype_name(held.own) != array.dtype.name:
            return False
        with torch.no_grad():
            held.own.view(_BITS).copy_(torch.from_numpy(array.view("int16")))
            self._tensor(held).copy_(torch.from_numpy(widened(array)))
        return True

    def cover(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether these are the module's tensors whose masters stand here, and no other is in half precision.

        Args:
            tensors: Its parameters and buffers by name, when nothing computes.
        """
        halves = {name: tensor.data_ptr() for name, tensor in tensors.items() if _is_half(tensor)}
        return halves == {name: held.own.data_ptr() for name, held in self._names.items()}

    def check_range(self) -> None:
        """Refuse masters that their own tensors cannot hold.

        Raises:
            RefusedInput: A finite one would become infinite.
        """
        for name, held in self._names.items():
            master = self._tensor(held)
            largest = master.detach().abs().amax().cpu().numpy() if master.numel() else np.zeros(())
            check_fits(name, _dtype_name(held.own), largest)

    def _tensor(self, held: _MasterWeight) -> torch.Tensor:
        return held.get() if self._inside else held.master

    @torch.no_grad()
    def _enter(self) -> None:
        for held in self._held.values():
            rounded = held.master.to(held.own.dtype)
            if not _same_bits(rounded, held.own):
                held.master.copy_(held.own)
            for put in held.put:
                put(held.master)
        self._inside = True

    @torch.no_grad()
    def _leave(self) -> None:
        self._inside = False
        for held in self._held.values():
            # A module may have put another tensor in a buffer's place, and a device another one in all places.
            held.master = held.get()
            rounded = held.master.to(held.own.dtype)
            if not _same_bits(rounded, held.own):
                # What is no number keeps its bits.
                held.own.copy_(torch.where(rounded.isnan() & held.own.isnan(), held.own, rounded))
            for put in held.put:
                put(held.own)

    @contextmanager
    def _without_autocast(self) -> Iterator[None]:
        """``torch.autocast`` does nothing inside; what it would have computed in is noted."""
        enter: Any = autocast.__enter__
        leave: Any = autocast.__exit__

        def entered(block: Any) -> Any:
            if not self._inside:
                return enter(block)
            if block._enabled:  # noqa: SLF001  nothing else says so
                self.computes.add(str(block.fast_dtype).removeprefix("torch."))
            return block

        def left(block: Any, *error: Any) -> Any:
            return None if self._inside else leave(block, *error)

        autocast.__enter__, autocast.__exit__ = entered, left  # type: ignore[method-assign]
        try:
            yield
        finally:
            autocast.__enter__, autocast.__exit__ = enter, leave  # type: ignore[method-assign]


class _HalvesAsFloats(TorchFunctionMode):
    """Code that asks for half precision by name gets float32, as the weights that it meets are."""

    def __init__(self, masters: Masters) -> None:
        super().__init__()
        self._masters = masters

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        if not self._masters.active:
            return func(*args, **(kwargs or {}))
        if func in (torch.Tensor.half, torch.Tensor.bfloat16):
            func = torch.Tensor.float
        return func(*map(_wide, args), **{key: _wide(item) for key, item in (kwargs or {}).items()})


def _wide(item: Any) -> Any:
    return torch.float32 if isinstance(item, torch.dtype) and item in _HALVES else item


def _is_half(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one of half precision that is all there."""
    lazy: bool = torch.nn.parameter.is_lazy(tensor)
    return tensor.dtype in _HALVES and tensor.layout == torch.strided and not lazy


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _same_bits(one: torch.Tensor, two: torch.Tensor) -> bool:
    return torch.equal(one.view(_BITS), two.view(_BITS))
