"""What a process has used: processor time and memory."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Usage:
    """Figures of one process, or of several together.

    Attributes:
        cpu_seconds: Processor time so far, of all threads.
        peak_bytes: Largest resident set so far.
        shared_bytes: Proportional set size now: pages shared by several processes count in parts (Linux; else 0).
        device_peak_bytes: Most that the framework had allocated on the device; 0 without one.
        device_used_bytes: What is in use on the device now, by all programs.
    """

    cpu_seconds: float
    peak_bytes: int
    shared_bytes: int
    device_peak_bytes: int = 0
    device_used_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.cpu_seconds + other.cpu_seconds,
            self.peak_bytes + other.peak_bytes,
            self.shared_bytes + other.shared_bytes,
            self.device_peak_bytes + other.device_peak_bytes,
            self.device_used_bytes + other.device_used_bytes,
        )

    @staticmethod
    def now(device: tuple[int, int] = (0, 0)) -> Usage:
        """Of this process, and the two figures of its device."""
        return Usage(
            time.process_time(), _peak(), int(getattr(psutil.Process().memory_full_info(), "pss", 0)), *device
        )


def _peak() -> int:
    """The kernel's figure of this program; psutil has none, and ``getrusage`` also counts what the process was before it became this program."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
