"""Training from files against training from memory: ``python -m tests.speed.reading --gib 8``.

Images ``[3, 64, 64]`` of bytes, a small convolutional network in PyTorch, one thread, batches of 64 in the core's random order. Each form
is trained in a process of its own; memory is its peak, pages of files among it. Processor time is that of all its threads: on a busy machine
its ratio says more than that of the speeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (3, 64, 64)
SIZE = 12_288
IN_MEMORY = 16_384
FORMS = ("memory", "mapped", "parquet", "zarr")


def build() -> Any:
    """The network."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(7200, 10),
    )


def _splits(inputs: Any) -> dict[str, Any]:
    small = np.zeros((64, *SHAPE), np.uint8), np.arange(64) % 10
    return {"train": (inputs, np.arange(inputs.shape[0]) % 10), "validation": small, "test": small}


def memory() -> dict[str, Any]:
    """A part of the images, in memory."""
    return _splits(np.load(Path(os.environ["READING"], "x.npy"), mmap_mode="r")[:IN_MEMORY].copy())


def mapped() -> dict[str, Any]:
    """All images, in NumPy's own file."""
    return _splits(np.load(Path(os.environ["READING"], "x.npy"), mmap_mode="r"))


def zarr() -> dict[str, Any]:
    """All images, in zarr's files."""
    import zarr as library

    return _splits(library.open_array(Path(os.environ["READING"], "x.zarr"), mode="r"))


def write(folder: Path, count: int, forms: list[str]) -> None:
    """The images, in every form."""
    import pyarrow as pa
    import zarr as library
    from pyarrow import parquet

    # One block of noise many times over: what is read does not depend on what it says.
    block = np.random.default_rng(0).integers(0, 256, (8192, *SHAPE), np.uint8)
    kind = pa.schema({"x": pa.list_(pa.uint8(), SIZE), "y": pa.int64(), "part": pa.string()})
    with ExitStack() as stack:
        array = stack.enter_context((folder / "x.npy").open("wb"))
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *SHAPE)}
        np.lib.format.write_array_header_1_0(array, header)
        if "zarr" in forms:
            stored = library.create_array(
                folder / "x.zarr",
                shape=(count, *SHAPE),
                chunks=(16, *SHAPE),
                dtype="uint8",
                compressors=None,
            )
        if "parquet" in forms:
            table = stack.enter_context(
                parquet.ParquetWriter(folder / "x.parquet", kind, compression="none", use_dictionary=False)
            )
        for start in range(0, count, len(block)):
            part = block[: min(len(block), count - start)]
            rows = np.arange(start, start + len(part))
            array.write(part.data)
            if "zarr" in forms:
                stored[start : start + len(part)] = part
            if "parquet" in forms:
                names = np.select([rows < 32, rows < 64], ["validation", "test"], "train")
                flat = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), SIZE)
                table.write_table(pa.table([flat, rows % 10, names.astype(str)], schema=kind))


def train(form: str, folder: Path, steps: int, repeats: int) -> dict[str, float]:
    """Examples a second, and the peak of memory in MiB; measured in this process."""
    from xbackend_fl.course import load_course
    from xbackend_fl.participant import Scope, Worker

    source = "parquet:x.parquet#x:y" if form == "parquet" else f"{__file__}:{form}"
    (folder / f"{form}.yaml").write_text(
        json.dumps(
            {
                "name": "reading",
                "models": {"torch": f"{__file__}:build"},
                "input": ["1,3,64,64"],
                "data": {"source": source, "scale": {}} | ({"split_by": "part"} if form == "parquet" else {}),
                "participants": {"torch": 1},
                "rounds": 1,
                "training": {"batch_size": 64, "steps": steps},
            }
        )
    )
    began = time.perf_counter()
    worker = Worker(load_course(folder / f"{form}.yaml"), "torch", 1)
    opened = time.perf_counter()
    worker.examine(Scope()).raise_any()
    examined = time.perf_counter()
    start, speeds, costs = worker.initial(), [], []
    for number in range(1, repeats + 2):
        at, cpu = time.perf_counter(), time.process_time()
        worker.train_alone(number, start, "torch-1", {}, {})
        speeds.append(64 * steps / (time.perf_counter() - at))
        costs.append((time.process_time() - cpu) / (64 * steps))
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    # The first time plans and warms up.
    return {
        "examples": statistics.median(speeds[1:]),
        "cpu_us": statistics.median(costs[1:]) * 1e6,
        "MiB": peak,
        "open_s": opened - began,
        "examine_s": examined - opened,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train(options.one, options.folder, options.steps, options.repeats)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as home:
        count = int(options.gib * (1 << 30) / SIZE)
        write(Path(home), count, options.forms)
        environment = os.environ | {"READING": home, "OMP_NUM_THREADS": "1"}
        base = cost = 0.0
        print(
            f"{count:,} images, {options.gib:g} GiB\n| form | examples/s | of memory's | processor µs an example | memory's of it | peak MiB | open s | examine s |\n|---|---|---|---|---|---|---|---|"
        )
        for form in options.forms:
            command = [sys.executable, "-m", "tests.speed.reading", "--one", form, "--folder", home]
            command += ["--steps", str(options.steps), "--repeats", str(options.repeats)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                raise SystemExit(done.stderr[-3000:])
            found = json.loads(done.stdout.splitlines()[-1])
            base, cost = base or found["examples"], cost or found["cpu_us"]
            print(
                f"| {form} | {found['examples']:,.0f} | {found['examples'] / base:.2f} "
                f"| {found['cpu_us']:,.0f} | {cost / found['cpu_us']:.2f} | {found['MiB']:,.0f} "
                f"| {found['open_s']:.1f} | {found['examine_s']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
