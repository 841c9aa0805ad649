"""Prints the table of networks: what was mapped, how exactly, and how long it took."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
import traceback
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.networks")
    parser.add_argument("only", nargs="*", help="parts of names")
    parser.add_argument("--traceback", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch  # noqa: F401

    import xbfl_tensorflow

    xbfl_tensorflow.import_frameworks()
    import xbackend_fl
    from tests.networks.catalogue import NETWORKS
    from xbackend_fl.errors import XbflError

    wrong = 0
    print("| network | nodes | tensors | result | largest error | torch, s | map and proof, s |")
    print("|---|---|---|---|---|---|---|")
    for network in NETWORKS:
        if arguments.only and not any(word.lower() in network.name.lower() for word in arguments.only):
            continue
        example, start = network.example(), time.perf_counter()
        nodes = tensors = error = ""
        try:
            reference = network.torch()
            schema = xbackend_fl.describe(reference, example)
            evidence = xbackend_fl.gather_evidence(reference, example)
            middle = time.perf_counter()
            nodes, tensors = str(len(schema.nodes)), str(len(schema.parameters))
            bound = xbackend_fl.bind(network.tensorflow(), schema, example, evidence)
            result, error = "mapped", f"{bound.proof.largest_error:.0e}"
        except XbflError as refused:
            middle = min(middle, time.perf_counter()) if nodes else time.perf_counter()
            result = "refused" if not network.same else f"**{refused.message[:600]}**"
            if arguments.traceback:
                traceback.print_exc()
        wrong += (result == "mapped") != network.same
        seconds = f"{middle - start:.1f} | {time.perf_counter() - middle:.1f}"
        print(f"| {network.name} | {nodes} | {tensors} | {result} | {error} | {seconds} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\npeak memory {peak:.1f} GiB; {wrong} unexpected")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
