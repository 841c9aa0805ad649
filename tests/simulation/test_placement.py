"""Who trains where: shares, worker counts, and results that do not depend on either."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import small_models
from xbackend_fl import load_course, run_course
from xbackend_fl.adapter import LOCKSTEP, balance
from xbackend_fl.simulation import bench_course
from xbackend_fl.simulation.placement import choose_placement

SMALL = ["rounds=2", "training.steps=4", small_models.TORCH, "participants={torch: 6}"]


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 500), max_size=30), st.integers(1, 6))
def test_shares_are_complete_and_even(sizes: dict[str, int], workers: int) -> None:
    shares = balance(sizes, workers)
    assert sorted(name for share in shares for name in share) == sorted(sizes)
    loads = [sum(sizes[name] for name in share) for share in shares]
    # Graham's bound for any list: nobody starts a participant while another has less to do.
    assert max(loads) <= sum(loads) / workers + (1 - 1 / workers) * max(sizes.values(), default=0) + 1e-9
    places = list(sizes)
    for share in shares:
        assert share == sorted(share, key=lambda name: (-sizes[name], places.index(name)))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 3))
def test_shares_are_within_a_third_of_the_best(sizes: list[int], workers: int) -> None:
    """Graham's bound for the longest-first rule, 4/3 - 1/(3m), against the best of all shares."""
    named = {str(index): size for index, size in enumerate(sizes)}
    shares = balance(named, workers)
    found = max(sum(named[name] for name in share) for share in shares)
    best = min(
        max(
            sum(size for size, place in zip(sizes, places, strict=True) if place == w) for w in range(workers)
        )
        for places in itertools.product(range(workers), repeat=len(sizes))
    )
    assert found <= best * (4 / 3 - 1 / (3 * workers)) + 1e-9


def test_workers_for_a_machine(digits: Path) -> None:
    def workers(cores: int, *settings: str) -> tuple[int, int]:
        found = choose_placement(load_course(digits / "course.yaml", settings), cores)
        return found.workers, found.threads

    assert workers(2) == (1, 1)
    assert workers(1) == (1, 1)
    assert workers(8) == (3, 1), "six participants, two backends"
    assert workers(64, "participants={torch: 50, tensorflow: 50}") == (4, 8)
    assert workers(8, "participants={tensorflow: 50}") == (4, 2), "the reference waits"
    assert workers(64, "federate.workers=1") == (1, 32)
    assert workers(8, "federate.memory=low") == (1, 4)
    assert workers(8, "federate.share_local_model=false") == (1, 4)


def test_every_gpu_has_a_worker(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr("xbackend_fl.simulation.placement._DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def placed(*settings: str) -> tuple[int, str, int | None]:
        found = choose_placement(load_course(digits / "course.yaml", settings), 8)
        return found.workers, found.device, found.replicas

    assert placed() == (3, "cuda", LOCKSTEP)
    assert placed("federate.workers=2") == (2, "cuda", LOCKSTEP)
    assert placed("federate.memory=low") == (1, "cuda", 1)
    assert placed("federate.device=cpu") == (3, "cpu", 1)
    assert placed("federate.replicas=auto") == (3, "cuda", None)
    assert placed("federate.replicas=5") == (3, "cuda", 5)
    assert placed("federate.replicas=lockstep") == (3, "cuda", LOCKSTEP)
    assert choose_placement(load_course(digits / "course.yaml"), 8).gpus == ("0", "1", "2")
    assert choose_placement(load_course(digits / "course.yaml", ["federate.device=cpu"]), 8).gpus == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert placed() == (1, "cuda", LOCKSTEP)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8932f937")
    assert choose_placement(load_course(digits / "course.yaml"), 8).gpus == ("2", "GPU-8932f937")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert placed()[1] == "cpu"


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "exact"])
def test_the_number_of_workers_does_not_matter(
    precision: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One thread whatever the number of workers: sums inside a layer depend on how many threads share them.
    monkeypatch.setattr("xbackend_fl.simulation.engine.os.cpu_count", lambda: 1)
    found = []
    for count in (1, 2, 3):
        settings = [*SMALL, f"federate.workers={count}", f"federate.precision={precision}"]
        course = load_course(digits / "course.yaml", settings)
        found.append(run_course(course, tmp_path / str(count), in_process=True).weights)
    if precision == "exact":
        assert len({weights.digest for weights in found}) == 1
    else:
        assert max(found[0].relative_distance(weights) for weights in found[1:]) < 1e-6


@pytest.mark.slow
def test_spawned_workers_are_a_team(digits: Path, tmp_path: Path) -> None:
    settings = [*SMALL, "federate.workers=2", "federate.precision=exact"]
    course = load_course(digits / "course.yaml", settings)
    spawned = run_course(course, tmp_path / "spawned")
    local = run_course(course, tmp_path / "local", in_process=True)
    assert spawned.weights.digest == local.weights.digest


def test_bench_counts_what_is_trained(digits: Path) -> None:
    course = load_course(digits / "course.yaml", [*SMALL, "training.batch_size=16", "federate.cohort=3"])
    found = bench_course(course, warm_up=1, repeats=2, in_process=True)
    assert len(found.first) == 1
    assert [item.steps for item in found.rounds] == [12, 12]
    assert [item.examples for item in found.rounds] == [192, 192]
    assert found.values == 1394
    assert found.seconds > 0
    assert found.usage["torch"].peak_bytes > 1 << 20
    assert found.to_json()["examples_per_second"] == found.examples_per_second
    assert np.isfinite(found.cpu_seconds)
