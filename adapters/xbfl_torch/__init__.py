"""The PyTorch adapter. Importing this package does not import PyTorch."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, final

from xbackend_fl.adapter.words import code
from xbackend_fl.errors import RefusedInput
from xbfl_torch.words import WORDS

if TYPE_CHECKING:
    from xbackend_fl.adapter.example import Example
    from xbfl_torch.peers import TorchPeers
    from xbfl_torch.trainer import TorchTrainer


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

    def load_model(self, model: object, example: Example) -> TorchTrainer:
        """Describe ``model`` and make it ready; see the contract."""
        from xbfl_torch.trainer import TorchTrainer

        return TorchTrainer(model, example)

    def hint(self, node: str, operator: str, attribute: str, value: object) -> str:
        """PyTorch code that sets ``attribute``."""
        return f"torch: {node}: {code(WORDS, operator, attribute, value)}"

    def configure_process(self, threads: int, seed: int) -> None:
        """Thread count, deterministic kernels, seed of initial weights."""
        import torch

        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        # It would also fill every new tensor, which is for finding reads of memory that nothing wrote.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # The schema is float32; a GPU's shorter format has a mantissa of ten bits.
        torch.backends.cudnn.allow_tf32 = False

    def peers(self) -> TorchPeers | None:
        """Those of ``torch.distributed``."""
        from xbfl_torch.peers import peers

        return peers()


adapter = TorchAdapter()
