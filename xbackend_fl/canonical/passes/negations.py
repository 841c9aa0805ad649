"""Negations stand where truth values are made: what is not both is not one or not the other."""

from __future__ import annotations

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.passes.edit import Edit


def push_negations(graph: Graph) -> tuple[Draft, ...]:
    """Not in front of And and Or, never twice, and never of a constant."""
    edit = Edit(graph)
    for draft in graph.drafts:
        if draft.operator == "Not":
            edit.keep(edit.renamed(draft, edit.negated(draft, draft.inputs[0])))
        else:
            edit.keep(draft)
    return tuple(edit.drafts)
