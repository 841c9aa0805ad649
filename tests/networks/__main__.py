"""Prints the table of networks: what was mapped, how exactly, and how long it took.

``--corpus textbook`` takes the pairs that were written twice by hand, and compares the map with a person's;
``--corpus packages`` those whose sides come from public packages (the extra ``corpus``), with the packages' own map;
``--corpus files`` what others say of each network's ONNX file; ``--corpus lite`` what LiteRT and ExecuTorch do (their extras);
``--corpus certificates`` whether each is certified and repeated by either framework as the reference.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
import traceback
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.networks.textbook.pair import Pair

os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.networks")
    parser.add_argument("only", nargs="*", help="parts of names")
    parser.add_argument("--traceback", action="store_true")
    parser.add_argument(
        "--corpus",
        choices=("networks", "textbook", "packages", "files", "lite", "certificates"),
        default="networks",
    )
    parser.add_argument("--kind", choices=("pairs", "look-alikes"), help="of a corpus, one kind alone")
    parser.add_argument("--limit", type=int, default=300, metavar="SECONDS", help="of each pair of a corpus")
    parser.add_argument("--opset", type=int, action="append", help="of the files; repeatable")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch  # noqa: F401

    import xbfl_tensorflow

    xbfl_tensorflow.import_frameworks()
    if arguments.corpus == "files":
        from tests.networks.files import table

        return table(arguments.only, arguments.opset or [21])
    if arguments.corpus == "lite":
        from tests.networks.lite import table as lite_table

        return lite_table(arguments.only)
    if arguments.corpus == "certificates":
        from tests.networks.certificates import table as certificate_table

        return certificate_table(arguments.only)
    if arguments.corpus != "networks":
        from tests.networks.textbook.measure import measure

        kinds = {"pairs": [False], "look-alikes": [True]}.get(arguments.kind, [False, True])
        pairs = [pair for pair in _pairs(arguments.corpus) if bool(pair.cause) in kinds]
        return measure(pairs, arguments.only, arguments.limit, trace=arguments.traceback)
    return _table(arguments.only, trace=arguments.traceback)


def _pairs(corpus: str) -> tuple[Pair, ...]:
    if corpus == "textbook":
        from tests.networks.textbook.catalogue import PAIRS

        return PAIRS
    from tests.networks.packages import catalogue
    from tests.networks.packages.sources import missing

    if why := missing():
        sys.exit(why)
    return catalogue.PAIRS


def _table(only: list[str], *, trace: bool) -> int:
    import xbackend_fl
    from tests.networks.catalogue import NETWORKS
    from xbackend_fl.errors import XbflError

    wrong = 0
    print("| network | nodes | tensors | result | largest error | torch, s | map and proof, s |")
    print("|---|---|---|---|---|---|---|")
    for network in NETWORKS:
        if only and not any(word.lower() in network.name.lower() for word in only):
            continue
        example, start = network.example(), time.perf_counter()
        nodes = tensors = error = ""
        try:
            reference = network.torch()
            schema, evidence = xbackend_fl.describe_reference(reference, example)
            middle = time.perf_counter()
            nodes, tensors = str(len(schema.nodes)), str(len(schema.parameters))
            bound = xbackend_fl.bind(network.tensorflow(), schema, example, evidence)
            result, error = "mapped", f"{bound.proof.largest_error:.0e}"
        except XbflError as refused:
            middle = min(middle, time.perf_counter()) if nodes else time.perf_counter()
            result = "refused" if not network.same else f"**{refused.message[:600]}**"
            if trace:
                traceback.print_exc()
        wrong += (result == "mapped") != network.same
        seconds = f"{middle - start:.1f} | {time.perf_counter() - middle:.1f}"
        print(f"| {network.name} | {nodes} | {tensors} | {result} | {error} | {seconds} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\npeak memory {peak:.1f} GiB; {wrong} unexpected")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
