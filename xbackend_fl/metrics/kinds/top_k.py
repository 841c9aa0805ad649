"""Share of positions whose class is among the k largest scores."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from pydantic import StrictInt

from xbackend_fl.metrics.metric import Proportion
from xbackend_fl.metrics.objective import Objective
from xbackend_fl.metrics.pairs import Pairs


@dataclass(frozen=True)
class TopK(Proportion):
    """The class is among the ``k`` largest scores; of equal ones the first count as larger, so that ``k = 1`` is accuracy.

    Attributes:
        k: How many scores are looked at. The figure is called by it: ``top_5``.
    """

    fits = frozenset({"classes"})
    name: Literal["top_k"] = "top_k"
    k: Annotated[StrictInt, Ge(1)] = 5

    @property
    def label(self) -> str:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        return f"top_{self.k}"

    @classmethod
    def has(cls, figure: str, name: str) -> bool:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        del name
        return re.fullmatch(r"top_\d+", figure) is not None

    def unfit(self, objective: Objective) -> str:
        """Among all classes every class is found."""
        if self.k < objective.num_classes:
            return ""
        return f"{self.label} is always 1 with {objective.num_classes} classes"

    def per_position(self, pairs: Pairs) -> NDArray[np.bool_]:
        """See :class:`~xbackend_fl.metrics.metric.Mean`."""
        own = np.take_along_axis(pairs.outputs, pairs.targets[:, None], 1)
        before = np.arange(pairs.outputs.shape[1]) < pairs.targets[:, None]
        larger = (pairs.outputs > own) | ((pairs.outputs == own) & before)
        return np.asarray(larger.sum(1) < self.k)


METRIC = TopK
