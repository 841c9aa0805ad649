"""Whether a round's weights are such that nobody can train from them, and whose update did that.

No bound on the length of an update can tell: what ruins a net of thirty layers is nothing to one of three. The silos of the next round can.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import final

from xbackend_fl.federation.server.ledger import Ledger
from xbackend_fl.federation.server.outliers import Outlier
from xbackend_fl.metrics import Metrics
from xbackend_fl.rounds import Ruined

_WORSE = 1e4
"""A loss that is so many times the largest that was usual in any round is of weights that are worth nothing."""


@final
class Verdict:
    """What silos find of the weights that a round gave.

    A silo whose own update stood out has no say: it would speak for itself, either way. Of the others, more must find NaN or infinity, or a loss beyond
    all that training ever had, than do not; who is late, or refused for something else, says nothing about the weights.

    Args:
        ledger: Knows what stood out.
        number: The round that gave the weights; 0 for the first ones.
        what: What cannot be done: ``train from``, ``evaluate``.
    """

    def __init__(self, ledger: Ledger, number: int, what: str) -> None:
        self._number, self._what = number, what
        self._earlier = ledger.stood_out_before(number + 1)
        self._suspects = {found.silo for found in suspects(ledger, number)}
        self._usual = ledger.largest_loss(number)

    def worse(self, found: Mapping[str, Metrics]) -> dict[str, str]:
        """Silos of whose examples the weights make no sense any more, with what was found."""
        if not self._suspects or self._usual is None:
            return {}
        # Some losses may be below zero.
        limit = _WORSE * (self._usual if self._usual > 0 else max(1.0, -self._usual))
        return {
            name: f"its loss with them is {metrics.loss:.1e}, and no more than {self._usual:.1e} was usual in training"
            for name, metrics in found.items()
            if metrics.loss > limit
        }

    def is_certain(self, diverged: Collection[str], asked: Collection[str]) -> bool:
        """Whether no answer that is still to come can change it."""
        bad, voters = (set(names) - self._suspects for names in (diverged, asked))
        return bool(self._suspects) and 2 * len(bad) > len(voters)

    def raise_for(self, diverged: Mapping[str, str], fine: Collection[str]) -> None:
        """End the round if the weights are ruined.

        Args:
            diverged: Silos that found NaN or infinity, with what they found.
            fine: Those that did not.

        Raises:
            Ruined: They are, and an update stood out.
        """
        bad = [name for name in diverged if name not in self._suspects]
        good = [name for name in fine if name not in self._suspects]
        if self._suspects and len(bad) > len(good):
            raise Ruined(
                f"{len(bad)} of {len(bad) + len(good)} other silos cannot {self._what} the weights of round {self._number} "
                f"({bad[0]}: {diverged[bad[0]]})"
            )

    def blames(self, diverged: Collection[str], fine: Collection[str]) -> str:
        """What a failure may say of the weights if nothing stood out; empty if they are not to blame."""
        if self._suspects or len(diverged) <= len(fine):
            return ""
        of = f"the weights of round {self._number}" if self._number else "the initial weights"
        why = (
            f", and no update of round {self._number} stood out" if self._number and not self._earlier else ""
        )
        return f"{len(diverged)} of {len(diverged) + len(fine)} silos cannot {self._what} {of}{why}"

    @property
    def earlier(self) -> str:
        """Whose updates changed the course before, for whoever looks at a round that failed; empty if nobody's did."""
        return "".join(f"\n  before, the update of {one.silo!r} {one.how}" for one in self._earlier)


def suspects(ledger: Ledger, number: int) -> list[Outlier]:
    """Whose update of a round may have ruined its weights, the likeliest first.

    Who stood out in it; whoever did so again in the next one comes first. If nobody did, those whose updates are in it and were far away before: weights
    that were led astray make everybody's changes long, so that nobody's stands out any more.
    """
    found = ledger.stood_out(number)
    if not found:
        there = ledger.accepted(number)
        found = [one for one in ledger.stood_out_before(number) if one.silo in there]
    offenders = ledger.offenders()
    return sorted(found, key=lambda one: one.silo not in offenders)


def take_out(ledger: Ledger, number: int, base: str, reason: str) -> Iterator[str]:
    """Take out of a round the update that stood out most.

    Args:
        ledger: Has it.
        number: The round.
        base: Digest of the weights that it started from.
        reason: What the silos found.

    Yields:
        What is to be said of it, before it is done.
    """
    worst = suspects(ledger, number)[0]
    yield f"round {number} is merged again without the update of {worst.silo}: it {worst.how}, and {reason}"
    ledger.take_out(number, worst.silo, base, f"taken out again: it {worst.how}, and {reason}")
