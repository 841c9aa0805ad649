"""Reads the pickles that PyTorch writes without running anything.

A pickle is a program for a stack machine. This one knows the opcodes that plain containers need, and a
global is a name: calling one builds a record if the name is on a short list, and refuses otherwise. Opcodes:
the standard library's ``pickletools``; what PyTorch calls: ``torch/_utils.py`` and ``torch/storage.py``.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn, final

import numpy as np

from xbackend_fl.weights.formats.dtypes import ALLOWED, TORCH_STORAGES, DType
from xbackend_fl.weights.formats.limits import MAX_RANK
from xbackend_fl.weights.formats.source import Source, shown

MAX_BYTES = 48 << 20
_MAX_STEPS = 4_000_000
_MAX_CONTAINERS = 700_000
_MAX_TEXT = 64 << 10
_MAX_LINE = 256


@dataclass(frozen=True)
class Global:
    """A name that the pickle refers to."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A block of bytes in the archive.

    Attributes:
        key: Name of its record.
        dtype: Dtype of its items; ``None`` if it is untyped.
        size: Number of items; bytes, if it is untyped.
    """

    key: str
    dtype: DType | None
    size: int


@dataclass(frozen=True)
class StridedTensor:
    """A tensor as PyTorch stores it: a strided view of a storage.

    Attributes:
        storage: The bytes.
        dtype: Dtype of the items.
        offset: Index of the first item.
        shape: Sizes.
        strides: Distance of neighbours along each axis, in items.
    """

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mark:
    pass


_MARK: Final = _Mark()
_DTYPES: dict[str, DType] = {f"torch {name}": dtype for name, dtype in ALLOWED.items()}
_STORAGES: dict[str, DType | None] = {
    **{f"torch {name}": dtype for name, dtype in TORCH_STORAGES.items()},
    "torch.storage UntypedStorage": None,
    "torch UntypedStorage": None,
}
_WHOLE_OBJECTS = ("torch.nn.", "__torch__")


@final
class Machine:
    """Interprets one pickle.

    Args:
        source: The file, for messages.
        program: The pickle.
    """

    def __init__(self, source: Source, program: bytes) -> None:
        self._source = source
        self._program = program
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._containers = 0

    def run(self) -> Any:
        """The object: dicts, lists, tuples, text, numbers and :class:`StridedTensor`.

        Raises:
            FormatRefused: ``pickle-opcode``, ``pickle-global``, ``pickle-limit`` or ``bad-pickle``.
        """
        if len(self._program) > MAX_BYTES:
            self._source.refuse("pickle-limit", f"its pickle has {len(self._program)} bytes", limit=MAX_BYTES)
        try:
            for _ in range(_MAX_STEPS):
                opcode = self._program[self._at]
                self._at += 1
                if opcode == _STOP:
                    return self._finish()
                handler = _HANDLERS.get(opcode)
                if handler is None:
                    self._refuse_opcode(opcode)
                handler(self)
        except (IndexError, KeyError, struct.error, UnicodeDecodeError, TypeError) as error:
            # Each is the machine's own complaint about a program that pops, recalls or reads too much.
            self._source.refuse(
                "bad-pickle",
                f"its pickle breaks off at byte {self._at}: {shown(str(error))}",
                offset=self._at,
            )
        self._source.refuse("pickle-limit", f"its pickle has more than {_MAX_STEPS} steps", limit=_MAX_STEPS)

    def _finish(self) -> Any:
        if len(self._stack) != 1 or self._stack[0] is _MARK:
            self._source.refuse("bad-pickle", "its pickle leaves more than one object")
        if self._at != len(self._program):
            self._source.refuse("trailing-data", "its pickle goes on behind its end", offset=self._at)
        return self._stack[0]

    def _refuse_opcode(self, opcode: int) -> NoReturn:
        name = _NAMES.get(opcode, f"0x{opcode:02x}")
        self._source.refuse(
            "pickle-opcode", f"its pickle uses {name}, which no state dict needs", offset=self._at - 1
        )

    # Reading the program

    def take(self, length: int) -> bytes:
        """The next bytes."""
        if length < 0 or self._at + length > len(self._program):
            self._source.refuse("bad-pickle", f"its pickle breaks off at byte {self._at}", offset=self._at)
        self._at += length
        return self._program[self._at - length : self._at]

    def number(self, form: str) -> Any:
        """A number in the given :mod:`struct` format."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, length: int) -> None:
        """Push text."""
        if length > _MAX_TEXT:
            self._source.refuse("pickle-limit", f"its pickle holds text of {length} bytes", limit=_MAX_TEXT)
        self.push(self.take(length).decode("utf-8", "surrogatepass"))

    def line(self) -> str:
        """Text up to a line end."""
        end = self._program.find(b"\n", self._at, self._at + _MAX_LINE)
        if end < 0:
            raise IndexError("a name without an end")
        result = self._program[self._at : end].decode("utf-8")
        self._at = end + 1
        return result

    # The stack

    def push(self, value: Any) -> None:
        """Push a value."""
        self._stack.append(value)

    def made(self, value: Any) -> None:
        """Push a new container."""
        self._containers += 1
        if self._containers > _MAX_CONTAINERS:
            self._source.refuse(
                "pickle-limit",
                f"its pickle makes more than {_MAX_CONTAINERS} containers",
                limit=_MAX_CONTAINERS,
            )
        self._stack.append(value)

    def pop(self) -> Any:
        """Pop a value."""
        value = self._stack.pop()
        if value is _MARK:
            raise IndexError("a mark where a value is expected")
        return value

    def pop_to_mark(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _MARK:
                values = self._stack[index + 1 :]
                del self._stack[index:]
                return values
        raise IndexError("no mark")

    def memoize(self, index: int) -> None:
        """Remember the top of the stack; a dict, so that a huge index costs nothing."""
        if self._stack[-1] is _MARK:
            raise IndexError("a mark cannot be remembered")
        self._memo[index] = self._stack[-1]

    def recall(self, index: int) -> None:
        """Push what was remembered."""
        self._stack.append(self._memo[index])

    # Containers

    def append(self, values: list[Any]) -> None:
        """Extend the list on top."""
        target = self._stack[-1]
        if type(target) is not list:
            raise TypeError("items for something that is no list")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        """Fill the dict on top; only text and numbers are keys."""
        target = self._stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise TypeError("items for something that is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, int):
                raise TypeError("a key that is neither text nor a number")
            target[key] = value

    def build(self) -> None:
        """Drop the state of an ordered dict: the version numbers of PyTorch's layers."""
        state = self.pop()
        if type(self._stack[-1]) is not dict or type(state) is not dict:
            raise TypeError("state for something that is no ordered dict")

    # Names and calls

    def find_global(self, module: str, name: str) -> None:
        """Push a name, if it is on the list."""
        full = f"{module} {name}"
        if full in _DTYPES:
            self.push(_DTYPES[full])
        elif full in _STORAGES or full in _CALLS:
            self.push(Global(full))
        elif full.startswith(_WHOLE_OBJECTS):
            self._source.refuse(
                "pickle-model", f"holds a whole model ({shown(f'{module}.{name}')}), which is code"
            )
        else:
            self._source.refuse("pickle-global", f"its pickle names {shown(f'{module}.{name}')}")

    def stack_global(self) -> None:
        """Push the name made of two texts."""
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("a name that is not text")
        self.find_global(module, name)

    def reduce(self) -> None:
        """Call a name: build its record."""
        arguments, function = self.pop(), self.pop()
        if type(function) is not Global or type(arguments) is not tuple:
            raise TypeError("a call of something that is no name")
        call = _CALLS.get(function.name)
        if call is None:
            self._source.refuse("pickle-global", f"its pickle calls {shown(function.name)}")
        self.made(call(self._source, arguments))

    def persistent(self) -> None:
        """Push the storage that a persistent id names."""
        match self.pop():
            case ("storage", Global(name), str(key), str(), int(size)) if name in _STORAGES and size >= 0:
                self.push(Storage(key, _STORAGES[name], size))
            case _:
                self._source.refuse("bad-pickle", "its pickle refers to something that is no storage")


def _empty_dict(source: Source, arguments: tuple[Any, ...]) -> Any:
    if arguments not in ((), ([],)):
        source.refuse("bad-pickle", "an ordered dict starts with items")
    return {}


def _size(source: Source, arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (tuple() as sizes,):
            return sizes
        case _:
            source.refuse("bad-pickle", "a torch.Size is not a tuple")


def _tensor(source: Source, arguments: tuple[Any, ...]) -> Any:
    """``_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])``."""
    match arguments:
        case (Storage(dtype=dtype) as storage, int(at), tuple(shape), tuple(strides), bool(), {}, *rest) if (
            dtype is not None and rest in ([], [{}], [None])
        ):
            return _strided(source, storage, dtype, at, shape, strides)
        case _:
            source.refuse("bad-pickle", f"a tensor is described by {_types(arguments)}")


def _tensor_of_dtype(source: Source, arguments: tuple[Any, ...]) -> Any:
    """``_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])``."""
    match arguments:
        case (
            Storage(dtype=None) as storage,
            int(at),
            tuple(shape),
            tuple(strides),
            bool(),
            {},
            dtype,
            *rest,
        ):
            if isinstance(dtype, np.dtype) and rest in ([], [{}], [None]):
                return _strided(source, storage, dtype, at, shape, strides)
    source.refuse("bad-pickle", f"a tensor is described by {_types(arguments)}")


def _types(arguments: tuple[Any, ...]) -> str:
    # Not the values: a small pickle can hold an object whose text has no end.
    return shown([type(argument).__name__ for argument in arguments])


def _strided(source: Source, storage: Storage, dtype: DType, at: int, shape: Any, strides: Any) -> Any:
    sizes = (*shape, *strides, at)
    whole = all(type(size) is int and 0 <= size < 1 << 48 for size in sizes)
    if not whole or len(shape) != len(strides) or len(shape) > MAX_RANK:
        source.refuse("bad-shape", "a tensor has sizes or strides that are none")
    return StridedTensor(storage, dtype, at, shape, strides)


def _parameter(source: Source, arguments: tuple[Any, ...]) -> Any:
    """``_rebuild_parameter(data, requires_grad, hooks)``."""
    match arguments:
        case (StridedTensor() as tensor, bool(), {}):
            return tensor
        case _:
            source.refuse("bad-pickle", "a parameter is described by something that is no tensor")


_CALLS: dict[str, Callable[[Source, tuple[Any, ...]], Any]] = {
    "collections OrderedDict": _empty_dict,
    "torch Size": _size,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils _rebuild_parameter": _parameter,
}

_STOP = ord(".")
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}


def _protocol(machine: Machine) -> None:
    if machine.number("<B") > 5:
        raise TypeError("a protocol later than 5")


def _long(machine: Machine) -> None:
    length = machine.number("<B")
    if length > 8:
        raise TypeError("an integer of more than 64 bits")
    machine.push(int.from_bytes(machine.take(length), "little", signed=True))


_HANDLERS: dict[int, Callable[[Machine], None]] = {
    ord(code): handler
    for code, handler in {
        "\x80": _protocol,
        "\x95": lambda m: m.number("<Q"),
        "(": lambda m: m.push(_MARK),
        "0": lambda m: m.pop(),
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),  # noqa: FBT003  as on the stack
        "\x89": lambda m: m.push(False),  # noqa: FBT003
        "J": lambda m: m.push(m.number("<i")),
        "K": lambda m: m.push(m.number("<B")),
        "M": lambda m: m.push(m.number("<H")),
        "\x8a": _long,
        "G": lambda m: m.push(m.number(">d")),
        "X": lambda m: m.text(m.number("<I")),
        "\x8c": lambda m: m.text(m.number("<B")),
        "}": lambda m: m.made({}),
        "]": lambda m: m.made([]),
        ")": lambda m: m.push(()),
        "t": lambda m: m.made(tuple(m.pop_to_mark())),
        "\x85": lambda m: m.made((m.pop(),)),
        "\x86": lambda m: m.made((m.pop(), m.pop())[::-1]),
        "\x87": lambda m: m.made((m.pop(), m.pop(), m.pop())[::-1]),
        "a": lambda m: m.append([m.pop()]),
        "e": lambda m: m.append(m.pop_to_mark()),
        "s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
        "u": lambda m: m.set_items(m.pop_to_mark()),
        "b": lambda m: m.build(),
        "q": lambda m: m.memoize(m.number("<B")),
        "r": lambda m: m.memoize(m.number("<I")),
        "\x94": lambda m: m.memoize(len(m._memo)),  # noqa: SLF001
        "h": lambda m: m.recall(m.number("<B")),
        "j": lambda m: m.recall(m.number("<I")),
        "c": lambda m: m.find_global(m.line(), m.line()),
        "\x93": lambda m: m.stack_global(),
        "R": lambda m: m.reduce(),
        "Q": lambda m: m.persistent(),
    }.items()
}
