"""What others say of an ONNX file: ONNX's checker, ONNX Runtime with and without its rewriting, and ONNX's reference in NumPy."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

import xbackend_fl
from tests.networks.catalogue import NETWORKS
from xbackend_fl.adapter import registry
from xbackend_fl.adapter.contract import Numbering
from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.onnx_export import to_bytes, to_onnx
from xbackend_fl.canonical.onnx_opset import OPSET
from xbackend_fl.canonical.onnx_session import OnnxSession
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.probe.draw import draw_inputs, draw_weights
from xbackend_fl.mapping.proof.verify import TOLERANCE, relative_error

Arrays = Sequence[np.ndarray[Any, Any]]


def opinions(schema: Schema, example: Arrays, opset: int = OPSET) -> Iterator[tuple[str, float]]:
    """Who else ran the file, and the largest relative error against ONNX Runtime without rewriting.

    Raises:
        Exception: Whatever the first one says that does not accept the file.
    """
    model = onnx.load_model_from_string(to_bytes(to_onnx(schema, draw_weights(schema, 0), opset=opset)))
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    inputs = draw_inputs(schema, [array.shape for array in example], 0, like=example)
    feeds = {port.name: array for port, array in zip(schema.inputs, inputs, strict=True)}
    plain = OnnxSession(model, optimized=False).run(feeds)
    yield "ONNX Runtime", _error(OnnxSession(model).run(feeds), plain)
    yield "reference", _error(ReferenceEvaluator(model).run(None, feeds), plain)


def digests(only: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """SHA-256 of the file of every network, of its PyTorch model; of its Keras model, too, where it is one of ``only``."""
    for network in NETWORKS:
        for kind, build in (("torch", network.torch), ("tensorflow", network.tensorflow)):
            if (not only and kind == "torch") or network.name in only:
                # A process that made models before would give the next one's layers higher numbers, and so other weights.
                if isinstance(adapter := registry.load(kind), Numbering):
                    adapter.number_anew()
                schema = xbackend_fl.describe(build(), network.example())
                file = to_bytes(to_onnx(schema, draw_weights(schema, 0)))
                yield f"{network.name}, {kind}", hashlib.sha256(file).hexdigest()


def _error(received: Arrays, expected: Arrays) -> float:
    return max(relative_error(np.asarray(a), b) for a, b in zip(received, expected, strict=True))


def table(only: Sequence[str], opsets: Sequence[int]) -> int:
    """Print a line for every network and opset; returns 1 if a file was not accepted, or answered otherwise."""
    wrong = 0
    print("| network | opset | errors | s |\n|---|---|---|---|")
    for network in NETWORKS:
        if only and not any(word.lower() in network.name.lower() for word in only):
            continue
        example = network.example()
        schema = xbackend_fl.describe(network.torch(), example)
        for opset in opsets:
            start = time.perf_counter()
            try:
                found = dict(opinions(schema, example, opset))
                said = ", ".join(f"{who} {error:.0e}" for who, error in found.items())
                wrong += max(found.values()) > TOLERANCE
            except RefusedInput as refused:
                said = f"refused: {refused.message}"
            except Exception as error:  # noqa: BLE001 -- every reader has errors of its own
                said, wrong = f"**{str(error)[:300]}**".replace("\n", " "), wrong + 1
            print(f"| {network.name} | {opset} | {said} | {time.perf_counter() - start:.1f} |", flush=True)
    return int(wrong > 0)
