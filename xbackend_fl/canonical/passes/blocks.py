"""Channels beside blocks of pixels: the order in which a framework counts them belongs to the layer in front or behind.

``DepthToSpace`` and ``SpaceToDepth`` have the channel before the place in the block. TensorFlow counts the other way round, so
its adapter puts a ``Take`` beside them; a layer takes up that order in its parameters.
"""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.layout import Reorder, Segment
from xbackend_fl.canonical.ops import PASSES_FEATURES

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})


def take_up_block_order(graph: Graph) -> tuple[Draft, ...]:
    """Move a permutation of channels beside blocks of pixels into the parameters of a layer."""
    new: dict[str, Draft] = {}
    for draft in graph.drafts:
        sizes = _turn(draft)
        if sizes is None:
            continue
        reader, source = graph.only_reader(draft.outputs[0]), graph.producers.get(draft.inputs[0])
        if reader is not None and reader.operator == "DepthToSpace":
            new |= _in_front(graph, draft, sizes)
        elif source is not None and source.operator == "SpaceToDepth" and reader is not None:
            new |= _behind(draft, reader, sizes)
    return tuple(new.get(draft.name, draft) for draft in graph.drafts)


def _turn(draft: Draft) -> tuple[int, int] | None:
    """Rows and columns of a Take of all channels that lie as ``[rows, columns]``, column by column."""
    if draft.operator != "Take" or draft.attributes["axis"] != 1:
        return None
    indices = draft.attributes["indices"]
    assert isinstance(indices, tuple)
    count = len(indices)
    if count < 4 or indices[0] != 0:
        return None
    columns = int(indices[1])
    rows = count // columns if columns and count % columns == 0 else 0
    wanted = tuple(row * columns + column for column in range(columns) for row in range(rows))
    return (rows, columns) if indices == wanted and indices[-1] == count - 1 else None


def _in_front(graph: Graph, take: Draft, sizes: tuple[int, int]) -> dict[str, Draft]:
    """The layer that makes the channels makes them in the other order, and everything between it and the Take."""
    makers: list[Draft] = []
    draft = graph.producers.get(take.inputs[0])
    while draft is not None and graph.only_reader(draft.outputs[0]) is not None:
        plain = draft.operator in PASSES_FEATURES or draft.operator in {"Dropout", "Clip"}
        single = len(draft.inputs) == 1
        if draft.operator in _LAYERS and draft.attributes.get("group", 1) == 1:
            makers.append(draft)
            break
        if not single or not (plain or draft.operator == "BatchNormalization"):
            return {}
        makers.append(draft)
        draft = graph.producers.get(draft.inputs[0])
    if not makers or makers[-1].operator not in _LAYERS:
        return {}
    rows, columns = sizes
    segment = Segment((columns, rows), (1, 0))
    axes = {"ConvTranspose": {"weight": 1}}
    turned = {
        maker.name: replace(
            maker,
            layouts={
                role: Reorder(layout, axes.get(maker.operator, {}).get(role, 0), (segment,))
                for role, layout in maker.layouts.items()
            },
        )
        for maker in makers
    }
    return turned | {take.name: replace(take, operator="Identity", attributes={})}


def _behind(take: Draft, reader: Draft, sizes: tuple[int, int]) -> dict[str, Draft]:
    """The convolution that reads the channels reads them in the other order."""
    if reader.operator != "Conv" or reader.attributes["group"] != 1:
        return {}
    rows, columns = sizes
    segment = Segment((rows, columns), (1, 0))
    layouts = {**reader.layouts, "weight": Reorder(reader.layouts["weight"], 1, (segment,))}
    return {
        reader.name: replace(reader, layouts=layouts),
        take.name: replace(take, operator="Identity", attributes={}),
    }
