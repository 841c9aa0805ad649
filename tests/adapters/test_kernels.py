"""The GPU's kernels against float64: on a GPU as they are, elsewhere by Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from tests.adapters.triton_place import DEVICE, drawn, error
from xbfl_torch import kernels

SHAPES = [(10, 300, 90), (3, 130, 62), (1, 70, 40), (20, 33, 17), (33, 65, 129)]


@pytest.mark.parametrize(("rows", "ins", "outs"), SHAPES)
def test_dense_layers(rows: int, ins: int, outs: int) -> None:
    x, w, b, g = drawn(rows, ins), drawn(outs, ins), drawn(outs), drawn(rows, outs)
    whole = x.double() @ w.double().t()
    assert error(kernels.dense(x, w, b), whole + b) < 1e-6
    assert error(kernels.dense(x, w, None), whole) < 1e-6
    assert error(kernels.dense_below(g, w), g.double() @ w.double()) < 1e-6
    gradient = g.double().t() @ x.double()
    assert error(kernels.product_norm(g, x), gradient.norm()) < 1e-6
    for scale in (torch.tensor(0.3, device=DEVICE), None):
        found = w.clone()
        kernels.descend(found, g, x, scale, 0.1, 0.01)
        expected = 0.999 * w.double() - 0.1 * (1.0 if scale is None else 0.3) * gradient
        assert error(found, expected) < 1e-6


@pytest.mark.parametrize("shape", [(10, 32, 28, 28), (3, 5, 7, 7), (20, 64, 3, 5)])
def test_channel_sums(shape: tuple[int, ...]) -> None:
    images = drawn(*shape)
    assert error(kernels.channel_sums(images), images.double().sum((0, 2, 3))) < 1e-6


@pytest.mark.parametrize("limit", [0.5, 50.0])
def test_clip_scale(limit: float) -> None:
    norms = drawn(7).abs()
    expected = min(1.0, limit / (float(norms.double().norm()) + 1e-6))
    assert float(kernels.clip_scale(norms, limit)) == pytest.approx(expected, rel=1e-6)


def test_gathering_rounds_twice_like_a_processor() -> None:
    data = torch.arange(50 * 11, device=DEVICE).reshape(50, 11).to(torch.uint8)
    rows = torch.tensor([49, 0, 7, 7], device=DEVICE)
    expected = data[rows].float() * 0.0123 + -1.5
    torch.testing.assert_close(kernels.gather(data, rows, 0.0123, -1.5), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("count", "classes"), [(7, 62), (1, 2), (16, 64), (5, 100)])
def test_cross_entropy(count: int, classes: int) -> None:
    scores = (3 * drawn(count, classes)).double().requires_grad_()
    targets = torch.arange(50, device=DEVICE) % classes
    rows = torch.arange(count, device=DEVICE) * 3
    loss = torch.nn.functional.cross_entropy(scores, targets[rows])
    (expected,) = torch.autograd.grad(loss, scores)
    totals = torch.tensor([1.0, 2.0], dtype=torch.float64, device=DEVICE)
    found = kernels.cross_entropy(scores.detach().float(), targets, rows, totals)
    assert error(found, expected) < 1e-6
    assert totals.tolist() == pytest.approx([1.0 + float(loss.detach()) * count, 2.0 + count], rel=1e-5)


def test_what_fits_one_program() -> None:
    assert kernels.scores_fit(drawn(10, 62))
    assert not kernels.scores_fit(drawn(200, 1000))
    assert not kernels.scores_fit(drawn(10, 62).t())
