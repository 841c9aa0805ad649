"""Says in words why two models are not the same function, and what to change on which side."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from xbackend_fl.canonical.schema import AttributeValue
from xbackend_fl.mapping.match import Matching
from xbackend_fl.mapping.skeleton import Bone, Skeleton


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    Attributes:
        reference: Node in the reference model.
        candidate: Node in the candidate, empty if it has none.
        operator: Operator of the node.
        attribute: What differs: an attribute, ``<role> shape``, ``<role> kind``, ``connection`` or ``structure``.
        expected: The reference's value.
        received: The candidate's value.
        value: The candidate's value as it is, where ``attribute`` is an attribute of the operator.
    """

    reference: str
    candidate: str
    operator: str
    attribute: str
    expected: str
    received: str
    value: AttributeValue | None = None

    def __str__(self) -> str:
        if self.attribute == "structure":
            return f"{self.operator}: reference has {self.expected}, candidate has {self.received}"
        return (
            f"{self.operator} {self.reference!r} ↔ {self.candidate!r}: {self.attribute} "
            f"is {self.expected} in the reference, {self.received} in the candidate"
        )


def differences(reference: Skeleton, candidate: Skeleton, loose: Matching | None) -> tuple[Difference, ...]:
    """Everything that differs.

    Args:
        reference: Skeleton of the reference model.
        candidate: Skeleton of the candidate.
        loose: A matching by operators alone, if there is one: then only attributes differ.
    """
    if loose is not None:
        pairs = [(reference.bones[i], candidate.bones[j]) for i, j in sorted(loose.pairs.items())]
        return tuple(difference for pair in pairs for difference in compare(*pair))
    words = [sorted(bone.node.operator for bone in graph.bones) for graph in (reference, candidate)]
    if words[0] == words[1]:
        return (_connection(reference, candidate),)
    return tuple(_structure(reference, candidate))


def compare(left: Bone, right: Bone) -> Iterator[Difference]:
    """Attributes and parameters that differ between two matched nodes."""
    names = left.node.name, right.node.name, left.node.operator
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
            if expected[index] != received[index]:
                yield Difference(*names, f"{role} {what}", str(expected[index]), str(received[index]))


def _connection(reference: Skeleton, candidate: Skeleton) -> Difference:
    """The first node whose inputs come from elsewhere: same layers, other edges."""
    left, right = _histories(reference), _histories(candidate)
    index = next((i for i, history in enumerate(left) if history not in right), len(left) - 1)
    bone = reference.bones[index]
    alike = [
        other
        for i, other in enumerate(candidate.bones)
        if right[i] not in left and other.node.operator == bone.node.operator
    ]
    received = _sources(candidate, alike[0]) if alike else "something else"
    name = alike[0].node.name if alike else ""
    return Difference(
        bone.node.name, name, bone.node.operator, "connection", _sources(reference, bone), received
    )


def _histories(graph: Skeleton) -> list[str]:
    """Everything that leads to each node, as text."""
    histories: list[str] = []
    for bone in graph.bones:
        reads = [f"input {-1 - e.source}" if e.source < 0 else histories[e.source] for e in bone.edges]
        inner = ",".join(sorted(reads) if bone.commutative else reads)
        # Digests keep the text short however deep the graph is.
        histories.append(hashlib.sha256(f"{bone.node.operator}({inner})".encode()).hexdigest())
    return histories


def _sources(graph: Skeleton, bone: Bone) -> str:
    names = (
        f"input {-1 - edge.source}"
        if edge.source < 0
        else f"{graph.bones[edge.source].node.operator} {graph.bones[edge.source].node.name!r}"
        for edge in bone.edges
    )
    return f"fed by ({', '.join(names)})"


def _structure(reference: Skeleton, candidate: Skeleton) -> Iterator[Difference]:
    """Nodes that only one side has, by aligning both in execution order."""
    left, right = [[bone.node.operator for bone in graph.bones] for graph in (reference, candidate)]
    for tag, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        after = reference.bones[a - 1].node.name if a else "the input"
        yield Difference(
            after,
            candidate.bones[c - 1].node.name if c else "the input",
            f"after {after!r}",
            "structure",
            _list(reference.bones[a:b]),
            _list(candidate.bones[c:d]),
        )


def _list(bones: tuple[Bone, ...]) -> str:
    return (
        ", ".join(
            f"{b.node.operator} {b.node.name!r}"
            + (f" ({', '.join(sorted(b.parameters))})" if b.parameters else "")
            for b in bones
        )
        or "nothing"
    )


def _show(value: AttributeValue | None) -> str:
    return "absent" if value is None else str(value)


def _presence(value: object) -> str:
    return "absent" if value is None else "present"
