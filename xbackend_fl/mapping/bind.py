"""Binds a native model to a schema: describe, match, prove, or say why not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, final

from numpy.typing import NDArray

from xbackend_fl.adapter import Adapter, Preserving, Reordering, Trainer, Unbuilding, adapter_of
from xbackend_fl.adapter.blame import explained
from xbackend_fl.adapter.calling import same_names
from xbackend_fl.adapter.example import Example, checked, checked_example
from xbackend_fl.canonical import Binding, Description, Schema
from xbackend_fl.errors import MismatchError, RefusedInput, SchemaError
from xbackend_fl.mapping.align.fingerprint import Fingerprints
from xbackend_fl.mapping.align.forms import UnlikeError, one_function
from xbackend_fl.mapping.align.inputs import (
    Turned,
    input_orders,
    inputs_in_other_order,
    masks_as_in,
    matching_first,
    order_notes,
    own_names,
)
from xbackend_fl.mapping.align.pairings import SECONDS, Outcome, Proposal, contradicted, pairings, search
from xbackend_fl.mapping.explain import apart_somewhere, failure, mismatch, not_finite_apart, verdict_by_shape
from xbackend_fl.mapping.finite import check_weights
from xbackend_fl.mapping.match.causes import causes
from xbackend_fl.mapping.match.diagnose import compare, differences
from xbackend_fl.mapping.match.difference import Difference
from xbackend_fl.mapping.match.match import Matching, Resemblance, match
from xbackend_fl.mapping.match.ports import (
    check_outputs,
    fit_outputs,
    output_notes,
    output_orders,
    outputs_untold,
    trailing_notes,
)
from xbackend_fl.mapping.match.sizes import at_this_size
from xbackend_fl.mapping.match.skeleton import Skeleton, skeleton_of
from xbackend_fl.mapping.match.training import followed, pair_dropouts, training_report
from xbackend_fl.mapping.probe.held import held_on_both
from xbackend_fl.mapping.probe.native import SizeRefused
from xbackend_fl.mapping.probe.probe import Evidence
from xbackend_fl.mapping.probe.runtime import GraphRefused
from xbackend_fl.mapping.proof.prove import plausible, prove
from xbackend_fl.mapping.proof.selection import select
from xbackend_fl.mapping.proof.verify import Proof
from xbackend_fl.weights import Weights

Array = NDArray[Any]


@final
@dataclass(frozen=True)
class Bound:
    """A native model that speaks a schema.

    Attributes:
        schema: The treaty.
        binding: How its parameters lie in the native model.
        proof: The numbers that show that both are the same function.
        trainer: The native model behind the trainer contract.
        notes: Differences that only training sees; the treaty's value is applied.
    """

    schema: Schema
    binding: Binding
    proof: Proof
    trainer: Trainer
    notes: tuple[str, ...] = ()

    def export_weights(self) -> Weights:
        """The model's current weights in canonical form (copies)."""
        return Weights.of(self.schema, self.binding.export(self.trainer.read()))

    def import_weights(self, weights: Weights) -> None:
        """Set the model's weights.

        Raises:
            SchemaError: The weights belong to another schema.
            RefusedInput: The model computes some of its weights.
        """
        if self.binding.one_way:
            raise RefusedInput(
                f"the map goes one way: {self.binding.one_way}",
                hint="remove the parametrization before training, or take the weights from the trainer's copy",
            )
        if weights.fingerprint != self.schema.fingerprint:
            raise SchemaError(
                f"expected weights of schema {self.schema.fingerprint[:12]}, "
                f"received {weights.fingerprint[:12]}"
            )
        Weights.of(self.schema, weights)
        self.trainer.write(self.binding.restore(weights))


def describe(model: object, example: Example) -> Schema:
    """The canonical schema of a native model.

    Args:
        model: An ``nn.Module`` or a ``keras.Model``; it is left as it was, without variables if it had none yet.
        example: One array per input, in ONNX layout: a tuple, a dict by the names of the inputs, or containers as the model takes
            them. The schema has the inputs in its order.

    Raises:
        UnsupportedError: The model holds something without a canonical form.
    """
    adapter = adapter_of(model)
    with _unbuilt(adapter, model):
        return adapter.open(model, example).description.schema


def bind(
    model: object,
    schema: Schema,
    example: Example,
    evidence: Sequence[Evidence] | None = None,
) -> Bound:
    """Bind a native model to a schema, with proof.

    Args:
        model: The candidate; its weights are the same afterwards. A Keras model that had none yet has them then, and a note says so.
        schema: Schema of the reference model.
        example: One array per input, in ONNX layout: by the names of the schema's inputs or in their order, or as the model takes them.
        evidence: What the reference did with the probes (from :func:`gather_evidence`). Without it the
            candidate is proven against ONNX Runtime executing the schema: outputs only.

    Raises:
        MismatchError: The two models are not the same function; the message names nodes and attributes.
        UnprovenError: No probe sees some parameters, so nothing tells whether they are paired rightly.
    """
    adapter = adapter_of(model)
    return bind_trainer(adapter, adapter.open(model, as_known(schema, example)), schema, example, evidence)


def bind_trainer(
    adapter: Adapter,
    trainer: Trainer,
    schema: Schema,
    example: Example,
    evidence: Sequence[Evidence] | None = None,
    reference: tuple[Adapter, Binding] | None = None,
) -> Bound:
    """:func:`bind` for a model that is open already.

    Args:
        adapter: The candidate's adapter.
        trainer: The candidate.
        schema: Schema of the reference model.
        example: One array per input, in ONNX layout.
        evidence: What the reference did with the probes.
        reference: The reference's adapter and binding, if they are at hand: advice then names its code too.
    """
    arrays = _in_order_of(schema, example)
    with explained(f"proving the {adapter.name} model"), _located(trainer):
        return _returned_in_some_order(adapter, trainer, schema, arrays, evidence, reference)


def _in_order_of(schema: Schema, example: Example) -> tuple[Array, ...]:
    """The arrays of an example in the order of a schema's inputs: by name if the example has the same names."""
    given, names = checked(example), own_names(schema)
    if same_names(names, given.names):
        return tuple(given.arrays[given.names.index(name)] for name in names)
    return given.arrays


def as_known(schema: Schema, example: Example) -> Example:
    """What a candidate is opened with: the example, under the names of the schema's inputs if it has none of its own.

    Args:
        schema: Schema of the reference model.
        example: One array per input, in ONNX layout, in any form.
    """
    given, names = checked(example), own_names(schema)
    plain = isinstance(given.tree, list | tuple) and not any(given.names)
    if plain and len(given.arrays) > 1 and same_names(names, names):
        return dict(zip(names, given.arrays, strict=True))
    return example


def _returned_in_some_order(
    adapter: Adapter,
    trainer: Trainer,
    schema: Schema,
    example: Sequence[Array],
    evidence: Sequence[Evidence] | None,
    reference: tuple[Adapter, Binding] | None,
) -> Bound:
    """The candidate proven with its outputs in the order that the numbers tell, where only one side gives them names."""
    own, start = trainer.description.schema, time.monotonic()
    orders = output_orders(schema, own)
    if len(orders) == 1 or not isinstance(trainer, Reordering):
        return _in_some_order(adapter, trainer, schema, example, evidence, reference)
    refused: list[MismatchError] = []
    found: list[tuple[tuple[int, ...], Bound]] = []
    for order in orders:
        if (found or refused) and time.monotonic() - start > SECONDS:
            break
        trainer.return_in(order)
        try:
            found.append((order, _in_some_order(adapter, trainer, schema, example, evidence, reference)))
        except MismatchError as error:
            refused.append(error)
    if len(found) == 1 and len(found) + len(refused) == len(orders):
        ((order, only),) = found
        trainer.return_in(order)
        return replace(only, notes=(*only.notes, *output_notes(schema, own, order)))
    trainer.return_in(range(len(own.outputs)))
    raise outputs_untold(schema, own, refused if not found else ())


def _in_some_order(
    adapter: Adapter,
    trainer: Trainer,
    schema: Schema,
    example: Sequence[Array],
    evidence: Sequence[Evidence] | None,
    reference: tuple[Adapter, Binding] | None,
) -> Bound:
    """The candidate proven with its inputs in the likeliest order that the numbers do not contradict."""
    own, start = trainer.description, time.monotonic()
    orders = matching_first(schema, own, input_orders(schema, own.schema))
    refused: MismatchError | None = None
    unfit: SizeRefused | None = None
    for order in orders:
        if (refused or unfit) and time.monotonic() - start > SECONDS:
            break
        turned = trainer if order == tuple(range(len(order))) else Turned(trainer, order)
        try:
            with _as_it_was(trainer):
                found = _proven(adapter, turned, schema, example, evidence, reference)
        except MismatchError as error:
            refused = refused or error
            continue
        except SizeRefused as error:
            # Ids of one table are too large for another: inputs may lie in another order.
            unfit = unfit or error
            continue
        notes = (*found.notes, *order_notes(schema, own, order))
        return replace(found, trainer=trainer, notes=notes)
    if refused is None:
        assert unfit is not None
        raise unfit
    raise inputs_in_other_order(schema, own.schema, orders) or refused


def _proven(
    adapter: Adapter,
    trainer: Trainer,
    schema: Schema,
    example: Sequence[Array],
    evidence: Sequence[Evidence] | None,
    reference: tuple[Adapter, Binding] | None,
) -> Bound:
    def searched(proposals: Iterator[Proposal], shown: Sequence[Evidence] | None) -> Outcome:
        return search(
            proposals,
            lambda binding: prove(schema, binding, trainer, example, shown),
            lambda binding, failed: plausible(schema, binding, trainer, shown, failed),
        )

    found: Outcome | None = None
    apart: tuple[Difference, ...] = ()
    check_weights(trainer)
    own = masks_as_in(schema, trainer.description)
    held = held_on_both(schema, own.schema, own.binding, trainer, evidence or ())
    evidence = None if evidence is None else [item for item in evidence if not item.case.held]
    try:
        fingerprints = Fingerprints(trainer, schema, example, evidence)
        found = searched(bindings(schema, own, fingerprints), evidence)
    except StructureError as error:
        apart = error.found
    for kept in (None, held) if held else (None,):
        if found is not None and not contradicted(found.proof):
            break
        if kept:
            trainer.write(kept.natives)
        shown = kept.evidence if kept else evidence
        try:
            other = searched(one_function(schema, trainer, shown, apart, kept), shown)
        except UnlikeError as error:
            apart = error.found or apart
        else:
            found = other if found is None or not contradicted(other.proof) else found
    if found is None or (apart and contradicted(found.proof)):
        raise mismatch(
            apart,
            schema,
            trainer.description,
            adapter,
            example=example,
            verdict=(found and (not_finite_apart(found.proof) or apart_somewhere(found.proof)))
            or (
                verdict_by_shape(trainer, trainer.description, evidence)
                if all(d.attribute in {"structure", "connection"} for d in apart)
                else ""
            ),
            reference=reference,
        ) from None
    if not found.proof.proven:
        raise failure(found, schema, trainer.description)
    notes = (*found.notes, *trailing_notes(found.binding), *trainer.description.notes)
    return Bound(schema, found.binding, found.proof, trainer, notes)


def gather_evidence(model: object, example: Example) -> tuple[Evidence, ...]:
    """What the reference model does with the probes; silos prove their own models against it."""
    adapter = adapter_of(model)
    with _unbuilt(adapter, model):
        return evidence_of(adapter.open(model, example), example)


def describe_reference(model: object, example: Example) -> tuple[Schema, tuple[Evidence, ...]]:
    """:func:`describe` and :func:`gather_evidence` of one model, which is described once for both."""
    adapter = adapter_of(model)
    with _unbuilt(adapter, model):
        trainer = adapter.open(model, example)
        return trainer.description.schema, evidence_of(trainer, example)


def _unbuilt(adapter: Adapter, model: object) -> AbstractContextManager[None]:
    return adapter.unbuilt(model) if isinstance(adapter, Unbuilding) else nullcontext()


def evidence_of(trainer: Trainer, example: Example) -> tuple[Evidence, ...]:
    """:func:`gather_evidence` for a model that is open already; its weights are the same afterwards."""
    schema, binding = trainer.description.schema, trainer.description.binding
    example = checked_example(example)
    with explained(f"probing the {binding.backend} model"), _located(trainer), _as_it_was(trainer):
        check_weights(trainer)
        return select(trainer, binding, schema, example)[0]


@contextmanager
def _located(trainer: Trainer) -> Iterator[None]:
    """Say which line of the user's model a node comes from that ONNX Runtime cannot run."""
    try:
        yield
    except GraphRefused as error:
        raise error.located(trainer.description.places) from error.__cause__


@contextmanager
def _as_it_was(trainer: Trainer) -> Iterator[None]:
    """The model behind a trainer is afterwards what it was; one of somebody's own at least has its weights again."""
    if isinstance(trainer, Preserving):
        with trainer.preserved():
            yield
        return
    before = trainer.read()
    try:
        yield
    finally:
        trainer.write(before)


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
        schema: The treaty.
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
    for matching in pairings(reference, candidate, resemblance):
        yield _proposal(schema, description, reference, candidate, matching, sized)
    if apart:
        raise StructureError(apart)


def _proposal(
    schema: Schema,
    description: Description,
    reference: Skeleton,
    candidate: Skeleton,
    matching: Matching,
    sized: tuple[str, ...],
) -> Proposal:
    pairs = {i: (reference.bones[i], candidate.bones[j]) for i, j in sorted(matching.pairs.items())}
    found = {i: items for i, pair in pairs.items() if (items := list(compare(*pair)))}
    if found:
        raise StructureError(tuple(causes(pairs, found)))
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
        left, right = reference.bones[i], candidate.bones[j]
        nodes[right.node.name] = left.node.name
        parameters |= {right.node.parameters[role]: name for role, name in left.node.parameters.items()}
    return nodes, parameters
