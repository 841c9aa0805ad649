"""Whether a model has the outputs that a course's losses read, and can be trained by them."""

from __future__ import annotations

from xbackend_fl.adapter import TrainsHeads
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Kind
from xbackend_fl.errors import ConfigError, RefusedInput
from xbackend_fl.metrics import Heads, parameters_of


def check_trains(model: CanonicalModel, heads: Heads) -> None:
    """Refuse a reference that has not the outputs that losses read, or nothing that they train.

    Raises:
        ConfigError: An output is not there, or which one the loss reads is not clear, or the losses read no trainable parameter.
        RefusedInput: Its adapter trains one output alone.
    """
    schema = model.schema
    names = [port.key for port in schema.outputs if port.key]
    if len(names) > 1 and not heads.names:
        # Names have no order, and the loss is of the first output.
        raise ConfigError(
            f"the model returns several outputs by name ({', '.join(names)}), and training.loss is of one",
            hint=f"training: {{outputs: {{{names[0]}: {{loss: …}}, …}}}} for a loss of each, or of one of them",
        )
    check_heads(model, heads)
    behind = parameters_of(schema, (head.index_in(schema) for head in heads.each))
    if not any(p.kind is Kind.TRAINABLE and p.name in behind for p in schema.parameters):
        reads = "the losses read" if heads.names else "the loss reads"
        raise ConfigError(
            f"nothing trains in the {model.binding.backend} model, the reference: {reads} no trainable parameter",
            hint="leave something to train: parameter.requires_grad_(True) in PyTorch, layer.trainable = True in Keras",
        )


def check_heads(model: CanonicalModel, heads: Heads) -> None:
    """Refuse a model that cannot be trained by several outputs, if a course has several.

    Raises:
        RefusedInput: Its adapter trains one output alone, or cannot train several of this model.
    """
    if not heads.names:
        return
    trainer, reason = model.trainer, "its adapter trains one output alone"
    if isinstance(trainer, TrainsHeads):
        reason = trainer.trains_heads()
    if reason:
        raise RefusedInput(
            f"the {model.binding.backend} model cannot be trained with training.outputs: {reason}",
            hint="training.loss: of one output; or let participants use another backend",
        )
