"""What an algorithm's rule reads in every step: the same for all participants, or each one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from xbackend_fl.adapter.contract import Tensors, TrainConfig
from xbackend_fl.adapter.rules import LocalRule
from xbfl_torch.stacked.devices import put
from xbfl_torch.stacked.packing import Packing


@final
@dataclass(eq=False)
class Constants:
    """The slots of a rule.

    Attributes:
        rule: The rule.
        names: Tensors that have a constant in every slot.
        rows: The constants of each slot, ``[reach]``, or ``[participants, reach]`` where everybody has its own.
        has: One where there is a constant, zero elsewhere, ``[reach]``.
    """

    rule: LocalRule
    names: tuple[str, ...]
    rows: list[torch.Tensor]
    has: torch.Tensor

    @staticmethod
    def for_rule(
        config: TrainConfig, packing: Packing, shape: tuple[int, ...], zeros: Any
    ) -> Constants | None:
        """Memory for the constants of a rule, ``shape`` of each slot; ``None`` where there is none."""
        rule = config.rule
        if rule is None:
            return None
        names = tuple(n for n in packing.trained if all(n in config.slots[slot] for slot in rule.slots))
        has = zeros(packing.reach)
        for name, view in packing.views(has).items():
            view.fill_(float(name in names))
        return Constants(rule, names, [zeros(*shape) for _ in rule.slots], has)

    def load(self, slots: Mapping[str, Tensors], packing: Packing, place: int | None = None) -> None:
        """Take the constants of a round, or of the participant in a place."""
        for slot, row in zip(self.rule.slots, self.rows, strict=True):
            views = packing.views(row if place is None else row[place])
            for name in self.names:
                put(views[name], np.asarray(slots[slot][name], order="C"))

    def followed(
        self, gradients: torch.Tensor, values: torch.Tensor, scales: torch.Tensor | None
    ) -> torch.Tensor:
        """What a step follows, of clipped gradients ``[participants, reach]``."""
        clipped = gradients if scales is None else gradients * scales[:, None]
        rows = [row if row.ndim == 1 else row[: len(values)] for row in self.rows]
        new = self.rule.gradient(clipped, values, rows)
        return torch.where(self.has > 0, new, clipped)
