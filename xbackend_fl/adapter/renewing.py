"""What a model's tensors must still be when they are looked up again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from xbackend_fl.canonical import NativeTensor
from xbackend_fl.errors import RefusedInput

_CURE = "bind it again, as it is now"


def check_same(
    known: Mapping[str, NativeTensor], found: Mapping[str, NativeTensor], weights: Collection[str]
) -> None:
    """Refuse a model that has other tensors than it had when it was described.

    Args:
        known: Its tensors then.
        found: Its tensors now.
        weights: Names of those of now that may train: one more is another model, a buffer more is not.

    Raises:
        RefusedInput: A tensor is gone, new, or of another shape or dtype; the message names it.
    """
    for name, old in known.items():
        new = found.get(name)
        if new is None:
            raise RefusedInput(f"since it was bound, the model has lost its tensor {name!r}", hint=_CURE)
        if (new.shape, new.dtype) != (old.shape, old.dtype):
            raise RefusedInput(
                f"since it was bound, the model's tensor {name!r} has become {new.dtype}{list(new.shape)}; "
                f"expected {old.dtype}{list(old.shape)}",
                hint=_CURE,
            )
    more = [name for name in found if name in weights and name not in known]
    if more:
        raise RefusedInput(f"since it was bound, the model has a new weight {more[0]!r}", hint=_CURE)
