"""What a process has used: processor time and memory."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Figures of one process, or of several together.

    Attributes:
        cpu_seconds: Processor time so far, of all threads.
        peak_bytes: Largest resident set so far.
        shared_bytes: Proportional set size now: pages shared by several processes count in parts (Linux; else 0).
    """

    cpu_seconds: float
    peak_bytes: int
    shared_bytes: int

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.cpu_seconds + other.cpu_seconds,
            self.peak_bytes + other.peak_bytes,
            self.shared_bytes + other.shared_bytes,
        )

    @staticmethod
    def now() -> Usage:
        """Of this process."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Usage(time.process_time(), peak, _proportional())


def _proportional() -> int:
    rollup = Path("/proc/self/smaps_rollup")
    if not rollup.is_file():
        return 0
    line = next((line for line in rollup.read_text().splitlines() if line.startswith("Pss:")), "Pss: 0 kB")
    return int(line.split()[1]) * 1024
