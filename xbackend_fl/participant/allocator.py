"""Memory that a training step frees is kept for the next one; what a proof frees goes back to the system."""

from __future__ import annotations

import ctypes
import functools
import os

# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST, _FREE = 32 << 20, 64 << 20


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep up to 64 MiB of free memory, and pieces of less than 32 MiB among it, in this process.

    By itself it gives a batch's arrays back to the system with every step and gets them again page by page, which took a quarter of the processor's
    time of a small network. Whoever has set ``MALLOC_…`` or ``GLIBC_TUNABLES`` has chosen otherwise; other C libraries are left alone.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _FREE)


def return_free_memory() -> None:
    """Give what is free in this process back to the system, as glibc alone can; other C libraries are left alone.

    A proof frees several models at once, in pieces that :func:`keep_freed_memory` would keep.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
