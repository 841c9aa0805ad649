"""Draws mutants of what lies between the layers, and binds each to the Keras model of its pair.

``python -m tests.mutations [--count N] [--seed S] [--each M] [--certificate] [words]`` takes pairs of the textbook whose family or name has one of the
words, all if there are none, in an order drawn by the seed, and M mutants of each.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import warnings
from collections import Counter

os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations")
    parser.add_argument("words", nargs="*", help="parts of families or names")
    parser.add_argument("--count", type=int, default=200, help="mutants")
    parser.add_argument("--each", type=int, default=6, help="mutants of a pair")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--certificate", action="store_true", help="hold them to a certificate")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch  # noqa: F401

    import xbfl_tensorflow

    xbfl_tensorflow.import_frameworks()
    from tests.mutations.verdict import NO_PAIR, SILENT, STATES, verdicts
    from tests.networks.textbook.catalogue import PAIRS

    words = [word.lower() for word in arguments.words]
    pairs = [
        pair
        for pair in PAIRS
        if not pair.cause
        and (not words or any(word in f"{pair.family}: {pair.name}".lower() for word in words))
    ]
    random.Random(arguments.seed).shuffle(pairs)
    found: Counter[tuple[str, bool]] = Counter()
    start = time.monotonic()
    for pair in pairs:
        for verdict in verdicts(pair, arguments.seed, arguments.each, certified=arguments.certificate):
            found[verdict.state, verdict.opaque] += verdict.state != NO_PAIR
            print(
                f"| {pair.family}: {pair.name} | {verdict.what} | {'opaque ' * verdict.opaque}| {verdict.state} | {verdict.said} |",
                flush=True,
            )
        if found.total() >= arguments.count:
            break
    for title, opaque in (("all in canonical form", False), ("with opaque parts", True)):
        sums = ", ".join(f"{found[state, opaque]} {state}" for state in STATES)
        total = sum(count for (_, kind), count in found.items() if kind == opaque)
        print(f"{title}: {total} mutants: {sums}")
    print(f"{time.monotonic() - start:.0f} s")
    return int(found[SILENT, False] + found[SILENT, True] > 0)


if __name__ == "__main__":
    sys.exit(main())
