"""The only feature of a layer, picked, is the layer without that axis."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph, free_sizes
from xbackend_fl.canonical.passes.common import feature_axis, features_first


def squeeze_features(graph: Graph) -> tuple[Draft, ...]:
    """Pick of one feature as a reshape."""

    def squeezed(draft: Draft) -> Draft:
        source = graph.producers.get(draft.inputs[0]) if draft.operator == "Select" else None
        if source is None or not features_first(source):
            return draft
        axis = feature_axis(source)
        if draft.attributes["axis"] != axis or source.shape[axis] != 1:
            return draft
        sizes = free_sizes(source.shape, draft.shape)
        return replace(draft, operator="Reshape", attributes={"shape": sizes})

    return tuple(map(squeezed, graph.drafts))
