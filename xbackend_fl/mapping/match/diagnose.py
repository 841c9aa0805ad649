"""Says in words why two models are not the same function, and what to change on which side."""

from __future__ import annotations

import difflib
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

from xbackend_fl.canonical import Kind
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.row import OPAQUE
from xbackend_fl.mapping.match.causes import causes
from xbackend_fl.mapping.match.difference import Difference
from xbackend_fl.mapping.match.match import Matching
from xbackend_fl.mapping.match.recurrent import turned_loops, unlike_beginnings
from xbackend_fl.mapping.match.skeleton import CoreNode, Skeleton


def differences(reference: Skeleton, candidate: Skeleton, loose: Matching | None) -> tuple[Difference, ...]:
    """Everything that differs.

    Args:
        reference: Skeleton of the reference model.
        candidate: Skeleton of the candidate.
        loose: A matching by operators alone, if there is one: then only attributes differ.
    """
    if loose is not None:
        pairs = {
            i: (reference.core_nodes[i], candidate.core_nodes[j]) for i, j in sorted(loose.pairs.items())
        }
        found = {i: list(compare(*pair)) for i, pair in pairs.items()}
        return turned_loops(causes(pairs, found)) or tuple(_sharing(list(pairs.values())))
    if begun := unlike_beginnings(reference, candidate):
        return begun
    words = [sorted(core.node.operator for core in graph.core_nodes) for graph in (reference, candidate)]
    if words[0] == words[1]:
        return (_connection(reference, candidate),)
    return tuple(_structure(reference, candidate))


def compare(left: CoreNode, right: CoreNode) -> Iterator[Difference]:
    """Attributes and parameters that differ between two matched nodes."""
    names = left.node.name, right.node.name, left.node.operator
    if left.node.operator == OPAQUE:
        if left.attributes != right.attributes:
            yield Difference(*names, "operation", _operation(left), _operation(right))
        return
    for attribute in sorted({*left.attributes, *right.attributes}):
        pair = left.attributes.get(attribute), right.attributes.get(attribute)
        if pair[0] != pair[1]:
            yield Difference(*names, attribute, _show(pair[0]), _show(pair[1]), pair[1])
    for role in sorted({*left.parameters, *right.parameters}):
        expected, received = left.parameters.get(role), right.parameters.get(role)
        if expected is None or received is None:
            yield Difference(*names, role, _presence(expected), _presence(received))
            continue
        for index, what in enumerate(("shape", "kind")):
            if what == "kind" and role in {"mean", "variance"}:
                if expected[index] != received[index] and role == "mean":
                    yield Difference(*names, "statistics", _moves(expected[index]), _moves(received[index]))
            elif expected[index] != received[index]:
                parameters = left.node.parameters[role], right.node.parameters[role]
                words = str(expected[index]), str(received[index])
                if _turned(left.node.operator, expected[index], received[index]):
                    # It lies as its framework has it: that is no difference that anybody could mend.
                    yield Difference(*names, "order of axes", *words)
                    continue
                yield Difference(*names, f"{role} {what}", *words, parameters=parameters)


def _turned(operator: str, expected: object, received: object) -> bool:
    """Whether two shapes of a parameter that is used as data are one but for the order of axes."""
    if operator != "Parameter" or not (isinstance(expected, tuple) and isinstance(received, tuple)):
        return False
    return sorted(expected) == sorted(received)


def _sharing(pairs: Sequence[tuple[CoreNode, CoreNode]]) -> Iterator[Difference]:
    """Parameters that one model uses in two places and the other stores twice."""
    twins: tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]]] = ({}, {})
    for left, right in pairs:
        for role in left.parameters.keys() & right.parameters.keys():
            names = left.node.parameters[role], right.node.parameters[role]
            for side in (0, 1):
                first, node = twins[side].setdefault(
                    names[side], (names[1 - side], (left, right)[side].node.name)
                )
                if first != names[1 - side]:
                    shared, own = f"shared with {node!r}", "its own"
                    words = (shared, own) if side == 0 else (own, shared)
                    yield Difference(left.node.name, right.node.name, left.node.operator, role, *words)


def _connection(reference: Skeleton, candidate: Skeleton) -> Difference:
    """The first node whose inputs come from elsewhere: same layers, other edges."""
    left, right = _histories(reference), _histories(candidate)
    index = next((i for i, history in enumerate(left) if history not in right), len(left) - 1)
    core = reference.core_nodes[index]
    alike = [
        other
        for i, other in enumerate(candidate.core_nodes)
        if right[i] not in left and other.node.operator == core.node.operator
    ]
    received = _sources(candidate, alike[0]) if alike else "something else"
    name = alike[0].node.name if alike else ""
    return Difference(
        core.node.name, name, core.node.operator, "connection", _sources(reference, core), received
    )


def _histories(graph: Skeleton) -> list[str]:
    """Everything that leads to each node, as text."""
    histories: list[str] = []
    for core in graph.core_nodes:
        reads = [f"input {-1 - e.source}" if e.source < 0 else histories[e.source] for e in core.edges]
        inner = ",".join(sorted(reads) if core.commutative else reads)
        # Digests keep the text short however deep the graph is.
        histories.append(hashlib.sha256(f"{core.node.operator}({inner})".encode()).hexdigest())
    return histories


def _sources(graph: Skeleton, core: CoreNode) -> str:
    names = (
        f"input {-1 - edge.source}"
        if edge.source < 0
        else f"{graph.core_nodes[edge.source].node.operator} {graph.core_nodes[edge.source].node.name!r}"
        for edge in core.edges
    )
    return f"fed by ({', '.join(names)})"


def _structure(reference: Skeleton, candidate: Skeleton) -> Iterator[Difference]:
    """Nodes that only one side has.

    What has the same history in both graphs, or the same future, is agreed; only the region between is compared,
    ordered by depth, so that it does not matter in which order a model was written.
    """
    pasts = _histories(reference), _histories(candidate)
    futures = _futures(reference), _futures(candidate)
    regions = []
    for side, graph in enumerate((reference, candidate)):
        past, future = set(pasts[1 - side]), set(futures[1 - side])
        open_ = [
            i
            for i in range(len(graph.core_nodes))
            if pasts[side][i] not in past and futures[side][i] not in future
        ]
        regions.append(open_)
    if not any(regions):
        # Every node has a twin, and yet one side has more of them.
        regions = [list(range(len(graph.core_nodes))) for graph in (reference, candidate)]
    depths = _depths(reference), _depths(candidate)
    left, right = (
        sorted(region, key=lambda i: (depths[side][i], graph.core_nodes[i].node.operator))
        for side, (region, graph) in enumerate(zip(regions, (reference, candidate), strict=True))
    )
    words = (
        [reference.core_nodes[i].node.operator for i in left],
        [candidate.core_nodes[i].node.operator for i in right],
    )
    for tag, a, b, c, d in difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        mine, theirs = (
            [reference.core_nodes[i] for i in left[a:b]],
            [candidate.core_nodes[i] for i in right[c:d]],
        )
        after = _before(reference, mine[0]) if mine else _twin(pasts, reference, candidate, theirs[0])
        other = _before(candidate, theirs[0]) if theirs else after
        yield Difference(after, other, f"after {after!r}", "structure", _list(mine), _list(theirs))


def _before(graph: Skeleton, core: CoreNode) -> str:
    """Name of the node that ``core`` reads first."""
    source = core.edges[0].source if core.edges else -1
    return "the input" if source < 0 else graph.core_nodes[source].node.name


def _twin(
    pasts: tuple[list[str], list[str]], reference: Skeleton, candidate: Skeleton, core: CoreNode
) -> str:
    """The reference's name of the node that a candidate's node reads first, or the candidate's if it has none."""
    source = core.edges[0].source if core.edges else -1
    if source < 0:
        return "the input"
    name = candidate.core_nodes[source].node.name
    twins = [reference.core_nodes[i].node.name for i, past in enumerate(pasts[0]) if past == pasts[1][source]]
    # Several nodes may have one history; the one of the most similar name reads best.
    return max(twins, key=lambda twin: difflib.SequenceMatcher(None, twin, name).ratio(), default=name)


def _futures(graph: Skeleton) -> list[str]:
    """Everything that follows each node, as text."""
    readers: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for index, core in enumerate(graph.core_nodes):
        for position, edge in enumerate(core.edges):
            readers[edge.source].append((index, 0 if core.commutative else position))
    outputs = {edge.source: index for index, edge in enumerate(graph.outputs)}
    futures = [""] * len(graph.core_nodes)
    for index in range(len(graph.core_nodes) - 1, -1, -1):
        ahead = sorted(f"{position} {futures[reader]}" for reader, position in readers[index])
        text = f"{graph.core_nodes[index].node.operator}({outputs.get(index, '')};{','.join(ahead)})"
        futures[index] = hashlib.sha256(text.encode()).hexdigest()
    return futures


def _depths(graph: Skeleton) -> list[int]:
    """Length of the longest way from a data input to each node."""
    depths: list[int] = []
    for core in graph.core_nodes:
        depths.append(1 + max((depths[edge.source] for edge in core.edges if edge.source >= 0), default=0))
    return depths


def _list(core_nodes: Sequence[CoreNode]) -> str:
    return (
        ", ".join(
            f"{_word(b)} {b.node.name!r}" + (f" ({', '.join(sorted(b.parameters))})" if b.parameters else "")
            for b in core_nodes
        )
        or "nothing"
    )


def _word(core: CoreNode) -> str:
    """What a node does: its operator, or what its framework calls it."""
    if core.node.operator != OPAQUE:
        return core.node.operator
    return f"{core.attributes['framework']}'s {core.attributes['operation']}"


def _operation(core: CoreNode) -> str:
    """What an opaque node is, as its framework calls it."""
    a = core.attributes
    return f"{a['framework']}'s {a['operation']}({a['detail']})"


def _show(value: AttributeValue | None) -> str:
    return "absent" if value is None else str(value)


def _moves(kind: object) -> str:
    """What training does with running statistics."""
    return "kept in training" if kind == Kind.FROZEN else "averaged in training"


def _presence(value: object) -> str:
    return "absent" if value is None else "present"
