"""Kernels of stacked layers against PyTorch in float64, at sizes that no small model has."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.adapters.triton_place import DEVICE, drawn, error
from xbfl_torch.stacked.kernels import groups, outer


@pytest.mark.parametrize(
    ("places", "channels", "number"),
    [
        (784, 16, 8),
        (49, 64, 8),
        (30, 6, 3),
        (1, 16, 4),
        (900, 24, 3),
        (3000, 64, 32),
        (5000, 512, 2),
        (4100, 7, 7),
        (200, 128, 2),
        (60, 48, 3),
    ],
)
def test_group_norm(places: int, channels: int, number: int) -> None:
    """Images that a program holds, and those that it reads for every pass."""
    if DEVICE == "cpu" and places * channels > 1 << 15:
        pytest.skip("takes the interpreter minutes")
    value, grad = drawn(2, 3, places, channels) + 3, drawn(2, 3, places, channels).flip(1)
    weight, bias = drawn(2, channels), drawn(2, channels)
    assert groups.fits(channels, number)
    result, moments = groups.forward(value, weight, bias, number, 1e-5)
    gradients = [
        groups.backward(grad, value, weight, bias, moments, number, rectified=rectified)
        for rectified in (False, True)
    ]
    for index in range(2):
        leaves = [t[index].double().requires_grad_() for t in (value, weight, bias)]
        expected = functional.group_norm(leaves[0].transpose(1, 2), number, leaves[1], leaves[2], 1e-5)
        assert error(result[index], expected.transpose(1, 2)) < 1e-6
        # Rounding may differ in what is zero, or not.
        shown = expected * (result[index].double().transpose(1, 2) > 0)
        for right, found in zip((expected, shown), gradients, strict=True):
            wanted = torch.autograd.grad(
                right, leaves, grad[index].double().transpose(1, 2), retain_graph=True
            )
            for gradient, true in zip(found, wanted, strict=True):
                assert error(gradient[index], true) < 3e-6


@pytest.mark.parametrize(("places", "channels", "number"), [(20, 12, 6), (40, 64, 16)])
def test_a_nan_is_that_of_its_group(places: int, channels: int, number: int) -> None:
    value, weight, found = drawn(2, 3, places, channels), drawn(2, channels), []
    wide = channels // number
    for broken in (0.0, torch.nan):
        value[1, 2, 5, wide] = broken
        result, moments = groups.forward(value, weight, weight, number, 1e-5)
        found.append((result, groups.backward(value, value, weight, weight, moments, number)[0]))
    for one, two in zip(*found, strict=True):
        touched = torch.zeros_like(one, dtype=torch.bool)
        touched[1, 2, :, wide : 2 * wide] = True
        assert torch.equal(two.isnan(), touched)
        assert torch.equal(one[~touched], two[~touched])


@pytest.mark.parametrize(
    ("rows", "ins", "outs"), [(10, 2048, 62), (1, 7, 3), (17, 130, 33), (64, 512, 512), (3, 1, 1)]
)
def test_outer(rows: int, ins: int, outs: int) -> None:
    """Three participants, whose weights lie among other values that stay."""
    gap = 4 * (-(-ins * outs // 4)) + 8
    held = drawn(3, gap)
    weight = held[:, : outs * ins].view(3, outs, ins)
    value, grad, bias, scales = drawn(3, rows, ins), drawn(3, rows, outs), drawn(3, outs), drawn(3)
    wide = weight.double()
    expected = value.double() @ wide.transpose(1, 2)
    assert error(outer.forward(value, weight, None), expected) < 1e-6
    assert error(outer.forward(value, weight, bias), expected + bias[:, None].double()) < 1e-6
    assert error(outer.backward(grad, weight), grad.double() @ wide) < 1e-6
    active, lr = torch.tensor([True, False, True], device=DEVICE), torch.tensor(0.1, device=DEVICE)
    for scale in (None, scales):
        before, rest = weight.double(), held[:, outs * ins :].clone()
        outer.descend(weight, grad, value, scale, active, lr, 0.01)
        change = grad.double().transpose(1, 2) @ value.double()
        change = (change if scale is None else change * scale.double()[:, None, None]) + 0.01 * before
        after = torch.where(active[:, None, None], before - 0.1 * change, before)
        assert error(weight, after) < 1e-6
        assert torch.equal(weight[1].double(), before[1])
        assert torch.equal(held[:, outs * ins :], rest)
