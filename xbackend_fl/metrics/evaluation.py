"""The figures of a model, from its own outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import tee

from xbackend_fl.adapter import Batch
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.metrics.metric import Metric
from xbackend_fl.metrics.metrics import Metrics
from xbackend_fl.metrics.objective import Objective


def evaluated(
    model: CanonicalModel,
    batches: Iterable[Batch],
    objective: Objective,
    metrics: Sequence[Metric] | None = None,
) -> Metrics:
    """The figures of the weights that a model holds.

    Args:
        model: The model.
        batches: In ONNX layout, with targets that the objective accepts.
        objective: The loss, and how it reads the first output.
        metrics: What is measured beside the loss; what is usual with it if left out.
    """
    asked, measured = tee(batches)
    answers = model.predict(batch.inputs for batch in asked)
    return Metrics.total(
        Metrics.measured(objective, output, batch.targets, metrics)
        for batch, (output, *_) in zip(measured, answers, strict=True)
    )
