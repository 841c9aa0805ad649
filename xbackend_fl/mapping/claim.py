"""What is asked of a proof: that one model is the function of a schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from numpy.typing import NDArray

from xbackend_fl.adapter import Adapter, Trainer
from xbackend_fl.canonical import Binding, Description, Schema
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping.align.fingerprint import Fingerprints
from xbackend_fl.mapping.align.inputs import masks_as_in
from xbackend_fl.mapping.align.pairings import Outcome, Proposal, search
from xbackend_fl.mapping.explain import mismatch
from xbackend_fl.mapping.match.difference import Difference
from xbackend_fl.mapping.probe.probe import Evidence
from xbackend_fl.mapping.proof.prove import plausible, prove

Array = NDArray[Any]


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
    """

    adapter: Adapter
    trainer: Trainer
    schema: Schema
    example: tuple[Array, ...]
    evidence: tuple[Evidence, ...] | None = None
    reference: tuple[Adapter, Binding] | None = None

    @property
    def own(self) -> Description:
        """The candidate as it was described, with masks where the reference has them."""
        return masks_as_in(self.schema, self.trainer.description)

    def without_held(self) -> Claim:
        """The claim without the probes in which both models keep what nobody trains."""
        if self.evidence is None:
            return self
        return replace(self, evidence=tuple(item for item in self.evidence if not item.case.held))

    def fingerprints(self) -> Fingerprints:
        """What tells nodes apart where structure cannot."""
        return Fingerprints(self.trainer, self.schema, self.example, self.evidence)

    def search(self, proposals: Iterator[Proposal]) -> Outcome:
        """The first proposal that the numbers do not contradict, or the likeliest one with its failed proof."""
        return search(
            proposals,
            lambda binding: prove(self.schema, binding, self.trainer, self.example, self.evidence),
            lambda binding, failed: plausible(self.schema, binding, self.trainer, self.evidence, failed),
        )

    def refusal(self, apart: Sequence[Difference], verdict: str) -> MismatchError:
        """The error for two graphs that differ.

        Args:
            apart: In what.
            verdict: What the numbers say.
        """
        return mismatch(
            apart,
            self.schema,
            self.trainer.description,
            self.adapter,
            example=self.example,
            verdict=verdict,
            reference=self.reference,
        )
