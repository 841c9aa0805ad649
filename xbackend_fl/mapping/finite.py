"""Refuses weights that are no numbers: a proof draws weights of its own, and would say nothing of them."""

from __future__ import annotations

import numpy as np

from xbackend_fl.adapter import Trainer
from xbackend_fl.adapter.example import not_finite
from xbackend_fl.canonical import Kind
from xbackend_fl.canonical.layout import leaves
from xbackend_fl.errors import RefusedInput


def check_weights(trainer: Trainer) -> None:
    """Look at every weight of a model that its schema names.

    Raises:
        RefusedInput: One is NaN, or infinite; the message has its name in the model, the place and the value. A constant may be
            infinite: a mask is minus infinity where it hides something.
    """
    binding, schema, held = trainer.description.binding, trainer.description.schema, trainer.read()
    for name, layout in binding.parameters.items():
        for tensor in dict.fromkeys(leaf.tensor for leaf in leaves(layout)):
            array = held[tensor]
            if schema.by_name[name].kind is Kind.FROZEN:
                array = np.where(np.isinf(array), 0, array)
            if (place := not_finite(array)) is not None:
                raise RefusedInput(
                    f"the weight {tensor!r} of the {binding.backend} model holds {place}",
                    hint="give it weights of a training that did not diverge, or initialise it anew",
                )
