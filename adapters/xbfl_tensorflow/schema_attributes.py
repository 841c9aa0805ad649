"""The schema's training attributes, given to layers while a step is traced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from xbackend_fl.adapter.contract import TrainConfig
from xbackend_fl.errors import RefusedInput
from xbfl_tensorflow.graph import family
from xbfl_tensorflow.layers import EMBEDDINGS
from xbfl_tensorflow.trace import is_reversed, patched
from xbfl_tensorflow.variables import raw

_STATISTICS = ("moving_mean", "moving_variance")
Wanted: TypeAlias = Mapping[str, float]


@contextmanager
def schema_attributes(
    layers: Mapping[str, Any], config: TrainConfig, still: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[None]:
    """The schema's dropout rates, momenta and padding rows inside, the layers' own afterwards.

    A traced step has the values of its own trace; the context matters while it is traced.

    Args:
        layers: Layer by native place, the places of one layer in the order of its calls.
        config: Says the attributes by native place.
        still: Variables of frozen statistics, by native name.

    Raises:
        RefusedInput: What moves frozen statistics is no layer of Keras's.
    """
    places: dict[int, list[str]] = defaultdict(list)
    for place, layer in layers.items():
        places[id(layer)].append(place)
    norms = _still_norms(layers.values(), still)
    with ExitStack() as stack:
        if norms:
            stack.enter_context(patched(lambda original: _inferring(original, norms)))
        by_call: dict[int, list[Wanted]] = {}
        for place, layer in layers.items():
            if places[id(layer)][0] != place:
                continue
            rows = [config.attributes.get(name, {}) for name in places[id(layer)]]
            if "momentum" in rows[0] and hasattr(layer, "momentum"):
                _set(stack, layer, "momentum", rows[0]["momentum"])
            if family(layer) == "tf_keras" and hasattr(layer, "_bessels_correction_test_only"):
                # The fused kernel of legacy Keras averages the unbiased variance unless told otherwise.
                _set(stack, layer, "_bessels_correction_test_only", value=False)
            for row in rows:
                _set_rate(stack, place, layer, row, drops=config.dropout)
            _set_rate(stack, place, layer, rows[0], drops=config.dropout)
            if any(row != rows[0] for row in rows) or any(row.get("padding_idx", -1) >= 0 for row in rows):
                by_call[id(layer)] = rows
        if by_call:
            stack.enter_context(patched(lambda original: _by_call(original, by_call, config)))
        yield


def _still_norms(layers: Iterable[Any], still: Mapping[str, Any]) -> set[int]:
    """Ids of the layers that normalise with statistics which are frozen."""
    left, found = dict(still), set[int]()
    for layer in layers:
        own = [raw(getattr(layer, name)) for name in _STATISTICS if getattr(layer, name, None) is not None]
        mine = [name for name, variable in still.items() if any(variable is one for one in own)]
        found |= {id(layer)} if mine else set()
        for name in mine:
            left.pop(name, None)
    if left:
        raise RefusedInput(
            f"the statistics {', '.join(sorted(left))} are moved by the model's own code, which training cannot keep from it",
            hint="leave them out of federate.frozen, or use keras.layers.BatchNormalization",
        )
    return found


def _inferring(original: Callable[..., Any], norms: Collection[int]) -> Callable[..., Any]:
    """``Layer.__call__`` that lets some layers infer, whatever the others do."""

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        given = {**options, "training": False} if id(layer) in norms else options
        return original(layer, *arguments, **given)

    return call


def _by_call(
    original: Callable[..., Any], wanted: Mapping[int, Sequence[Wanted]], config: TrainConfig
) -> Callable[..., Any]:
    """``Layer.__call__`` that gives every call of a layer its own attributes."""
    counts: dict[int, int] = defaultdict(int)

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        rows = wanted.get(id(layer))
        if rows is None or is_reversed(arguments, options):
            return original(layer, *arguments, **options)
        row = rows[counts[id(layer)] % len(rows)]
        counts[id(layer)] += 1
        with ExitStack() as stack:
            if "momentum" in row and hasattr(layer, "momentum"):
                _set(stack, layer, "momentum", row["momentum"])
            _set_rate(stack, layer.name, layer, row, drops=config.dropout)
            result = original(layer, *arguments, **options)
        padding = row.get("padding_idx", -1)
        if type(layer).__name__ not in EMBEDDINGS or padding < 0:
            return result
        indices = tf.cast(arguments[0] if arguments else next(iter(options.values())), tf.int64)
        padded = tf.equal(indices, int(padding))[..., tf.newaxis]
        return tf.where(padded, tf.stop_gradient(result), result)

    return call


def _set_rate(stack: ExitStack, name: str, layer: Any, wanted: Wanted, *, drops: bool) -> None:
    """Give a layer that drops the schema's rate."""
    if type(layer).__name__ == "MultiHeadAttention":
        rate = wanted.get("dropout", layer._dropout) if drops else 0.0  # noqa: SLF001  Keras keeps the rate twice
        _set_one(stack, name, layer._dropout_layer, rate)  # noqa: SLF001
        _set(stack, layer, "_dropout", rate)
    elif isinstance(getattr(layer, "rate", None), float | int):
        # A dropout of attention weights is an attribute of the attention.
        rate = wanted.get("ratio", wanted.get("dropout", layer.rate)) if drops else 0.0
        _set_one(stack, name, layer, rate)


def _set_one(stack: ExitStack, name: str, layer: Any, rate: float) -> None:
    if (
        rate
        and family(layer) == "keras"
        and not isinstance(getattr(layer, "seed_generator", None), keras.random.SeedGenerator)
    ):
        raise RefusedInput(
            f"keras layer {name!r} was built with a dropout rate of 0 and has no generator for the schema's {rate}",
            hint=f"build it with rate={rate}, or leave dropout out of the reference too",
        )
    _set(stack, layer, "rate", rate)


def _set(stack: ExitStack, layer: Any, attribute: str, value: float | bool) -> None:  # noqa: FBT001  as setattr
    stack.callback(setattr, layer, attribute, getattr(layer, attribute))
    setattr(layer, attribute, value)
