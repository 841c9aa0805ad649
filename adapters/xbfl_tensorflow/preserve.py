"""Leaves a user's model as it was, whatever was done with it and however that ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state

from xbackend_fl.adapter.preserve import Containers, generators_kept

_SMALL = 1 << 20
"""Values of a variable up to which it may be a counter or a statistic; a frozen table is larger, and no call moves it."""

_PLAIN = (bool, int, float, str, type(None))


def number_anew() -> None:
    """Let Keras count layers from the first, and leave the rest of its state: ``clear_session`` would reset the dtype policy too."""
    global_state.set_global_attribute("object_name_uids", defaultdict(int))


@contextmanager
def layers_kept(model: Any) -> Iterator[None]:
    """Afterwards the layers of a model have the plain attributes that they had, and hold no tensors of a trace.

    A layer that was not built yet has its variables afterwards, and what goes with them, unless the block raises: then it is
    unbuilt again. Values of variables that train are not brought back; what counts, and the states of random generators, are.
    """
    parts = parts_of(model)
    before = [(part, dict(vars(part))) for part in parts if getattr(part, "built", True)]
    # A framework's own account of layers and variables grows where a part is built, and so only what is the user's is kept.
    own = [value for _, attributes in before for name, value in attributes.items() if name[:1] != "_"]
    containers = Containers(
        own, opened, lambda item: isinstance(item, tf.Variable | tf.Module | keras.Variable)
    )
    unbuilt = _Unbuilt(model)
    try:
        with generators_kept(), _states_kept(model):
            yield
    except BaseException:
        unbuilt.bring_back()
        raise
    finally:
        for part, attributes in before:
            _bring_back(vars(part), attributes)
        containers.bring_back()
        for value in own:
            # TensorFlow's own kinds would take what was brought back for a change behind their back, and refuse to be saved.
            if (update := getattr(value, "_update_snapshot", None)) is not None:
                update()


@contextmanager
def _states_kept(model: Any) -> Iterator[None]:
    """Afterwards what a call may move has its values again: small variables that do not train, and Keras's own generator."""
    own = global_state.get_global_attribute("global_seed_generator")
    states = [own.state] if own is not None else []
    states += [v for v in _variables(model) if not v.trainable and np.prod(v.shape) <= _SMALL]
    before = [state.numpy() for state in states]
    try:
        yield
    finally:
        for state, value in zip(states, before, strict=True):
            if not np.array_equal(state.numpy(), value):
                state.assign(value)


def _variables(model: Any) -> list[Any]:
    try:
        return list(getattr(model, "variables", ()))
    except ValueError:
        # A legacy model that nobody called yet has none, and says so with an error.
        return []


@contextmanager
def unbuilt_kept(model: Any) -> Iterator[None]:
    """Afterwards the layers of a model that were not built yet are not built again, however the block ends."""
    unbuilt = _Unbuilt(model)
    try:
        yield
    finally:
        unbuilt.bring_back()


def is_unbuilt(model: Any) -> bool:
    """Whether a model has layers that a first call gives their variables."""
    return any(not getattr(part, "built", True) for part in parts_of(model))


@contextmanager
def structure_kept(model: Any) -> Iterator[None]:
    """Afterwards the layers of a model are those that it had, with the attributes and variables that they had, and it is compiled as it was."""
    held = _Unbuilt(model, whole=True)
    # What a layer passes on when it is frozen lies in the variables, which are no part of it.
    trains = [(each, each.trainable) for each in _variables(model) if isinstance(each, keras.Variable)]
    try:
        yield
    finally:
        held.bring_back()
        for variable, before in trains:
            variable.trainable = before


class _Unbuilt:
    """Everything that the layers of a model without all its variables hold: attributes, and what lies in their lists and dicts.

    Args:
        model: The model.
        whole: Whether that is wanted of a model that has its variables, too.
    """

    def __init__(self, model: Any, *, whole: bool = False) -> None:
        self._containers: list[tuple[Any, Any]] = []
        self._seen: set[int] = set()
        for part in parts_of(model) if whole or is_unbuilt(model) else ():
            self._note(vars(part))
        # Layers and variables that a first call makes are numbered; the same model would have other names the next time.
        self._note(
            global_state.get_global_attribute("object_name_uids", defaultdict(int), set_to_default=True)
        )

    def bring_back(self) -> None:
        """Give all of it back, by the methods of the plain types: those of Keras's own lists keep account of it elsewhere."""
        for held, items in self._containers:
            if isinstance(held, list):
                list.clear(held)
                list.extend(held, items)
            elif isinstance(held, set):
                set.clear(held)
                set.update(held, items)
            else:
                dict.clear(held)
                dict.update(held, items)

    def _note(self, held: Any) -> None:
        held = opened(held) if isinstance(held, dict) else held
        if id(held) in self._seen:
            return
        self._seen.add(id(held))
        if type(held).__name__ == "Tracker" or ".initializers." in type(held).__module__:
            # Keras's account of what a layer holds; the legacy one's initializers remember whether they were used.
            self._note(vars(held))
        elif isinstance(held, list | set | dict):
            kind = next(kind for kind in (list, set, dict) if isinstance(held, kind))
            items = kind(held)
            self._containers.append((held, items))
            for item in dict.values(items) if isinstance(items, dict) else items:
                self._note(item)
            if own := getattr(held, "__dict__", None):
                self._note(own)


def _bring_back(now: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [name for name, value in now.items() if value is not before.get(name, now)]:
        if name in before and isinstance(before[name], _PLAIN):
            now[name] = before[name]
        elif isinstance(now[name], tf.Tensor):
            if name in before:
                now[name] = before[name]
            else:
                del now[name]


def opened(held: Any) -> Any:
    """The plain container behind one of those in which TensorFlow keeps what a module holds."""
    if isinstance(held, list) and isinstance(storage := getattr(held, "_storage", None), list):
        return storage
    wrapped = getattr(held, "__wrapped__", None) if isinstance(held, dict) else None
    return wrapped if isinstance(wrapped, dict) else held


def parts_of(model: Any) -> list[Any]:
    """The layers and modules of a model, itself included."""
    if hasattr(model, "_flatten_layers"):
        return list(model._flatten_layers())  # noqa: SLF001  Keras lists layers inside layers nowhere else
    return [model, *model.submodules] if isinstance(model, tf.Module) else []
