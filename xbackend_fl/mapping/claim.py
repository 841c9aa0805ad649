"""What is asked of a proof: that one model is the function of a schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from numpy.typing import NDArray

from xbackend_fl.adapter import Adapter, Trainer
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Binding, Description, Schema
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping.align.fingerprint import Fingerprints
from xbackend_fl.mapping.align.inputs import match_masks
from xbackend_fl.mapping.align.pairings import Outcome, Proposal, search
from xbackend_fl.mapping.diagnosis.cause import Cause, cause_of
from xbackend_fl.mapping.explain import mismatch
from xbackend_fl.mapping.match.difference import Difference
from xbackend_fl.mapping.probe.frozen import FrozenValues
from xbackend_fl.mapping.probe.probe import Evidence
from xbackend_fl.mapping.proof.prove import plausible, prove

Array = NDArray[Any]

_FORMS = frozenset({"structure", "operation", "connection", "order of axes"})
"""Differences of graphs that do not say what differs in their values."""


@final
@dataclass(frozen=True)
class Claim:
    """A candidate, and what it is said to be the same function as.

    Attributes:
        adapter: The candidate's adapter.
        trainer: The candidate; a proof changes its weights.
        schema: Schema of the reference model.
        example: One array per input, in ONNX layout and in the schema's order.
        evidence: What the reference did with the probes; ``None`` if nobody knows.
        reference: The reference's adapter and binding, if they are at hand: advice then names its code too.
        diagnosed: Whether a refusal says what the values of both graphs tell, which takes seconds.
    """

    adapter: Adapter
    trainer: Trainer
    schema: Schema
    example: tuple[Array, ...]
    evidence: tuple[Evidence, ...] | None = None
    reference: tuple[Adapter, Binding] | None = None
    diagnosed: bool = True

    @property
    def own(self) -> Description:
        """The candidate as it was described, with masks where the reference has them."""
        return match_masks(self.schema, self.trainer.description)

    def without_held(self) -> Claim:
        """The claim without the probes in which both models keep what nobody trains."""
        if self.evidence is None:
            return self
        return replace(self, evidence=tuple(item for item in self.evidence if not item.case.frozen))

    def fingerprints(self) -> Fingerprints:
        """What tells nodes apart where structure cannot."""
        return Fingerprints(self.trainer, self.schema, self.example, self.evidence)

    def search(self, proposals: Iterator[Proposal]) -> Outcome:
        """The first proposal that the numbers do not contradict, or the likeliest one with its failed proof."""
        return search(
            proposals,
            lambda binding: prove(self._under(binding), self.example, self.evidence),
            lambda binding, failed: plausible(self._under(binding), self.evidence, failed),
        )

    def _under(self, binding: Binding) -> CanonicalModel:
        return CanonicalModel(self.schema, binding, self.trainer)

    def cause(
        self, apart: Sequence[Difference], found: Outcome | None, frozen: FrozenValues | None
    ) -> Cause | None:
        """What the values of both graphs say of a difference that no attribute tells.

        Args:
            apart: In what the graphs differ.
            found: The likeliest map, whose proof failed, if there is one.
            frozen: What both models keep as it is.
        """
        if not self.diagnosed or not {item.attribute for item in apart} <= _FORMS:
            return None
        if found is not None and not any(c.what == "outputs" and not c.passed for c in found.proof.checks):
            return None
        binding = None if found is None else found.binding
        return cause_of(self.schema, self.trainer, self.example, frozen, binding)

    def refusal(self, apart: Sequence[Difference], verdict: str, cause: Cause | None = None) -> MismatchError:
        """The error for two graphs that differ.

        Args:
            apart: In what.
            verdict: What the numbers say.
            cause: What the values of both graphs say.
        """
        return mismatch(
            apart,
            self.schema,
            self.trainer.description,
            self.adapter,
            example=self.example,
            verdict=verdict,
            reference=self.reference,
            cause=cause,
        )
