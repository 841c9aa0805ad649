"""The part of a schema's graph that must agree between two models, with everything else looked through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from xbackend_fl.canonical import OPERATORS, Effect, Node, Property, Schema, has
from xbackend_fl.canonical.node import AttributeValue


@dataclass(frozen=True)
class Edge:
    """Where a node reads from.

    Attributes:
        source: Index of the producing node; ``-1 - i`` is data input ``i``.
        output: Which of the producer's outputs.
        dropouts: Names of the dropout nodes on the way.
    """

    source: int
    output: int
    dropouts: tuple[str, ...] = ()


@dataclass(frozen=True)
class CoreNode:
    """A node that computes.

    Attributes:
        node: The schema's node.
        edges: Its inputs; nested sums, products and concatenations are flattened into one node.
        attributes: The attributes that change the function, floats rounded to six digits.
        parameters: Role to (shape, kind).
        commutative: Whether the order of the inputs is free.
    """

    node: Node
    edges: tuple[Edge, ...]
    attributes: Mapping[str, AttributeValue]
    parameters: Mapping[str, tuple[tuple[int, ...], str]]
    commutative: bool = False


@dataclass(frozen=True)
class Skeleton:
    """All core_nodes in execution order, and the edges that leave the model."""

    core_nodes: tuple[CoreNode, ...]
    outputs: tuple[Edge, ...]
    num_inputs: int


def skeleton_of(schema: Schema) -> Skeleton:
    """Look through shape-only nodes and flatten nested associative nodes."""
    edges: dict[str, Edge] = {port.name: Edge(-1 - i, 0) for i, port in enumerate(schema.inputs)}
    core_nodes: list[CoreNode] = []
    masks = {-1 - i for i, port in enumerate(schema.inputs) if port.binary}
    for node in schema.nodes:
        if has(node.operator, Property.SHAPE_ONLY):
            edge = edges[node.inputs[0]]
            if node.operator == "Dropout":
                edge = replace(edge, dropouts=(*edge.dropouts, node.name))
            edges[node.outputs[0]] = edge
            continue
        for output, name in enumerate(node.outputs):
            edges[name] = Edge(len(core_nodes), output)
        read = tuple(edges[name] for name in node.inputs)
        core_nodes.append(
            _core_node(schema, _of_mask(node) if {edge.source for edge in read} <= masks else node, read)
        )
    outputs = tuple(edges[port.name] for port in schema.outputs)
    return _flatten(Skeleton(tuple(core_nodes), outputs, len(schema.inputs)))


def _of_mask(node: Node) -> Node:
    """A question to a mask of zeros and ones in one form: what is less than one is zero."""
    constant = node.attributes.get("constant")
    if node.operator == "Less" and isinstance(constant, float) and 0 < constant <= 1:
        return replace(node, operator="Equal", attributes={"constant": 0.0})
    return node


def products_turned(skeleton: Skeleton) -> Skeleton | None:
    """The skeleton with the operands of matrix products in any order; ``None`` without such products.

    ``A @ B`` is the transpose of ``Bᵀ @ Aᵀ``, and transposes are looked through: one function may read its operands in either order.
    """
    if all(core.node.operator != "MatMul" for core in skeleton.core_nodes):
        return None
    free = (replace(b, commutative=True) if b.node.operator == "MatMul" else b for b in skeleton.core_nodes)
    return replace(skeleton, core_nodes=tuple(free))


def rounded(value: AttributeValue) -> AttributeValue:
    """Floats to six significant digits: frameworks store constants as float32 or double."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _core_node(schema: Schema, node: Node, edges: tuple[Edge, ...]) -> CoreNode:
    row = OPERATORS[node.operator]
    attributes = {
        name: rounded(value) for name, value in node.attributes.items() if row.effect(name) is Effect.FUNCTION
    }
    parameters = {
        role: (schema.by_name[name].shape, str(schema.by_name[name].kind))
        for role, name in node.parameters.items()
    }
    return CoreNode(node, edges, attributes, parameters, row.has(Property.COMMUTATIVE))


def _flatten(skeleton: Skeleton) -> Skeleton:
    """Merge a node into its reader where both are the same associative operator.

    Arithmetic merges into an only reader. A concatenation computes nothing, so it merges into every other one that
    reads it: one model joins pairwise what another joins at once.
    """
    core_nodes = skeleton.core_nodes
    every = [edge for core in core_nodes for edge in core.edges] + list(skeleton.outputs)
    readers = Counter(edge.source for edge in every)

    def absorbs(reader: CoreNode, edge: Edge) -> bool:
        if edge.source < 0 or edge.dropouts or "constant" in reader.attributes:
            return False
        inner = core_nodes[edge.source]
        if readers[edge.source] > 1 and reader.node.operator != "Concat":
            return False
        same = (inner.node.operator, inner.attributes) == (reader.node.operator, reader.attributes)
        return same and has(reader.node.operator, Property.ASSOCIATIVE)

    def expand(core: CoreNode) -> tuple[Edge, ...]:
        parts = (expand(core_nodes[edge.source]) if absorbs(core, edge) else (edge,) for edge in core.edges)
        return tuple(edge for part in parts for edge in part)

    absorbed = Counter(edge.source for core in core_nodes for edge in core.edges if absorbs(core, edge))
    gone = {source for source, count in absorbed.items() if count == readers[source]}
    kept = [index for index in range(len(core_nodes)) if index not in gone]
    place = {old: new for new, old in enumerate(kept)}

    def moved(edges: tuple[Edge, ...]) -> tuple[Edge, ...]:
        return tuple(replace(edge, source=place.get(edge.source, edge.source)) for edge in edges)

    flat = tuple(replace(core_nodes[index], edges=moved(expand(core_nodes[index]))) for index in kept)
    return Skeleton(flat, moved(skeleton.outputs), skeleton.num_inputs)
