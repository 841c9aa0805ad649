"""``npz:FILE``: NumPy's archive of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        return load_npz(how.base / place, how.heads)

    def own(self, place: str, how: Reading, *, anew: bool = False) -> Dataset:
        del anew
        path = how.base / place
        return dataset_of(str(path), _pair(path, weights.open_weights(path, "npz"), "", how.heads), how)


SOURCE = _Npz()


def load_npz(path: Path, heads: Sequence[str] = ()) -> Splits:
    """Read ``train_x``, ``train_y``, ``validation_x``, … and perhaps ``owners`` from an ``.npz`` file.

    Several inputs are ``train_x0``, ``train_x1``, …; targets of several heads are ``train_y_NAME``.

    Args:
        path: The file.
        heads: Names of several outputs with a loss each; empty for one loss.

    Raises:
        FileError: The file is missing or broken.
        ConfigError: An array is missing, empty or uneven.
    """
    archive = weights.open_weights(path, "npz")
    refused = Refusals()
    pairs: dict[str, Any] = {}
    for name in SPLITS:
        pairs[name] = _pair(path, archive, f"{name}_", heads)
    found = parts_of(str(path), pairs, Reading(path.parent, heads=heads), refused)
    owners = None
    if "owners" in archive and "train" in found:
        with refused:
            owners = owners_of(str(path), archive["owners"], len(found["train"]))
    refused.raise_any()
    return Splits(**found, owners=owners)


def _pair(
    path: Path, archive: Mapping[str, Any], prefix: str, heads: Sequence[str]
) -> tuple[tuple[Any, ...], Any]:
    inputs = [f"{prefix}x"] if f"{prefix}x" in archive else []
    inputs = inputs or [
        f"{prefix}x{index}" for index in range(len(archive)) if f"{prefix}x{index}" in archive
    ]
    targets = {name: f"{prefix}y_{name}" for name in heads} or {"": f"{prefix}y"}
    missing = [key for key in targets.values() if key not in archive]
    if not inputs or missing:
        raise ConfigError(
            f"{path} has no {prefix}x or no {(missing or [f'{prefix}y'])[0]}; it holds {', '.join(archive)}",
            hint=f"np.savez(FILE, {prefix}x=inputs, {', '.join(f'{key}=targets' for key in targets.values())}, …)",
        )
    found = {name: archive[key] for name, key in targets.items()}
    return tuple(archive[key] for key in inputs), found if heads else found[""]
