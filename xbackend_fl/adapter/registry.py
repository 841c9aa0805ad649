"""Finds adapters by entry point and imports them on use only."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from xbackend_fl.adapter.contract import Adapter
from xbackend_fl.errors import AdapterError, ConfigError

GROUP = "xbackend_fl.adapters"


def names() -> list[str]:
    """Backends with an installed adapter package; nothing is imported."""
    return sorted(_points())


@cache
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
    if isinstance(model, type):
        raise AdapterError(
            f"no adapter handles the class {model.__name__} itself",
            hint=f"give an instance: {model.__name__}(…)",
        )
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise AdapterError(f"no adapter handles a {kind}", hint=f"known backends: {', '.join(names())}")


def wrong_model(where: str, model: object, backend: str) -> ConfigError:
    """Why what somebody's code returned is no model of a backend.

    Args:
        where: Whose code it is.
        model: What it returned.
        backend: The backend whose adapter does not handle it.
    """
    root = type(model).__module__.split(".")[0]
    kind = type(model).__qualname__ if root == "builtins" else f"{root}.{type(model).__qualname__}"
    for point in _points().values():
        if point.name != backend and point.load().handles(model):
            return ConfigError(
                f"{where} returned a {kind}, which is a model of {point.name!r} and not of {backend!r}",
                hint=f"name the backend {point.name!r} for it",
            )
    if model is None:
        return ConfigError(f"{where} returned nothing (None)", hint="end the function with `return model`")
    if isinstance(model, type):
        return ConfigError(
            f"{where} returned the class {model.__name__} itself",
            hint=f"return {model.__name__}(), an instance",
        )
    if isinstance(model, dict):
        return ConfigError(
            f"{where} returned a dict ({kind}), such as weights are kept in",
            hint="return the model itself; `xbfl convert` moves weights",
        )
    return ConfigError(f"{where} returned a {kind}, which the {backend!r} adapter does not handle")


@cache  # asking takes a look at every installed distribution
def _points() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}
