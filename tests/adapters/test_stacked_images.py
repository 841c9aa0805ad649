"""Kernels of stacked images against PyTorch in float64; examples that do not count, and participants with few that do or none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.adapters.triton_place import DEVICE, drawn, error, kept
from xbfl_torch.stacked import devices
from xbfl_torch.stacked.kernels import convolution, normalisation, pooling
from xbfl_torch.stacked.kernels.convolution import Window
from xbfl_torch.stacked.pooling import window_of


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("ins", "outs", "size", "kernel", "window"),
    [
        (1, 8, (9, 8), (5, 5), Window((1, 1), (2, 2), (1, 1))),
        (32, 24, (5, 6), (3, 3), Window((1, 1), (1, 1), (1, 1))),
        (40, 70, (7, 5), (3, 2), Window((2, 1), (0, 1), (1, 2))),
        (6, 3, (6, 7), (1, 1), Window((3, 2), (0, 0), (1, 1))),
    ],
)
def test_convolutions(
    ins: int, outs: int, size: tuple[int, int], kernel: tuple[int, int], window: Window, *, last: bool
) -> None:
    """Strides, padding and dilation of their own each way, and blocks that channels do not fill."""
    value, weight, bias = drawn(2, 3, ins, *size), drawn(2, outs, ins, *kernel), drawn(2, outs)
    value = kept(value) if last else value
    found = convolution.forward(value, weight, bias, window)
    grad = drawn(*found.shape)
    grad = kept(grad) if last else grad
    below = convolution.input_gradient(grad, weight, size, window)
    slope, shift = convolution.weight_gradient(value, grad, kernel, window, biased=True)
    assert shift is not None
    for index in range(2):
        leaves = [t[index].double().requires_grad_() for t in (value, weight, bias)]
        expected = functional.conv2d(leaves[0], leaves[1], leaves[2], *window)
        assert error(found[index], expected) < 1e-6
        wanted = torch.autograd.grad(expected, leaves, grad[index].double())
        for gradient, right in zip((below, slope, shift), wanted, strict=True):
            assert error(gradient[index], right) < 1e-6


def test_images_whose_gradient_is_zero_add_nothing_to_that_of_a_weight() -> None:
    window = Window((1, 1), (1, 1), (1, 1))
    value, grad = drawn(2, 4, 5, 6, 6), drawn(2, 4, 7, 6, 6)
    grad[0, 2:], grad[1, 1:] = 0.0, 0.0
    other = value.clone()
    other[0, 2:], other[1, 1:] = 1e3 * drawn(2, 5, 6, 6), 1e3 * drawn(3, 5, 6, 6)
    found = [convolution.weight_gradient(v, grad, (3, 3), window, biased=True) for v in (value, other)]
    for one, two in zip(*found, strict=True):
        assert one is not None
        assert two is not None
        assert torch.equal(one, two)


def expected_norm(
    value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, after: Any
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    leaves = [t.double().requires_grad_() for t in (value, weight, bias)]
    result = functional.batch_norm(leaves[0], None, None, leaves[1], leaves[2], training=True)
    return after(result), leaves


@pytest.mark.parametrize("counts", [(6, 2, 1), (6, 0, 5)])
@pytest.mark.parametrize(
    ("channels", "size", "pool"), [(3, (7, 8), (2, 3)), (33, (12, 9), None), (40, (5, 5), (1, 2))]
)
def test_batch_normalisation(
    channels: int, size: tuple[int, int], pool: tuple[int, int] | None, counts: tuple[int, ...]
) -> None:
    """With ReLU, and pooling, after it in one pass backwards; what does not count changes no bit."""
    value, weight, bias = drawn(3, 6, channels, *size) + 2, drawn(3, channels), drawn(3, channels)
    numbers, places = torch.tensor(counts, device=DEVICE), size[0] * size[1]
    found = []
    for other in (False, True):
        images = value.clone()
        for index, count in enumerate(counts):
            images[index, count:] = 100 * drawn(*images[index, count:].shape) if other else 7.0
        flat = images.movedim(2, -1).reshape(3, -1, channels).contiguous()
        result, mean, variance = normalisation.forward(flat, weight, bias, numbers, places, 1e-5)
        shown = torch.relu(result.view(3, 6, *size, channels))
        pooled, wide = None, shown
        if pool is not None:
            wide, chosen = pooling.forward(shown, pool)
            pooled = normalisation.Pooled(chosen, *size, *pool)
        grad = drawn(*wide.shape)
        for index, count in enumerate(counts):
            grad[index, count:] = 0.0
        gradients = normalisation.backward(
            grad.flatten(1, 3) if pool is None else grad, flat, mean, variance, weight, bias, numbers, places, 1e-5,
            rectified=True, pooled=pooled,
        )  # fmt: skip
        found.append((wide, mean, variance, *gradients))
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)
    wide, mean, variance, below, slope, shift = found[0]
    for index, count in enumerate(counts):
        assert not below.view(3, 6, -1)[index, count:].any()
        if not count:
            assert not slope[index].any()
            continue
        right, leaves = expected_norm(
            value[index, :count], weight[index], bias[index],
            lambda t: torch.relu(t) if pool is None else functional.max_pool2d(torch.relu(t), pool),
        )  # fmt: skip
        assert error(wide[index, :count].movedim(-1, 1), right) < 1e-6
        axes = (0, 2, 3)
        assert error(mean[index], value[index, :count].double().mean(axes)) < 1e-6
        assert error(variance[index], value[index, :count].double().var(axes, unbiased=False)) < 1e-6
        wanted = torch.autograd.grad(right, leaves, grad[index, :count].movedim(-1, 1).double())
        images = below.view(3, 6, *size, channels)[index, :count].movedim(-1, 1)
        for gradient, true in zip((images, slope[index], shift[index]), wanted, strict=True):
            assert error(gradient, true) < 3e-6


@pytest.mark.parametrize("pool", [None, (2, 3)])
def test_batch_normalisation_of_more_than_a_block(pool: tuple[int, int] | None) -> None:
    """Several parts of several blocks each, and a NaN that is one participant's own."""
    counts, size, images = (36, 23), (9, 13), 36
    value, weight, bias = drawn(2, images, 6, *size), drawn(2, 6), drawn(2, 6)
    numbers, found = torch.tensor(counts, device=DEVICE), []
    for broken in (False, True):
        flat = value.movedim(2, -1).reshape(2, -1, 6).contiguous()
        flat[1, 40, 2] = torch.nan if broken else 0.0
        _, mean, variance = normalisation.forward(flat, weight, bias, numbers, 117, 1e-5)
        pooled, wide = None, flat.view(2, images, *size, 6)
        if pool is not None:
            wide, chosen = pooling.forward(wide, pool)
            pooled = normalisation.Pooled(chosen, *size, *pool)
        grad = drawn(*wide.shape)
        gradients = normalisation.backward(
            grad.flatten(1, 3) if pool is None else grad, flat, mean, variance, weight, bias, numbers, 117, 1e-5,
            rectified=True, pooled=pooled,
        )  # fmt: skip
        found.append((mean, variance, *gradients))
    for one, two in zip(*found, strict=True):
        assert torch.equal(one[0], two[0])
    assert all(tensor[1].isnan().any() for tensor in found[1][:4])
    leaves = [t[0].double().requires_grad_() for t in (value, weight, bias)]
    right = torch.relu(functional.batch_norm(leaves[0], None, None, leaves[1], leaves[2], training=True))
    if pool is not None:
        # Of what was pooled before normalisation: another order of places where a weight is negative.
        chosen = functional.max_pool2d(leaves[0].detach(), pool, return_indices=True)[1]
        right = right.flatten(2).gather(2, chosen.flatten(2)).view(chosen.shape)
    wanted = torch.autograd.grad(right, leaves, grad[0].movedim(-1, 1).double())
    below = found[0][2].view(2, images, *size, 6)[0].movedim(-1, 1)
    for gradient, true in zip((below, found[0][3][0], found[0][4][0]), wanted, strict=True):
        assert error(gradient, true) < 3e-6


@pytest.mark.parametrize("counts", [(1, 0, 9)])
def test_running_statistics_of_those_who_step(counts: tuple[int, ...]) -> None:
    held = drawn(3, 200)
    mean, variance, now, other = held[:, :70], held[:, 100:170], drawn(3, 70), drawn(3, 70) ** 2
    before = held.clone()
    normalisation.move(mean, variance, now, other, torch.tensor(counts, device=DEVICE), 0.1)
    expected = before.clone()
    for index in (0, 2):
        expected[index, :70] += 0.1 * (now[index] - before[index, :70])
        expected[index, 100:170] += 0.1 * (other[index] - before[index, 100:170])
    torch.testing.assert_close(held, expected)
    assert torch.equal(held[1], before[1])


@pytest.mark.parametrize(("channels", "size", "window"), [(3, (7, 8), (2, 3)), (33, (4, 9), (1, 2))])
def test_pooling(channels: int, size: tuple[int, int], window: tuple[int, int]) -> None:
    """Windows that leave rows out, ties of which the first is the largest, and NaN, which is larger than all."""
    value = torch.round(2 * drawn(2, 3, *size, channels))
    value[1, 0, 0, 1, 0] = torch.nan
    result, chosen = pooling.forward(value, window)
    grad = drawn(*result.shape)
    below = pooling.backward(grad, chosen, *size, window)
    for index in range(2):
        leaf = value[index].movedim(-1, 1).double().requires_grad_()
        expected = functional.max_pool2d(leaf, window)
        torch.testing.assert_close(
            result[index].movedim(-1, 1).double(), expected.detach(), rtol=0, atol=0, equal_nan=True
        )
        (wanted,) = torch.autograd.grad(expected, leaf, grad[index].movedim(-1, 1).double())
        assert torch.equal(below[index].movedim(-1, 1).double(), wanted)


def test_windows_of_more_places_than_eight_bits_count_are_left_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "kernels", lambda *_: pooling)
    assert window_of(torch.zeros(2, 3, 36, 36), (8, 16)) == (8, 16)
    assert window_of(torch.zeros(2, 3, 36, 36), 12) is None
    value, grad = drawn(2, 3, 4, 17, 33), drawn(2, 3, 4, 2, 2)
    _, chosen = pooling.forward(value.movedim(2, -1).contiguous(), (8, 16))
    below = pooling.backward(grad.movedim(2, -1).contiguous(), chosen, 17, 33, (8, 16)).movedim(-1, 2)
    leaf = value.flatten(0, 1).double().requires_grad_()
    (expected,) = torch.autograd.grad(functional.max_pool2d(leaf, (8, 16)), leaf, grad.flatten(0, 1).double())
    assert torch.equal(below.flatten(0, 1).double(), expected)
