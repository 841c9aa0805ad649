"""The same work on this project, pfl and Flower, in turn: ``python -m tests.speed``.

LEAF's CNN (6,603,710 values), 100 clients of about 204 examples, 10 a round, batch 20, plain SGD, one thread in each of two workers. Memory
is the proportional set of all processes after the last round. The peers are installed from the package index into environments of their own
(a few minutes, once).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from xbackend_fl.course import Course, load_course
from xbackend_fl.data.femnist_like import write_femnist_like
from xbackend_fl.participant import CourseData
from xbackend_fl.simulation import bench_course

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "examples" / "femnist"
PEERS = {"pfl": ["pfl[pytorch]==0.6.0"], "flower": ["flwr[simulation]==1.41.0"]}
TORCH = "torch==2.13.0"
COHORT, WORKERS = 10, 2


def the_course(data: Path) -> Course:
    """The work."""
    return load_course(
        EXAMPLE / "course.yaml",
        [
            f"data.source=leaf:{data}",
            "data.splits=[0.9, 0.05, 0.05]",
            "models={torch: torch_model.py:leaf_cnn}",
            "participants={torch: 100}",
            "training={optimizer: {name: sgd, lr: 0.1}, batch_size: 20, epochs: 1}",
            f"federate={{cohort: {COHORT}, workers: {WORKERS}}}",
        ],
    )


def export(course: Course, path: Path) -> None:
    """Every client's examples, as both peers get them: scaled floats, one client after the other."""
    rule = course.data.scale
    assert rule is not None
    source = CourseData(course, "torch")
    shares = [share.gather(np.arange(len(share))) for share in source.parts(source.splits()).values()]
    pixels = np.concatenate([share.inputs[0] for share in shares]).astype(np.float32)
    targets, ends = (
        np.concatenate([share.targets for share in shares]),
        np.cumsum([len(share.targets) for share in shares]),
    )
    assert len(shares) == len(course.participants)
    assert ends[-1] == len(pixels) == len(targets)
    np.savez(path, x=(pixels / rule.divide - rule.mean) / rule.std, y=targets, ends=ends)


def environment(folder: Path, name: str) -> Path:
    """The peer's own Python."""
    python = folder / name / "bin" / "python"
    if not (folder / name / "ready").is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PEERS[name], TORCH], check=True)
        (folder / name / "ready").touch()
    return python


def ours(course: Course, rounds: int) -> dict[str, float]:
    found = bench_course(course, warm_up=1, repeats=rounds)
    return {
        "seconds": found.seconds,
        "examples": found.examples_per_second,
        "memory": sum(usage.shared_bytes for usage in found.usage.values()),
    }


def peer(command: list[str]) -> dict[str, float]:
    """Figures of a runner; the processes of one run print a line each."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    # Two processes may write into one line.
    found: list[dict[str, Any]] = list(map(json.loads, re.findall(r'\{"stamps".*?\}', result.stdout)))
    if not found:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr[-3000:]}")
    times = [stamp[0] for stamp in found[0]["stamps"]]
    examples = sum(run["stamps"][-1][2] - run["stamps"][0][2] for run in found)
    return {
        "seconds": statistics.median(np.diff(times)),
        "examples": examples / (times[-1] - times[0]),
        "memory": sum(run["memory"] for run in found),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "xbfl-speed")
    options = parser.parse_args()
    data = options.folder / "data"
    if not data.is_dir():
        write_femnist_like(data, 100)
    course, exported = the_course(data), options.folder / "clients.npz"
    export(course, exported)
    arguments = [str(exported), str(EXAMPLE / "torch_model.py"), str(options.rounds + 1), str(COHORT)]
    pfl, flower = (environment(options.folder, name) for name in PEERS)
    torchrun = [str(pfl), "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORKERS}"]
    ways = {
        "xbackend-fl": lambda: ours(course, options.rounds),
        "pfl 0.6.0": lambda: peer([*torchrun, str(HERE / "pfl_runner.py"), *arguments]),
        "Flower 1.41": lambda: peer([str(flower), str(HERE / "flower_runner.py"), *arguments, str(WORKERS)]),
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, run in ways.items():
            rows[name].append(run())
            print(name, rows[name][-1], file=sys.stderr, flush=True)
    speed = {name: statistics.median(row["examples"] for row in found) for name, found in rows.items()}
    print(
        "| simulator | seconds a round | examples/s | ours is faster by | memory, MiB |\n|---|---|---|---|---|"
    )
    for name, found in rows.items():
        seconds = statistics.median(row["seconds"] for row in found)
        memory = statistics.median(row["memory"] for row in found) / (1 << 20)
        factor = speed["xbackend-fl"] / speed[name]
        print(f"| {name} | {seconds:.2f} | {speed[name]:,.0f} | {factor:.2f} | {memory:,.0f} |")


if __name__ == "__main__":
    main()
