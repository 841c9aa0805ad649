"""Figures that need no peer: ``python -m tests.speed.house``.

A mixed course against each backend alone, and the memory of 10,000 participants against that of 100 with the same data.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from xbackend_fl.course import load_course
from xbackend_fl.data.femnist_like import write_femnist_like
from xbackend_fl.simulation import bench_course

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = (100, 10_000)


def mixed(data: Path, rounds: int, repeats: int) -> None:
    """Seconds a round of FEMNIST's three forms, in turn."""
    forms = ("course.yaml", "all-tensorflow.yaml", "mixed.yaml")
    found: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(repeats):
        for form in forms:
            course = load_course(ROOT / "examples" / "femnist" / form, [f"data.source=leaf:{data}"])
            found[form].append(bench_course(course, warm_up=1, repeats=rounds).seconds)
            print(form, found[form][-1], file=sys.stderr, flush=True)
    torch, tensorflow, both = (statistics.median(found[form]) for form in forms)
    print(
        f"seconds a round: PyTorch {torch:.2f}, TensorFlow {tensorflow:.2f}, mixed {both:.2f}: "
        f"{both / max(torch, tensorflow):.2f} of the slower"
    )


def one_size(folder: Path, participants: int) -> dict[str, float]:
    """Memory of a course of digits with so many participants, 50 of them a round."""
    course = load_course(
        ROOT / "examples" / "digits" / "course.yaml",
        [
            f"data={{source: 'npz:{folder}/data.npz', partition: {{kind: iid}}}}",
            "models={torch: torch_model.py:build}",
            f"participants={{torch: {participants}}}",
            "training.steps=2",
            "federate={cohort: 50, workers: 1}",
        ],
    )
    used = bench_course(course, warm_up=1, repeats=20).usage
    return {
        "resident": sum(item.peak_bytes for item in used.values()) / (1 << 20),
        "proportional": sum(item.shared_bytes for item in used.values()) / (1 << 20),
    }


def people(folder: Path) -> None:
    """Every size in a process of its own, so that peaks are its own."""
    generator, count = np.random.default_rng(0), 20_000
    arrays = {}
    for split, size in (("train", count), ("validation", 500), ("test", 500)):
        arrays[f"{split}_x"] = generator.random((size, 1, 8, 8), np.float32)
        arrays[f"{split}_y"] = generator.integers(0, 10, size)
    np.savez(folder / "data.npz", **arrays)
    found = []
    for size in PEOPLE:
        command = [sys.executable, "-m", "tests.speed.house", "--one", str(size), str(folder)]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout))
        print(size, found[-1], file=sys.stderr, flush=True)
    for kind in ("resident", "proportional"):
        small, large = (item[kind] for item in found)
        print(
            f"{kind} MiB: {PEOPLE[0]} participants {small:.0f}, {PEOPLE[1]:,} {large:.0f}: {large / small - 1:+.1%}"
        )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_size(Path(options.one[1]), int(options.one[0]))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        people(folder)
        write_femnist_like(folder / "femnist", 200)
        mixed(folder / "femnist", options.rounds, options.repeats)


if __name__ == "__main__":
    main()
