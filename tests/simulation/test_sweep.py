"""How cost grows: the slopes are those of known powers, and a course is measured at every size."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbackend_fl.errors import ConfigError
from xbackend_fl.simulation import scaling
from xbackend_fl.simulation.sweep import Point, Sweep, growth, measure


@pytest.mark.quick
@pytest.mark.parametrize("text", ["", "rounds", "rounds=", "rounds=3", "=1,2", "rounds=1,,2"])
def test_a_sweep_needs_a_key_and_two_values(text: str) -> None:
    with pytest.raises(ConfigError, match="no key with two or more values") as refused:
        Sweep.parse(text)
    assert refused.value.hint
    assert Sweep.parse(refused.value.hint.partition("--over ")[2]).choices == ("10", "100", "1000")


@pytest.mark.quick
@given(
    power=st.floats(0, 3),
    factor=st.floats(1e-6, 1e3),
    sizes=st.sets(st.integers(1, 10**6), min_size=2, max_size=5),
)
def test_growth_is_the_power_of_the_size(power: float, factor: float, sizes: set[int]) -> None:
    points = [Point(str(size), size, factor * size**power, 0, 0) for size in sorted(sizes)]
    assert growth(points, lambda point: point.seconds) == pytest.approx([power] * (len(sizes) - 1), abs=1e-6)


@pytest.mark.slow
def test_a_course_is_measured_at_every_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_PEOPLE", 100)
    file = scaling.write_scaling_course(tmp_path, "torch")
    build = "xbfl_torch.samples:dense_1m"
    found = list(measure(file, Sweep("participants.torch", ("50", "100")), repeats=1))
    assert [point.size for point in found] == [50, 100]
    assert all(point.seconds > 0 and point.cpu_seconds > 0 and point.peak_bytes > 4e6 for point in found)
    (whole,) = measure(file, Sweep("rounds", ("3",)), [f"models={{torch: {build}}}", "federate.cohort=2"])
    assert whole.size == 3
    assert whole.later > 0
    with pytest.raises(ConfigError, match="100 participants"):
        next(measure(file, Sweep("federate.cohort", ("101", "102")), ["participants.torch=100"]))
