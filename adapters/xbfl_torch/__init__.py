"""The PyTorch adapter. Importing this package does not import PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, final

from xbackend_fl.errors import RefusedInput

if TYPE_CHECKING:
    from xbackend_fl.adapter.contract import Array
    from xbfl_torch.trainer import TorchTrainer

_CODE = {
    "epsilon": "eps={0}",
    "pads": "padding={0}  (or F.pad in front of the layer, if the pads are uneven)",
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
        code = _CODE.get(attribute, f"{attribute} = {value!r} of {operator}").format(value)
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


adapter = TorchAdapter()
