"""Bindings that structure proposes: two graphs matched node by node, and what only training sees of them."""

from __future__ import annotations

from collections.abc import Iterator

from xbackend_fl.canonical import Description, Schema
from xbackend_fl.mapping.align.constants import unlike_constants
from xbackend_fl.mapping.align.pairings import Proposal, pairings
from xbackend_fl.mapping.match.causes import causes
from xbackend_fl.mapping.match.diagnose import compare, differences
from xbackend_fl.mapping.match.difference import Difference
from xbackend_fl.mapping.match.match import Matching, Resemblance, match
from xbackend_fl.mapping.match.ports import check_outputs, fit_outputs
from xbackend_fl.mapping.match.sizes import at_this_size
from xbackend_fl.mapping.match.skeleton import Skeleton, skeleton_of
from xbackend_fl.mapping.match.training import followed, pair_dropouts, training_report


class StructureError(Exception):
    """Two graphs differ; ``found`` says in what."""

    def __init__(self, found: tuple[Difference, ...]) -> None:
        super().__init__("; ".join(map(str, found)))
        self.found = found


def find_binding(
    schema: Schema, description: Description, resemblance: Resemblance | None = None
) -> Proposal:
    """Match a described model with a schema by structure; also says what only training sees.

    Args:
        schema: The schema.
        description: The candidate.
        resemblance: Orders the choices where structure leaves several.

    Raises:
        MismatchError: The models do not return the same outputs.
        StructureError: The graphs differ.
    """
    return next(bindings(schema, description, resemblance))


def bindings(
    schema: Schema, description: Description, resemblance: Resemblance | None = None
) -> Iterator[Proposal]:
    """:func:`find_binding` and, behind it, every other pairing that structure allows, for numbers that contradict the first.

    Graphs that only match if the operands of matrix products trade places are proposed so; behind these it is said how they differ.
    """
    check_outputs(schema, description.schema)
    reference, candidate = skeleton_of(schema), skeleton_of(description.schema)
    if schema.fingerprint == description.schema.fingerprint:
        # One graph under one set of names: the names are the map.
        resemblance = None
    sized: tuple[str, ...] = ()
    apart: tuple[Difference, ...] = ()
    if match(reference, candidate, resemblance=resemblance) is None:
        apart = differences(reference, candidate, match(reference, candidate, strict=False))
        if {item.attribute for item in apart} <= {"pads", "ceil_mode"}:
            # Two ways to write a padding may be one at the example's size; what other sizes say, the proof asks.
            reference, candidate = (
                skeleton_of(at_this_size(schema)),
                skeleton_of(at_this_size(description.schema)),
            )
            if match(reference, candidate, resemblance=resemblance) is not None:
                sized = tuple(f"{item}; at the example's size both are one" for item in apart)
                apart = ()
    # One graph may hold other numbers: of those that no draw need read, all are compared.
    tables = tuple(unlike_constants(schema, description.schema, None))
    one = False
    for matching in pairings(reference, candidate, resemblance):
        one = True
        yield _proposal(schema, description, reference, candidate, matching, sized, tables)
    if apart or not one:
        raise StructureError(apart)


def _proposal(
    schema: Schema,
    description: Description,
    reference: Skeleton,
    candidate: Skeleton,
    matching: Matching,
    sized: tuple[str, ...],
    tables: tuple[Difference, ...],
) -> Proposal:
    pairs = {i: (reference.core_nodes[i], candidate.core_nodes[j]) for i, j in sorted(matching.pairs.items())}
    found = {i: items for i, pair in pairs.items() if (items := list(compare(*pair)))}
    if found:
        raise StructureError(tuple(causes(pairs, found)))
    if tables:
        raise StructureError(tables)
    nodes, parameters = _names(reference, candidate, matching)
    nodes |= pair_dropouts(reference, candidate, matching, (schema, description.schema))
    binding = fit_outputs(schema, description).renamed(parameters, nodes, schema)
    binding, notes = followed(binding, training_report(schema, description, binding, nodes))
    notes += sized
    if binding.one_way:
        notes += (f"the map goes one way: {binding.one_way}",)
    if matching.symmetries:
        tied = ", ".join(matching.symmetries)
        notes += (
            f"structure cannot tell these from others; what they do tells them apart, or they are interchangeable: {tied}",
        )
    return binding, notes


def _names(
    reference: Skeleton, candidate: Skeleton, matching: Matching
) -> tuple[dict[str, str], dict[str, str]]:
    """Candidate's node and parameter names to the reference's."""
    nodes: dict[str, str] = {}
    parameters: dict[str, str] = {}
    for i, j in matching.pairs.items():
        left, right = reference.core_nodes[i], candidate.core_nodes[j]
        nodes[right.node.name] = left.node.name
        parameters |= {right.node.parameters[role]: name for role, name in left.node.parameters.items()}
    return nodes, parameters
