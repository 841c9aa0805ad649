"""Windows that are no convolution: resizing, and blocks of pixels as channels."""

from __future__ import annotations

from collections.abc import Sequence

from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.layout import Shape, inverse
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.value import Value


def resize(
    builder: GraphBuilder,
    name: str,
    value: Value,
    channel_axis: int,
    native_shape: Shape,
    mode: str,
    *,
    corners: bool = False,
    exact: bool = False,
    factors: Sequence[float] | None = None,
) -> Value:
    """Images resized to the native shape.

    Args:
        builder: Receives the node.
        name: Wanted name.
        value: Images.
        channel_axis: Native axis of the channels.
        native_shape: Native shape of the result.
        mode: ``nearest`` or ``linear``.
        corners: Whether the corners of both images lie upon each other.
        exact: Whether the nearest pixel is the one whose centre is nearest, and not the one to the left.
        factors: How many times larger, where the model says so; else the size of the result is what it says.
    """
    value = builder.channels_first(value, channel_axis)
    shape = tuple(native_shape[axis] for axis in inverse(value.perm))
    before, after = value.shape[2:], shape[2:]
    whole = all(n % m == 0 for n, m in zip(after, before, strict=True))
    scales: tuple[int, ...] | tuple[float, ...] = tuple(n // m for n, m in zip(after, before, strict=True))
    if not whole:
        scales = tuple(
            float(factor) for factor in factors or (n / m for n, m in zip(after, before, strict=True))
        )
    attributes: dict[str, AttributeValue] = {
        "scales": scales,
        "mode": "nearest_exact" if exact and not whole else mode,
        "align_corners": int(corners),
    }
    if not whole and factors is None:
        attributes["sizes"] = after
    (out,) = builder.add("Resize", name, [value], [shape], attributes=attributes)
    return Value(out, shape, value.perm)


def depth_to_space(
    builder: GraphBuilder, name: str, value: Value, channel_axis: int, size: int, *, blocks_first: bool
) -> Value:
    """``[N, C · size², H, W]`` as ``[N, C, H · size, W · size]``.

    Args:
        builder: Receives the node.
        name: Wanted name.
        value: Images.
        channel_axis: Native axis of the channels.
        size: Pixels of a block along one side.
        blocks_first: Whether the places of a block come before the channels in the native order, as TensorFlow has them.
    """
    value = builder.channels_first(value, channel_axis)
    batch, deep, height, width = value.shape
    channels = deep // size**2
    if blocks_first:
        value = _turned(builder, name, value, size**2, channels)
    shape = (batch, channels, height * size, width * size)
    (out,) = builder.add("DepthToSpace", name, [value], [shape], attributes={"blocksize": size})
    return Value(out, shape, value.perm)


def space_to_depth(
    builder: GraphBuilder, name: str, value: Value, channel_axis: int, size: int, *, blocks_first: bool
) -> Value:
    """``[N, C, H, W]`` as ``[N, C · size², H / size, W / size]``; the inverse of :func:`depth_to_space`."""
    value = builder.channels_first(value, channel_axis)
    batch, channels, height, width = value.shape
    shape = (batch, channels * size**2, height // size, width // size)
    attributes: dict[str, AttributeValue] = {"blocksize": size, "channels": channels}
    (out,) = builder.add("SpaceToDepth", name, [value], [shape], attributes=attributes)
    made = Value(out, shape, value.perm)
    return _turned(builder, name, made, channels, size**2) if blocks_first else made


def shuffle_channels(builder: GraphBuilder, name: str, value: Value, channel_axis: int, groups: int) -> Value:
    """The channels of every group in turn."""
    value = builder.channels_first(value, channel_axis)
    batch, channels, *pixels = value.shape
    rank = len(value.shape)
    split = (batch, groups, channels // groups, *pixels)
    (out,) = builder.add("Reshape", name, [value], [split])
    turned = (batch, channels // groups, groups, *pixels)
    perm = (0, 2, 1, *range(3, rank + 1))
    made = Value(out, split, tuple(range(rank + 1)))
    (out,) = builder.add("Transpose", name, [made], [turned], attributes={"perm": perm})
    made = Value(out, turned, tuple(range(rank + 1)))
    (out,) = builder.add("Reshape", name, [made], [value.shape])
    return Value(out, value.shape, value.perm)


def _turned(builder: GraphBuilder, name: str, value: Value, rows: int, columns: int) -> Value:
    """Channels that lie as ``[rows, columns]``, as ``[columns, rows]``."""
    indices = tuple(row * columns + column for column in range(columns) for row in range(rows))
    if indices == tuple(range(rows * columns)):
        return value
    attributes: dict[str, AttributeValue] = {"axis": 1, "indices": indices}
    (out,) = builder.add("Take", name, [value], [value.shape], attributes=attributes)
    return Value(out, value.shape, value.perm)
