"""Binds a native model to a schema: describe, match, prove, or say why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from xbackend_fl.adapter import Adapter, Trainer, Unbuilding, adapter_of
from xbackend_fl.adapter.blame import explained
from xbackend_fl.adapter.calling import same_names
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.example import Example, checked, checked_example
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.mapping.align.inputs import own_names
from xbackend_fl.mapping.bound import BoundModel
from xbackend_fl.mapping.claim import Claim
from xbackend_fl.mapping.finite import check_weights
from xbackend_fl.mapping.orders import in_some_order
from xbackend_fl.mapping.probe.cases import ONE
from xbackend_fl.mapping.probe.memory import check_memory
from xbackend_fl.mapping.probe.native import as_it_was
from xbackend_fl.mapping.probe.probe import Evidence
from xbackend_fl.mapping.probe.runtime import GraphRefused
from xbackend_fl.mapping.proof.precision import precision_notes
from xbackend_fl.mapping.proof.selection import select

Array = NDArray[Any]


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
        return adapter.load_model(model, example).description.schema


def bind(
    model: object,
    schema: Schema,
    example: Example,
    evidence: Sequence[Evidence] | None = None,
) -> BoundModel:
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
    return bind_trainer(
        adapter, adapter.load_model(model, as_known(schema, example)), schema, example, evidence
    )


def bind_trainer(
    adapter: Adapter,
    trainer: Trainer,
    schema: Schema,
    example: Example,
    evidence: Sequence[Evidence] | None = None,
    reference: tuple[Adapter, Binding] | None = None,
) -> BoundModel:
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
    shown = None if evidence is None else tuple(evidence)
    with explained(f"proving the {adapter.name} model"), _located(trainer):
        return in_some_order(Claim(adapter, trainer, schema, arrays, shown, reference))


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


def gather_evidence(model: object, example: Example) -> tuple[Evidence, ...]:
    """What the reference model does with the probes; silos prove their own models against it.

    Args:
        model: The reference; it is left as it was.
        example: One array per input, in ONNX layout, as for :func:`describe`.

    Returns:
        One piece of evidence a probe: data, outputs, and sketches of gradients and of a step; no weights.

    Raises:
        UnsupportedError: The model holds something without a canonical form.
    """
    adapter = adapter_of(model)
    with _unbuilt(adapter, model):
        return evidence_of(adapter.load_model(model, example), example)


def describe_reference(model: object, example: Example) -> tuple[Schema, tuple[Evidence, ...]]:
    """:func:`describe` and :func:`gather_evidence` of one model, which is described once for both.

    Args:
        model: The reference; it is left as it was.
        example: One array per input, in ONNX layout, as for :func:`describe`.

    Returns:
        The schema, and the evidence with which :func:`bind` proves other models.

    Raises:
        UnsupportedError: The model holds something without a canonical form.
    """
    adapter = adapter_of(model)
    with _unbuilt(adapter, model):
        trainer = adapter.load_model(model, example)
        return trainer.description.schema, evidence_of(trainer, example)


def _unbuilt(adapter: Adapter, model: object) -> AbstractContextManager[None]:
    return adapter.unbuilt(model) if isinstance(adapter, Unbuilding) else nullcontext()


def evidence_of(trainer: Trainer, example: Example) -> tuple[Evidence, ...]:
    """:func:`gather_evidence` for a model that is open already; its weights are the same afterwards.

    Raises:
        MemoryRefused: A proof does not fit into memory; :func:`bind` without evidence then says what structure does.
    """
    model = CanonicalModel.described(trainer)
    example = checked_example(example)
    check_memory(model.schema)
    with explained(f"probing the {model.binding.backend} model"), _located(trainer), as_it_was(trainer):
        check_weights(trainer)
        evidence, notes = select(model, example)
        precision_notes(model, evidence)
        told = (*trainer.description.notes, *(note for note in notes if ONE in note))
        first = (replace(item, notes=told) for item in evidence[:1])
        return *first, *evidence[1:]


@contextmanager
def _located(trainer: Trainer) -> Iterator[None]:
    """Say which line of the user's model a node comes from that ONNX Runtime cannot run."""
    try:
        yield
    except GraphRefused as error:
        raise error.located(trainer.description.places) from error.__cause__
