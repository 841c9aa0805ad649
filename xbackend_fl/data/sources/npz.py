"""``npz:FILE``: NumPy's archive of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from xbackend_fl import weights
from xbackend_fl.data.dataset import SPLITS, Dataset, Splits
from xbackend_fl.data.handed import dataset_of, owners_of, parts_of
from xbackend_fl.data.source import Reading
from xbackend_fl.errors import ConfigError, Refusals


@final
class _Npz:
    is_code = False
    keys = frozenset[str]()

    def splits(self, place: str, how: Reading, *, anew: bool = False) -> Splits:
        del anew
        return load_npz(how.base / place)

    def own(self, place: str, how: Reading, *, anew: bool = False) -> Dataset:
        del anew
        path = how.base / place
        return dataset_of(str(path), _pair(path, weights.open_weights(path, "npz"), ""), how)


SOURCE = _Npz()


def load_npz(path: Path) -> Splits:
    """Read ``train_x``, ``train_y``, ``validation_x``, … and perhaps ``owners`` from an ``.npz`` file.

    Several inputs are ``train_x0``, ``train_x1``, …

    Raises:
        FileError: The file is missing or broken.
        ConfigError: An array is missing, empty or uneven.
    """
    archive = weights.open_weights(path, "npz")
    refused = Refusals()
    pairs: dict[str, Any] = {}
    for name in SPLITS:
        pairs[name] = _pair(path, archive, f"{name}_")
    found = parts_of(str(path), pairs, Reading(path.parent), refused)
    owners = None
    if "owners" in archive and "train" in found:
        with refused:
            owners = owners_of(str(path), archive["owners"], len(found["train"]))
    refused.raise_any()
    return Splits(**found, owners=owners)


def _pair(path: Path, archive: Mapping[str, Any], prefix: str) -> tuple[tuple[Any, ...], Any]:
    inputs = [f"{prefix}x"] if f"{prefix}x" in archive else []
    inputs = inputs or [
        f"{prefix}x{index}" for index in range(len(archive)) if f"{prefix}x{index}" in archive
    ]
    if not inputs or f"{prefix}y" not in archive:
        raise ConfigError(
            f"{path} has no {prefix}x or no {prefix}y; it holds {', '.join(archive)}",
            hint=f"np.savez(FILE, {prefix}x=inputs, {prefix}y=targets, …)",
        )
    return tuple(archive[key] for key in inputs), archive[f"{prefix}y"]
