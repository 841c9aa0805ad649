"""One change at every step that is written alike: layers repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xbackend_fl.mapping.diagnosis.change import Change
from xbackend_fl.mapping.diagnosis.graph import Graph


def everywhere(graph: Graph, change: Change, region: Sequence[int]) -> dict[int, Change]:
    """The same change at every step of a region that is written alike; one step only if there is no other.

    Args:
        graph: The graph.
        change: What is changed at one step.
        region: Steps that are looked at.
    """
    step = graph.steps[change.index]
    found = {change.index: change}
    if change.left_out and change.new[0].operator != "Identity":
        return found
    if (
        change.what not in {"constant", "operation", "presence", "axis", "upper bound", "lower bound"}
        and change.what not in step.attributes
    ):
        return found
    for index in region:
        other = graph.steps[index]
        if index == change.index or other.operator != step.operator or other.attributes != step.attributes:
            continue
        held = [graph.constants.get(name) for name in other.inputs]
        own = [graph.constants.get(name) for name in step.inputs]
        if [None if a is None else a.tobytes() for a in held] != [
            None if a is None else a.tobytes() for a in own
        ]:
            continue
        renamed: dict[str, str] = dict(zip(step.inputs, other.inputs, strict=True)) | dict(
            zip(step.outputs, other.outputs, strict=True)
        )
        constants = {f"{name}_{index}": array for name, array in change.constants.items()}
        renamed |= {name: f"{name}_{index}" for name in change.constants}
        new = tuple(
            replace(
                item,
                inputs=tuple(renamed.get(name, name) for name in item.inputs),
                outputs=other.outputs,
                owner=other.owner,
            )
            for item in change.new
        )
        found[index] = replace(change, index=index, new=new, constants=constants)
    return found
