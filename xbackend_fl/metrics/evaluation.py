"""The figures of a model, from its own outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import tee

from xbackend_fl.adapter import Batch
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.metrics.metrics import Metrics
from xbackend_fl.metrics.objective import Array


def evaluated(
    model: CanonicalModel, batches: Iterable[Batch], measure: Callable[[tuple[Array, ...], Array], Metrics]
) -> Metrics:
    """The figures of the weights that a model holds.

    Args:
        model: The model.
        batches: In ONNX layout, with targets that the losses accept.
        measure: What is measured of a batch's outputs and targets.
    """
    asked, measured = tee(batches)
    answers = model.predict(batch.inputs for batch in asked)
    return Metrics.total(
        measure(outputs, batch.targets) for batch, outputs in zip(measured, answers, strict=True)
    )
