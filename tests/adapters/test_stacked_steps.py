"""Kernels of stacked steps against PyTorch in float64: products with what was added, losses, dropout, clipping, SGD, recurrent layers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.adapters.triton_place import DEVICE, drawn, error
from xbfl_torch.stacked.dropout import kept, threshold
from xbfl_torch.stacked.kernels import dense, dropout, losses, progress, recurrent, shared, update
from xbfl_torch.stacked.packing import Packing


def multiplied(left: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return shared.product(left, weight, torch.linalg.vector_norm(weight, torch.inf, 1)).sum(0)


def numbers(*values: float, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=DEVICE)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("rows", "ins", "outs"), [(30, 256, 128), (70, 130, 33), (1, 7, 3)])
def test_shared_products(rows: int, ins: int, outs: int, *, turned: bool) -> None:
    left = drawn(rows, ins)
    weight = drawn(ins, outs).t() if turned else drawn(outs, ins)
    assert error(multiplied(left, weight), left.double() @ weight.double().t()) < 1e-6


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("turned", [False, True])
def test_shared_products_of_all_magnitudes(*, turned: bool) -> None:
    """Every number by itself; what is not finite stays with its example."""
    left, weight = drawn(20, 130), drawn(64, 130)
    left[1], left[2], left[3], left[4, ::7] = 0.0, left[2] * 1e-30, left[3] * 1e25, 1e-4
    weight[1], weight[2], weight[3], weight[4, ::5] = 0.0, weight[2] * 1e-30, weight[3] * 1e10, 1e-4
    expected = left.double() @ weight.double().t()
    weight = weight.t().contiguous().t() if turned else weight
    found = multiplied(left, weight)
    apart, magnitudes = (found - expected).abs(), left.double().abs() @ weight.double().abs().t()
    assert bool((apart <= 1e-6 * magnitudes + 1e-45).all())
    left[5, 3], left[6, 100], left[7, 129] = torch.nan, torch.inf, -torch.inf
    beside = multiplied(left, weight)
    good = torch.isfinite(left).all(1)
    assert torch.equal(beside[good], found[good])
    assert not torch.isfinite(beside[~good]).any()


@pytest.mark.parametrize("outs", [64, 3])
def test_a_shared_weight_whose_places_need_more_than_32_bits(outs: int) -> None:
    """Its columns lie so far apart that they span 13 GB, of which a processor touches a few pages."""
    left, values, apart = drawn(5, 96), drawn(outs, 96), 1 << 25
    try:
        held = torch.empty(95 * apart + outs, device=DEVICE)
    except RuntimeError:
        pytest.skip("needs 13 GB")
    weight = held.as_strided((outs, 96), (1, apart))
    weight.copy_(values)
    found = multiplied(left, weight)
    del held, weight
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    assert error(found, left.double() @ values.double().t()) < 1e-6


@pytest.mark.parametrize(("batch", "ins", "outs"), [(5, 130, 40), (17, 33, 70)])
def test_products_with_what_each_one_added(batch: int, ins: int, outs: int) -> None:
    """Three steps of four, three and three participants, of whom one of the last step's waits; rows that weigh nothing add nothing."""
    going = [(True,) * 4, (True,) * 3, (True, False, True)]
    starts, number = numbers(0, 4 * batch, 7 * batch, 0), numbers(0)
    past = dense.Past(starts, number, 4 * batch)
    room, lr = 10 * batch, torch.tensor(0.1, device=DEVICE)
    rows, columns = torch.zeros(room, outs, device=DEVICE), torch.full((room, ins), 3.0, device=DEVICE)
    own = torch.zeros(4, outs, ins, dtype=torch.float64, device=DEVICE)
    for step, active in enumerate(going):
        count = len(active)
        grad, value, scales = drawn(count, batch, outs) + step, drawn(count, batch, ins) - step, drawn(count)
        grad[0, 2:] = 0.0
        mask = torch.tensor(active, device=DEVICE)
        number.fill_(step)
        dense.remember(rows, columns, grad, value, scales, mask, lr, past)
        change = (grad.double() * scales.double()[:, None, None]).transpose(1, 2) @ value.double()
        own[:count] -= 0.1 * torch.where(mask[:, None, None], change, 0.0)
        norms = dense.squared_norms(grad, value)
        assert error(norms, (grad.double().transpose(1, 2) @ value.double()).square().sum((1, 2))) < 1e-6
        other = value.clone()
        other[0, 2:] = 50.0
        assert torch.equal(dense.squared_norms(grad, other), norms)
    number.fill_(3)
    left, bias = drawn(3, batch, ins), drawn(3, outs)
    parts = drawn(4, 3 * batch, outs)
    expected = parts.double().sum(0).view(3, batch, outs) + left.double() @ own[:3].transpose(1, 2)
    assert error(dense.add_past(parts, None, left, columns, rows, past), expected) < 1e-6
    found = dense.add_past(parts, bias, left, columns, rows, past)
    assert error(found, expected + bias.double()[:, None]) < 1e-6
    # The first participant's third row of the first step has no gradient.
    columns[2] = 40.0
    assert torch.equal(dense.add_past(parts, bias, left, columns, rows, past), found)


@pytest.mark.parametrize(("batch", "classes"), [(7, 62), (1, 3), (16, 64)])
def test_cross_entropy(batch: int, classes: int) -> None:
    """Of the first rows; the others have no gradient, and what they are changes no bit."""
    counts = numbers(batch, max(batch // 2, 1), 0)
    scores, targets = 3 * drawn(3, batch, classes), torch.arange(3 * batch, device=DEVICE).view(3, batch)
    targets %= classes
    means, grad = losses.cross_entropy(scores, targets, counts)
    other = scores.clone()
    for index, count in enumerate(counts.tolist()):
        other[index, count:] = torch.inf
        assert not grad[index, count:].any()
        if not count:
            assert float(means[index]) == 0.0
            continue
        leaf = scores[index, :count].double().requires_grad_()
        expected = functional.cross_entropy(leaf, targets[index, :count])
        assert float(means[index]) == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-6)
        (wanted,) = torch.autograd.grad(expected, leaf)
        assert float((grad[index, :count] - wanted).abs().max()) < 1e-6
    again = losses.cross_entropy(other, targets, counts)
    assert torch.equal(again[0], means)
    assert torch.equal(again[1], grad)


@pytest.mark.parametrize(("size", "places"), [(1500, 1), (30, 7)])
def test_dropout(size: int, places: int) -> None:
    value, seeds, step = drawn(3, size, places).flatten(1), numbers(1, 1 << 40, 5), numbers(9)
    result, stays = dropout.dropped(value, seeds, step, 2, threshold(0.3), 1 / 0.7, places)
    expected = kept(seeds, step, 2, size, 0.3).repeat_interleave(places, 1)
    assert torch.equal(stays, expected)
    torch.testing.assert_close(result, torch.where(expected, value / 0.7, 0.0))


@pytest.mark.parametrize("width", [4, 5000])
def test_clipping_and_sgd(width: int) -> None:
    held, grad = drawn(3, width + 8), drawn(3, width)
    values, rest = held[:, :width], held[:, width:].clone()
    scales = update.clip_scales(update.squares(grad), [], 5.0)
    expected = torch.clamp(5 / grad.double().norm(dim=1), max=1.0)
    assert error(scales, expected) < 1e-6
    others = [drawn(3).square(), drawn(4)[1:].square()]
    norms = (grad.double().square().sum(1) + others[0].double() + others[1].double()).sqrt()
    found = update.clip_scales(update.squares(grad), others, 0.5)
    assert error(found, torch.clamp(0.5 / norms, max=1.0)) < 1e-5
    active, lr = torch.tensor([True, False, True], device=DEVICE), torch.tensor(0.1, device=DEVICE)
    for scale in (scales, None):
        before = values.double()
        update.descend(values, grad, scale, active, lr, 0.01)
        change = grad.double() if scale is None else grad.double() * scale.double()[:, None]
        after = torch.where(active[:, None], before - 0.1 * (change + 0.01 * before), before)
        assert error(values, after) < 1e-6
        assert torch.equal(values[1].double(), before[1])
    assert torch.equal(held[:, width:], rest)


@pytest.mark.parametrize("sizes", [(32, 5, 2100), (1,), (7, 16)])
def test_gradients_side_by_side(sizes: tuple[int, ...]) -> None:
    """Each at a multiple of 16, zeros between and behind; one whose values lie apart in memory."""
    parts = [drawn(3, size) for size in sizes]
    parts[-1] = drawn(3, 2 * sizes[-1])[:, : sizes[-1]]
    starts = [sum(-(-size // 16) * 16 for size in sizes[:index]) for index in range(len(sizes))]
    expected = torch.zeros(3, starts[-1] + sizes[-1] + 40, device=DEVICE)
    for part, start in zip(parts, starts, strict=True):
        expected[:, start : start + part.shape[1]] = part
    assert torch.equal(update.joined(parts, starts, expected.shape[1]), expected)


@pytest.mark.parametrize("count", [2, update.MAX_JOINED, update.MAX_JOINED + 1])
def test_gradients_of_a_model_side_by_side(count: int) -> None:
    """By a kernel, or where there are many by PyTorch's own: where the views of a row are."""
    shapes = [(5, 3, 2, 2) if index % 2 else (7,) for index in range(count)]
    names = [str(index) for index in range(count)]
    packing = Packing.from_tensors(
        {name: torch.empty(shape) for name, shape in zip(names, shapes, strict=True)}, names
    )
    gradients = {name: drawn(2, *shape) for name, shape in zip(names, shapes, strict=True)}
    row = packing.joined([*gradients.values()])
    assert all(torch.equal(view, gradients[name]) for name, view in packing.views(row).items())
    assert row.count_nonzero() == sum(gradient.numel() for gradient in gradients.values())


@pytest.mark.parametrize(("slots", "batch", "count"), [(3, 10, 2), (300, 1, 280), (5, 100, 5)])
def test_the_plan_of_a_step_and_what_it_lost(slots: int, batch: int, count: int) -> None:
    """Who has no example keeps what it has, even where its loss is no number."""
    rows = torch.arange(4 * slots * batch, device=DEVICE).view(4, slots, batch)
    counts = rows[:, :, 0] % 3
    settings, number = drawn(4, 4), numbers(2)
    theirs, many, now = torch.full_like(rows[0], -1), torch.full_like(counts[0], -1), settings[0].clone()
    active = torch.zeros(slots, dtype=torch.bool, device=DEVICE)
    progress.read(number, rows, counts, settings, theirs, many, active, now, count)
    assert torch.equal(theirs[:count], rows[2, :count])
    assert torch.equal(many[:count], counts[2, :count])
    assert torch.equal(active[:count], counts[2, :count] > 0)
    assert torch.equal(now, settings[2])
    assert not (theirs[count:] + 1).any()
    assert not active[count:].any()
    active, many = active[:count], many[:count]
    means = torch.where(active, drawn(count), torch.nan)
    totals = drawn(slots, 2).double()
    expected = totals.clone()
    expected[:count, 0] += torch.where(active, means.double() * many, 0.0)
    expected[:count, 1] += many
    progress.keep(totals, number, means, many, many)
    assert torch.equal(totals, expected)
    assert int(number) == 3


@pytest.mark.parametrize(("batch", "hidden"), [(5, 64), (20, 32)])
def test_a_step_of_an_lstm(batch: int, hidden: int) -> None:
    """Forwards and backwards; rows whose gradient is zero give none."""
    gates, weight = drawn(2, batch, 4 * hidden), drawn(2, 4 * hidden, hidden) / 8
    state, cell = torch.tanh(drawn(2, batch, hidden)), drawn(2, batch, hidden)
    leaves = [t.double().requires_grad_() for t in (gates, state, cell)]
    i, f, g, o = (leaves[0] + leaves[1] @ weight.double().transpose(1, 2)).chunk(4, -1)
    after = torch.sigmoid(f) * leaves[2] + torch.sigmoid(i) * torch.tanh(g)
    shown = torch.sigmoid(o) * torch.tanh(after)
    acts, state_after, cell_after = gates.clone(), torch.empty_like(state), torch.empty_like(cell)
    recurrent.forward(acts, weight, state, cell, state_after, cell_after)
    assert error(state_after, shown) < 1e-6
    assert error(cell_after, after) < 1e-6
    above, d_state, d_cell = drawn(2, batch, hidden), drawn(2, batch, hidden) / 2, drawn(2, batch, hidden) + 1
    for tensor in (above, d_state, d_cell):
        tensor[1, 2:] = 0.0
    wanted = torch.autograd.grad([shown, after], leaves, [(above + d_state).double(), d_cell.double()])
    below, d_below = torch.empty_like(gates), torch.empty_like(state)
    recurrent.backward(acts, cell, cell_after, above, d_state, d_cell, below)
    recurrent.below(below, weight, d_below)
    for found, right in zip((below, d_below, d_cell), wanted, strict=True):
        assert error(found, right) < 1e-6
        assert not found[1, 2:].any()
