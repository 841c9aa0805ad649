"""Measures the toolkit over the corpus: what it maps, and whether that is the map a person would write."""

from __future__ import annotations

import gc
import re
import signal
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from torch import nn

import xbackend_fl
from tests.networks.textbook.pair import Pair
from tests.networks.textbook.proof import difference, moved, randomise, variables
from xbackend_fl.errors import MismatchError, XbflError

RIGHT, REFUSED, CRASHED, WRONG = "right", "refused", "crashed", "WRONG"
UNNAMED = "refused, cause not named"
STATES = (RIGHT, REFUSED, UNNAMED, CRASHED, WRONG)


_LISTED = 2
"""Operators that a line may list, of both sides together, and still name a cause."""


class _Late(BaseException):
    """The limit is over; no handler of ``Exception`` on the way may keep it."""


@dataclass(frozen=True)
class Outcome:
    """What came of a pair. ``right``: mapped as ``truth`` says, or a look-alike refused for its cause."""

    pair: Pair
    state: str
    reason: str
    seconds: float


def measure(pairs: Iterable[Pair], only: Iterable[str], limit: int, *, trace: bool) -> int:
    """Print a row for each pair, then each look-alike, whose family or name has one of the words, then the sums; 1 if one is wrong.

    Args:
        pairs: What is measured.
        only: Words of which a pair's family or name has one; all pairs if there are none.
        limit: Seconds for each pair.
        trace: Whether each refusal is printed whole, with where it was raised.
    """
    words = [word.lower() for word in only]
    found = []
    print("| family | pair | state | seconds |\n|---|---|---|---|")
    for pair in sorted(pairs, key=lambda one: bool(one.cause)):
        if not words or any(word in f"{pair.family}: {pair.name}".lower() for word in words):
            found.append(outcome(pair, limit, trace=trace))
            one = found[-1]
            said = f"{one.state}: {one.reason}" if one.reason else one.state
            print(f"| {pair.family} | {pair.name} | {said} | {one.seconds:.1f} |", flush=True)
            gc.collect()
    _sums("Pairs, by family", [one for one in found if not one.pair.cause], family=True)
    _sums("Look-alikes, by family", [one for one in found if one.pair.cause], family=True)
    _sums("Look-alikes, by cause", [one for one in found if one.pair.cause], family=False)
    _reasons([one for one in found if not one.pair.cause])
    return int(any(one.state == WRONG for one in found))


def outcome(pair: Pair, limit: int, *, trace: bool) -> Outcome:
    """Describe, bind and compare one pair, in ``limit`` seconds or as a crash."""
    keras.utils.clear_session()
    start = time.perf_counter()
    try:
        with _limited(limit):
            state, reason = _bound(pair)
    except XbflError as refused:
        state = REFUSED if not pair.cause else RIGHT if _named(pair, refused) else UNNAMED
        reason = _line(refused.message)
        if trace:
            traceback.print_exc()
    except _Late:
        state, reason = CRASHED, f"more than {limit} s"
    except Exception as error:  # noqa: BLE001 -- one pair's crash is a row of the table, not its end
        state, reason = CRASHED, f"{type(error).__name__}: {_line(str(error))}"
        if trace:
            traceback.print_exc()
    return Outcome(pair, state, reason, time.perf_counter() - start)


def _bound(pair: Pair) -> tuple[str, str]:
    reference, example = pair.torch(), pair.example(np.random.default_rng(0))
    randomise(reference, np.random.default_rng(7))
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    other = pair.keras()
    if pair.declared:
        orders = [pair.inputs.get(i, range(array.ndim)) for i, array in enumerate(example)]
        other = xbackend_fl.with_axes(other, inputs=orders)
    there = xbackend_fl.bind(other, schema, example, evidence)
    if pair.cause:
        return WRONG, "bound, and the two are not the same function"
    here = xbackend_fl.bind(reference, schema, example, evidence)
    randomise(reference, np.random.default_rng(11))
    there.write(here.read())
    return _compared(pair, reference, other)


def _compared(pair: Pair, reference: nn.Module, other: Any) -> tuple[str, str]:
    held = variables(other)
    unlike = [
        path
        for path, value in moved(pair, reference, other).items()
        if not np.allclose(np.asarray(held[path]), value, rtol=1e-5, atol=1e-6)
    ]
    if not unlike:
        return RIGHT, ""
    error = difference(pair, reference.eval(), other)
    if pair.symmetric and error <= 1e-4:
        return RIGHT, f"another of several maps, outputs agree to {error:.0e}"
    return WRONG, f"not as truth says: {', '.join(unlike)}; outputs differ by {error:.0e}"


def _named(pair: Pair, refused: XbflError) -> bool:
    """Whether it is a diagnosis and has one of the cause's words, names of files and of layers apart, and long lists of operators."""
    lines = [line for line in str(refused).splitlines() if not _only_lists(line)]
    said = re.sub(r"\S+\.py\S*|'[^']*'", "", "\n".join(lines)).lower()
    return isinstance(refused, MismatchError) and any(word.lower() in said for word in pair.cause)


def _only_lists(line: str) -> bool:
    """Whether a line says that two graphs have other operators somewhere, and there are too many to see which counts."""
    found = re.search(r": reference has (.*), candidate has (.*)", line)
    return found is not None and sum(side.count("'") // 2 for side in found.groups()) > _LISTED


def _line(text: str) -> str:
    """The first line, and the second where the first announces it; without the place in the file."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()] or [""]
    said = " ".join(lines[: 1 + lines[0].endswith(":")])
    return re.sub(r" \(at [^)]*\)", "", said)[:250].replace("|", "/")


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    # Again each second: what is raised in the callback of a weak reference is lost.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _sums(title: str, found: list[Outcome], *, family: bool) -> None:
    if not found:
        return
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for one in found:
        rows[one.pair.family if family else ", ".join(sorted(one.pair.cause))][one.state] += 1
    states = [state for state in STATES if any(row[state] for row in rows.values())]
    print(f"\n{title}\n\n| | all | {' | '.join(states)} |\n|---|---|{'---|' * len(states)}")
    for name, row in sorted(rows.items()):
        print(f"| {name} | {row.total()} | {' | '.join(str(row[state]) for state in states)} |")
    right = sum(row[RIGHT] for row in rows.values())
    total = [str(sum(row[state] for row in rows.values())) for state in states]
    print(
        f"| all | {len(found)} | {' | '.join(total)} |\n\n{right} of {len(found)}, {right / len(found):.1%}"
    )


def _reasons(found: list[Outcome]) -> None:
    reasons: dict[str, list[str]] = defaultdict(list)
    for one in found:
        if one.state != RIGHT:
            reasons[f"{one.state}: {one.reason}"].append(f"{one.pair.family}: {one.pair.name}")
    if reasons:
        print("\nPairs that are not right, by reason\n")
    for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        print(f"* {len(names)}: {reason} ({'; '.join(names)})")
