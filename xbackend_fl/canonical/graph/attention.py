"""Scaled dot-product attention: one node, however a model spells it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbackend_fl.canonical.draft import Draft
from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.graph.recorder import Recorder
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.value import Value


def product(builder: GraphBuilder, name: str, left: Value, right: Value) -> Value:
    """``left @ right`` over the last two native axes; the second product of an attention completes it."""
    one, two = builder.plain(left), builder.plain(right)
    found = _attention_of(builder, one.name) if one.shape[:-2] == two.shape[:-2] else None
    if found is not None and len(one.shape) in {3, 4}:
        natural = tuple(range(len(one.shape)))
        swap = (*natural[:-2], natural[-1], natural[-2])
        left, right = (Value(value, builder.recorder.shape(value), natural) for value in found.operands)
        # The product that was turned has its operands in the other order, both turned.
        queries, keys = (
            (builder.transpose(right, swap), left) if found.turned else (left, builder.transpose(right, swap))
        )
        # Heads may stand in front of the examples: a model stacked what it had split.
        swap = (
            (1, 0, 2, 3)
            if len(one.shape) == 4 and _examples_second(builder, *found.operands, two.name)
            else ()
        )
        queries, keys, values = (
            builder.transpose(item, swap) if swap else item for item in (queries, keys, two)
        )
        made = attention(
            builder,
            name,
            queries,
            keys,
            values,
            scale=found.scale,
            causal=found.causal,
            dropout=found.dropout,
            origin=found.dropping,
        )
        return builder.transpose(made, swap) if swap else made
    shape = (*np.broadcast_shapes(one.shape[:-2], two.shape[:-2]), one.shape[-2], two.shape[-1])
    (out,) = builder.add("MatMul", name, [one, two], [shape])
    return Value(out, shape, tuple(range(len(shape))))


def _examples_second(builder: GraphBuilder, *values: str) -> bool:
    """Whether the first axis of what was moved lies second in all of them."""
    moved = [builder.recorder.producer(value) for value in values]
    orders = [
        draft.attributes["perm"] for draft in moved if draft is not None and draft.operator == "Transpose"
    ]
    return bool(orders) and all(isinstance(order, tuple) and order[1] == 0 for order in orders)


def attention(
    builder: GraphBuilder,
    name: str,
    query: Value,
    key: Value,
    value: Value,
    *,
    scale: float,
    causal: bool,
    dropout: float | None,
    origin: str | None = None,
) -> Value:
    """Scaled dot-product attention of ``[N, heads, T, size]``, or of ``[N, T, size]`` with one head.

    ``dropout`` is the rate of its weights, ``None`` where the model cannot be given one.
    """
    heads = query.native_shape[1] if len(query.shape) == 4 else 1
    joined = [_by_step(builder, f"{name}.heads", item) for item in (query, key, value)]
    shape = (*joined[0].shape[:2], joined[2].shape[2])
    attributes: dict[str, AttributeValue] = {
        "num_heads": heads,
        "causal": int(causal),
        "scale": scale,
    }
    if dropout is not None:
        attributes["dropout"] = dropout
    (out,) = builder.add("Attention", name, joined, [shape], attributes=attributes, origin=origin)
    made = Value(out, shape, (0, 1, 2))
    if len(query.shape) == 3:
        return made
    return split_heads(builder, f"{name}.heads", made, heads)


def split_heads(builder: GraphBuilder, name: str, value: Value, heads: int) -> Value:
    """``[N, T, heads · size]`` as ``[N, heads, T, size]``."""
    batch, steps, features = value.native_shape
    split = builder.reshape(name, value, (batch, steps, heads, features // heads))
    return builder.transpose(split, (0, 2, 1, 3))


def join_heads(builder: GraphBuilder, name: str, value: Value) -> Value:
    """``[N, heads, T, size]`` as ``[N, T, heads · size]``."""
    value = builder.transpose(value, (0, 2, 1, 3))
    batch, steps, heads, size = value.native_shape
    return builder.reshape(name, value, (batch, steps, heads * size))


def _by_step(builder: GraphBuilder, name: str, value: Value) -> Value:
    return builder.plain(value if len(value.shape) == 3 else join_heads(builder, name, value))


@dataclass(frozen=True)
class _Scores:
    """What stands behind ``softmax(scale * left @ right)``.

    Attributes:
        operands: ``left`` and ``right``.
        turned: Whether queries and keys have traded places: the product was transposed behind.
        scale: Product of all constant factors.
        causal: Whether a causal mask was added.
        dropout: Rate of a dropout behind the softmax; ``None`` without one.
        dropping: The native layer that drops.
    """

    operands: tuple[str, str]
    turned: bool
    scale: float
    causal: bool
    dropout: float | None
    dropping: str | None


def _attention_of(builder: GraphBuilder, probabilities: str) -> _Scores | None:
    recorder = builder.recorder
    draft, turned = _through_turns(recorder, recorder.producer(probabilities), turned=False)
    ratio, dropping = None, None
    if draft is not None and draft.operator == "Dropout":
        dropping = draft.origin
        ratio = float(str(draft.attributes["ratio"]))
        draft, turned = _through_turns(recorder, recorder.producer(draft.inputs[0]), turned=turned)
    if draft is None or draft.operator != "Softmax" or draft.attributes["axis"] != (-2 if turned else -1):
        return None
    scale, causal = 1.0, False
    source, turned = _through_turns(recorder, recorder.producer(draft.inputs[0]), turned=turned)
    while source is not None and (source.operator == "CausalMask" or _scales(source)):
        if source.operator == "CausalMask" and turned:
            return None
        causal = causal or source.operator == "CausalMask"
        scale *= float(str(source.attributes.get("constant", 1.0)))
        source, turned = _through_turns(recorder, recorder.producer(source.inputs[0]), turned=turned)
    if source is None or source.operator != "MatMul":
        return None
    (left, one), (right, two) = (_unscaled(builder, value) for value in source.inputs)
    return _Scores((left, right), turned, scale * one * two, causal, ratio, dropping)


def _through_turns(recorder: Recorder, draft: Draft | None, *, turned: bool) -> tuple[Draft | None, bool]:
    """The node in front of transposes of the last two axes, and whether there is an odd number of them."""
    while draft is not None and draft.operator == "Transpose":
        natural = tuple(range(len(draft.shape)))
        if draft.attributes["perm"] != (*natural[:-2], natural[-1], natural[-2]):
            break
        draft, turned = recorder.producer(draft.inputs[0]), not turned
    return draft, turned


def _unscaled(builder: GraphBuilder, value: str) -> tuple[str, float]:
    """``value`` without the constants it was multiplied with, and their product."""
    draft = builder.recorder.producer(value)
    if draft is None or not (_scales(draft) or draft.operator == "Transpose"):
        return value, 1.0
    inner, factor = _unscaled(builder, draft.inputs[0])
    if _scales(draft):
        return inner, factor * float(str(draft.attributes["constant"]))
    if inner == draft.inputs[0]:
        return value, 1.0
    shape = builder.recorder.shape(inner)
    plain = Value(inner, shape, tuple(range(len(shape))))
    (turned,) = builder.add("Transpose", draft.name, [plain], [draft.shape], attributes=draft.attributes)
    return turned, factor


def _scales(draft: Draft) -> bool:
    return draft.operator == "Mul" and "constant" in draft.attributes
