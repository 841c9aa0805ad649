"""The names that a PyTorch file may hold, and the record that calling one builds.

What ``torch.load(weights_only=True)`` allows: ``torch/_weights_only_unpickler.py``. What PyTorch calls:
``torch/_utils.py`` and ``torch/storage.py``. Nothing here imports or calls what a name names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from xbackend_fl.formats.dtypes import ALLOWED, TORCH_STORAGES, DType
from xbackend_fl.formats.limits import MAX_RANK
from xbackend_fl.formats.source import Source, shown

Arguments: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle refers to."""

    name: str


@dataclass(frozen=True, slots=True)
class Other:
    """A value that is no tensor and no container: a set, a device, a number of NumPy's."""

    what: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A block of bytes in the archive.

    Attributes:
        key: Name of its record.
        dtype: Dtype of its items; ``None`` if it is untyped.
        size: Number of items; bytes, if it is untyped.
        offset: Index of its first item in the record: files from before version 1.6 store parts of others.
    """

    key: str
    dtype: DType | None
    size: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class StridedTensor:
    """A tensor as PyTorch stores it: a strided view of a storage.

    Attributes:
        storage: The bytes.
        dtype: Dtype of the items.
        offset: Index of the first item.
        shape: Sizes.
        strides: Distance of neighbours along each axis, in items.
        conjugated: Whether its values are the complex conjugates of what is stored.
        negated: Whether they are the negatives.
    """

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugated: bool = False
    negated: bool = False


STORAGES: dict[str, DType | None] = {
    **{f"torch{device} {name}": dtype for name, dtype in TORCH_STORAGES.items() for device in ("", ".cuda")},
    "torch.storage UntypedStorage": None,
    "torch UntypedStorage": None,
}
_DTYPES: dict[str, DType] = {f"torch {name}": dtype for name, dtype in ALLOWED.items()}
_OTHER_DTYPES = re.compile(
    r"torch (u?int[1-7]|complex32|float8_e4m3fnuz|float8_e5m2fnuz|float8_e8m0fnu|float4_e2m1fn_x2|bits\w{1,4}|q\w{4,7})"
)
_INERT = re.compile(r"torch (Tensor|per_(tensor|channel)_\w{6,32})|torch\.storage TypedStorage")
_KINDS = {
    "torch._utils _rebuild_qtensor": "a quantised tensor",
    "torch._utils _rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils _rebuild_meta_tensor_no_storage": "a tensor on the meta device, which has no values",
    "torch._utils _rebuild_nested_tensor": "a nested tensor",
    "torch._utils _rebuild_wrapper_subclass": "a tensor of a class that wraps others",
    "torch._utils _rebuild_device_tensor_from_numpy": "a tensor that is stored as an array of NumPy's",
}
_OLD_TENSOR = re.compile(r"torch(\.cuda)?(\.sparse)? \w{3,8}Tensor")
_QUANTISED_STORAGE = re.compile(r"torch QU?Int\w{1,4}Storage")
_WHOLE_OBJECTS = ("torch.nn.", "__torch__", "torch.fx.", "torch.jit.", "torch.ao.")
_MODULES = {"__builtin__": "builtins", "numpy.core.multiarray": "numpy._core.multiarray"}
"""What Python 3 and NumPy 2 call a module."""


def named(source: Source, module: str, name: str) -> Any:
    """The record of a name.

    Raises:
        FormatRefused: ``tensor-kind``, ``pickle-model``, ``dtype`` or ``pickle-global``: it is on no list.
    """
    full = f"{_MODULES.get(module, module)} {name}"
    dotted = shown(f"{module}.{name}")
    if full in _DTYPES:
        return _DTYPES[full]
    if full in STORAGES or full in CALLS:
        return Global(full)
    if _OTHER_DTYPES.fullmatch(full) or _INERT.fullmatch(full):
        return Other(f"{module}.{name}")
    if full in _KINDS:
        source.refuse("tensor-kind", f"holds {_KINDS[full]}")
    if _QUANTISED_STORAGE.fullmatch(full):
        source.refuse("tensor-kind", "holds a quantised storage")
    if _OLD_TENSOR.fullmatch(full):
        source.refuse("tensor-kind", f"holds a tensor of the old class {dotted}")
    if full.startswith(_WHOLE_OBJECTS):
        source.refuse("pickle-model", f"holds a whole model ({dotted}), which is code")
    source.refuse("pickle-global", f"its pickle names {dotted}")


def _dict(source: Source, arguments: Arguments) -> Any:
    """``OrderedDict()`` and ``OrderedDict([[key, value], …])``."""
    match arguments:
        case ():
            return {}
        case ([*pairs],) if all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
            return {checked_key(key): value for key, value in pairs}
        case _:
            source.refuse("bad-pickle", "an ordered dict starts with something that is no list of pairs")


def _counter(source: Source, arguments: Arguments) -> Any:
    match arguments:
        case ():
            return {}
        case (dict() as counts,):
            return dict(counts)
        case _:
            source.refuse("bad-pickle", "a counter starts with something that is no dict")


def _set(source: Source, arguments: Arguments) -> Any:
    match arguments:
        case () | (list() | tuple(),):
            return set_of(source, arguments[0] if arguments else ())
        case _:
            source.refuse("bad-pickle", "a set starts with something that is no list")


def set_of(source: Source, items: list[Any] | tuple[Any, ...]) -> Other:
    """A set, left out; one of tensors would have to be read, and gives them no names.

    Raises:
        FormatRefused: ``tensor-kind``.
    """
    if any(isinstance(item, StridedTensor) for item in items):
        source.refuse("tensor-kind", "holds a set of tensors, which have no names there")
    return Other("set")


def _size(source: Source, arguments: Arguments) -> Any:
    match arguments:
        case (tuple() as sizes,):
            return sizes
        case _:
            source.refuse("bad-pickle", "a torch.Size is not a tuple")


def _inert(what: str) -> Callable[[Source, Arguments], Other]:
    def call(source: Source, arguments: Arguments) -> Other:
        del source, arguments
        return Other(what)

    return call


def _encode(source: Source, arguments: Arguments) -> Any:
    """``_codecs.encode(text, "latin1")``: bytes, as protocol 2 writes them."""
    match arguments:
        case (str(text),) | (str(text), str()):
            return byte_string(text.encode("latin-1", "replace"))
        case _:
            source.refuse("bad-pickle", "bytes are not described by text")


def byte_string(content: bytes) -> bytes | Other:
    """Short bytes can be a key; longer ones are left out."""
    return content if len(content) <= 64 else Other("bytes")


def _tensor(source: Source, arguments: Arguments) -> Any:
    """``_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])``."""
    match arguments:
        case (
            Storage(dtype=dtype) as storage,
            at,
            tuple(shape),
            tuple(strides),
            bool(),
            {} | None,
            *rest,
        ) if dtype is not None:
            return _strided(source, storage, dtype, at, shape, strides, rest)
        case _:
            source.refuse("bad-pickle", f"a tensor is described by {_types(arguments)}")


def _tensor_of_old(source: Source, arguments: Arguments) -> Any:
    """``_rebuild_tensor(storage, offset, size, stride)``."""
    match arguments:
        case (Storage(dtype=dtype) as storage, at, tuple(shape), tuple(strides)) if dtype is not None:
            return _strided(source, storage, dtype, at, shape, strides, [])
        case _:
            source.refuse("bad-pickle", f"a tensor is described by {_types(arguments)}")


def _tensor_of_dtype(source: Source, arguments: Arguments) -> Any:
    """``_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])``."""
    match arguments:
        case (
            Storage(dtype=None) as storage,
            at,
            tuple(shape),
            tuple(strides),
            bool(),
            {} | None,
            dtype,
            *rest,
        ):
            if isinstance(dtype, np.dtype):
                return _strided(source, storage, dtype, at, shape, strides, rest)
            if isinstance(dtype, Other):
                source.refuse("dtype", f"a tensor has the dtype {shown(dtype.what)}")
    source.refuse("bad-pickle", f"a tensor is described by {_types(arguments)}")


def _types(arguments: Arguments) -> str:
    # Not the values: a small pickle can hold an object whose text has no end.
    return shown([type(argument).__name__ for argument in arguments])


def _strided(
    source: Source, storage: Storage, dtype: DType, at: Any, shape: Any, strides: Any, rest: list[Any]
) -> StridedTensor:
    sizes = (*shape, *strides, at)
    whole = all(type(size) is int and 0 <= size < 1 << 48 for size in sizes)
    if not whole or len(shape) != len(strides) or len(shape) > MAX_RANK:
        source.refuse("bad-shape", "a tensor has sizes or strides that are none")
    marks = _marks(source, rest)
    conjugated, negated = "conj" in marks, "neg" in marks
    if (conjugated and dtype.kind != "c") or (negated and dtype.kind == "b"):
        source.refuse("bad-pickle", f"a tensor of {dtype} is marked as {' and '.join(sorted(marks))}")
    return StridedTensor(storage, dtype, at, shape, strides, conjugated, negated)


def _marks(source: Source, rest: list[Any]) -> set[str]:
    """Keys of the metadata of a tensor: its values are conjugates, or negatives."""
    match rest:
        case [] | [None]:
            return set()
        case [dict() as metadata]:
            unknown = [key for key in metadata if key not in ("conj", "neg")]
            if unknown:
                source.refuse("tensor-kind", f"a tensor is marked with {shown(unknown[0])}")
            if all(type(value) is bool for value in metadata.values()):
                return {key for key, value in metadata.items() if value}
    source.refuse("bad-pickle", "a tensor is marked with something that is no mark")


def _parameter(source: Source, arguments: Arguments) -> Any:
    """``_rebuild_parameter(data, requires_grad, hooks[, state])``, and the class itself."""
    match arguments:
        case (StridedTensor() as tensor,) | (StridedTensor() as tensor, bool()):
            return tensor
        case (StridedTensor() as tensor, bool(), {}) | (StridedTensor() as tensor, bool(), {}, _):
            return tensor
        case _:
            source.refuse("bad-pickle", "a parameter is described by something that is no tensor")


def _tensor_of_device(source: Source, arguments: Arguments) -> Any:
    """``_rebuild_device_tensor_from_cpu_tensor(data, dtype, device, requires_grad)``."""
    match arguments:
        case (StridedTensor(dtype=held) as tensor, dtype, _, bool()):
            if isinstance(dtype, np.dtype) and dtype == held:
                return tensor
            source.refuse("tensor-kind", "holds a tensor of a device whose dtype differs from what is stored")
        case _:
            source.refuse("bad-pickle", f"a tensor is described by {_types(arguments)}")


def _from_type(source: Source, arguments: Arguments) -> Any:
    """``_rebuild_from_type_v2(function, class, arguments, state)``: a tensor with attributes of its own."""
    match arguments:
        case (Global(name), kind, tuple(inner), _) if name in _REBUILD and kind in _TENSOR_CLASSES:
            return _REBUILD[name](source, inner)
        case _:
            source.refuse("bad-pickle", f"a tensor is described by {_types(arguments)}")


_PARAMETER = "torch.nn.parameter Parameter"
_TENSOR_CLASSES = (Other("torch.Tensor"), Global(_PARAMETER))
_REBUILD: dict[str, Callable[[Source, Arguments], Any]] = {
    "torch._utils _rebuild_tensor": _tensor_of_old,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "torch._utils _rebuild_device_tensor_from_cpu_tensor": _tensor_of_device,
}
CLASSES: dict[str, Callable[[Source, Arguments], Any]] = {
    "collections OrderedDict": _dict,
    "collections Counter": _counter,
    "builtins set": _set,
    "builtins bytearray": _inert("bytearray"),
    "builtins complex": _inert("complex"),
    "torch Size": _size,
    "torch device": _inert("torch.device"),
    "numpy dtype": _inert("numpy.dtype"),
    _PARAMETER: _parameter,
}
"""What may also be made without being called."""

CALLS: dict[str, Callable[[Source, Arguments], Any]] = {
    **_REBUILD,
    **CLASSES,
    "torch._tensor _rebuild_from_type_v2": _from_type,
    "torch.serialization _get_layout": _inert("torch.layout"),
    "numpy._core.multiarray scalar": _inert("a number of NumPy's"),
    "_codecs encode": _encode,
}


def checked_key(key: Any) -> Any:
    """A key of a dict: text, a plain value, or a few of them.

    Raises:
        TypeError: It is anything else; a deeply nested tuple would take for ever to hash.
    """
    if type(key) is int:
        return key
    if type(key) is tuple and len(key) <= MAX_RANK:
        return tuple(map(_plain_key, key))
    return _plain_key(key)


def _plain_key(key: Any) -> Any:
    if key is not None and not isinstance(key, str | int | float | bytes | np.dtype | Other | Global):
        raise TypeError("a key that is neither text nor a plain value")
    return key
