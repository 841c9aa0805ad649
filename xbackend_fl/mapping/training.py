"""What makes training differ although outputs agree, and what is done about each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from xbackend_fl.canonical import OPERATORS, Binding, Description, Effect, Schema


def training_report(
    schema: Schema, description: Description, binding: Binding, nodes: Mapping[str, str]
) -> tuple[str, ...]:
    """One line per difference that only training sees.

    Args:
        schema: The treaty.
        description: The candidate's own description.
        binding: Its binding to the treaty.
        nodes: The candidate's node names to the treaty's.
    """
    return (
        *_attributes(schema, description.schema, nodes),
        *_dropout(schema, description.schema),
        *_statistics(schema),
        *_recurrent_biases(binding),
    )


def common() -> tuple[str, ...]:
    """What frameworks do differently in every training, and what is done here instead."""
    return (
        (
            "optimizers: one arithmetic on every backend, epsilon outside the root, all state starting at zero "
            "(Keras starts Adagrad at 0.1 and puts Adam's epsilon elsewhere)"
        ),
        "weight decay: on every trainable parameter, biases and normalisations too; freeze what it must not touch",
    )


def _attributes(schema: Schema, other: Schema, nodes: Mapping[str, str]) -> Iterator[str]:
    ours = {node.name: node for node in schema.nodes}
    for node in other.nodes:
        twin = ours.get(nodes.get(node.name, ""))
        if twin is None:
            continue
        for attribute, value in twin.attributes.items():
            training = OPERATORS[node.operator].effect(attribute) is Effect.TRAINING
            if training and (received := node.attributes.get(attribute)) != value:
                yield (
                    f"{twin.name}: {attribute} is {value} in the treaty, {received} in {node.name!r}; "
                    "training uses the treaty's"
                )


def _dropout(schema: Schema, other: Schema) -> Iterator[str]:
    drops = [sum(node.operator == "Dropout" for node in graph.nodes) for graph in (schema, other)]
    if drops[0] != drops[1]:
        yield f"the reference has {drops[0]} dropout layers, the candidate {drops[1]}; each drops what it has"


def _statistics(schema: Schema) -> Iterator[str]:
    count = sum(node.operator == "BatchNormalization" for node in schema.nodes)
    if count:
        yield (
            f"{count} batch normalisations: PyTorch averages the unbiased variance, Keras the biased one; "
            "training averages the biased one everywhere"
        )


def _recurrent_biases(binding: Binding) -> Iterator[str]:
    tensors = sorted({leaf.tensor for leaf in binding.silenced})
    if tensors:
        yield (
            f"{', '.join(tensors)}: second biases, of which only the sum with the first counts; "
            "they stay zero, or the sum would move twice as fast"
        )
