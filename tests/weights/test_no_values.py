"""Arrays that are none are refused with the reason, and with their name."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from xbackend_fl import weights
from xbackend_fl.errors import FormatRefused


def test_an_empty_dataset(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["whole"] = np.zeros(3, np.float32)
        file["nothing"] = h5py.Empty("f4")
    with pytest.raises(FormatRefused, match="'nothing' has no shape and no values"):
        weights.open_weights(tmp_path / "a.h5")


def test_records(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", table=np.zeros(6, [("height", "f4"), ("width", "i4")]))
    with pytest.raises(FormatRefused, match=r"'table\.npy' is a structured array"):
        weights.open_weights(tmp_path / "a.npz")
