"""Leaves the generators of random numbers that every framework's user shares as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def generators_kept() -> Iterator[None]:
    """Python's and NumPy's global generators are afterwards where they were before: a model may draw from them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the global one is what users seed
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002  see above
