"""What can be known to be wrong before the first round."""

from __future__ import annotations

from xbackend_fl.canonical import Schema
from xbackend_fl.errors import ConfigError
from xbackend_fl.losses import Loss


def check_loss(schema: Schema, loss: Loss) -> None:
    """Refuse a model that ends in the activation which the loss applies itself.

    Raises:
        ConfigError: The loss works on logits, and the model returns probabilities.
    """
    producers = {name: node for node in schema.nodes for name in node.outputs}
    last = producers.get(schema.outputs[0].name)
    if last is not None and last.operator in loss.applies:
        raise ConfigError(
            f"the loss {loss.name!r} works on logits, but the model ends in {last.operator} ({last.name!r})",
            hint="remove the last activation from every model; predictions do not change",
        )
