"""Binds a native model to a schema: describe, match, prove, or say why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from numpy.typing import NDArray

from xbackend_fl.adapter import Adapter, Trainer, adapter_of
from xbackend_fl.canonical import OPERATORS, Binding, Description, Effect, Schema
from xbackend_fl.errors import MismatchError, SchemaError
from xbackend_fl.mapping.diagnose import Difference, advice, compare, differences
from xbackend_fl.mapping.match import Matching, match
from xbackend_fl.mapping.probe import Evidence, cases
from xbackend_fl.mapping.skeleton import Skeleton, skeleton_of
from xbackend_fl.mapping.verify import Check, Proof, against_runtime, gather, reactions
from xbackend_fl.mapping.verify import compare as compare_evidence
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
        """
        if weights.fingerprint != self.schema.fingerprint:
            raise SchemaError(
                f"expected weights of schema {self.schema.fingerprint[:12]}, "
                f"received {weights.fingerprint[:12]}"
            )
        Weights.of(self.schema, weights)
        self.trainer.write(self.binding.restore(weights))


def describe(model: object, example: Sequence[Array]) -> Schema:
    """The canonical schema of a native model.

    Args:
        model: An ``nn.Module`` or a ``keras.Model``; it is left as it was.
        example: One array per input, in ONNX layout.

    Raises:
        UnsupportedError: The model holds something without a canonical form.
    """
    return adapter_of(model).open(model, example).description.schema


def bind(
    model: object,
    schema: Schema,
    example: Sequence[Array],
    evidence: Sequence[Evidence] | None = None,
) -> Bound:
    """Bind a native model to a schema, with proof.

    Args:
        model: The candidate; its weights are the same afterwards.
        schema: Schema of the reference model.
        example: One array per input, in ONNX layout.
        evidence: What the reference did with the probes (from :func:`gather_evidence`). Without it the
            candidate is proven against ONNX Runtime executing the schema: outputs only.

    Raises:
        MismatchError: The two models are not the same function; the message names nodes and attributes.
    """
    adapter = adapter_of(model)
    return bind_trainer(adapter, adapter.open(model, example), schema, example, evidence)


def bind_trainer(
    adapter: Adapter,
    trainer: Trainer,
    schema: Schema,
    example: Sequence[Array],
    evidence: Sequence[Evidence] | None = None,
) -> Bound:
    """:func:`bind` for a model that is open already."""
    binding, notes = find_binding(schema, trainer.description, adapter)
    before = trainer.read()
    try:
        proof = prove(schema, binding, trainer, example, evidence)
    finally:
        trainer.write(before)
    if not proof.proven:
        raise MismatchError(_failure(proof), hint=_cure(proof))
    return Bound(schema, binding, proof, trainer, notes)


def gather_evidence(model: object, example: Sequence[Array]) -> tuple[Evidence, ...]:
    """What the reference model does with the probes; silos prove their own models against it."""
    return evidence_of(adapter_of(model).open(model, example), example)


def evidence_of(trainer: Trainer, example: Sequence[Array]) -> tuple[Evidence, ...]:
    """:func:`gather_evidence` for a model that is open already; its weights are the same afterwards."""
    schema, binding = trainer.description.schema, trainer.description.binding
    before = trainer.read()
    try:
        return gather(trainer, binding, schema, cases(schema, example))[0]
    finally:
        trainer.write(before)


def find_binding(
    schema: Schema, description: Description, adapter: Adapter
) -> tuple[Binding, tuple[str, ...]]:
    """Match a described model with a schema by structure.

    Raises:
        MismatchError: The graphs differ.
    """
    reference, candidate = skeleton_of(schema), skeleton_of(description.schema)
    matching = match(reference, candidate)
    loose = matching or match(reference, candidate, strict=False)
    found = (
        differences(reference, candidate, loose)
        if matching is None
        else tuple(
            d for i, j in matching.pairs.items() for d in compare(reference.bones[i], candidate.bones[j])
        )
    )
    if matching is None or found:
        raise MismatchError(_explain(found), hint=_advise(found, description, adapter))
    nodes, parameters = _names(reference, candidate, matching)
    notes = tuple(_training_notes(schema, description.schema, nodes))
    if matching.symmetries:
        notes += (f"interchangeable branches, paired in order: {', '.join(matching.symmetries)}",)
    return description.binding.renamed(parameters, nodes, schema), notes


def prove(
    schema: Schema,
    binding: Binding,
    trainer: Trainer,
    example: Sequence[Array],
    evidence: Sequence[Evidence] | None,
) -> Proof:
    """Compare a bound model with the reference's evidence and with ONNX Runtime."""
    probes = cases(schema, example) if evidence is None else [item.case for item in evidence]
    own, notes = gather(trainer, binding, schema, probes)
    checks: list[Check] = [*against_runtime(schema, own), *reactions(own)]
    if evidence is None:
        notes += ("gradients and the optimizer step were not compared: no evidence from the reference",)
    else:
        by_label = {item.case.label: item for item in own}
        for item in evidence:
            if item.case.label in by_label:
                checks.extend(compare_evidence(item, by_label[item.case.label]))
    return Proof(tuple(checks), notes)


def _names(
    reference: Skeleton, candidate: Skeleton, matching: Matching
) -> tuple[dict[str, str], dict[str, str]]:
    """Candidate's node and parameter names to the reference's."""
    nodes: dict[str, str] = {}
    parameters: dict[str, str] = {}
    back = {j: i for i, j in matching.pairs.items()}
    for i, j in matching.pairs.items():
        left, right = reference.bones[i], candidate.bones[j]
        nodes[right.node.name] = left.node.name
        parameters |= {right.node.parameters[role]: name for role, name in left.node.parameters.items()}
        ours = {(edge.source, edge.output): edge.dropouts for edge in left.edges}
        for edge in right.edges:
            source = back.get(edge.source, edge.source)
            nodes |= dict(zip(edge.dropouts, ours.get((source, edge.output), ()), strict=False))
    for left_edge, right_edge in zip(reference.outputs, candidate.outputs, strict=True):
        nodes |= dict(zip(right_edge.dropouts, left_edge.dropouts, strict=False))
    return nodes, parameters


def _training_notes(schema: Schema, other: Schema, nodes: dict[str, str]) -> list[str]:
    ours = {node.name: node for node in schema.nodes}
    theirs = {nodes.get(node.name, ""): node for node in other.nodes}
    notes = []
    for name, node in theirs.items():
        if name not in ours:
            continue
        for attribute, value in ours[name].attributes.items():
            training = OPERATORS[node.operator].effect(attribute) is Effect.TRAINING
            if training and (received := node.attributes.get(attribute)) != value:
                notes.append(f"{name}: {attribute} is {value} in the treaty, {received} in {node.name!r}")
    drops = [sum(node.operator == "Dropout" for node in graph.nodes) for graph in (schema, other)]
    if drops[0] != drops[1]:
        notes.append(f"the reference has {drops[0]} dropout layers, the candidate {drops[1]}")
    return notes


def _explain(found: tuple[Difference, ...]) -> str:
    lines = [f"  {difference}" for difference in found[:10]]
    more = [f"  … and {len(found) - 10} more"] if len(found) > 10 else []
    return "\n".join(["the two models are not the same function:", *lines, *more])


def _advise(found: tuple[Difference, ...], description: Description, adapter: Adapter) -> str | None:
    hints = dict.fromkeys(hint for d in found[:10] if (hint := advice(d, description, adapter.hint)))
    return "; ".join(hints) or None


def _failure(proof: Proof) -> str:
    lines = [
        f"  {check.what} at {check.case}: relative error {check.error:.1e}"
        + (f" in {check.where!r}" if check.where else "")
        for check in proof.checks
        if not check.passed
    ]
    return "\n".join(
        [f"the graphs match but the numbers do not (tolerance {proof.tolerance:.0e}):", *lines[:8]]
    )


def _cure(proof: Proof) -> str:
    agree = {check.case for check in proof.checks} - {c.case for c in proof.checks if not c.passed}
    if agree:
        return f"the models agree at: {'; '.join(sorted(agree))}. Uneven SAME padding depends on the size"
    return "look for a custom layer, a different activation, or another axis order of the data"
