"""Finds adapters by entry point and imports them on use only."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points

from xbackend_fl.adapter.contract import Adapter
from xbackend_fl.errors import AdapterError

GROUP = "xbackend_fl.adapters"


def names() -> list[str]:
    """Backends with an installed adapter package; nothing is imported."""
    return sorted(_points())


def load(name: str) -> Adapter:
    """The adapter of a backend.

    Raises:
        AdapterError: The backend is unknown, or its framework is not installed.
    """
    points = _points()
    if name not in points:
        close = difflib.get_close_matches(name, points, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known backends: {', '.join(points)}"
        raise AdapterError(f"unknown backend {name!r}", hint=hint)
    try:
        adapter: Adapter = points[name].load()
        _ = adapter.version  # reads the installed distribution; the framework itself stays unimported
    except ModuleNotFoundError as error:
        raise AdapterError(
            f"the {name!r} adapter needs {error.name!r}, which is not installed",
            hint=f"pip install 'xbackend-fl[{name}]'",
        ) from error
    return adapter


def adapter_of(model: object) -> Adapter:
    """The adapter that handles a native model.

    Raises:
        AdapterError: No adapter handles it.
    """
    for point in _points().values():
        adapter: Adapter = point.load()
        if adapter.handles(model):
            return adapter
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise AdapterError(f"no adapter handles a {kind}", hint=f"known backends: {', '.join(names())}")


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}
