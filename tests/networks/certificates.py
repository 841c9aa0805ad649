"""Every network certified in both frameworks, written down, read again, and repeated with both models, by either as the reference."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.networks.catalogue import NETWORKS
from tests.networks.network import Network
from xbackend_fl.adapter import adapter_of
from xbackend_fl.certificate import Model, Statement, certify, lines, read, sign
from xbackend_fl.errors import MismatchError, XbflError

REFERENCES = ("torch", "tensorflow")


def repeated(network: Network, reference: str) -> tuple[list[str], list[float]]:
    """Lines that are not so when a certificate is repeated, and seconds: to certify, to verify, to verify with both models.

    Raises:
        XbflError: It cannot be certified.
    """
    builds = [network.torch, network.tensorflow]
    one, two = builds if reference == "torch" else builds[::-1]
    example, took = network.example(), [time.perf_counter()]
    specs = [_spec(array) for array in example]
    statement = certify([_model("reference", one()), _model("other", two())], example, specs)
    took.append(time.perf_counter())
    found = read(sign(statement, Ed25519PrivateKey.generate()).to_json(), "certificate").statement
    wrong = [*_failing(found, example, ())]
    took.append(time.perf_counter())
    models = (_model("reference", one()), _model("other", two()))
    wrong += _failing(found, example, models)
    took.append(time.perf_counter())
    gc.collect()
    return wrong, [after - before for before, after in pairwise(took)]


def _failing(statement: Statement, example: Any, models: Sequence[Model]) -> Iterator[str]:
    for line in lines(statement, example, models):
        if not line.passed:
            yield f"{line.name}: {line.said}"


def _spec(array: Any) -> str:
    dtype = "" if array.dtype == "float32" else f"{array.dtype}:"
    return dtype + ",".join(map(str, array.shape))


def _model(name: str, native: Any) -> Model:
    return Model(name, adapter_of(native), native)


def table(only: Sequence[str]) -> int:
    """Print a line for every network and reference; returns 1 if one is not certified that is one function, or is not repeated."""
    wrong = 0
    print(
        "| network | reference | result | certify, s | verify, s | with both models, s |\n|---|---|---|---|---|---|"
    )
    for name in REFERENCES:
        for network in NETWORKS:
            if only and not any(word.lower() in network.name.lower() for word in only):
                continue
            took: list[float] = []
            try:
                found, took = repeated(network, name)
                said = "; ".join(found)[:400] or "repeated"
                wrong += bool(found) or not network.same
            except XbflError as refused:
                said = f"{type(refused).__name__}: {refused.message[:400]}".replace("\n", " ")
                wrong += network.same or not isinstance(refused, MismatchError)
            seconds = " | ".join(f"{item:.1f}" for item in took)
            print(f"| {network.name} | {name} | {said} | {seconds} |", flush=True)
    return int(wrong > 0)
