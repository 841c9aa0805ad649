"""A model in half precision computes in float32: master weights stand in for its own while the toolkit computes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, final

import keras
import tensorflow as tf
import tensorflow.compat.v2 as compat

from xbackend_fl.adapter.contract import Array
from xbackend_fl.canonical.dtypes import HALVES, check_fits, coarsest, widened
from xbfl_tensorflow.preserve import opened, parts_of
from xbfl_tensorflow.variables import dtype_name, raw, variables_of

_FLOAT32 = "float32"

_Swap: TypeAlias = tuple[Callable[[Any], None], Any, Any]
"""What puts something in its place, what stands there by itself, and what stands there inside."""


@dataclass
class _MasterWeight:
    """A variable in half precision, its master, and what puts either where the model has it."""

    own: Any
    master: Any
    swaps: list[_Swap] = field(default_factory=list)


@final
class Masters:
    """The float32 numbers behind the half-precision variables of a model, and layers that compute in float32.

    A master holds as long as the model holds its rounding; where the model holds something else, somebody else has
    written it, and that is what counts from then on.

    Args:
        model: The model. It is itself again, with the rounding of its masters, whenever nothing computes.

    Attributes:
        precision: NumPy dtype name of the coarsest numbers that the model itself computes with.
        dtypes: NumPy dtype names of the variables in half precision, by the names of :meth:`name`.
    """

    def __init__(self, model: Any) -> None:
        self.dtypes: dict[str, str] = {}
        self._inside = False
        self._held: dict[int, _MasterWeight] = {}
        self._names: dict[str, _MasterWeight] = {}
        self._swaps: list[_Swap] = []
        computes: set[str] = set()
        for part in parts_of(model):
            computes |= {_compute_dtype(part), *(t.dtype for t in _declared_inputs(part))}
            self._swaps += _layer_swaps(part)
        for variable in _variables(model):
            if dtype_name(variable) in HALVES:
                self._hold(variable)
        self._find_places(model)
        computes |= {dtype_name(held.own) for held in self._held.values()}
        self.precision = coarsest(computes)
        if self.precision in HALVES:
            # A model in float32 that casts to a half on purpose is another function without its cast.
            self._swaps += [swap for part in parts_of(model) for swap in _cast_swaps(part)]

    def __bool__(self) -> bool:
        return bool(self._held or self._swaps)

    def name(self, variables: Mapping[str, Any]) -> None:
        """Say the names of the variables, as they stand in the model inside."""
        by_tensor = {id(held.master): held for held in self._held.values()}
        found = {name: by_tensor.get(id(raw(variable))) for name, variable in variables.items()}
        self._names = {name: held for name, held in found.items() if held is not None}
        self.dtypes = {name: dtype_name(held.own) for name, held in self._names.items()}

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The model computes in float32 inside, with its masters; afterwards it holds their rounding. May be nested."""
        if self._inside or not self:
            yield
            return
        with ExitStack() as stack:
            stack.callback(self._leave)
            self._enter()
            for module in (tf, compat):
                stack.callback(setattr, module, "cast", module.cast)
                module.cast = self._cast(module.cast)
            yield

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Within :meth:`inside`, the model as it is by itself, with the rounding of its masters."""
        self._leave()
        try:
            yield
        finally:
            self._enter()

    def put_bits(self, name: str, array: Array) -> bool:
        """Give a variable these bits, if it is of their dtype; its master is what they are.

        Args:
            name: One of :meth:`name`.
            array: Numbers in half precision.
        """
        held = self._names.get(name)
        if held is None or dtype_name(held.own) != array.dtype.name:
            return False
        held.own.assign(array)
        held.master.assign(widened(array))
        return True

    def cover(self, model: Any) -> bool:
        """Whether the half-precision variables of a model are those whose masters stand here, when nothing computes."""
        halves = {id(raw(v)) for v in _variables(model) if dtype_name(v) in HALVES}
        return halves == self._held.keys()

    def check_range(self) -> None:
        """Refuse masters that their own variables cannot hold.

        Raises:
            RefusedInput: A finite one would become infinite.
        """
        for name, held in self._names.items():
            check_fits(name, dtype_name(held.own), tf.reduce_max(tf.abs(held.master)).numpy())

    def _hold(self, variable: Any) -> None:
        own = raw(variable)
        if id(own) in self._held:
            return
        name = own.name.partition(":")[0]
        with tf.init_scope():
            master = tf.Variable(tf.cast(own, tf.float32), trainable=own.trainable, name=name)
        held = self._held[id(own)] = _MasterWeight(own, master)
        if isinstance(variable, keras.Variable):
            held.swaps.append((partial(setattr, variable, "_value"), own, master))
            held.swaps.append((partial(setattr, variable, "_dtype"), dtype_name(own), _FLOAT32))

    def _find_places(self, model: Any) -> None:
        """Where a model holds plain variables: attributes, and what lies in their lists and dicts."""
        plain = {key: held for key, held in self._held.items() if not held.swaps}
        for part in parts_of(model) if plain else ():
            for container in (vars(part), *map(opened, vars(part).values())):
                for key, item in _items(container):
                    if (held := plain.get(id(item))) is not None:
                        # By the methods of the plain types: Keras's own lists keep account of what goes in.
                        put: Any = dict.__setitem__ if isinstance(container, dict) else list.__setitem__
                        held.swaps.append((partial(put, container, key), held.own, held.master))

    def _enter(self) -> None:
        for held in self._held.values():
            if not _same_bits(_rounded(held.master, held.own.dtype), held.own):
                held.master.assign(tf.cast(held.own, tf.float32))
        self._inside = True
        for put, _, inside in self._every_swap():
            put(inside)

    def _leave(self) -> None:
        self._inside = False
        for put, own, _ in self._every_swap():
            put(own)
        for held in self._held.values():
            made = _rounded(held.master, held.own.dtype)
            if not _same_bits(made, held.own):
                # What is no number keeps its bits.
                both = tf.logical_and(tf.math.is_nan(made), tf.math.is_nan(held.own))
                held.own.assign(tf.where(both, held.own, made))

    def _every_swap(self) -> list[_Swap]:
        return [*self._swaps, *(swap for held in self._held.values() for swap in held.swaps)]

    def _cast(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """``tf.cast`` that casts to float32 where code asks for half precision."""

        def cast(x: Any, dtype: Any, name: str | None = None) -> Any:
            wanted = tf.as_dtype(dtype)
            half = self._inside and wanted.name in HALVES
            return original(x, tf.float32 if half else wanted, name=name)

        return cast


def _items(container: Any) -> list[tuple[Any, Any]]:
    if isinstance(container, dict):
        return list(dict.items(container))
    return list(enumerate(container)) if isinstance(container, list) else []


def _variables(model: Any) -> list[Any]:
    try:
        return variables_of(model) if isinstance(model, tf.Module) or hasattr(model, "weights") else []
    except ValueError:
        # A legacy model that nobody called yet has none, and says so with an error.
        return []


def _layer_swaps(part: Any) -> Iterator[_Swap]:
    """What makes a layer of Keras compute in float32."""
    if _compute_dtype(part) in HALVES or str(getattr(part, "variable_dtype", "")) in HALVES:
        legacy = sys.modules.get("tf_keras")
        policy = part._dtype_policy  # noqa: SLF001  where both generations of Keras keep it
        if getattr(policy, "quantization_mode", None):
            return
        if isinstance(part, keras.layers.Layer):
            yield partial(setattr, part, "_dtype_policy"), policy, keras.DTypePolicy(_FLOAT32)
        elif legacy is not None and isinstance(part, legacy.layers.Layer):
            wide = legacy.mixed_precision.Policy(_FLOAT32)
            yield partial(setattr, part, "_dtype_policy"), policy, wide
            yield partial(setattr, part, "_compute_dtype_object"), part._compute_dtype_object, tf.float32  # noqa: SLF001
    for tensor in _declared_inputs(part):
        yield from _swap_of_half(tensor, "_dtype")


def _cast_swaps(part: Any) -> Iterator[_Swap]:
    """What makes the casts that stand in the graph of a model casts to float32."""
    for operation in getattr(part, "_operations", ()):
        yield from _swap_of_half(operation, "dtype")


def _swap_of_half(item: Any, word: str) -> Iterator[_Swap]:
    dtype = vars(item).get(word)
    if isinstance(dtype, str) and dtype in HALVES:
        yield partial(setattr, item, word), dtype, _FLOAT32


def _declared_inputs(part: Any) -> list[Any]:
    """The tensors that a model of Keras declares as its inputs."""
    flat = keras.tree.flatten(getattr(part, "_inputs", ()))
    return [tensor for tensor in flat if isinstance(tensor, keras.KerasTensor)]


def _compute_dtype(part: Any) -> str:
    return str(getattr(part, "compute_dtype", None) or _FLOAT32)


def _rounded(tensor: Any, dtype: Any) -> Any:
    return tf.raw_ops.Cast(x=tensor, DstT=dtype)


def _same_bits(one: Any, two: Any) -> bool:
    pair = (tf.bitcast(item, tf.int16) for item in (one, tf.convert_to_tensor(two)))
    return bool(tf.reduce_all(tf.equal(*pair)))
