"""The hostile corpus: every attack on every format."""

from __future__ import annotations

from collections.abc import Iterator

from tests.weights.corpus import (
    every_format,
    frame_attacks,
    hdf5_attacks,
    json_attacks,
    pickle_attacks,
    proto_attacks,
    slice_attacks,
    zip_attacks,
)
from tests.weights.corpus.case import Case


def hostile() -> Iterator[Case]:
    """All cases."""
    for module in (
        json_attacks,
        zip_attacks,
        pickle_attacks,
        hdf5_attacks,
        proto_attacks,
        frame_attacks,
        every_format,
        slice_attacks,
    ):
        yield from module.attacks()
