"""Proves a bound model: it does what the reference did, what ONNX Runtime does, and nothing in it goes unseen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Kind, Schema
from xbackend_fl.canonical.passes.norms import SMALL
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.probe.cases import EVERY_INDEX, ONE
from xbackend_fl.mapping.probe.distributions import Distribution, vocabularies
from xbackend_fl.mapping.probe.executor import executor_of
from xbackend_fl.mapping.probe.lookups import lookups_of
from xbackend_fl.mapping.probe.markers import unseen
from xbackend_fl.mapping.probe.probe import Evidence
from xbackend_fl.mapping.probe.redrawn import Redrawn
from xbackend_fl.mapping.probe.runtime import GraphRefused
from xbackend_fl.mapping.proof.agreement import Agreement, agreement
from xbackend_fl.mapping.proof.noise import output_noise, run_of, widest_noise
from xbackend_fl.mapping.proof.observed import Standing, agreed, seen, standing, unseen_nodes
from xbackend_fl.mapping.proof.reaction import reactions
from xbackend_fl.mapping.proof.selection import select
from xbackend_fl.mapping.proof.sizes import compared_at, may_differ, notes_apart
from xbackend_fl.mapping.proof.undefined import (
    BLANK_EXAMPLE,
    OURS,
    blank_examples,
    is_own_data,
    no_number,
    no_numbers,
)
from xbackend_fl.mapping.proof.verify import ROUNDINGS, Answers, Check, Proof, against_runtime, gather
from xbackend_fl.text import shown_names

Array = NDArray[Any]

ROUGH = 0.1
"""Errors of wrong pairings are larger; what rounding does at the kinks of two draws is smaller."""

_CONTINUOUS = {"outputs", "onnx runtime"}


def prove(
    model: CanonicalModel,
    example: Sequence[Array],
    evidence: Sequence[Evidence] | None,
) -> Proof:
    """Compare a bound model with the reference's evidence and with ONNX Runtime.

    Args:
        model: The candidate under the schema; its weights are changed.
        example: One array per input, in ONNX layout.
        evidence: What the reference did with the probes; without it only outputs are compared, with ONNX Runtime's.
    """
    schema, alone, answers = model.schema, model.schema.opaque, Answers(model.schema, executor_of(model))
    found: Agreement | None = None
    if evidence is None:
        _require_opinion(alone)
        own, notes = select(model, example, standalone=True)
        notes += ("not compared: gradients and step (no evidence from the reference)",)
    else:
        first = [item for item in evidence if not item.case.reserve and not item.case.by_shape]
        own, notes = gather(model, first, answers)
        found = agreement(schema, evidence, own)
        if found.is_undecided() or unseen_nodes(schema, agreed(found.pairs)):
            reserve = [item for item in evidence if item.case.reserve]
            own += gather(model, reserve, answers)[0]
            found = agreement(schema, evidence, own)
    third = list(against_runtime(answers, own, evidence or ()))
    own, third, found, aside = _without_aside(answers, model, evidence, own, third, found)
    notes += aside
    loud = _loud(answers, model, own, [*(found.checks if found else ()), *third])
    notes += tuple(
        f"{label}: no evidence, rounding alone moves its outputs by {e:.1e}" for label, e in loud.items()
    )
    quiet = tuple(item for item in own if item.case.label not in loud)
    if loud and not _shows(quiet, own):
        reason = (
            f"rounding alone moves the outputs by up to {max(loud.values()):.1e} in every draw that shows it"
        )
        names = [p.name for p in schema.parameters if p.kind is Kind.TRAINABLE]
        return Proof((), notes, unproven=dict.fromkeys(names, reason))
    checks: list[Check] = []
    if evidence is not None and found is not None:
        if loud:
            found = agreement(schema, evidence, quiet)
        if found.only_derivatives_differ():
            quiet = _measured(model, evidence, quiet)
            found = agreement(schema, evidence, quiet)
        notes += found.notes
        checks.extend(found.checks)
        notes += tuple(_not_compared(model, checks))
    ran = {check.case for check in third}
    notes += tuple(
        f"{item.case.label}: not compared with ONNX Runtime, whose graph has sizes of the example written in it"
        for item in quiet
        if item.case.label not in ran
        and not (item.case.by_shape or alone or item.case.is_far(schema))
        and not item.case.label.endswith(ONE)
    )
    compared = {check.case for check in (*checks, *third)}
    notes += (
        *_such_data(schema),
        *_some_rows(schema, quiet),
        *_floors_of_norms(schema),
        *compared_at(schema, quiet, compared),
    )
    if alone:
        notes += (f"two opinions, not three: ONNX Runtime cannot run {shown_names(alone)}",)
    checks += [check for check in third if check.case not in loud]
    outputs = [check for check in checks if check.what in _CONTINUOUS]
    checks += reactions(quiet, outputs, lambda item: output_noise(schema, run_of(model), item, item.outputs))
    errors = dict(found.errors) if found else {}
    alike = model.trainer.description.schema.fingerprint == schema.fingerprint
    if alike or not all(check.passed for check in checks):
        return Proof(tuple(checks), notes, parameters=errors)
    judged = _judged(answers, model.trainer.description.schema, quiet, found.pairs if found else ())
    return Proof(tuple(checks), (*notes, *judged.notes), parameters=errors, unproven=judged.unproven)


def _not_compared(model: CanonicalModel, checks: Sequence[Check]) -> Iterator[str]:
    """Which derivatives were not compared, and why."""
    missing = [what for what in ("gradients", "step") if all(check.what != what for check in checks)]
    if missing:
        effects = (str(effect) for effect in model.schema.training_effects)
        reason = model.binding.inference_only or next(effects, "the reference only infers")
        yield f"not compared: {' and '.join(missing)} ({reason})"


def _such_data(schema: Schema) -> Iterator[str]:
    """Inputs on which two models are compared for data of one kind alone."""
    for port in schema.inputs:
        said = ("is 0 or 1 in the example", port.binary), ("ends in zeros and has none before", port.padded)
        yield from (
            f"input {port.name!r} {what}: the models are compared on such data only"
            for what, is_so in said
            if is_so
        )


def _floors_of_norms(schema: Schema) -> Iterator[str]:
    """Vectors that are made one long: what keeps their norm from zero is no part of the operator."""
    if names := [node.name for node in schema.nodes if node.operator == "LpNormalization"]:
        yield f"{shown_names(names)}: a number of {SMALL:g} or less that keeps a norm from zero was not compared; vectors hardly longer may differ"


def _some_rows(schema: Schema, own: Sequence[Evidence]) -> Iterator[str]:
    """Tables of constants that no draw reads whole."""
    rows = {name: len(array) for name, array in lookups_of(schema).items()}
    read = vocabularies(schema, rows)
    if rows and read and not any(EVERY_INDEX in item.case.label for item in own):
        yield f"the draws read some entries alone of what {shown_names(list(read))} looks up: others were compared where both hold them"


def _judged(
    answers: Answers,
    own: Schema,
    quiet: Sequence[Evidence],
    pairs: Sequence[tuple[Evidence, Evidence]],
) -> Standing:
    """What no draw has seen: what the candidate alone compares its data with, and if there is nothing, parameters."""
    schema, drawn = answers.schema, [item.case.inputs for item in quiet if not item.case.by_shape]
    if asked := unseen(schema, own, drawn, (vocabularies(schema), vocabularies(own))):
        return Standing(asked)
    compared = [pair for pair in pairs if pair[0].gradients and pair[1].gradients]
    return standing(answers, quiet, agreed(compared) if compared else seen(quiet))


def plausible(model: CanonicalModel, evidence: Sequence[Evidence] | None, failed: Proof) -> bool:
    """Whether a binding passes, roughly, two of the draws in which another one failed; without evidence every one may.

    Args:
        model: The candidate under the other pairing; its weights are changed.
        evidence: What the reference did with the probes.
        failed: The proof that failed.
    """
    drawn = [item for item in evidence or () if not item.case.by_shape]
    labels = {check.case for check in failed.checks if not check.passed}
    asked = [item for item in drawn if item.case.label in labels] or [i for i in drawn if i.gradients]
    asked = [replace(item, case=replace(item.case, step=False, rounding=False)) for item in asked[:2]]
    checks = agreement(model.schema, asked, gather(model, asked)[0]).checks
    return all(check.error <= ROUGH for check in checks)


def _require_opinion(alone: Sequence[str]) -> None:
    if alone:
        raise RefusedInput(
            f"nothing but the reference itself can run {shown_names(alone)}, and there is no evidence of what it does",
            hint="gather_evidence(reference, example) says what the reference does; give it to bind",
        )


def _measured(
    model: CanonicalModel, evidence: Sequence[Evidence], own: Sequence[Evidence]
) -> tuple[Evidence, ...]:
    """The candidate's evidence with its own rounding measured in every draw with gradients."""
    asked = {item.case.label for item in own if item.gradients and not item.rounding}
    again = [
        replace(item, case=replace(item.case, rounding=True)) for item in evidence if item.case.label in asked
    ]
    found = gather(model, again)[0]
    return (*(item for item in own if item.case.label not in asked), *found)


def _set_aside(
    schema: Schema,
    own: Sequence[Evidence],
    checks: Sequence[Check],
    loud: Callable[[Evidence, Sequence[Check]], object],
) -> dict[str, str]:
    """Draws in which two models of one function may differ, and do, and what is said of each.

    What a mask leaves where it hides everything (the mean of all, the first, the last, NaN) is no part of the function.
    """
    wrong = [check for check in checks if not check.passed]
    found: dict[str, str] = {}
    apart: dict[str, float] = {}
    for item in own:
        label = item.case.label
        failed = [check for check in wrong if check.case == label]
        error = max((check.error for check in failed), default=0.0)
        if failed and may_differ(schema, item):
            if not item.case.is_far(schema) or not loud(item, failed):
                apart[label] = error
        elif failed and label.endswith(ONE):
            apart_by = f"by {error:.1e}" if math.isfinite(error) else "wholly"
            found[label] = (
                f"{label}: given one example alone, the two models differ {apart_by}, as squeeze() does, which takes the axis of the examples "
                "away, too; of more examples they are one function"
            )
        elif failed and Distribution.BLANK in label and math.isfinite(error):
            if loud(item, failed):
                # What is normalised there has no variance, and no mask has hidden anything.
                continue
            found[label] = (
                f"{label}: where an example is padding and nothing else, so that a mask hides all of it, the two models answer "
                f"differently (by {error:.1e}); everywhere else they are one function"
            )
        elif failed and _only_where_blank(item):
            found[label] = no_number(f"{OURS}, in {label} ({BLANK_EXAMPLE})")
    return found | dict(notes_apart(schema, own, apart))


def _only_where_blank(item: Evidence) -> bool:
    """Whether every example that is answered with no number is one of padding alone, and none of the user's own."""
    broken = no_numbers(item.outputs, len(item.case.inputs[0]))
    return bool(broken.any()) and not (is_own_data(item.case) or (broken & ~blank_examples(item.case)).any())


def _without_aside(
    answers: Answers,
    model: CanonicalModel,
    evidence: Sequence[Evidence] | None,
    own: Sequence[Evidence],
    third: Sequence[Check],
    found: Agreement | None,
) -> tuple[tuple[Evidence, ...], list[Check], Agreement | None, tuple[str, ...]]:
    """What is compared without the draws of :func:`_set_aside`, and a note for each of these."""
    schema = answers.schema
    aside = _set_aside(
        schema,
        own,
        [*(found.checks if found else ()), *third],
        lambda item, checks: _loud(answers, model, [item], checks),
    )
    kept = tuple(item for item in own if item.case.label not in aside)
    again = agreement(schema, evidence, kept) if aside and evidence is not None else found
    return (
        kept,
        [check for check in third if check.case not in aside],
        again,
        tuple(filter(None, aside.values())),
    )


def _loud(
    answers: Answers, model: CanonicalModel, own: Sequence[Evidence], checks: Sequence[Check]
) -> dict[str, float]:
    """Cases whose outputs differ by no more than rounding moves them, and how far that is; they are no evidence either way.

    None if the outputs of any case differ by more, or are finite on one side only, or for exact numbers: no rounding makes that.
    """
    by_label, schema = {item.case.label: item for item in own}, answers.schema
    run = run_of(model)
    loud: dict[str, float] = {}
    for check in checks:
        if check.passed or check.what not in _CONTINUOUS:
            continue
        if not math.isfinite(check.error) or by_label[check.case].case.redrawn == Redrawn.HALVES:
            # Halves are exact, and to move a weight is to leave them.
            return {}
        if check.case not in loud:
            item = by_label[check.case]
            try:
                expected = answers.outputs(item)
            except GraphRefused:
                # The graph has sizes of the example written in it: the model alone says how it rounds.
                loud[check.case] = widest_noise(schema, run, item, item.outputs)
            else:
                both = (
                    widest_noise(schema, run, item, item.outputs, expected),
                    widest_noise(schema, answers.runtime.outputs, item, expected, item.outputs),
                )
                loud[check.case] = max((noise for noise in both if math.isfinite(noise)), default=math.nan)
        # Noise that is NaN excuses nothing.
        if not check.error <= ROUNDINGS * loud[check.case]:
            return {}
    return loud


def _shows(quiet: Sequence[Evidence], own: Sequence[Evidence]) -> bool:
    """Whether some quiet case is left for everything that was compared: outputs, gradients, a step."""
    return bool(quiet) and all(
        any(getattr(item, part) for item in quiet) or not any(getattr(item, part) for item in own)
        for part in ("gradients", "moved")
    )
