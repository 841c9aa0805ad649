"""What can be known to be wrong before the first round."""

from __future__ import annotations

from xbackend_fl.canonical import Schema
from xbackend_fl.errors import ConfigError
from xbackend_fl.metrics import Heads


def check_losses(schema: Schema, heads: Heads) -> None:
    """Refuse a model that ends in the activation which a loss applies itself.

    Raises:
        ConfigError: The loss works on logits, and the model returns probabilities; or it has no such output.
    """
    producers = {name: node for node in schema.nodes for name in node.outputs}
    for head in heads.each:
        last = producers.get(schema.outputs[head.index_in(schema)].name)
        if last is not None and last.operator in head.loss.applies:
            what = f"the output {head.name!r} of the model" if head.name else "the model"
            raise ConfigError(
                f"the loss {head.loss.name!r} works on logits, but {what} ends in {last.operator} ({last.name!r})",
                hint="remove the last activation from every model; predictions do not change",
            )
