"""The ONNX adapter: a file as the reference. Importing this package does not import ONNX."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from xbackend_fl.adapter.example import Example
    from xbfl_onnx.trainer import OnnxTrainer


@final
class OnnxAdapter:
    """Speaks ONNX: a ``ModelProto`` in, an :class:`OnnxTrainer` out that infers and does not train."""

    name = "onnx"

    @property
    def version(self) -> str:
        """Format and runtime."""
        return f"onnx {version('onnx')}, onnxruntime {version('onnxruntime')}"

    def handles(self, model: object) -> bool:
        """Whether ``model`` is a ``ModelProto``."""
        onnx = sys.modules.get("onnx")
        return onnx is not None and isinstance(model, onnx.ModelProto)

    def load(self, path: Path) -> object:
        """Read an ``.onnx`` file."""
        from xbfl_onnx.trainer import read

        return read(path)

    def load_model(self, model: object, example: Example) -> OnnxTrainer:
        """Describe ``model`` and make it ready; see the contract."""
        from xbfl_onnx.trainer import OnnxTrainer

        return OnnxTrainer(model, example)

    def hint(self, node: str, operator: str, attribute: str, value: object) -> str:
        """The attribute of the node in the file."""
        return f"onnx: {node}: {attribute}={value} of {operator}"

    def configure_process(self, threads: int, seed: int) -> None:
        """Nothing: a session has its own threads and nothing is random."""
        del threads, seed


adapter = OnnxAdapter()
