"""How an ONNX file is written: said in a room that imports no onnx, and to another process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

from xbackend_fl.canonical.onnx_opset import OPSET


@final
@dataclass(frozen=True)
class Writing:
    """How an ONNX file is written.

    Attributes:
        sequence_axes: Position of an input and axis of it, for every axis that is free besides the batch.
        opset: Version of ONNX's operators; the usual one if nobody asked for any.
        metadata: Text in the file's metadata, by key.
    """

    sequence_axes: Sequence[tuple[int, int]] = ()
    opset: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def asks(self) -> bool:
        """Whether anything is said that only a graph of ours can be asked for."""
        return bool(self.sequence_axes) or self.opset is not None

    @property
    def arguments(self) -> dict[str, Any]:
        """Of :func:`~xbackend_fl.canonical.onnx_export.to_onnx`."""
        return {**vars(self), "opset": self.opset or OPSET}

    def to_json(self) -> str:
        """As one line for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Writing:
        """From :meth:`to_json`."""
        plain = json.loads(text)
        return cls(
            [(index, axis) for index, axis in plain["sequence_axes"]], plain["opset"], plain["metadata"]
        )
