"""Refuses a proof that would not fit into memory, before it starts."""

from __future__ import annotations

import psutil

from xbackend_fl.canonical import Schema
from xbackend_fl.errors import RefusedInput

COPIES = 6
"""Copies of a model that a proof holds at its peak: drawn weights, native weights, gradients, a step, the runtime's."""


class MemoryRefused(RefusedInput):
    """A proof does not fit into memory; matching by structure needs none of it."""


def check_memory(schema: Schema) -> None:
    """Raise if ``COPIES`` of the model's weights exceed the memory that is available.

    Raises:
        MemoryRefused: They do.
    """
    needed, available = COPIES * 4 * schema.num_values, available_bytes()
    if needed > available:
        raise MemoryRefused(
            f"the model has {schema.num_values:,} values; a proof needs about {needed / 2**30:.1f} GiB and "
            f"{available / 2**30:.1f} GiB are available",
            hint="prove a copy with fewer layers of each kind, or on a larger machine",
        )


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    return int(psutil.virtual_memory().available)
