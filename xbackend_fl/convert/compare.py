"""Two weight files, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.convert.select import matching


@dataclass(frozen=True)
class Difference:
    """One tensor of two files.

    Attributes:
        name: Its name.
        left: Dtype and shape in the first file; empty if it is not there.
        right: The same in the second.
        max_abs: Largest absolute difference, ``nan`` where shapes differ or one is missing.
        relative: Largest absolute difference over the largest absolute value of the second, infinite if that is zero.
        identical: Whether every bit is the same.
    """

    name: str
    left: str
    right: str
    max_abs: float = float("nan")
    relative: float = float("nan")
    identical: bool = False


def compare(
    left: Mapping[str, NDArray[Any]], right: Mapping[str, NDArray[Any]], only: Sequence[str] = ()
) -> tuple[Difference, ...]:
    """Compare tensors of equal names, in float64; NaN equals NaN.

    Args:
        left: One file.
        right: Another.
        only: Shell patterns of names; all, if there are none.

    Raises:
        ConfigError: A pattern matches nothing.
    """
    names = matching([*dict.fromkeys([*left, *right])], only, "the two files")
    return tuple(_difference(name, left.get(name), right.get(name)) for name in names)


def _difference(name: str, left: NDArray[Any] | None, right: NDArray[Any] | None) -> Difference:
    one_is, two_is = ("" if a is None else f"{a.dtype} {list(a.shape)}" for a in (left, right))
    if left is None or right is None or left.shape != right.shape:
        return Difference(name, one_is, two_is)
    same = left.dtype == right.dtype and left.tobytes() == right.tobytes()
    kind = np.complex128 if "c" in (left.dtype.kind, right.dtype.kind) else np.float64
    one, two = left.astype(kind), right.astype(kind)
    with np.errstate(invalid="ignore"):
        apart = np.where((one == two) | (np.isnan(one) & np.isnan(two)), 0.0, np.abs(one - two))
    worst = float(np.max(np.nan_to_num(apart, nan=np.inf), initial=0.0))
    size = float(np.max(np.abs(np.nan_to_num(two)), initial=0.0))
    relative = 0.0 if not worst else worst / size if size else float("inf")
    return Difference(name, one_is, two_is, worst, relative, same)
