"""Reads the pickles that PyTorch writes without running anything.

A pickle is a program for a stack machine. This one knows the opcodes that plain containers need, and a
global is a name: calling one builds a record if the name is on a short list, and refuses otherwise. Opcodes:
the standard library's ``pickletools``; what PyTorch calls: ``torch/_utils.py`` and ``torch/storage.py``.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from sys import getsizeof
from typing import Any, Final, NoReturn, final

from xbackend_fl.formats.dtypes import DType
from xbackend_fl.formats.pickle_names import (
    CALLS,
    CLASSES,
    STORAGES,
    Global,
    Other,
    Storage,
    byte_string,
    checked_key,
    named,
    set_of,
)
from xbackend_fl.formats.source import Source, shown

MAX_BYTES = 48 << 20
_MAX_STEPS = 4_000_000
_MAX_CONTAINERS = 700_000
_MAX_ITEMS = 1_000_000
"""Items of all lists and dicts, values on the stack, values remembered: each of the three."""

_MAX_TEXT = 64 << 10
_MAX_TEXTS = 64 << 20
"""Bytes of memory for all texts together."""

_MAX_LINE = 256


class _Mark:
    pass


_MARK: Final = _Mark()


@final
class Machine:
    """Interprets one pickle.

    Args:
        source: The file, for messages.
        program: The pickle.
        start: Where in the program it begins, if it is one of several, as in files from before version 1.6; it may
            then be followed by anything.

    Attributes:
        storages: Dtype by the key of every storage that the pickle names.
    """

    def __init__(self, source: Source, program: bytes, start: int | None = None) -> None:
        self._source = source
        self._program = program
        self._several = start is not None
        self._at = start or 0
        self.storages: dict[str, DType | None] = {}
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._containers = self._items = self._texts = 0

    def run(self) -> Any:
        """The object: dicts, lists, tuples, plain values and the records of ``pickle_names``.

        Raises:
            FormatRefused: ``pickle-opcode``, ``pickle-global``, ``pickle-limit``, ``tensor-kind``, ``dtype`` or
                ``bad-pickle``.
        """
        if len(self._program) > MAX_BYTES:
            self._source.refuse("pickle-limit", f"its pickle has {len(self._program)} bytes", limit=MAX_BYTES)
        # Millions of steps: what each looks up is at hand.
        program, handlers = self._program, _HANDLERS
        try:
            for _ in range(_MAX_STEPS):
                opcode = program[self._at]
                self._at += 1
                if opcode == _STOP:
                    return self._finish()
                handler = handlers.get(opcode)
                if handler is None:
                    self._refuse_opcode(opcode)
                handler(self)
        except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
            # Each is the machine's own complaint about a program that pops, recalls or reads too much.
            self._refuse(f"its pickle breaks off at byte {self._at}: {shown(str(error))}")
        except TypeError as error:
            self._refuse(f"its pickle has {error}, before byte {self._at}")
        self._too_many("steps", _MAX_STEPS)

    @property
    def end(self) -> int:
        """Where in the program the pickle ended."""
        return self._at

    def _refuse(self, message: str) -> NoReturn:
        self._source.refuse("bad-pickle", message, offset=self._at)

    def _too_many(self, what: str, limit: int) -> NoReturn:
        self._source.refuse("pickle-limit", f"its pickle has more than {limit} {what}", limit=limit)

    def _finish(self) -> Any:
        if len(self._stack) != 1 or self._stack[0] is _MARK:
            self._source.refuse("bad-pickle", "its pickle leaves more than one object")
        if not self._several and self._at != len(self._program):
            self._source.refuse("trailing-data", "its pickle goes on behind its end", offset=self._at)
        return self._stack[0]

    def _refuse_opcode(self, opcode: int) -> NoReturn:
        name = _NAMES.get(opcode, f"0x{opcode:02x}")
        self._source.refuse(
            "pickle-opcode", f"its pickle uses {name}, which no state dict needs", offset=self._at - 1
        )

    # Reading the program

    def read(self, length: int) -> bytes:
        """The next bytes."""
        if length < 0 or self._at + length > len(self._program):
            self._source.refuse("bad-pickle", f"its pickle breaks off at byte {self._at}", offset=self._at)
        self._at += length
        return self._program[self._at - length : self._at]

    def number(self, form: str) -> Any:
        """A number in the given :mod:`struct` format."""
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def byte(self) -> int:
        """The next byte, which most programs consist of."""
        self._at += 1
        return self._program[self._at - 1]

    def text(self, length: int) -> None:
        """Push text."""
        if length > _MAX_TEXT:
            self._source.refuse("pickle-limit", f"its pickle holds text of {length} bytes", limit=_MAX_TEXT)
        value = self.read(length).decode("utf-8", "surrogatepass")
        self._texts += getsizeof(value)
        if self._texts > _MAX_TEXTS:
            self._too_many("bytes of text", _MAX_TEXTS)
        self.push(value)

    def content(self, length: int) -> None:
        """Push bytes, or what stands for them: they are no weights."""
        at = self._at
        self.skip(length)
        self.push(byte_string(self._program[at : self._at]) if length <= _MAX_LINE else Other("bytes"))

    def skip(self, length: int) -> None:
        """Pass over bytes."""
        if length > len(self._program) - self._at:
            self._source.refuse("bad-pickle", f"its pickle breaks off at byte {self._at}", offset=self._at)
        self._at += length

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
        if len(self._stack) >= _MAX_ITEMS:
            self._too_many("values on its stack", _MAX_ITEMS)
        self._stack.append(value)

    def made(self, value: Any) -> None:
        """Push a new container."""
        self._containers += 1
        if self._containers > _MAX_CONTAINERS:
            self._too_many("containers", _MAX_CONTAINERS)
        self.push(value)

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
        if len(self._memo) >= _MAX_ITEMS:
            self._too_many("values to remember", _MAX_ITEMS)
        self._memo[index] = self._stack[-1]

    def recall(self, index: int) -> None:
        """Push what was remembered."""
        self.push(self._memo[index])

    # Containers

    def _count(self, count: int) -> None:
        self._items += count
        if self._items > _MAX_ITEMS:
            self._too_many("items", _MAX_ITEMS)

    def append(self, values: list[Any]) -> None:
        """Extend the list on top."""
        target = self._stack[-1]
        if type(target) is not list:
            raise TypeError("items for something that is no list")
        self._count(len(values))
        target.extend(values)

    def set_item(self) -> None:
        """Add the value and the key on top to the dict below."""
        value, key = self.pop(), self.pop()
        target = self._stack[-1]
        if type(target) is not dict:
            raise TypeError("items for something that is no dict")
        self._items += 1
        if self._items > _MAX_ITEMS:
            self._too_many("items", _MAX_ITEMS)
        target[key if type(key) is str else checked_key(key)] = value

    def set_items(self, values: list[Any]) -> None:
        """Fill the dict on top."""
        target = self._stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise TypeError("items for something that is no dict")
        self._count(len(values) // 2)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[key if type(key) is str else checked_key(key)] = value

    def add_items(self, values: list[Any]) -> None:
        """Fill the set on top, which is left out."""
        if self._stack[-1] != Other("set"):
            raise TypeError("items for something that is no set")
        set_of(self._source, values)

    def build(self) -> None:
        """Drop a state: the version numbers of PyTorch's layers, or of a value that is left out."""
        state, target = self.pop(), self._stack[-1]
        if not isinstance(target, Other) and (type(target) is not dict or type(state) is not dict):
            raise TypeError("a state for something that is no ordered dict")

    # Names and calls

    def find_global(self, module: str, name: str) -> None:
        """Push a name, if it is on a list."""
        self.push(named(self._source, module, name))

    def stack_global(self) -> None:
        """Push the name made of two texts."""
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("a name that is not text")
        self.find_global(module, name)

    def reduce(self, allowed: dict[str, Callable[[Source, tuple[Any, ...]], Any]]) -> None:
        """Call a name: build its record."""
        arguments, function = self.pop(), self.pop()
        if type(function) is not Global or type(arguments) is not tuple:
            raise TypeError("a call of something that is no name")
        call = allowed.get(function.name)
        if call is None:
            self._source.refuse("pickle-global", f"its pickle calls {shown(function.name)}")
        self.made(call(self._source, arguments))

    def persistent(self) -> None:
        """Push the storage that a persistent id names."""
        match self.pop():
            case ("storage", Global(name), str(key), str(), int(size), *view) if (
                name in STORAGES and size >= 0
            ):
                if self.storages.setdefault(key, STORAGES[name]) != STORAGES[name]:
                    self._source.refuse("bad-pickle", f"storage {shown(key)} has two dtypes")
                self.push(Storage(key, STORAGES[name], size, self._offset(view)))
            case ("module", *_):
                self._source.refuse("pickle-model", "holds a whole model, which is code")
            case _:
                self._source.refuse("bad-pickle", "its pickle refers to something that is no storage")

    def _offset(self, view: list[Any]) -> int:
        """Where a part of a storage begins: only files from before version 1.6 store parts."""
        match view:
            case []:
                return 0
            case [None] if self._several:
                return 0
            case [(str(), int(offset), int())] if self._several and 0 <= offset < 1 << 48:
                return offset
            case _:
                self._source.refuse(
                    "bad-pickle", "its pickle refers to something that is no part of a storage"
                )


_STOP = ord(".")
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}


def _protocol(machine: Machine) -> None:
    if machine.byte() > 5:
        raise TypeError("a protocol later than 5")


def _long(machine: Machine) -> None:
    content = machine.read(machine.byte())
    # No size and no name needs more; a state beside the weights may.
    machine.push(
        int.from_bytes(content, "little", signed=True) if len(content) <= 8 else Other("a large number")
    )


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
        "K": lambda m: m.push(m.byte()),
        "M": lambda m: m.push(m.number("<H")),
        "\x8a": _long,
        "G": lambda m: m.push(m.number(">d")),
        "X": lambda m: m.text(m.number("<I")),
        "\x8c": lambda m: m.text(m.byte()),
        "}": lambda m: m.made({}),
        "]": lambda m: m.made([]),
        ")": lambda m: m.push(()),
        "t": lambda m: m.made(tuple(m.pop_to_mark())),
        "\x85": lambda m: m.made((m.pop(),)),
        "\x86": lambda m: m.made((m.pop(), m.pop())[::-1]),
        "\x87": lambda m: m.made((m.pop(), m.pop(), m.pop())[::-1]),
        "a": lambda m: m.append([m.pop()]),
        "e": lambda m: m.append(m.pop_to_mark()),
        "s": lambda m: m.set_item(),
        "u": lambda m: m.set_items(m.pop_to_mark()),
        "b": lambda m: m.build(),
        "q": lambda m: m.memoize(m.byte()),
        "r": lambda m: m.memoize(m.number("<I")),
        "\x94": lambda m: m.memoize(len(m._memo)),  # noqa: SLF001
        "h": lambda m: m.recall(m.byte()),
        "j": lambda m: m.recall(m.number("<I")),
        "c": lambda m: m.find_global(m.line(), m.line()),
        "\x93": lambda m: m.stack_global(),
        "R": lambda m: m.reduce(CALLS),
        "\x81": lambda m: m.reduce(CLASSES),
        "U": lambda m: m.text(m.byte()),
        "C": lambda m: m.content(m.byte()),
        "B": lambda m: m.content(m.number("<I")),
        "\x8e": lambda m: m.content(m.number("<Q")),
        "\x96": lambda m: m.content(m.number("<Q")),
        "\x8f": lambda m: m.made(Other("set")),
        "\x90": lambda m: m.add_items(m.pop_to_mark()),
        "\x91": lambda m: m.made(set_of(m._source, m.pop_to_mark())),  # noqa: SLF001
        "Q": lambda m: m.persistent(),
    }.items()
}
