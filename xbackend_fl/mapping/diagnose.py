"""Says in words why two models are not the same function, and what to change on which side."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xbackend_fl.canonical import Description
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
        attribute: What differs: an attribute, ``<role> shape``, ``<role> kind``, or ``structure``.
        expected: The reference's value.
        received: The candidate's value.
    """

    reference: str
    candidate: str
    operator: str
    attribute: str
    expected: str
    received: str

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
    found = tuple(_structure(reference, candidate))
    if found:
        return found
    text = "the same layers, connected differently"
    return (Difference("", "", "graph", "structure", "its own connections", text),)


def compare(left: Bone, right: Bone) -> Iterator[Difference]:
    """Attributes and parameters that differ between two matched nodes."""
    names = left.node.name, right.node.name, left.node.operator
    for attribute in sorted({*left.attributes, *right.attributes}):
        pair = left.attributes.get(attribute), right.attributes.get(attribute)
        if pair[0] != pair[1]:
            yield Difference(*names, attribute, _show(pair[0]), _show(pair[1]))
    for role in sorted({*left.parameters, *right.parameters}):
        expected, received = left.parameters.get(role), right.parameters.get(role)
        if expected is None or received is None:
            yield Difference(*names, role, _presence(expected), _presence(received))
            continue
        for index, what in enumerate(("shape", "kind")):
            if expected[index] != received[index]:
                yield Difference(*names, f"{role} {what}", str(expected[index]), str(received[index]))


def _structure(reference: Skeleton, candidate: Skeleton) -> Iterator[Difference]:
    """Nodes that only one side has, by aligning both in execution order."""
    left, right = [[_word(bone) for bone in graph.bones] for graph in (reference, candidate)]
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


def _word(bone: Bone) -> str:
    return f"{bone.node.operator} {sorted(bone.parameters)}"


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


def advice(
    difference: Difference,
    candidate: Description,
    hint: Callable[[str, str, str, object], str],
) -> str:
    """Code for the candidate's framework that would remove a difference.

    Args:
        difference: What differs.
        candidate: The candidate's description.
        hint: ``Adapter.hint`` of the candidate's adapter.
    """
    if difference.attribute == "structure":
        return ""
    native = candidate.binding.nodes.get(difference.candidate, difference.candidate)
    attribute = difference.attribute.partition(" ")[0]
    return hint(native, difference.operator, attribute, difference.expected)
