"""One thing that differs between two graphs."""

from __future__ import annotations

from dataclasses import dataclass

from xbackend_fl.canonical.node import AttributeValue


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    Attributes:
        reference: Node in the reference model, empty if it has none.
        candidate: Node in the candidate, empty if it has none.
        operator: Operator of the node.
        attribute: What differs: an attribute, ``width``, ``input width``, ``vocabulary``, ``<role> shape``, ``<role> kind``,
            ``initial state``, ``direction``, ``connection`` or ``structure``.
        expected: The reference's value.
        received: The candidate's value.
        value: The candidate's value as it is, where ``attribute`` is an attribute of the operator.
        parameters: The reference's and the candidate's canonical parameter whose shapes show it, if one does.
    """

    reference: str
    candidate: str
    operator: str
    attribute: str
    expected: str
    received: str
    value: AttributeValue | None = None
    parameters: tuple[str, str] = ("", "")

    def __str__(self) -> str:
        if self.attribute == "structure":
            return f"{self.operator}: reference has {self.expected}, candidate has {self.received}"
        nodes = " ↔ ".join(repr(name) for name in (self.reference, self.candidate) if name)
        return (
            f"{self.operator} {nodes}: {self.attribute} "
            f"is {self.expected} in the reference, {self.received} in the candidate"
        )
