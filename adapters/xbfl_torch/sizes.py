"""Where a module decides by the size of its data: ``if x.shape[0] > 64``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from xbackend_fl.adapter.lengths import Decisions, decisions
from xbackend_fl.places import is_library

_ASKING = (__file__, *(str(Path(torch.__file__).parent / name) for name in ("_tensor.py", "overrides.py")))
"""Files between the question for a length and who asks."""


def decided_by_size(
    model: torch.nn.Module, call: Callable[..., object], native: Sequence[torch.Tensor]
) -> tuple[str, ...]:
    """A note on the lines of the user's own at which a module decides by how many examples there are, or how long they are.

    The module is called with data of other sizes that hold no numbers, so that this takes no longer than its Python code.

    Args:
        model: The module, in evaluation mode.
        call: Calls it.
        native: Its data.
    """
    forwards = (type(module).forward for module in model.modules())
    if all(is_library(forward.__code__.co_filename) for forward in forwards if hasattr(forward, "__code__")):
        return ()
    held = [n for tensor in (*model.parameters(), *model.buffers()) for n in tensor.shape]

    def called(shapes: list[list[int]], decided: Decisions) -> bool:
        def watched() -> None:
            with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
                given = [torch.zeros(shape, dtype=t.dtype) for shape, t in zip(shapes, native, strict=True)]
                with _Sizes(decided):
                    call(*given)

        try:
            watched()
        except Exception:  # noqa: BLE001  a model may raise anything
            return False
        return True

    return decisions([tensor.shape for tensor in native], held, called)


@final
class _Sizes(TorchFunctionMode):
    """Sizes that are read from tensors say what is decided by them."""

    def __init__(self, decisions: Decisions) -> None:
        super().__init__()
        self._decisions = decisions

    def __torch_function__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Size):
            return torch.Size(map(self._decisions.marked, made))
        if type(made) is int:
            if getattr(func, "__name__", "") == "__len__":
                # Python makes a plain number of a length.
                if self._decisions.marked(made) is not made:
                    self._decisions.note(beyond=_ASKING, tests_only=True)
                return made
            return self._decisions.marked(made)
        return made
