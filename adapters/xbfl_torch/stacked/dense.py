"""Dense layers: each participant's own weight, or one weight for all and what every participant added to it.

After some steps of SGD a weight is ``W + rows.T @ columns``: one row and one column for every example of every step. While these are few,
nobody needs a weight of its own: all participants share one large product with ``W``, and the rest is thin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch.nn import functional

from xbfl_torch.stacked import devices
from xbfl_torch.stacked.lifting import lifted
from xbfl_torch.stacked.outer import MAX_ROWS, Outer, Seen, squared_norms


@final
@dataclass(eq=False)
class Additions:
    """What the participants have added to one weight so far.

    Attributes:
        weight: What all of them began with, ``[out, in]``.
        rows: Gradients of outputs times the negative learning rate, ``[room, out]``: step after step, in each participant after participant.
        columns: Inputs, ``[room, in]``.
        starts: First row of every step, ``[steps]``.
        number: Steps so far, ``[1]``.
        batch: Rows of a participant's step.
        largest: Of the magnitudes of each output's weights, ``[out]``, and of each input's, ``[in]``.
        anchor: What autograd differentiates for, so that it comes by where neither bias nor inputs train.
        seen: Gradient of outputs and inputs of the step that is being made, ``[participants, batch, ...]``.
    """

    weight: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    starts: torch.Tensor
    number: torch.Tensor
    batch: int
    largest: tuple[torch.Tensor, torch.Tensor]
    anchor: torch.Tensor
    seen: Seen | None = None

    def begin(self) -> None:
        """Look at the weight, which has been written anew."""
        if devices.kernels("shared", self.weight) is None:
            return
        for axis, found in zip((1, 0), self.largest, strict=True):
            torch.linalg.vector_norm(self.weight, torch.inf, axis, out=found)

    def forward(self, value: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """``value [participants, batch, in] @ weight.T + bias``, with each one's own weight."""
        return self._product(value, self.weight, self.largest[0], bias, self.columns, self.rows)

    def backward(self, grad: torch.Tensor) -> torch.Tensor:
        """``grad [participants, batch, out] @ weight``, with each one's own weight."""
        return self._product(grad, self.weight.t(), self.largest[1], None, self.rows, self.columns)

    def squared_norms(self) -> torch.Tensor:
        """Of the gradients of this step, ``[participants]``."""
        assert self.seen is not None
        return squared_norms(self.seen)

    def remember(self, scales: torch.Tensor | None, active: torch.Tensor, lr: torch.Tensor) -> None:
        """Take this step, of those that are active."""
        assert self.seen is not None
        left, right = self.seen
        self.seen = None
        kernels = devices.kernels("dense", left)
        if kernels is not None:
            kernels.remember(self.rows, self.columns, left, right, scales, active, lr, self._past(kernels))
            return
        count = int(active.sum()) * self.batch
        begin = int(self.starts[self.number])
        scaled = left if scales is None else left * scales[:, None, None]
        self.rows[begin : begin + count] = scaled.flatten(0, 1)[:count] * -lr
        self.columns[begin : begin + count] = right.flatten(0, 1)[:count]

    def change(self, weights: torch.Tensor, good: torch.Tensor, result: torch.Tensor) -> None:
        """Add ``rows.T @ columns`` of all participants to ``result``, rows times ``weights [rows in use]`` where ``good``.

        Neither rows nor columns mean anything afterwards, until they are remembered anew.
        """
        used = len(weights)
        rows, columns = self.rows[:used], self.columns[:used]
        kernels = self._parted()
        if kernels is not None and used >= kernels.LEAST:
            kernels.add_product(result, rows, columns, weights, good)
            return
        rows.masked_fill_(~good[:, None], 0.0).mul_(weights[:, None])
        columns.masked_fill_(~good[:, None], 0.0)
        result.addmm_(rows.t(), columns)

    def rehearse(self, result: torch.Tensor) -> None:
        """Launch the kernels of :meth:`change`, however few rows there is room for."""
        kernels = self._parted()
        if kernels is not None:
            weights = torch.zeros_like(self.rows[:, 0])
            kernels.add_product(result, self.rows, self.columns, weights, weights > 0)

    def add_to(self, weight: torch.Tensor, places: torch.Tensor) -> None:
        """Add ``rows.T @ columns`` of some rows to a weight, before any :meth:`change` of the same steps."""
        weight.addmm_(self.rows[places].t(), self.columns[places])

    def finite(self, used: int) -> torch.Tensor:
        """Whether each of the rows in use is finite."""
        return torch.isfinite(self.rows[:used].sum(1)) & torch.isfinite(self.columns[:used].sum(1))

    def _product(
        self,
        left: torch.Tensor,
        weight: torch.Tensor,
        largest: torch.Tensor,
        bias: torch.Tensor | None,
        near: torch.Tensor,
        far: torch.Tensor,
    ) -> torch.Tensor:
        kernels = devices.kernels("dense", left)
        if kernels is not None:
            parts = devices.kernels("shared", left).product(left.flatten(0, 1), weight, largest)  # type: ignore[union-attr]
            return kernels.add_past(parts, devices.lined_up(bias), left, near, far, self._past(kernels))  # type: ignore[no-any-return]
        result = (left.flatten(0, 1) @ weight.t()).view(*left.shape[:2], -1)
        if bias is not None:
            result += bias[:, None]
        steps, count = int(self.number), len(left)
        if not steps:
            return result
        own = torch.arange(count * self.batch).reshape(count, 1, self.batch) + self.starts[:steps, None]
        own = own.flatten(1)
        return torch.baddbmm(result, torch.bmm(left, near[own].transpose(1, 2)), far[own])

    def _parted(self) -> Any | None:
        kernels = devices.kernels("parted", self.weight)
        return kernels if kernels is not None and kernels.takes(*self.weight.shape) else None

    def _past(self, kernels: Any) -> Any:
        return kernels.Past(self.starts, self.number, len(self.starts) * self.batch)


@final
class Dense:
    """How dense layers compute.

    Args:
        additions: Of the weights that all participants share, by name.
        outer: Weights of everybody's own that step by what their layer saw.
    """

    def __init__(self, additions: Mapping[str, Additions], outer: Sequence[Outer] = ()) -> None:
        self.additions = additions
        self._by_weight = {id(item.weight): item for item in additions.values()}
        self._by_place = {item.weights.data_ptr(): item for item in outer}
        self._all: tuple[Additions | Outer, ...] = (*additions.values(), *outer)

    @property
    def anchors(self) -> list[torch.Tensor]:
        """What autograd differentiates for beside what trains."""
        return [item.anchor for item in self._all]

    @property
    def called(self) -> list[Additions | Outer]:
        """Those whose layer was called since they stepped."""
        return [item for item in self._all if item.seen is not None]

    def linear(
        self, count: torch.Tensor, value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> Any:
        """``functional.linear`` of one participant."""
        found = self._by_weight.get(id(weight))
        if found is None:
            return lifted(self._own, count, value, weight, bias)
        return lifted(_shared, count, value, bias, found)

    def _own(
        self, _: Any, value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """``value [participants, ..., in] @ weight.transpose(1, 2) + bias``."""
        found = self._by_place.get(weight.data_ptr())
        if found is None or found.weights.shape[1:] != weight.shape[1:]:
            return _products(value, weight, bias)
        rows = value[0].numel() // value.shape[-1]
        if rows > MAX_ROWS:
            raise NotImplementedError(f"{rows} rows of a step, of {MAX_ROWS} at most")
        return _known(value, bias, found)


def few_enough(shape: torch.Size, rows: int) -> bool:
    """Whether rows and columns of so many examples are cheaper than a weight of this shape for every participant."""
    return len(shape) == 2 and 2 * rows <= min(shape)


def _products(value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if weight.stride(0) == 0:
        result = functional.linear(value, weight[0])
        return result if bias is None else result + bias.reshape(len(bias), *[1] * (value.ndim - 2), -1)
    flat, turned = value.reshape(len(value), -1, value.shape[-1]), weight.transpose(1, 2)
    result = torch.bmm(flat, turned) if bias is None else torch.baddbmm(bias[:, None], flat, turned)
    return result.reshape(*value.shape[:-1], weight.shape[1])


def _shared(_: Any, value: torch.Tensor, bias: torch.Tensor | None, additions: Additions) -> torch.Tensor:
    rows = value[0].numel() // value.shape[-1]
    if rows != additions.batch:
        raise NotImplementedError(f"{rows} rows of {additions.batch} examples")
    return _known(value, bias, additions)


def _known(value: torch.Tensor, bias: torch.Tensor | None, item: Additions | Outer) -> torch.Tensor:
    """The product with a weight that steps by what its layer saw."""
    flat = value.reshape(len(value), -1, value.shape[-1])
    result: torch.Tensor = _Known.apply(flat, bias, item.anchor, item)  # type: ignore[no-untyped-call]
    return result.reshape(*value.shape[:-1], -1)


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any, bias: Any, _: Any, item: Additions | Outer) -> Any:
        value = value.contiguous()
        ctx.save_for_backward(value)
        ctx.item = item
        return item.forward(value, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (value,) = ctx.saved_tensors
        grad, item = grads[0].contiguous(), ctx.item
        item.seen = grad, value
        below = item.backward(grad) if ctx.needs_input_grad[0] else None
        return below, grad.sum(1) if ctx.needs_input_grad[1] else None, None, None


def additions_of(
    weights: Mapping[str, torch.Tensor], steps: int, room: int, batch: int, number: torch.Tensor
) -> dict[str, Additions]:
    """Memory for what participants will add to the weights that they share: ``room`` rows of examples."""
    starts = torch.zeros(steps, dtype=torch.int64, device=number.device)
    return {
        name: Additions(
            weight,
            weight.new_zeros(room, len(weight)),
            weight.new_zeros(room, weight.shape[1]),
            starts,
            number,
            batch,
            (weight.new_zeros(len(weight)), weight.new_zeros(weight.shape[1])),
            weight.new_zeros(()).requires_grad_(),
        )
        for name, weight in weights.items()
    }
