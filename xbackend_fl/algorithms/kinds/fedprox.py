"""FedProx (Li et al. 2020, algorithm 2): a pull back to the weights that the round started from.

The step follows the gradient of ``loss + mu/2 * |x - w|**2``, which is ``g + mu * (x - w)``: ``mu``, not ``mu/2``. ``w`` are the weights that were
received, before the first step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from xbackend_fl.algorithms.algorithm import Algorithm, PlainClient
from xbackend_fl.algorithms.protocol import ClientAlgorithm, ClientState, LocalPlan
from xbackend_fl.algorithms.vectors import trainable
from xbackend_fl.weights import Weights


@dataclass(frozen=True)
class ProximalRule:
    """``g + mu * (x - anchor)``.

    Attributes:
        mu: How strong the pull is.
    """

    mu: float

    @property
    def slots(self) -> tuple[str, ...]:
        """The weights at the start of the round."""
        return ("anchor",)

    def gradient(self, gradient: Any, value: Any, slots: Sequence[Any]) -> Any:
        """See :class:`~xbackend_fl.adapter.rules.LocalRule`."""
        (anchor,) = slots
        return gradient + self.mu * (value - anchor)

    def term(self, value: Any, slots: Sequence[Any]) -> Any:
        """``mu/2 * (x - anchor)**2``."""
        (anchor,) = slots
        return self.mu / 2 * ((value - anchor) * (value - anchor))


@dataclass(frozen=True)
class FedProxClient(PlainClient):
    """A participant's side.

    Attributes:
        mu: How strong the pull is, above 0.
    """

    mu: float

    def begin(self, start: Weights, sent: Mapping[str, Weights], state: ClientState) -> LocalPlan:
        """Keep near ``start``."""
        del sent, state
        return LocalPlan(ProximalRule(self.mu), {"anchor": trainable(start)})


@dataclass(frozen=True)
class FedProx(Algorithm):
    """FedAvg with a pull to the weights of the round's start.

    Attributes:
        mu: How strong the pull is; 0 is FedAvg, bit for bit.
    """

    name: Literal["fedprox"] = "fedprox"
    mu: Annotated[float, Ge(0), Le(1e6)] = 0.01

    def client(self) -> ClientAlgorithm:
        """Without a pull nothing is added: not even a zero, which would change a negative zero."""
        return FedProxClient(self.mu) if self.mu else PlainClient()


ALGORITHM = FedProx
