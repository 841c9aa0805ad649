"""The package, imported on use, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, final

from xbackend_fl.errors import AdapterError, RefusedInput
from xbackend_fl.text import line

_CARD = ("capabilit", "CUDA driver", "cudaError", "CUDA_SUCCESS", "GPU properties")
"""Words with which it says that the card is the reason, or that there is none."""


def library() -> Any:
    """TensorRT.

    Raises:
        AdapterError: It is not installed.
    """
    try:
        return import_module("tensorrt_rtx_bindings")
    except ImportError as error:
        raise AdapterError(
            f"TensorRT is not installed: {line(str(error))}", hint="pip install 'xbackend-fl[tensorrt]'"
        ) from error


@final
class Messages:
    """Hears what TensorRT says, which would otherwise stand on the terminal."""

    def __init__(self, trt: Any) -> None:
        found: list[str] = []
        bad = {trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR}

        def log(_: object, severity: object, message: str) -> None:
            if severity in bad:
                found.append(message)

        def begin(self: object) -> None:
            trt.ILogger.__init__(self)

        # Its base is known when the package is imported.
        self.logger: Any = type("Log", (trt.ILogger,), {"__init__": begin, "log": log})()
        self.errors = found

    def refusal(self, what: str, hint: str) -> RefusedInput:
        """An error of what was said; one line where the card is the reason.

        Args:
            what: What could not be done, as the beginning of a sentence.
            hint: What to do if it is not the card.
        """
        card = next((text for text in self.errors if any(word in text for word in _CARD)), None)
        if card is not None:
            return RefusedInput(
                f"{what} on this machine's card, if it has one: {line(card, 200)}",
                hint="TensorRT-RTX serves cards of compute capability 8.0, 8.6, 8.9, 12.0 and later",
            )
        return RefusedInput(f"{what}: {line(_last(self.errors), 300)}", hint=hint)


def _last(errors: Sequence[str]) -> str:
    return errors[-1] if errors else "it does not say why"
