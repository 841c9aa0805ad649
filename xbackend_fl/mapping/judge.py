"""Decides on a claim: by structure, then in other forms; proven, or refused with what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.errors import MismatchError, UnprovenError
from xbackend_fl.mapping.align.forms import UnlikeError, one_function
from xbackend_fl.mapping.align.inputs import Turned
from xbackend_fl.mapping.align.pairings import Outcome, contradicted
from xbackend_fl.mapping.align.structure import StructureError, bindings, find_binding
from xbackend_fl.mapping.bound import BoundModel
from xbackend_fl.mapping.claim import Claim
from xbackend_fl.mapping.explain import apart_somewhere, failure, not_finite_apart, verdict_by_shape
from xbackend_fl.mapping.finite import check_weights
from xbackend_fl.mapping.match.difference import Difference
from xbackend_fl.mapping.match.embeddings import match_embeddings
from xbackend_fl.mapping.match.ports import trailing_notes
from xbackend_fl.mapping.probe.frozen import FrozenValues, frozen_on_both
from xbackend_fl.mapping.probe.memory import MemoryRefused, check_memory
from xbackend_fl.mapping.proof.beyond import BEYOND, beyond_notes
from xbackend_fl.mapping.proof.missing import missing_notes, split
from xbackend_fl.mapping.proof.precision import precision_notes
from xbackend_fl.mapping.proof.undefined import is_undefined, undefined_notes


def proven(claim: Claim) -> BoundModel:
    """The candidate bound, with its proof.

    Raises:
        MismatchError: The two models are not the same function.
        UnprovenError: No probe sees some parameters, or a proof does not fit into memory.
        RefusedInput: A weight of the candidate is no number.
    """
    try:
        check_memory(claim.schema)
    except MemoryRefused as error:
        raise _matched_alone(claim, error) from None
    described, rows = match_embeddings(claim.schema, claim.trainer.description)
    if rows:
        claim = replace(claim, trainer=Turned(claim.trainer, described))
    evidence, broken = split(claim.evidence)
    undefined = [item for item in evidence or () if is_undefined(item)]
    beyond = next((item for item in evidence or () if item.case.label == BEYOND), None)
    claim = replace(
        claim, evidence=evidence and tuple(i for i in evidence if i is not beyond and not is_undefined(i))
    )
    trainer, schema, own = claim.trainer, claim.schema, claim.own
    check_weights(trainer)
    frozen = frozen_on_both(schema, CanonicalModel(own.schema, own.binding, trainer), claim.evidence or ())
    claim = claim.without_held()
    found: Outcome | None = None
    apart: tuple[Difference, ...] = ()
    try:
        found = claim.search(bindings(schema, own, claim.fingerprints()))
    except StructureError as error:
        apart = error.found
    for kept in (None, frozen) if frozen else (None,):
        if found is not None and not contradicted(found.proof):
            break
        try:
            other = _in_other_form(claim, apart, kept)
        except UnlikeError as error:
            apart = error.found or apart
        else:
            found = other if found is None or not contradicted(other.proof) else found
    if found is None or (apart and contradicted(found.proof)):
        cause = claim.cause(apart, found, frozen)
        raise claim.refusal(apart, _verdict(claim, apart, found), cause) from None
    if not found.proof.proven:
        raise failure(found, schema, trainer.description, claim.cause(apart, found, frozen))
    model = CanonicalModel(schema, found.binding, trainer)
    told = precision_notes(model, claim.evidence)
    missing = missing_notes(model, claim.evidence, broken)
    without_numbers = undefined_notes(model, undefined, claim.evidence or ())
    of_reference = (f"the reference: {note}" for item in claim.evidence or () for note in item.notes)
    notes = (
        *found.notes,
        *rows,
        *trailing_notes(found.binding),
        *trainer.description.notes,
        *of_reference,
        *told,
        *missing,
        *without_numbers,
        *beyond_notes(model, claim.example, claim.evidence, beyond),
        *found.proof.notes,
    )
    return BoundModel(model, found.proof, notes)


def _matched_alone(claim: Claim, lacking: MemoryRefused) -> MismatchError | UnprovenError:
    """What structure says of a model that is too large to be proven here: in what it differs, or that it matches."""
    try:
        binding, _ = find_binding(claim.schema, claim.own)
    except StructureError as error:
        return replace(claim, example=(), diagnosed=False).refusal(error.found, "")
    return UnprovenError(
        f"structure pairs all {len(binding.parameters)} parameters, and no number was compared: {lacking.message}",
        hint=lacking.hint,
    )


def _in_other_form(claim: Claim, apart: Sequence[Difference], kept: FrozenValues | None) -> Outcome:
    """What comes of pairing parameters by what they do, on weights of which some are kept as both models hold them.

    Raises:
        UnlikeError: The two graphs are not two forms of one function.
    """
    if kept:
        claim.trainer.write(kept.natives)
        claim = replace(claim, evidence=kept.evidence)
    return claim.search(one_function(claim.schema, claim.trainer, claim.evidence, apart, kept))


def _verdict(claim: Claim, apart: Sequence[Difference], found: Outcome | None) -> str:
    """What the numbers say of two graphs that differ; nothing where an attribute says it all."""
    said = found and (not_finite_apart(found.proof) or apart_somewhere(found.proof))
    if said or any(item.attribute not in {"structure", "connection"} for item in apart):
        return said or ""
    return verdict_by_shape(CanonicalModel.described(claim.trainer), claim.evidence)
