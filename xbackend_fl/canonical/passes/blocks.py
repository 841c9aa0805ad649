"""Channels beside blocks of pixels: the order in which a framework counts them belongs to the layer in front or behind.

``DepthToSpace`` and ``SpaceToDepth`` have the channel before the place in the block. TensorFlow counts the other way round, so
its adapter puts a ``Take`` beside them; a layer takes up that order in its parameters.
"""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.layout import Reorder, Segment
from xbackend_fl.canonical.ops import OPERATORS, has
from xbackend_fl.canonical.passes.edit import axes_of
from xbackend_fl.canonical.row import Property


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
            new |= _behind(graph, draft, sizes)
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
        plain = has(draft.operator, Property.PASSES_FEATURES) or draft.operator in {"Dropout", "Clip"}
        single = len(draft.inputs) == 1
        if has(draft.operator, Property.LINEAR) and draft.attributes.get("group", 1) == 1:
            makers.append(draft)
            break
        if not single or not (plain or draft.operator == "BatchNormalization"):
            return {}
        makers.append(draft)
        draft = graph.producers.get(draft.inputs[0])
    if not makers or not has(makers[-1].operator, Property.LINEAR):
        return {}
    rows, columns = sizes
    segment = Segment((columns, rows), (1, 0))
    turned = {
        maker.name: replace(
            maker,
            layouts={
                role: Reorder(layout, OPERATORS[maker.operator].slot(role).out_axis or 0, (segment,))
                for role, layout in maker.layouts.items()
            },
        )
        for maker in makers
    }
    return turned | {take.name: replace(take, operator="Identity", attributes={})}


def _behind(graph: Graph, take: Draft, sizes: tuple[int, int]) -> dict[str, Draft]:
    """The layer that reads the channels reads them in the other order, and so does everything between it and the Take."""
    rows, columns = sizes
    segment = Segment((rows, columns), (1, 0))
    new = {take.name: replace(take, operator="Identity", attributes={})}
    value, axis, rank = take.outputs[0], 1, len(take.shape)
    while (reader := graph.only_reader(value)) is not None:
        layer = (reader.operator == "Conv" and axis == 1 and reader.attributes["group"] == 1) or (
            reader.operator == "Gemm" and axis == len(reader.shape) - 1
        )
        if layer:
            layouts = {**reader.layouts, "weight": Reorder(reader.layouts["weight"], 1, (segment,))}
            return new | {reader.name: replace(reader, layouts=layouts)}
        if reader.operator == "Transpose":
            axis = axes_of(reader).index(axis)
        elif reader.operator == "Reshape" and axis == rank - 1 and reader.shape[-1] == rows * columns:
            axis = len(reader.shape) - 1
        elif has(reader.operator, Property.ARITHMETIC) and len(reader.inputs) == 2:
            (other,) = (item for item in reader.inputs if item != value)
            held = _vector(graph, other, len(reader.shape) - axis)
            if held is None:
                return {}
            maker, place = held
            layouts = {"weight": Reorder(maker.layouts["weight"], place, (segment,))}
            new[maker.name] = replace(maker, layouts=layouts)
        elif not _each(reader):
            return {}
        value, rank = reader.outputs[0], len(reader.shape)
    return {}


def _each(draft: Draft) -> bool:
    """Whether a node does the same with every element of its only input."""
    plain = has(draft.operator, Property.PASSES_FEATURES | Property.ARITHMETIC)
    plain = plain or draft.operator in {"Dropout", "Clip"}
    return plain and len(draft.inputs) == 1 and not draft.layouts


def _vector(graph: Graph, value: str, behind: int) -> tuple[Draft, int] | None:
    """The parameter that a value is a function of, element by element, and its only axis: for the axis that is the last but ``behind - 1``."""
    draft = graph.producers.get(value)
    shape = () if draft is None else draft.shape
    wide = [len(shape) - place for place, length in enumerate(shape) if length > 1]
    while draft is not None and wide == [behind] and graph.only_reader(draft.outputs[0]) is not None:
        places = [place for place, length in enumerate(draft.shape) if length > 1]
        if draft.operator == "Parameter":
            return draft, places[0]
        if not (_each(draft) or draft.operator in {"Reshape", "Transpose"}) or len(places) != 1:
            return None
        draft = graph.producers.get(draft.inputs[0])
    return None
