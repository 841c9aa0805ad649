"""Where a module reads its data as Python values: an ``if``, a loop, ``.item()``, ``.numpy()``.

One execution shows one side of such a decision, and no number of probes finds the value at which another begins. So the module is
executed once while it is noted which tensors come from the data, and which of them Python code looks into, with the line.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, final

import torch
from torch._ops import HigherOrderOperator
from torch.fx import Graph
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from xbackend_fl.adapter.guards import Call, catches, caught, in_a_test, only_refuses, only_skips
from xbackend_fl.errors import UnsupportedError
from xbackend_fl.places import is_library, shown_place

_LOOKS = frozenset(
    {"numpy", "tolist", "__array__", "__dlpack__", "data_ptr", "untyped_storage", "storage", "to_dlpack"}
)
"""Functions that hand out what a tensor holds without an operation."""

_SIZES = frozenset({"__len__", "size", "numel", "nelement", "unbind", "__iter__", "shape.__get__"})

_BRANCHES = frozenset({"cond", "while_loop"})
"""Operations that run one of several graphs, or one again and again."""

_LIKE = frozenset(
    f"aten.{name}"
    for name in (
        *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
        *(
            "new_zeros",
            "new_ones",
            "new_empty",
            "new_full",
            "new_empty_strided",
            "sym_size",
            "sym_numel",
            "sym_stride",
        ),
    )
)
"""Operations that take sizes and dtype of a tensor, and no value."""

_TORCH, _HERE = (str(Path(file).parent) for file in (torch.__file__, __file__))
_LAYERS = str(Path(_TORCH) / "nn")
_MACHINERY = tuple(
    str(Path(_TORCH) / name) for name in ("_dynamo", "_compile.py", "utils", "overrides.py", "_ops.py")
)
"""Files of PyTorch between an operation and who sees it."""
_PACKING = (str(Path("nn", "modules", "rnn.py")), str(Path("nn", "utils", "rnn.py")))
"""Where PyTorch reads how many sequences are packed, which is how many there are."""
_MAX = 256
"""Of looks that are kept."""


@dataclass(frozen=True)
class Read:
    """One place at which Python code looks into the data.

    Attributes:
        location: ``FILE:LINE``.
        code: The line.
        own: Whether it is a line of the user's own, and not of a library.
        decides: Whether what the module computes may depend on it; a look that only refuses or prints does not.
        caught: Whether an exception of it ends inside the module.
    """

    location: str
    code: str
    own: bool
    decides: bool
    caught: bool

    def __str__(self) -> str:
        return f"{self.location}, {self.code!r}" if self.code else self.location


def reads_of(
    model: torch.nn.Module, call: Callable[..., object], native: Sequence[torch.Tensor]
) -> tuple[Read, ...]:
    """The places at which a module reads its data as Python values, in order.

    Args:
        model: The module, in evaluation mode.
        call: Calls it.
        native: Its data.
    """
    looks = _Looks({type(module).__module__.partition(".")[0] for module in model.modules()}, native)
    with torch.no_grad(), looks, looks.functions:
        call(*native)
    return tuple(looks.found)


def decisions_of(
    model: torch.nn.Module, graph: Graph, call: Callable[..., object], native: Sequence[torch.Tensor]
) -> tuple[Read, ...]:
    """The decisions of a module that was exported all the same.

    Its graph may hold both branches, or the module swallows what is raised where it reads its data: the exporter, too, says by an
    exception that it has no values.

    Args:
        model: The module, in evaluation mode.
        graph: As it was exported.
        call: Calls it.
        native: Its data.
    """
    targets = (node.target for node in graph.nodes)
    branches = any(isinstance(item, HigherOrderOperator) and item.__name__ in _BRANCHES for item in targets)
    if not branches and not any(map(catches, _files(model))):
        return ()
    try:
        reads = reads_of(model, call, native)
    except Exception:  # noqa: BLE001  it was exported: nothing says that it can be looked at as well
        return ()
    return tuple(read for read in reads if read.caught or branches)


def _files(model: torch.nn.Module) -> set[str]:
    """Files of the user's own that may have a part in a module."""
    modules = (module.forward for module in model.modules())
    files = {function.__code__.co_filename for function in modules if hasattr(function, "__code__")}
    files |= {
        str(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))
    }
    return {file for file in files if not is_library(file)}


def refuse_decisions(name: str, reads: Sequence[Read]) -> None:
    """Refuse a module whose own code decides by its data.

    Args:
        name: Its class.
        reads: Where it looks at them.

    Raises:
        UnsupportedError: It does.
    """
    lines = [str(read) for read in reads if read.own and read.decides]
    if lines:
        raise UnsupportedError(
            f"torch.export cannot trace {name}: data-dependent control flow (at {_named(lines)}): Python reads there what the "
            "tensors hold, and one execution shows one outcome only",
            hint="compute both sides and choose by torch.where(condition, one, other); run a loop a fixed number of times and mask what is "
            "over; keep numbers tensors, without .item(), .numpy(), .tolist(), int(), float() and bool()",
        )


def _named(lines: Sequence[str]) -> str:
    """The first of many lines, and how many there are."""
    return "; ".join(lines[:3]) + (f" and {len(lines) - 3} more" if len(lines) > 3 else "")


def notes_of(reads: Sequence[Read]) -> Iterator[str]:
    """What people should know of reads that are not refused."""
    checks = [str(read) for read in reads if not read.decides]
    others = [str(read) for read in reads if read.decides and not read.own]
    if checks:
        yield f"the model looks at the values of its data and may refuse some, or skip what is empty (at {_named(checks)})"
    if others:
        yield (
            f"a library decides by the values of the data (at {_named(others)}): the graph has the outcome of the example, and data "
            "with another outcome were compared only as far as the probes have some"
        )


@final
class _Looks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which storages hold what came from the data, and what is read from them."""

    supports_higher_order_operators = True

    def __init__(self, packages: Collection[str], native: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Read] = []
        self._packages = packages
        self.functions = _Functions(self)
        # The storages are kept, so that no other one gets the place of one.
        self._storages: dict[int, Any] = {}
        self._sizes: dict[int, torch.Tensor] = {}
        for tensor in native:
            self._mark(tensor)

    def _mark(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = storage  # noqa: SLF001  two wrappers of one storage are two objects

    def holds_data(self, tensor: torch.Tensor) -> bool:
        """Whether what a tensor holds comes from the data."""
        return tensor.untyped_storage()._cdata in self._storages  # noqa: SLF001

    def sized_by_data(self, tensor: torch.Tensor) -> bool:
        """Whether the size of a tensor comes from the data."""
        return id(tensor) in self._sizes

    def note(self, *, size: bool = False) -> None:
        """Note that whoever calls now looks into the data, or at a size that comes from them."""
        calls = list(_calls())
        reader = next((call.file for call in calls if not call.file.startswith(_MACHINERY)), "")
        if reader.endswith(_PACKING):
            return
        inside = reader.startswith(_LAYERS)
        calls = [call for call in calls if not call.file.startswith(_TORCH)]
        # NumPy and the standard library look on behalf of whoever calls them.
        known = (
            i
            for i, call in enumerate(calls)
            if not is_library(call.file) or _package(call.file) in self._packages
        )
        first = next(known, None)
        if first is None or len(self.found) == _MAX or (size and not in_a_test(calls[first])):
            return
        call = calls[first]
        harmless = not inside and (only_refuses(calls[first:]) or (size and only_skips(call)))
        code = linecache.getline(call.file, call.line).strip()
        own = not inside and not is_library(call.file)
        read = Read(shown_place(call.file, call.line), code, own, not harmless, any(map(caught, calls)))
        if read not in self.found:
            self.found.append(read)

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        given = _leaves((*args, *(kwargs or {}).values()))
        made = func(*args, **(kwargs or {}))
        if isinstance(func, HigherOrderOperator):
            asked = given[:1] if func.__name__ == "cond" else given
            if any(map(self.holds_data, asked)):
                for tensor in _leaves(made):
                    self._mark(tensor)
                if func.__name__ in _BRANCHES:
                    self.note()
            return made
        if str(func).rsplit(".", 1)[0] in _LIKE or not any(map(self.holds_data, given)):
            return made
        results = _leaves(made)
        if not results and isinstance(made, bool | int | float | complex) and not self.functions.checks:
            self.note()
        sized = torch.Tag.dynamic_output_shape in func.tags or any(map(self.sized_by_data, given))
        for tensor in results:
            self._mark(tensor)
            if sized and tensor.dim():
                self._sizes[id(tensor)] = tensor
        for argument, value in zip(func._schema.arguments, args, strict=False):  # noqa: SLF001  nothing else says it
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _leaves(value):
                    self._mark(tensor)
        return made


@final
class _Functions(TorchFunctionMode):
    """Notes calls that hand out what a tensor holds, or its size, without an operation."""

    def __init__(self, looks: _Looks) -> None:
        super().__init__()
        self._looks = looks
        self.checks = 0

    def __torch_function__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        name = str(getattr(func, "__name__", ""))
        if name == "__get__":
            name = f"{getattr(getattr(func, '__self__', None), '__name__', '')}.__get__"
        if args and isinstance(args[0], torch.Tensor):
            if name in _LOOKS and self._looks.holds_data(args[0]):
                self._looks.note()
            elif name in _SIZES and self._looks.sized_by_data(args[0]):
                self._looks.note(size=True)
        checking = _only_checks(name, args, kwargs or {})
        self.checks += checking
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.checks -= checking


def _only_checks(name: str, args: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Whether a function of PyTorch reads its data only to refuse some, or to show them."""
    if name == "one_hot":
        classes = args[1] if len(args) > 1 else options.get("num_classes", -1)
        return bool(classes != -1)
    return name.startswith(("linalg_", "cholesky", "inverse")) or name in {
        "__repr__",
        "__format__",
        "__str__",
    }


def _package(file: str) -> str:
    """The package of a library that a file belongs to."""
    parts = Path(file).parts
    place = next(
        (place for place, part in enumerate(parts) if part in {"site-packages", "dist-packages"}), None
    )
    return "" if place is None else parts[place + 1]


def _leaves(item: Any) -> list[torch.Tensor]:
    if isinstance(item, torch.Tensor):
        return [item]
    if isinstance(item, list | tuple):
        return [leaf for part in item for leaf in _leaves(part)]
    return []


def _calls() -> Iterator[Call]:
    """The calls inside the module that led here, the innermost first."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  the traceback module reads the source of every line
    while frame is not None and frame.f_code is not reads_of.__code__:
        if not frame.f_code.co_filename.startswith((_HERE, "<frozen")):
            yield Call(frame.f_code, frame.f_lasti, frame.f_lineno)
        frame = frame.f_back
