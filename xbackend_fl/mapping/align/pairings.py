"""Which pairings of two graphs are worth a proof, and in what order: what structure leaves open, the numbers decide.

A tie is broken by gradients, by how outputs move, by names. That is a proposal, and where the numbers contradict it, another pairing may
still be right: matrix products that are turned have their operands in the other order, and layers that only count where they differ show
nothing in a draw that gives equal shapes equal weights. So other pairings are tried, those first that differ from the likeliest in one
choice, then in two. None is taken without a whole proof.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from xbackend_fl.canonical import Binding
from xbackend_fl.deadline import Deadline
from xbackend_fl.mapping.match.match import Matching, Resemblance, match
from xbackend_fl.mapping.match.skeleton import Skeleton, products_turned
from xbackend_fl.mapping.proof.verify import Proof

Proposal: TypeAlias = tuple[Binding, tuple[str, ...]]
"""A binding, and what only training sees."""

TRIES = 64
"""How many pairings beside the likeliest are tried."""

SECONDS = 60.0
"""No other pairing is begun later than this after the first."""


@dataclass(frozen=True)
class Outcome:
    """Where a search ended.

    Attributes:
        binding: The binding that the numbers do not contradict, or the likeliest one.
        notes: What only training sees.
        proof: Its proof.
        tried: How many other pairings were compared.
        more: Whether others are left, which number or time did not allow.
    """

    binding: Binding
    notes: tuple[str, ...]
    proof: Proof
    tried: int = 0
    more: bool = False


def pairings(
    reference: Skeleton, candidate: Skeleton, resemblance: Resemblance | None = None
) -> Iterator[Matching]:
    """Every pairing of two graphs that their structure allows, the likeliest first, each once.

    The first is the one of the graphs as they are, if there is one; then operands of matrix products may trade places.
    """
    known: set[tuple[tuple[int, int], ...]] = set()
    turned = products_turned(reference), products_turned(candidate)
    first = match(reference, candidate, resemblance=resemblance)
    if first is not None:
        known.add(tuple(sorted(first.pairs.items())))
        yield first
    if turned[0] is not None and turned[1] is not None:
        reference, candidate = turned[0], turned[1]
    plans: deque[tuple[int, ...]] = deque([()])
    while plans:
        plan = plans.popleft()
        found = match(reference, candidate, resemblance=resemblance, plan=plan)
        if found is None:
            continue
        key = tuple(sorted(found.pairs.items()))
        if key not in known:
            known.add(key)
            yield found
        places = [place for place, _ in found.choices]
        for depth in range(len(plan), len(places)):
            several = range(found.choices[depth][1])
            plans.extend((*places[:depth], other) for other in several if other != places[depth])


def search(
    proposals: Iterator[Proposal],
    prove: Callable[[Binding], Proof],
    plausible: Callable[[Binding, Proof], bool],
) -> Outcome:
    """The first proposal that the numbers do not contradict; the likeliest one, with its failed proof, if they contradict all.

    Args:
        proposals: The likeliest first; at least one.
        prove: Makes a whole proof.
        plausible: Whether a binding passes a part of what the likeliest one failed; the others are not worth a proof.
    """
    deadline = Deadline.within(SECONDS)
    binding, notes = next(proposals)
    likeliest = Outcome(binding, notes, prove(binding))
    if not contradicted(likeliest.proof):
        return likeliest
    for tried, (binding, notes) in enumerate(proposals):
        if tried >= TRIES or deadline.passed:
            return Outcome(likeliest.binding, likeliest.notes, likeliest.proof, tried, more=True)
        if plausible(binding, likeliest.proof):
            proof = prove(binding)
            if not contradicted(proof):
                return Outcome(binding, notes, proof, tried + 1)
        likeliest = Outcome(likeliest.binding, likeliest.notes, likeliest.proof, tried + 1)
    return likeliest


def contradicted(proof: Proof) -> bool:
    """Whether some comparison failed; that outputs ignore the data contradicts no pairing, and supports none."""
    return any(not check.passed for check in proof.checks if check.what != "reacts")
