"""ONNX's attributes as arguments of PyTorch."""

from __future__ import annotations

from xbackend_fl.adapter.words import COMMON, Pads, Words, flag, padded, without

_STATISTICS = {
    "kept in training": "call its eval() when the model is built, or in the model's train(); requires_grad=False does not keep them",
    "averaged in training": "leave it in training mode, as model.train() does",
}
_DIRECTIONS = {
    "forward": "bidirectional=False",
    "bidirectional": "bidirectional=True",
    "reverse": "run it over x.flip(1)",
}
_MODES = {
    "nearest": "mode='nearest'",
    "nearest_exact": "mode='nearest-exact'",
    "linear": "mode='bilinear'  ('linear' along one axis, 'trilinear' along three)",
}
_EDGES = {"edge": "mode='replicate'", "wrap": "mode='circular'"}


def padding(operator: str, pads: Pads) -> str:
    """Code for (before, after) per axis: the spatial ones, or every axis for a ``Pad``."""
    flat = tuple(number for pair in reversed(pads) for number in pair)
    if operator == "Pad":
        while flat[-2:] == (0, 0):
            flat = flat[:-2]
        return f"F.pad(x, {flat})"
    before = [low for low, _ in pads]
    if operator == "ConvTranspose":
        extra = [low - high for low, high in pads]
        if min(extra) >= 0:
            return f"padding={tuple(before)}, output_padding={tuple(extra)}"
        cut = ", ".join(f"{low}:{-high if high else ''}" for low, high in pads)
        return f"padding=0, output_padding=0 and y[..., {cut}] behind it"
    if all(low == high for low, high in pads):
        return f"padding={tuple(before)}"
    value = ", value=-math.inf" if operator == "MaxPool" else ""
    return f"padding=0 behind F.pad(x, {flat}{value})"


WORDS: Words = {
    **COMMON,
    "epsilon": "eps={0}",
    "ceil_mode": flag("ceil_mode"),
    "strides": "stride={0}",
    "dilations": "dilation={0}",
    ("Selu", "alpha"): "F.selu has fixed numbers; with others: scale * F.elu(x, alpha={0})",
    ("Selu", "gamma"): "F.selu has fixed numbers; with others: {0} * F.elu(x, alpha=…)",
    ("HardSigmoid", "alpha"): "(x * {0} + offset).clamp(0, 1)",
    ("HardSigmoid", "beta"): "(x * slope + {0}).clamp(0, 1)",
    "linear_before_reset": "nn.GRU always resets after the product; use reset_after=True on the Keras side",
    "approximate": "nn.GELU(approximate={0!r})",
    "num_groups": "num_groups={0}",
    "hidden_size": "hidden_size={0}",
    "direction": lambda value: _DIRECTIONS[str(value)],
    "activation": lambda value: f"nonlinearity={str(value).lower()!r}",
    "count_include_pad": flag("count_include_pad"),
    "padding_idx": "padding_idx={0}",
    "momentum": lambda value: f"momentum={round(1 - value, 12)}",
    "ratio": "p={0}",
    "shared_axes": "nn.Dropout drops numbers, nn.Dropout1d to nn.Dropout3d whole channels; wanted: one draw along axes {0}",
    "bias": "bias={0}",
    "weight": "affine={0}  (elementwise_affine in LayerNorm)",
    "align_corners": flag("align_corners"),
    "causal": flag("is_causal"),
    "scale": "scale={0}",
    "axis": "dim={0}",
    "axes": "dim={0}",
    "index": "index {0} in x.select(dim, index), or x[:, index]",
    "step": "step={0} of the slice",
    "min": without("torch.clamp(x, min={0})", "torch.clamp without min"),
    "max": without("torch.clamp(x, max={0})", "torch.clamp without max"),
    ("Constant", "dtype"): "a constant of torch.{0}",
    "value": "value={0}",
    "mode": lambda value: _EDGES.get(str(value), f"mode={str(value)!r}"),
    ("Resize", "mode"): lambda value: _MODES[str(value)],
    "scales": "scale_factor={0}",
    ("Shrink", "bias"): "bias={0}: F.softshrink has bias = lambd, F.hardshrink has none",
    "lambd": "lambd={0}",
    ("ThresholdedRelu", "alpha"): "F.threshold(x, {0}, 0)",
    "exclusive": without("x.cumsum(dim) - x", "x.cumsum(dim)"),
    "reverse": without("x.flip(dim).cumsum(dim).flip(dim)", "x.cumsum(dim)"),
    "indices": "the positions {0} in x.index_select(dim, positions)",
    "shift": "shifts={0}",
    "batch_dims": "x[torch.arange(len(x)), index] picks for each example: batch_dims is {0}",
    "trainable": "requires_grad_({0}) on its parameters",
    "statistics": lambda value: _STATISTICS[str(value)],
    ("Gemm", "width"): "out_features={0}",
    ("Conv", "width"): "out_channels={0}",
    ("ConvTranspose", "width"): "out_channels={0}",
    ("Gather", "width"): "embedding_dim={0}",
    ("Gather", "vocabulary"): "num_embeddings={0}",
    ("Gemm", "input width"): "in_features={0}, of an input with as many features",
    ("Conv", "input width"): "in_channels={0}, of an input with as many channels",
    ("ConvTranspose", "input width"): "in_channels={0}, of an input with as many channels",
    "width": "hidden_size={0}",
    "input width": "input_size={0}",
    **padded(padding),
}
