"""Recurrent layers, a step of time at a time for all participants; ``vmap`` cannot run those of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from xbfl_torch.stacked import devices
from xbfl_torch.stacked.lifting import lifted

Run: TypeAlias = Callable[..., tuple[torch.Tensor, tuple[torch.Tensor, ...]]]
"""One layer in one direction: of ``value [time, batch, in]``, its weights and its first states to outputs and last states."""


def lstm(count: torch.Tensor, *arguments: Any) -> Any:
    """``torch.lstm`` of one participant."""
    return _layers(count, _lstm, 2, arguments)


def gru(count: torch.Tensor, *arguments: Any) -> Any:
    """``torch.gru`` of one participant."""
    return _layers(count, _over_time(_gru_step), 1, arguments)


def rnn_tanh(count: torch.Tensor, *arguments: Any) -> Any:
    """``torch.rnn_tanh`` of one participant."""
    return _layers(count, _over_time(lambda gate, own, _: torch.tanh(gate + own)), 1, arguments)


def rnn_relu(count: torch.Tensor, *arguments: Any) -> Any:
    """``torch.rnn_relu`` of one participant."""
    return _layers(count, _over_time(lambda gate, own, _: torch.relu(gate + own)), 1, arguments)


def _layers(count: torch.Tensor, run: Run, states: int, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(arguments[3], bool):
        # Sequences of several lengths, packed.
        return NotImplemented
    value, first, weights, biased, layers, dropout, train, both, batch_first = arguments
    directions = 2 if both else 1
    of_each = len(weights) // (layers * directions)
    if of_each != (4 if biased else 2) or (dropout and train):
        return NotImplemented
    first = first if isinstance(first, list | tuple) else (first,)
    value = value.transpose(0, 1) if batch_first else value
    last: list[tuple[torch.Tensor, ...]] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            row = layer * directions + direction
            own = [*weights[row * of_each : (row + 1) * of_each], None, None][:4]
            turned = value.flip(0) if direction else value
            output, ends = run(count, turned, own, [state[row] for state in first])
            outputs.append(output.flip(0) if direction else output)
            last.append(ends)
        value = torch.cat(outputs, -1) if both else outputs[0]
    ends = tuple(torch.stack([states_[index] for states_ in last]) for index in range(states))
    return (value.transpose(0, 1) if batch_first else value), *ends


def _product(count: torch.Tensor, value: torch.Tensor, weight: torch.Tensor, bias: Any) -> torch.Tensor:
    """``value [time, batch, in] @ weight.t() + bias`` of one participant."""
    return lifted(_stacked_product, count, value, weight, bias)


def _stacked_product(_: Any, value: torch.Tensor, weight: torch.Tensor, bias: Any) -> torch.Tensor:
    flat, turned = value.flatten(1, 2), weight.transpose(1, 2)
    result = torch.bmm(flat, turned) if bias is None else torch.baddbmm(bias[:, None], flat, turned)
    return result.view(*value.shape[:3], -1)


def _lstm(
    count: torch.Tensor,
    value: torch.Tensor,
    weights: Sequence[torch.Tensor | None],
    first: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    of_input, of_state, bias, other = weights
    assert of_input is not None
    gates = _product(count, value, of_input, None if bias is None or other is None else bias + other)
    whole = lifted(_lstm_states, count, gates, of_state, *first)
    return whole[:-1], (whole[-2], whole[-1])


def _lstm_states(
    _: Any, gates: torch.Tensor, weight: torch.Tensor, state: torch.Tensor, cell: torch.Tensor
) -> torch.Tensor:
    """States after every step of time and the last cell, ``[participants, time + 1, batch, hidden]``."""
    result: torch.Tensor = _Lstm.apply(gates, weight, state, cell)  # type: ignore[no-untyped-call]
    return result


class _Lstm(torch.autograd.Function):
    """Gates are ``[participants, time, batch, 4 * hidden]``: input, forget, cell and output."""

    @staticmethod
    def forward(ctx: Any, gates: Any, weight: Any, state: Any, cell: Any) -> Any:
        count, time, batch, width = gates.shape
        hidden = width // 4
        # The step of time comes first, so that each is one block of memory.
        acts = gates.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        states = gates.new_empty(time + 1, count, batch, hidden)
        cells = gates.new_empty(time + 1, count, batch, hidden)
        states[0], cells[0] = state, cell
        kernels = _kernels(cell)
        weight = weight if weight[0].is_contiguous() else weight.contiguous()
        for step in range(time):
            now, after = (states[step], cells[step]), (states[step + 1], cells[step + 1])
            if kernels is not None:
                kernels.forward(acts[step], weight, *now, *after)
            else:
                torch.baddbmm(acts[step], states[step], weight.transpose(1, 2), out=acts[step])
                _forward(acts[step], cells[step], *after)
        ctx.kernels = kernels
        ctx.save_for_backward(acts, states, cells, weight)
        return torch.cat([states[1:], cells[-1:]]).transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        acts, states, cells, weight = ctx.saved_tensors
        time, count, batch, width = acts.shape
        above = grads[0].transpose(0, 1).contiguous()
        below = torch.empty_like(acts)
        d_cell = above[-1].clone()
        d_state = torch.zeros_like(d_cell)
        for step in reversed(range(time)):
            known = acts[step], cells[step], cells[step + 1], above[step]
            if ctx.kernels is not None:
                ctx.kernels.backward(*known, d_state, d_cell, below[step])
                ctx.kernels.below(below[step], weight, d_state)
            else:
                _backward(*known, d_state, d_cell, below[step])
                torch.bmm(below[step], weight, out=d_state)
        flat = below.transpose(0, 1).reshape(count, time * batch, width)
        before = states[:-1].transpose(0, 1).reshape(count, time * batch, -1)
        return below.transpose(0, 1), torch.bmm(flat.transpose(1, 2), before), d_state, d_cell


def _kernels(cell: torch.Tensor) -> Any | None:
    kernels = devices.kernels("recurrent", cell)
    return kernels if kernels is not None and kernels.fits(cell.shape[-1], cell.shape[-2]) else None


def _forward(gates: torch.Tensor, cell: torch.Tensor, state: torch.Tensor, after: torch.Tensor) -> None:
    """The elementwise part of a step of time: activates ``gates`` in place, writes the next state and cell."""
    hidden = cell.shape[-1]
    gates[..., : 2 * hidden].sigmoid_()
    gates[..., 2 * hidden : 3 * hidden].tanh_()
    gates[..., 3 * hidden :].sigmoid_()
    i, f, g, o = gates.chunk(4, -1)
    torch.addcmul(i * g, f, cell, out=after)
    torch.mul(o, after.tanh(), out=state)


def _backward(
    gates: torch.Tensor,
    before: torch.Tensor,
    after: torch.Tensor,
    above: torch.Tensor,
    d_state: torch.Tensor,
    d_cell: torch.Tensor,
    below: torch.Tensor,
) -> None:
    """The elementwise part of a step of time backwards: writes the gradient of the gates to ``below`` and that of the earlier cell to ``d_cell``."""
    i, f, g, o = gates.chunk(4, -1)
    shown, grad = after.tanh(), d_state + above
    d_cell.addcmul_(grad * o, 1 - shown * shown)
    d_gates = (
        d_cell * g * i * (1 - i),
        d_cell * before * f * (1 - f),
        d_cell * i * (1 - g * g),
        grad * shown * o * (1 - o),
    )
    torch.cat(d_gates, -1, out=below)
    d_cell.mul_(f)


def _over_time(step: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> Run:
    """A layer whose next state is ``step(what the input gives, what the state gives, the state)``."""

    def run(
        count: torch.Tensor,
        value: torch.Tensor,
        weights: Sequence[torch.Tensor | None],
        first: Sequence[torch.Tensor],
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        of_input, of_state, bias, other = weights
        assert of_input is not None
        assert of_state is not None
        gates, state, found = _product(count, value, of_input, bias), first[0], []
        for gate in gates:
            state = step(gate, _product(count, state[None], of_state, other)[0], state)
            found.append(state)
        return torch.stack(found), (state,)

    return run


def _gru_step(gate: torch.Tensor, own: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    (r, z, n), (hr, hz, hn) = gate.chunk(3, -1), own.chunk(3, -1)
    reset, update = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
    fresh = torch.tanh(n + reset * hn)
    return fresh + update * (state - fresh)
