"""A value as the native model sees it, and small questions about axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xbackend_fl.canonical.layout import Segment, Shape
from xbackend_fl.canonical.node import AttributeValue


@dataclass(frozen=True)
class Value:
    """A value as the native model sees it.

    Attributes:
        name: Canonical value name.
        shape: Canonical shape at the example.
        perm: Native axis ``i`` is canonical axis ``perm[i]``.
        order: Flatten order of the last axis of a value in plain order when it is not the canonical one.
    """

    name: str
    shape: Shape
    perm: tuple[int, ...]
    order: tuple[Segment, ...] | None = None

    @property
    def native_shape(self) -> Shape:
        """Shape in the native model."""
        return tuple(self.shape[axis] for axis in self.perm)

    @property
    def is_image(self) -> bool:
        """Whether it is an image that ends in its channels."""
        rank = len(self.perm)
        return rank >= 4 and self.perm == (0, *range(2, rank), 1)


def numbers(value: AttributeValue) -> tuple[float, ...]:
    """An attribute that holds one number per axis."""
    assert isinstance(value, tuple)
    return value


def pointwise(attributes: Mapping[str, AttributeValue]) -> bool:
    """Whether a convolution looks at one pixel at a time and at all channels."""
    window = (attributes["kernel_shape"], attributes["strides"])
    return (
        all(set(numbers(item)) <= {1} for item in window)
        and not any(numbers(attributes["pads"]))
        and attributes["group"] == 1
    )


def without(perm: Sequence[int], gone: Sequence[int]) -> tuple[int, ...]:
    """``perm`` without the canonical axes ``gone``, renumbered."""
    kept = [axis for axis in perm if axis not in gone]
    rank = {axis: index for index, axis in enumerate(sorted(kept))}
    return tuple(rank[axis] for axis in kept)
