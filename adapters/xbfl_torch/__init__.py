"""The PyTorch adapter. Importing this package does not import PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, final

from xbackend_fl.adapter.pads import pads_of
from xbackend_fl.errors import RefusedInput

if TYPE_CHECKING:
    from xbackend_fl.adapter.contract import Array
    from xbfl_torch.trainer import TorchTrainer

_CODE = {
    "epsilon": "eps={0}",
    "ceil_mode": "ceil_mode=bool({0})",
    "strides": "stride={0}",
    "dilations": "dilation={0}",
    "kernel_shape": "kernel_size={0}",
    "group": "groups={0}",
    "alpha": "negative_slope={0}  (LeakyReLU) or alpha={0}",
    "linear_before_reset": "nn.GRU always resets after the product; use reset_after=True on the Keras side",
    "approximate": "nn.GELU(approximate={0!r})",
    "num_heads": "num_heads={0}",
    "num_groups": "num_groups={0}",
    "hidden_size": "hidden_size={0}",
    "count_include_pad": "count_include_pad={0}",
    "padding_idx": "padding_idx={0}",
    "bias": "bias={0}",
    "weight": "affine={0}  (elementwise_affine in LayerNorm)",
    "align_corners": "align_corners=bool({0})",
    "causal": "is_causal=bool({0})",
    "axis": "dim={0}",
    "trainable": "requires_grad_({0}) on its parameters",
}

_STATISTICS = {
    "kept in training": "call its eval() when the model is built, or in the model's train(); requires_grad=False does not keep them",
    "averaged in training": "leave it in training mode, as model.train() does",
}

_BY_OPERATOR = {
    ("Gemm", "width"): "out_features={0}",
    ("Conv", "width"): "out_channels={0}",
    ("ConvTranspose", "width"): "out_channels={0}",
    ("Gather", "width"): "embedding_dim={0}",
    ("Gather", "vocabulary"): "num_embeddings={0}",
    ("Gemm", "input width"): "in_features={0}, of an input with as many features",
    ("Conv", "input width"): "in_channels={0}, of an input with as many channels",
    ("ConvTranspose", "input width"): "in_channels={0}, of an input with as many channels",
} | {
    (operator, attribute): f"{argument}={{0}}"
    for operator in ("LSTM", "GRU", "RNN")
    for attribute, argument in (("width", "hidden_size"), ("input width", "input_size"))
}


@final
class TorchAdapter:
    """Speaks PyTorch: ``nn.Module`` in, :class:`TorchTrainer` out."""

    name = "torch"

    @property
    def version(self) -> str:
        """Framework and version."""
        return f"torch {version('torch')}"

    def handles(self, model: object) -> bool:
        """Whether ``model`` is an ``nn.Module``."""
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(model, torch.nn.Module)

    def load(self, path: Path) -> object:
        """Refuse: a PyTorch file holds weights, and the model is code."""
        raise RefusedInput(
            f"{path} alone is no PyTorch model", hint="name the code: torch:net.py:build returns the module"
        )

    def open(self, model: object, example: Sequence[Array]) -> TorchTrainer:
        """Describe ``model`` and make it ready; see the contract."""
        from xbfl_torch.trainer import TorchTrainer

        return TorchTrainer(model, example)

    def hint(self, node: str, operator: str, attribute: str, value: object) -> str:
        """PyTorch code that sets ``attribute``."""
        if attribute == "pads":
            return f"torch: {node}: {_padding(operator, pads_of(value))}"
        usual = _CODE.get(attribute, f"{attribute} = {value!r} of {operator}")
        code = _BY_OPERATOR.get((operator, attribute), usual).format(value)
        if attribute == "statistics":
            code = _STATISTICS[str(value)]
        return f"torch: {node}: {code}"

    def configure_process(self, threads: int, seed: int) -> None:
        """Thread count, deterministic kernels, seed of initial weights."""
        import torch

        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        # It would also fill every new tensor, which is for finding reads of memory that nothing wrote.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # The treaty is float32; a GPU's shorter format has a mantissa of ten bits.
        torch.backends.cudnn.allow_tf32 = False


def _padding(operator: str, pads: tuple[tuple[int, int], ...]) -> str:
    """Code for (before, after) per spatial axis."""
    before = [low for low, _ in pads]
    if operator == "ConvTranspose":
        extra = [low - high for low, high in pads]
        if min(extra) >= 0:
            return f"padding={tuple(before)}, output_padding={tuple(extra)}"
        cut = ", ".join(f"{low}:{-high if high else ''}" for low, high in pads)
        return f"padding=0, output_padding=0 and y[..., {cut}] behind it"
    if all(low == high for low, high in pads):
        return f"padding={tuple(before)}"
    flat = tuple(number for pair in reversed(pads) for number in pair)
    value = ", value=-math.inf" if operator == "MaxPool" else ""
    return f"padding=0 behind F.pad(x, {flat}{value})"


adapter = TorchAdapter()
