"""ONNX's attributes as arguments of Keras."""

from __future__ import annotations

from xbackend_fl.adapter.words import COMMON, Pads, Words, flag, padded, without

_STATISTICS = {
    "kept in training": "trainable=False, or training=False in its call inside a subclassed model",
    "averaged in training": "trainable=True, and no training=False in its call",
}
_DIRECTIONS = {
    "forward": "go_backwards=False, without Bidirectional",
    "bidirectional": "Bidirectional(…) around it",
    "reverse": "run it over keras.ops.flip(x, 1)",
}
_INTERPOLATIONS = {
    "nearest": "interpolation='nearest'",
    "nearest_exact": "keras.layers.Resizing(…, interpolation='nearest')",
    "linear": "interpolation='bilinear'",
}
_EDGES = {
    "edge": "keras.ops.pad(…, mode='symmetric') differs from repeated edges: repeat them with keras.ops.concatenate"
}
_ORDER = "  (counted with channels second, as in ONNX)"


def _counted(value: object) -> str:
    return (
        "padding counts in an average by ZeroPadding2D in front and padding='valid'"
        if value
        else ("padding='same', whose zeros do not count in an average")
    )


def padding(operator: str, pads: Pads) -> str:
    """Code for (before, after) per axis: the spatial ones, or every axis in ONNX's order for a ``Pad``."""
    if operator == "Pad":
        turned = (pads[0], *pads[2:], pads[1]) if len(pads) > 2 else pads
        return f"keras.ops.pad(x, {turned})"
    rank = len(pads)
    amounts = str(pads if rank > 1 else pads[0])
    if not any(number for pair in pads for number in pair):
        return "padding='valid'"
    if operator == "ConvTranspose":
        return f"padding='valid' and Cropping{rank}D({amounts}) behind it"
    if operator == "MaxPool":
        every = ((0, 0), *pads, (0, 0))
        return f"padding='valid' behind keras.ops.pad(x, {every}, constant_values=-math.inf)"
    return f"padding='valid' behind ZeroPadding{rank}D({amounts})"


WORDS: Words = {
    **COMMON,
    "epsilon": "epsilon={0}",
    "ceil_mode": lambda value: (
        f"padding='same' covers what ceil_mode={bool(value)} covers only at some sizes; pad at the end by hand at others"
    ),
    "input width": "feed it {0} features: it takes as many as the layer or the example in front of it has",
    "strides": "strides={0}",
    "dilations": "dilation_rate={0}",
    ("MaxPool", "kernel_shape"): "pool_size={0}",
    ("AveragePool", "kernel_shape"): "pool_size={0}",
    ("Selu", "alpha"): "keras.ops.selu has fixed numbers; with others: scale * keras.ops.elu(x, alpha={0})",
    ("Selu", "gamma"): "keras.ops.selu has fixed numbers; with others: {0} * keras.ops.elu(x, alpha=…)",
    ("HardSigmoid", "alpha"): "keras.ops.clip(x * {0} + offset, 0, 1)",
    ("HardSigmoid", "beta"): "keras.ops.clip(x * slope + {0}, 0, 1)",
    "linear_before_reset": flag("reset_after"),
    "approximate": lambda value: f"keras.ops.gelu(x, approximate={value == 'tanh'})",
    "num_groups": "groups={0}",
    "hidden_size": "units={0}",
    "direction": lambda value: _DIRECTIONS[str(value)],
    "activation": lambda value: f"activation={str(value).lower()!r}",
    "count_include_pad": _counted,
    "padding_idx": "Embedding has no padding row; padding_idx={0} is the schema's",
    "momentum": "momentum={0}",
    "ratio": "rate={0}",
    "shared_axes": "noise_shape with 1 along axes {0}",
    "bias": "use_bias={0}  (center in normalisations)",
    "weight": "scale={0}",
    "align_corners": lambda value: (
        "a matrix product along each axis by hand: Keras's layers never align corners"
        if value
        else ("UpSampling2D, which never aligns corners")
    ),
    "causal": flag("use_causal_mask"),
    "scale": "scale the scores by {0}",
    "axis": "axis={0}" + _ORDER,
    "axes": "axis={0}" + _ORDER,
    "index": "index {0} in keras.ops.gather(x, index, axis)",
    "step": "step {0} of the slice",
    "min": without("keras.ops.maximum(x, {0})", "no lower bound"),
    "max": without("keras.ops.minimum(x, {0})", "no upper bound"),
    ("Constant", "dtype"): "a constant of {0}",
    "value": "constant_values={0}",
    "mode": lambda value: _EDGES.get(str(value), f"mode={str(value)!r}"),
    ("Resize", "mode"): lambda value: _INTERPOLATIONS[str(value)],
    "scales": "size={0}",
    ("Shrink", "bias"): "bias={0}: keras.ops.soft_shrink has bias = threshold, hard_shrink has none",
    "lambd": "threshold={0}",
    ("ThresholdedRelu", "alpha"): "keras.ops.threshold(x, {0}, 0)",
    "exclusive": lambda value: f"tf.cumsum(x, axis, exclusive={bool(value)})",
    "reverse": lambda value: f"tf.cumsum(x, axis, reverse={bool(value)})",
    "indices": "the positions {0} in keras.ops.gather(x, positions, axis)",
    "shift": "shift={0}",
    "batch_dims": "tf.gather(x, index, batch_dims={0})",
    "trainable": "trainable={0}",
    "statistics": lambda value: _STATISTICS[str(value)],
    "width": "units={0}",
    ("Conv", "width"): "filters={0}",
    ("ConvTranspose", "width"): "filters={0}",
    ("Gather", "width"): "output_dim={0}",
    ("Gather", "vocabulary"): "input_dim={0}",
    **padded(padding),
}
