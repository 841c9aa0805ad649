"""What no honest weight file exceeds. A limit is checked before anything of that size is allocated."""

from __future__ import annotations

MAX_TENSORS = 100_000
MAX_NAME = 512
MAX_RANK = 16
MAX_VALUES = 1 << 44
"""Values of one tensor."""

MAX_HEADER = 8 << 20
"""Bytes of a header in JSON or msgpack."""

MAX_HEADER_VALUES = 1_000_000
"""Numbers, strings, lists and maps in a header; each costs up to 100 bytes in memory."""

MAX_EXPANSION = 16
FREE_EXPANSION = 64 << 20


def declared_limit(stored: int) -> int:
    """Bytes that the tensors of a file of ``stored`` bytes may have after decompression or expansion.

    Trained weights hardly compress; sixteen times is generous, and small files may hold a few large zeros.
    """
    return max(FREE_EXPANSION, MAX_EXPANSION * stored)
