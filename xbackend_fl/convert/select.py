"""Parts of a file, under other names, in another dtype; still read one tensor at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import ConfigError, FileError
from xbackend_fl.formats.dtypes import ALLOWED, DType, is_float
from xbackend_fl.weights import Archive, Entry


def selected(
    archive: Archive, only: Sequence[str] = (), rename: Sequence[str] = (), dtype: str | None = None
) -> Archive:
    """Tensors of ``archive`` that match, renamed and cast.

    Args:
        archive: The file.
        only: Shell patterns of names; all, if there are none.
        rename: ``OLD=NEW``: a name, or its beginning if ``OLD`` ends in a dot or slash, becomes ``NEW``.
        dtype: Floating-point dtype to cast floating-point tensors to.

    Raises:
        ConfigError: A pattern matches nothing, a rename is malformed or leads to one name twice, or the dtype
            is none.
        FileError: A value does not fit the dtype; raised when that tensor is read.
    """
    target = _dtype(dtype)
    entries: dict[str, Entry] = {}
    rules = [_rule(text) for text in rename]
    used: set[str] = set()
    for name in matching(list(archive), only, str(archive.path)):
        entry, new = archive.entries[name], name
        for old, replacement in rules:
            if new == old or (old.endswith((".", "/")) and new.startswith(old)):
                new = replacement + new.removeprefix(old)
                used.add(old)
        if not new or new in entries:
            raise ConfigError(f"--rename gives {name!r} the name {new!r}, which is empty or taken")
        entries[new] = entry if target is None else _cast(name, entry, target)
    unused = [old for old, _ in rules if old not in used]
    if unused:
        raise ConfigError(
            f"--rename {unused[0]!r} matches no tensor of {archive.path}", hint=_some(list(archive))
        )
    return replace(archive, entries=entries)


def matching(names: Sequence[str], only: Sequence[str], where: str) -> Sequence[str]:
    """Names that match a pattern, in their order.

    Args:
        names: All names.
        only: Shell patterns; every name matches, if there are none.
        where: What has the names, for the error.

    Raises:
        ConfigError: A pattern matches nothing.
    """
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"--only {pattern!r} matches no tensor of {where}", hint=_some(names))
    return [name for name in names if not only or any(fnmatchcase(name, pattern) for pattern in only)]


def _some(names: Sequence[str]) -> str:
    return "it holds " + ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _rule(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not old or not equals:
        raise ConfigError(f"--rename {text!r} is not OLD=NEW", hint="--rename model.=  strips a beginning")
    return old, new


def _dtype(name: str | None) -> DType | None:
    if name is None:
        return None
    found = ALLOWED.get(name)
    if found is None or not is_float(found):
        floats = ", ".join(key for key, dtype in ALLOWED.items() if is_float(dtype))
        raise ConfigError(f"--dtype {name!r} is no floating-point dtype", hint=f"one of {floats}")
    return found


def _cast(name: str, entry: Entry, target: DType) -> Entry:
    if not is_float(entry.dtype) or entry.dtype == target:
        return entry

    def read() -> NDArray[Any]:
        array = entry.read()
        with np.errstate(over="ignore"):
            result = array.astype(target)
        wide, narrow = array.astype(np.float64), result.astype(np.float64)
        if not np.array_equal(np.isfinite(wide), np.isfinite(narrow)):
            raise FileError(
                f"tensor {name!r} holds values that {target} cannot, up to {np.abs(wide).max():.3g}"
            )
        return result

    return replace(entry, dtype=target, read=read)
