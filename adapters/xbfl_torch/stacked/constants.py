"""What an algorithm's rule reads in every step: the same for all participants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from xbackend_fl.adapter.contract import TrainConfig
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
        rows: The constants of each slot, ``[reach]``.
        has: One where there is a constant, zero elsewhere, ``[reach]``.
    """

    rule: LocalRule
    names: tuple[str, ...]
    rows: list[torch.Tensor]
    has: torch.Tensor

    @staticmethod
    def for_rule(config: TrainConfig, packing: Packing, zeros: Any) -> Constants | None:
        """Memory for the constants of a rule; ``None`` where there is none."""
        rule = config.rule
        if rule is None:
            return None
        names = tuple(n for n in packing.trained if all(n in config.slots[slot] for slot in rule.slots))
        has = zeros(packing.reach)
        for name, view in packing.views(has).items():
            view.fill_(float(name in names))
        return Constants(rule, names, [zeros(packing.reach) for _ in rule.slots], has)

    def load(self, config: TrainConfig, packing: Packing) -> None:
        """Take the constants of a round."""
        for slot, row in zip(self.rule.slots, self.rows, strict=True):
            views = packing.views(row)
            for name in self.names:
                put(views[name], np.ascontiguousarray(config.slots[slot][name]))

    def followed(
        self, gradients: torch.Tensor, values: torch.Tensor, scales: torch.Tensor | None
    ) -> torch.Tensor:
        """What a step follows, of clipped gradients ``[participants, reach]``."""
        clipped = gradients if scales is None else gradients * scales[:, None]
        new = self.rule.gradient(clipped, values, self.rows)
        return torch.where(self.has > 0, new, clipped)
