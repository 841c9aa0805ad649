"""``.pt`` to ``.safetensors``: this reader and writer against PyTorch's and safetensors' own, in turn, each in a new process.

python -m tests.weights.throughput --mib 1024
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_MEASURE = """
import json, sys, time
source, target = sys.argv[1:]
{imports}
start, cpu = time.perf_counter(), time.process_time()
{work}
took, cpu = time.perf_counter() - start, time.process_time() - cpu
# Not ru_maxrss, which a new process inherits from the one that started it.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([took, cpu, int(peak.split()[1]) / 1024]))
"""
WAYS = {
    "torch.load + safetensors.save_file": (
        "import torch\nfrom safetensors.torch import save_file",
        "save_file(torch.load(source, weights_only=True), target)",
    ),
    "the same, and fsync": (
        "import os, torch\nfrom safetensors.torch import save_file",
        "save_file(torch.load(source, weights_only=True), target); os.fsync(os.open(target, os.O_RDONLY))",
    ),
    "weights.open_weights + save, verified": (
        "from xbackend_fl import weights",
        "weights.save(target, weights.open_weights(source, 'pytorch'), format='safetensors')",
    ),
    "weights.open_weights + save, not verified": (
        "from xbackend_fl import weights",
        "weights.save(target, weights.open_weights(source, 'pytorch'), format='safetensors', verify=False)",
    ),
}
Row = tuple[float, float, float]


def make(path: Path, mebibytes: int) -> None:
    """A state dict of many tensors."""
    import torch

    count = max(1, mebibytes // 16)
    torch.save({f"layer{i}.weight": torch.randn(1024, mebibytes * 256 // count) for i in range(count)}, path)


def measure(mebibytes: int, repeats: int) -> dict[str, Row]:
    """Seconds, processor seconds and peak MiB of each way: medians of ``repeats``."""
    rows: dict[str, list[Row]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "net.pt"
        make(source, mebibytes)
        for repeat in range(repeats + 1):
            for name, (imports, work) in WAYS.items():
                target = Path(folder) / "out.safetensors"
                target.unlink(missing_ok=True)
                program = _MEASURE.format(imports=imports, work=work)
                command = [sys.executable, "-W", "ignore", "-c", program, str(source), str(target)]
                answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                if repeat:  # the first one fills caches
                    rows[name].append(tuple(json.loads(answer)))
    return {name: tuple(map(statistics.median, zip(*found, strict=True))) for name, found in rows.items()}  # type: ignore[misc]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"| {options.mib} MiB | seconds | processor seconds | peak MiB |\n|---|---|---|---|")
    for name, (seconds, cpu, peak) in measure(options.mib, options.repeats).items():
        print(f"| {name} | {seconds:.2f} | {cpu:.2f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
