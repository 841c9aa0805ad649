"""Products of numbers parted into float16 against PyTorch in float64, whatever their magnitudes, and beside others that are not finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.adapters.triton_place import DEVICE, drawn, error
from xbfl_torch.stacked import dense, devices
from xbfl_torch.stacked.kernels import parted


def added(rows: torch.Tensor, columns: torch.Tensor, weights: torch.Tensor, good: torch.Tensor) -> Any:
    """The sum of products, the same in float64, and the sum of their magnitudes."""
    result = torch.zeros(rows.shape[1], columns.shape[1], device=DEVICE)
    one, two = (value.masked_fill(~good[:, None], 0.0).double() for value in (rows, columns))
    one *= weights.double()[:, None].masked_fill(~good[:, None], 0.0)
    parted.add_product(result, rows.clone(), columns.clone(), weights, good)
    return result, one.t() @ two, one.abs().t() @ two.abs()


def factors(kind: str, columns: int) -> torch.Tensor:
    """By which rows and columns of 200 by so many normal numbers are multiplied."""
    if kind == "small":
        return torch.tensor(1e-20, device=DEVICE)
    if kind == "large":
        return torch.tensor(1e15, device=DEVICE)
    if kind == "mixed":
        return 100 ** drawn(200, 1) * 4 ** drawn(columns)
    return torch.tensor(1.0, device=DEVICE)


@pytest.mark.parametrize(
    ("near", "far"),
    [("alike", "alike"), ("small", "large"), ("large", "small"), ("large", "large"), ("mixed", "mixed")],
)
@pytest.mark.parametrize(("left", "right"), [(128, 192), (192, 64)])
def test_a_sum_of_products(left: int, right: int, near: str, far: str) -> None:
    """Every number by itself: what is small beside others is as exact."""
    rows, columns = drawn(200, left) * factors(near, left), drawn(200, right) * factors(far, right)
    result, expected, magnitudes = added(
        rows, columns, drawn(200).abs() * 100, torch.ones(200, dtype=torch.bool, device=DEVICE)
    )
    assert float(((result - expected).abs() / magnitudes).max()) < 1e-6
    assert error(result, expected) < 1e-6


@pytest.mark.parametrize("unit", [1e6, 1e9, 1e12])
@pytest.mark.parametrize(
    "whose", ["one participant", "one of its features", "one output", "the other way in the other matrix"]
)
def test_units_of_some_are_not_those_of_others(unit: float, whose: str) -> None:
    """Every number by itself: whoever has larger inputs or gradients takes no digit from others."""
    rows, columns, large = drawn(200, 128), drawn(200, 192), slice(40, 60)
    if whose == "one participant":
        columns[large] *= unit
        columns[:, 100:] *= (torch.arange(200, device=DEVICE) < 40)[:, None]
    elif whose == "one of its features":
        columns[:, 7] *= unit
    elif whose == "one output":
        rows[:, 7] *= unit
    else:
        rows[large], columns[large] = rows[large] / unit, columns[large] * unit
    good = torch.ones(200, dtype=torch.bool, device=DEVICE)
    result, expected, magnitudes = added(rows, columns, drawn(200).abs(), good)
    assert float(((result - expected).abs() / magnitudes.clamp(min=1e-30)).max()) < 1e-6


def test_whoever_adds_nothing_takes_no_bit_from_others() -> None:
    """Gradients that are zero, as of a saturated layer, beside inputs that saturate it."""
    rows, columns, weights = drawn(130, 128), drawn(130, 128), drawn(130)
    good = torch.ones(130, dtype=torch.bool, device=DEVICE)
    rows[30:50] = 0.0
    alone, expected, _ = added(rows, columns, weights, good)
    assert error(alone, expected) < 1e-6
    columns[30:50] *= 1e12
    assert torch.equal(added(rows, columns, weights, good)[0], alone)


def test_rows_that_add_nothing() -> None:
    """Neither what is not finite nor what is large beside others changes a bit of these."""
    rows, columns, weights = drawn(130, 128), drawn(130, 128), drawn(130)
    good = torch.arange(130, device=DEVICE) % 5 != 2
    rows[5], columns[5] = 0.0, 0.0
    alone, expected, _ = added(rows, columns, weights, good)
    assert error(alone, expected) < 1e-6
    rows[2], columns[2], rows[7, 3], columns[12, 9] = torch.nan, torch.inf, -torch.inf, torch.nan
    rows[17], columns[22], weights[27] = 1e38, -1e38, torch.nan
    beside, *_ = added(rows, columns, weights, good)
    assert torch.equal(beside, alone)


def test_nothing_but_zeros() -> None:
    rows, columns = torch.zeros(70, 64, device=DEVICE), drawn(70, 128)
    good = torch.ones(70, dtype=torch.bool, device=DEVICE)
    assert not added(rows, columns, drawn(70), good)[0].any()
    assert not added(columns, rows, drawn(70), good)[0].any()


def test_rows_in_no_use_are_left_alone() -> None:
    rows, columns, result = drawn(100, 64), drawn(100, 64), torch.zeros(64, 64, device=DEVICE)
    before = rows.clone(), columns.clone()
    good = torch.ones(70, dtype=torch.bool, device=DEVICE)
    parted.add_product(result, rows, columns, drawn(70), good)
    assert torch.equal(rows[70:], before[0][70:])
    assert torch.equal(columns[70:], before[1][70:])


def test_what_participants_changed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """By kernels where it is large, and without them."""
    rows, columns, weights = drawn(1100, 1024), drawn(1100, 1024), drawn(1100)
    good = torch.arange(1100, device=DEVICE) != 9
    assert parted.takes(1024, 1024)
    monkeypatch.setattr(parted, "LEAST", 1100)
    sums = []
    for module in (parted, None):
        monkeypatch.setattr(devices, "kernels", lambda *_, module=module: module)
        mine = dense.additions_of(
            {"weight": drawn(1024, 1024)}, 3, 1100, 10, torch.zeros(1, dtype=torch.int64, device=DEVICE)
        )["weight"]
        mine.rows.copy_(rows)
        mine.columns.copy_(columns)
        sums.append(torch.ones(1024, 1024, device=DEVICE))
        mine.change(weights, good, sums[-1])
    expected = 1 + (rows.double() * (weights * good).double()[:, None]).t() @ columns.double()
    assert error(sums[0], expected) < min(1e-6, 2 * error(sums[1], expected))


@pytest.mark.parametrize("shape", [(2048, 3130), (2000, 3136), (512, 512)])
def test_what_is_not_worth_it(shape: tuple[int, int]) -> None:
    assert not parted.takes(*shape)
