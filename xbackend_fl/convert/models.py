"""The models on the two sides of a conversion, bound to one schema."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xbackend_fl.adapter import Adapter, Trainer
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.example import Example
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.errors import FileError
from xbackend_fl.mapping import as_known, bind_trainer, evidence_of


@dataclass(frozen=True)
class Side:
    """One side of a conversion that has native names and layouts.

    Attributes:
        binding: Between the schema and the native model.
        schema: The schema, if more than its binding is known.
        trainer: The native model, if its code is there.
        largest_error: Of the proof that it is the schema's function; 0 for the reference itself.
        comparisons: Number of comparisons in that proof.
    """

    binding: Binding
    schema: Schema | None = None
    trainer: Trainer | None = None
    largest_error: float = 0.0
    comparisons: int = 0

    @property
    def model(self) -> CanonicalModel:
        """The native model in canonical terms; its code must be there."""
        assert self.schema is not None
        assert self.trainer is not None
        return CanonicalModel(self.schema, self.binding, self.trainer)


def read_side(path: Path) -> Side:
    """A side of which only the binding is known.

    Raises:
        FileError: The file is missing.
        SchemaError: It is no binding.
    """
    if not path.is_file():
        raise FileError(f"no such file: {path}")
    return Side(Binding.from_json(path.read_bytes()))


def open_side(adapter: Adapter, model: object, example: Example, schema: Schema | None = None) -> Side:
    """A model as the reference of its own schema, or as a candidate of another's.

    Raises:
        MismatchError: It is not the schema's function.
    """
    trainer = adapter.load_model(model, example if schema is None else as_known(schema, example))
    own = trainer.description
    if schema is None or schema.fingerprint == own.schema.fingerprint:
        return Side(own.binding, own.schema, trainer)
    bound = bind_trainer(adapter, trainer, schema, example, None, None)
    return Side(bound.binding, schema, trainer, bound.proof.largest_error, len(bound.proof.checks))


def open_pair(
    source: tuple[Adapter, object], destination: tuple[Adapter, object], example: Example
) -> tuple[Side, Side]:
    """Two models, proven to be the same function: outputs, gradients, one step.

    Raises:
        MismatchError: They are not.
    """
    adapter, model = source
    reference = adapter.load_model(model, example)
    schema, binding = reference.description.schema, reference.description.binding
    evidence = evidence_of(reference, example)
    other, native = destination
    candidate = other.load_model(native, as_known(schema, example))
    bound = bind_trainer(other, candidate, schema, example, evidence, (adapter, binding))
    reader = Side(binding, schema, reference)
    proof = bound.proof
    return reader, Side(bound.binding, schema, bound.trainer, proof.largest_error, len(proof.checks))
