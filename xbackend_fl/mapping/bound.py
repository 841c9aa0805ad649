"""A native model that speaks a schema: what came of a proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from xbackend_fl.adapter import Renewing, Trainer
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.errors import RefusedInput, SchemaError
from xbackend_fl.mapping.proof.verify import Proof
from xbackend_fl.weights import Weights


@final
@dataclass(frozen=True)
class BoundModel:
    """A native model that speaks a schema.

    Attributes:
        schema: The schema.
        binding: How its parameters lie in the native model.
        proof: The numbers that show that both are the same function.
        trainer: The native model behind the trainer contract.
        notes: Differences that only training sees, where the schema's value is applied, and what the proof says besides.
    """

    schema: Schema
    binding: Binding
    proof: Proof
    trainer: Trainer
    notes: tuple[str, ...] = ()

    def read(self) -> Weights:
        """The model's current weights in canonical form (copies), whoever changed or replaced them.

        Raises:
            RefusedInput: The model has other tensors than it had when it was bound.
        """
        self._renew()
        return Weights.from_schema(self.schema, self.binding.export(self.trainer.read()))

    def write(self, weights: Weights) -> None:
        """Set the model's weights.

        Raises:
            SchemaError: The weights belong to another schema.
            RefusedInput: The model computes some of its weights, or has other tensors than it had when it was bound.
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
        Weights.from_schema(self.schema, weights)
        self._renew()
        self.trainer.write(self.binding.restore(weights))

    def _renew(self) -> None:
        if isinstance(self.trainer, Renewing):
            self.trainer.renew()
