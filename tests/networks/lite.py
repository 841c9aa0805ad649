"""What runtimes for small machines make of every network: written by its framework, run by the runtime, held against the model and ONNX Runtime."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.networks.catalogue import NETWORKS
from xbackend_fl.adapter import adapter_of
from xbackend_fl.convert import open_side
from xbackend_fl.convert.lite import by_lite_exporter, lite_exporter
from xbackend_fl.errors import RunFailed, XbflError
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.weights.onnx_writing import Writing


def made(lite: str, model: object, example: Any, folder: Path) -> tuple[float, str]:
    """The largest relative error of the outputs, and the note about the file.

    Raises:
        XbflError: It cannot be made, or computes something else.
    """
    side, exporter = lite_exporter(lite, open_side(adapter_of(model), model, example), Writing())
    weights = draw_weights(side.model.schema, 0)
    _, outputs, notes = by_lite_exporter(folder / f"net.{lite}", exporter, side, weights, example)
    return max(output.relative for output in outputs), notes[0]


def table(only: Sequence[str]) -> int:
    """Print a line for every network and runtime; returns 1 if a file computed something else."""
    wrong = 0
    print("| network | file | result | s |\n|---|---|---|---|")
    for network in NETWORKS:
        if only and not any(word.lower() in network.name.lower() for word in only):
            continue
        for lite, build in (("pte", network.torch), ("tflite", network.tensorflow)):
            start = time.perf_counter()
            with TemporaryDirectory() as folder:
                try:
                    error, note = made(lite, build(), network.example(), Path(folder))
                    some = note.partition("takes ")[2].partition(",")[0]
                    said = f"{error:.0e}, {some}"
                except XbflError as refused:
                    wrong += isinstance(refused, RunFailed)
                    said = f"{type(refused).__name__}: {refused.message[:300]}"
            print(f"| {network.name} | .{lite} | {said} | {time.perf_counter() - start:.1f} |", flush=True)
            gc.collect()
    return int(wrong > 0)
