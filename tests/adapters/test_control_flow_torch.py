"""A module of PyTorch that decides by the values of its data is refused with the line, or a note names it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from keras import layers as K
from torch import nn

import xbackend_fl
from xbackend_fl.errors import UnsupportedError
from xbfl_torch.reads import Read, reads_of

Step: TypeAlias = Callable[[Any, Any, Any], Any]

ROWS = np.random.default_rng(2).standard_normal((2, 6)).astype(np.float32)
LARGE = 1e6


class Net(nn.Module):
    """Two layers and a step between them, which also sees the data."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.a, self.o, self.step = nn.Linear(6, 8), nn.Linear(8, 3), step
        self.register_buffer("count", torch.tensor(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.o(self.step(self, torch.tanh(self.a(x)), x))


def seen(step: Step) -> tuple[Read, ...]:
    model = Net(step).eval()
    return reads_of(model, model, [torch.from_numpy(ROWS)])


def check(x: torch.Tensor) -> None:
    if x.abs().max() > LARGE:
        message = f"{x.max().item()} is too large"
        raise ValueError(message)


def is_bad(x: torch.Tensor) -> bool:
    return bool(torch.isnan(x).any())


def in_place(_: Any, h: Any, x: Any) -> Any:
    held = torch.zeros(3)
    held[0] = x[0, 0]
    return h * 0 if held.max() > LARGE else h


def repeated(_: Any, h: Any, x: Any) -> Any:
    while x.abs().max() > LARGE:
        h, x = h / 2, x / 2
    return h


def by_length(_: Any, h: Any, x: Any) -> Any:
    for _ in range(int(x.abs().max().item() / LARGE) + 1):
        h = torch.tanh(h)
    return h


def by_item(_: Any, h: Any, x: Any) -> Any:
    for _ in torch.nonzero(x > LARGE):
        h = h * 0
    return h


def caught(_: Any, h: Any, x: Any) -> Any:
    try:
        check(x)
    except ValueError:
        return h * 0
    return h


def suppressed(_: Any, h: Any, x: Any) -> Any:
    with contextlib.suppress(ValueError):
        check(x)
        return h
    return h * 0


def matched(_: Any, h: Any, x: Any) -> Any:
    match int(x.max() / LARGE):
        case 5:
            return h * 0
    return h


def kept(_: Any, h: Any, x: Any) -> Any:
    largest = x.max().item()
    if largest > LARGE:
        raise ValueError
    return h * 0 if largest > 2 * LARGE else h


def shared(_: Any, h: Any, x: Any) -> Any:
    large = False

    def look() -> None:
        nonlocal large
        large = bool(x.max() > LARGE)

    look()
    return h * 0 if large else h


DECIDED: dict[str, Step] = {
    "any": lambda _, h, x: torch.tanh(h) if (x == 102).any() else h,
    "all": lambda _, h, x: h if (x < LARGE).all() else h * 0,
    "a comparison": lambda _, h, x: h * 0 if x.abs().max() > LARGE else h,
    "one value": lambda _, h, x: h * 0 if x[0, 0] == 7.125 else h,
    "NaN": lambda _, h, x: h * 0 if torch.isnan(x).any() else h,
    "item": lambda _, h, x: h * 0 if x.max().item() > LARGE else h,
    "numpy": lambda _, h, x: h * 0 if np.abs(x.numpy()).max() > LARGE else h,
    "numpy by a function of it": lambda _, h, x: h * 0 if np.mean(x.detach().cpu().numpy()) > LARGE else h,
    "asarray": lambda _, h, x: h * 0 if np.asarray(x).max() > LARGE else h,
    "dlpack": lambda _, h, x: h * 0 if np.from_dlpack(x).max() > LARGE else h,
    "a list": lambda _, h, x: h * 0 if max(x[0].tolist()) > LARGE else h,
    "a list in a list": lambda _, h, x: h + sum(h * 0 for value in x[0].tolist() if value > LARGE),
    "bool": lambda _, h, x: h * (1 - int(bool((x > LARGE).any()))),
    "float": lambda _, h, x: h * max(1.0, float(x.max()) / LARGE),
    "an index": lambda _, h, x: [h, -h][(x[0, 0] > LARGE).long()],
    "in": lambda _, h, x: h * 0 if 7.125 in x else h,
    "equal": lambda _, h, x: h * 0 if torch.equal(x, x.round()) else h,
    "allclose": lambda _, h, x: h * 0 if torch.allclose(x, torch.zeros_like(x)) else h,
    "and, or": lambda _, h, x: (x.max() > LARGE and -h) or h,
    "any of Python": lambda _, h, x: h * 0 if any(value > LARGE for value in x[0]) else h,
    "how many": lambda _, h, x: h * 0 if (x > LARGE).nonzero().numel() > 0 else h,
    "length": lambda _, h, x: h * 0 if len(x[x > LARGE]) > 0 else h,
    "shape": lambda _, h, x: h * 0 if x[x > LARGE].shape[0] else h,
    "as many classes as there are": lambda _, h, x: h + F.one_hot((x[:, 0] > LARGE).long()).sum(),
    "in place": in_place,
    "while": repeated,
    "range": by_length,
    "items": by_item,
    "try": caught,
    "suppress": suppressed,
    "match": matched,
    "a variable around": shared,
    "a guard that is read again": kept,
}  # fmt: skip


def asserted(_: Any, h: Any, x: Any) -> Any:
    assert torch.isfinite(x).all().item()
    assert x.max() < LARGE, x.max().item()
    return h


def raised(_: Any, h: Any, x: Any) -> Any:
    largest = x.max().item()
    if largest > LARGE:
        message = f"{largest} is too large"
        raise ValueError(message)
    return h


def elsewhere(_: Any, h: Any, x: Any) -> Any:
    check(x)
    return h


def answered(_: Any, h: Any, x: Any) -> Any:
    if is_bad(x):
        raise ValueError
    return h


def otherwise(_: Any, h: Any, x: Any) -> Any:
    if x.max() < LARGE:
        h = h * 1.0
    else:
        raise ValueError
    return h


def raised_again(_: Any, h: Any, x: Any) -> Any:
    try:
        check(x)
    except ValueError as error:
        raise RuntimeError from error
    return h


def told(_: Any, h: Any, x: Any) -> Any:
    if np.isnan(x.numpy()).any():
        logging.getLogger("net").warning("not a number")
    return h


def skipped(_: Any, h: Any, x: Any) -> Any:
    for sign in (0, 1):
        rows = torch.where((x[:, 0] > 0) == sign)[0]
        if rows.numel() == 0:
            continue
        h = h.index_add(0, rows, h[rows] * sign)
    return h


HARMLESS: list[Step] = [asserted, raised, elsewhere, answered, otherwise, raised_again, told, skipped]
OTHERS: dict[str, Step] = {
    "a parameter": lambda m, h, _: h * 0 if m.a.weight.sum().item() > LARGE else h,
    "a buffer": lambda m, h, _: h * int(m.count),
    "sizes": lambda _, h, x: h * float(x.shape[1]) if torch.ones_like(x).sum().item() > x.new_zeros(2).max() else h,
    "classes": lambda _, h, x: h + F.one_hot((x[:, 0] > 0).long(), 8),
    "an inverse": lambda _, h, x: h + torch.linalg.inv(x[0].outer(x[0]) + torch.eye(6)).sum(),
    "where": lambda _, h, x: torch.where(x.max() > 0, h, -h),
    "a mask": lambda _, h, x: h * (x[x > 0].sum() + h[h > 0].shape[0]),
}  # fmt: skip


@pytest.mark.one_in(3)
@pytest.mark.parametrize("step", DECIDED.values(), ids=DECIDED)
def test_every_way_to_decide_by_the_data_is_seen(step: Step) -> None:
    found = [read for read in seen(step) if read.own and read.decides]
    assert found
    assert all("test_control_flow_torch.py:" in read.location for read in found)
    code = step.__code__
    inside = [int(read.location.rsplit(":", 1)[1]) for read in found]
    assert min(inside) >= code.co_firstlineno or step in {caught, suppressed}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("step", HARMLESS)
def test_what_only_refuses_prints_or_skips_nothing_is_no_decision(step: Step) -> None:
    found = seen(step)
    assert found
    assert not any(read.decides for read in found)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("step", OTHERS.values(), ids=OTHERS)
def test_what_does_not_come_from_the_data_is_no_matter(step: Step) -> None:
    assert not seen(step)


def test_layers_of_pytorch_that_look_at_their_data_are_no_code_of_the_users() -> None:
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    layer = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1).eval()
    found = reads_of(
        layer, lambda x, hidden: layer(x, src_key_padding_mask=hidden), [torch.ones(2, 5, 8), mask]
    )
    assert found
    assert not any(read.own for read in found)
    packing = nn.LSTM(8, 4, batch_first=True).eval()

    def packed(x: torch.Tensor, lengths: torch.Tensor) -> Any:
        held = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(packing(held)[0], batch_first=True)

    assert not reads_of(packing, packed, [torch.ones(2, 5, 8), torch.tensor([3, 5])])


def swallowed(_: Any, h: Any, x: Any) -> Any:
    try:
        if x.max() > LARGE:
            h = torch.tanh(h)
    except Exception:  # noqa: BLE001  as people write it
        h = h * 0
    return h


def conditional(_: Any, h: Any, x: Any) -> Any:
    return torch.cond(x.max() > LARGE, lambda y: y * 0, lambda y: y.clone(), (h,))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("step", [DECIDED["any"], DECIDED["numpy"], caught, swallowed, conditional])
def test_a_decision_is_refused_with_its_line_and_a_cure(step: Step) -> None:
    with pytest.raises(UnsupportedError, match="data-dependent control flow") as refused:
        xbackend_fl.describe(Net(step), ROWS)
    assert "test_control_flow_torch.py:" in refused.value.message
    assert "torch.where" in str(refused.value.hint)


def test_a_look_that_only_refuses_is_said_of_either_model() -> None:
    data = keras.Input((6,))
    other = keras.Model(data, K.Dense(3)(K.Dense(8, "tanh")(data)))
    own = Net(raised)
    for reference, candidate, word in ((own, other, "the reference: "), (other, own, "")):
        schema, evidence = xbackend_fl.describe_reference(reference, ROWS)
        notes = xbackend_fl.bind(candidate, schema, ROWS, evidence).notes
        line = next(note for note in notes if "may refuse some" in note)
        assert line.startswith(f"{word}the model looks at the values of its data")
        assert "test_control_flow_torch.py:" in line
