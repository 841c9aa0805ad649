"""FEMNIST on the GPU of this machine: how many replicas, how long a round takes, how much memory. ``python -m tests.speed.device``."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from xbackend_fl.course import load_course
from xbackend_fl.data import cohort
from xbackend_fl.data.femnist_like import write_femnist_like
from xbackend_fl.participant.worker import Worker
from xbackend_fl.weights import Weights

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "femnist"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "femnist-like")
    parser.add_argument(
        "--replicas", type=int, nargs="*", default=[0, 1, 4, 8, 16, 24], help="0: in lockstep"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not options.data.is_dir():
        write_femnist_like(options.data, 200)
    course = load_course(
        EXAMPLE / "course.yaml", [f"data.source=leaf:{options.data}", "federate.device=cuda"]
    )
    names = [participant.name for participant in course.participants]
    worker = Worker(course, "torch", 1)
    weights = worker.initial()
    print(torch.cuda.get_device_name(), torch.__version__)
    print("| replicas | s a round | first round | allocated MiB, peak |\n|---|---|---|---|")
    for replicas in options.replicas:
        worker.to_device("cuda", replicas)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        times = []
        for number in range(1, options.rounds + 2):
            chosen = cohort(names, 40, course.seed, "cohort", number)
            start = time.perf_counter()
            partial = worker.train_round(number, weights, chosen, {})
            times.append(time.perf_counter() - start)
            assert not partial.failed
        peak = torch.cuda.max_memory_allocated() / (1 << 20)
        print(
            f"| {replicas} | {statistics.median(times[1:]):.4f} | {times[0]:.2f} | {peak:.0f} |", flush=True
        )
    _where_time_goes(worker, names, weights)


def _where_time_goes(worker: Worker, names: list[str], weights: Weights) -> None:
    """Kernels of one replica's steps, the longest first."""
    worker.to_device("cuda", 1)
    worker.train_round(1, weights, names[:8], {})
    steps = sum(1 for name in names[:8] for _ in worker._training._order(1, name))
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        worker.train_round(1, weights, names[:8], {})
    kernels = sum(event.count for event in found.key_averages())
    print(f"{kernels / steps:.0f} kernels a step")
    print(found.key_averages().table(sort_by="cuda_time_total", row_limit=25, max_name_column_width=60))


if __name__ == "__main__":
    main()
