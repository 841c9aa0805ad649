"""Sessions of ONNX Runtime, all of them opened here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_SILENT = 4
"""Whatever it says about a graph that cannot run is raised, too."""


class SessionRefused(Exception):  # noqa: N818  caught by whoever opened the session, and said in terms of the model
    """ONNX Runtime cannot open a graph or run it; the message is its own."""


@final
class OnnxSession:
    """A graph in ONNX Runtime, on the processor."""

    def __init__(self, model: onnx.ModelProto | Path, *, threads: int = 1, optimized: bool = True) -> None:
        """Open a graph.

        Args:
            model: The graph, or its file.
            threads: Threads of one operator; 0 takes every core.
            optimized: Whether the graph is rewritten first, which takes longer than one run of a small one.

        Raises:
            SessionRefused: It cannot be opened.
        """
        # 22 MB that a server does without: it proves nothing itself.
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _SILENT
        options.intra_op_num_threads = threads
        if not optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        content = str(model) if isinstance(model, Path) else model.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        except Exception as error:
            raise SessionRefused(str(error)) from error

    @property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs."""
        return [output.name for output in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str] | None = None) -> list[Any]:
        """Values of a run.

        Args:
            feeds: Every input by name.
            names: Values wanted, outputs of the graph; all outputs in their order if left out.

        Raises:
            SessionRefused: It cannot run on these inputs.
        """
        try:
            return list(self._session.run(None if names is None else list(names), dict(feeds)))
        # It raises one class per status, without a public base.
        except Exception as error:
            raise SessionRefused(str(error)) from error
