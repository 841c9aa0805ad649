"""What the reference's silo gives, looked at before anybody is measured by it: a wrong description would blame all the others.

ONNX Runtime takes 22 MB and copies of a model. For a large one a process of its own has them: ``python -m xbackend_fl.federation.server.reference FRAME``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.aggregation import LARGEST, is_within
from xbackend_fl.canonical import Kind, Schema
from xbackend_fl.errors import UpdateRefused, XbflError, shortened
from xbackend_fl.federation.protocol.message import Message, public, quoted
from xbackend_fl.federation.silo.silo import evidence_alone, initial_weights
from xbackend_fl.mapping import Evidence, unpack_evidence
from xbackend_fl.mapping.probe.runtime import Runtime
from xbackend_fl.mapping.proof.verify import Answers, against_runtime
from xbackend_fl.weights import Weights

_COARSE = 1e-2
"""Relative error against ONNX Runtime from which evidence is not of the schema that it comes with. The proofs are closer, and made at the silos; this is about what
no rounding and no device explains."""

_MAX_INITIAL = 2.0**24
"""Magnitude of a trainable initial weight from which float32 has no room for a change by one: nothing that trains moves it."""

_UNUSUAL = {Kind.TRAINABLE: 1e4, Kind.STATISTIC: 1e8}
"""Magnitude of one that is said; statistics are in the units of the data, and squares of them."""

_LARGE = 4 << 20
"""Bytes of a model from which a process of its own pays."""
_REFUSED = 3


@final
@dataclass(frozen=True)
class Reference:
    """What the reference's silo gave.

    Attributes:
        name: The silo.
        schema: Of its model.
        binding: The request with which other silos bind and prove their models.
        initial: Its weights.
        probe: Inputs of the first case of the evidence, in ONNX layout.
    """

    name: str
    schema: Schema
    binding: Message = field(repr=False)
    initial: Weights = field(repr=False)
    probe: tuple[NDArray[Any], ...] = field(repr=False)

    def notes(self) -> Iterator[str]:
        """What is unusual about its weights, from which everybody starts."""
        for name, array in self.initial.items():
            limit = _UNUSUAL.get(self.initial.kinds[name])
            if limit is None or not array.size:
                continue
            given = f"the initial weights that silo {self.name!r} gives hold"
            if not is_within(array, limit):
                reach = float(abs(array).max())
                yield f"{given} values up to {reach:.1e} in {quoted(name)}: few models train from there"
            if array.any():
                continue
            if self.initial.kinds[name] is Kind.TRAINABLE and array.ndim > 1:
                yield f"{given} 0 everywhere in {quoted(name)}: what comes before it does not train until that changes, and two such layers never do"
            elif name in self.schema.variances:
                yield f"{given} 0 everywhere in the variance {quoted(name)}: what it divides becomes very large"


def reference_of(name: str, answer: Message | None) -> Reference:
    """What a silo answered when it was asked for evidence, if it is whole, finite and agrees with itself.

    Args:
        name: The silo.
        answer: Its answer, if it gave one.

    Raises:
        UpdateRefused: It cannot be what others are measured by.
    """
    if answer is None or answer.kind != "evidence":
        raise UpdateRefused("no answer" if answer is None else answer.reason)
    try:
        schema, binding = Schema.from_json(answer.fields["schema"]), evidence_alone(answer)
        evidence = unpack_evidence(binding.arrays, answer.fields["about"], schema, "what it sent")
        initial = initial_weights(schema, answer)
        _check_complete(schema, evidence)
        _check_values(schema, initial, evidence)
        if sum(array.nbytes for array in initial.values()) < _LARGE:
            _check_consistent(schema, initial, evidence)
        else:
            _check_elsewhere(answer)
    except UpdateRefused:
        raise
    except (
        Exception
    ) as error:  # a stranger's graph may trip over anything in ONNX Runtime, onnx and our own export
        reason = error.message if isinstance(error, XbflError) else shortened(error)
        raise UpdateRefused(f"its evidence cannot be used: {public(reason)}") from error
    return Reference(name, schema, binding, initial, evidence[0].case.inputs)


def _check_complete(schema: Schema, evidence: Sequence[Evidence]) -> None:
    if not (schema.inputs and schema.outputs and schema.parameters and evidence):
        raise UpdateRefused(
            f"it describes a model of {len(schema.inputs)} inputs, {len(schema.outputs)} outputs and {len(schema.parameters)} parameters, "
            f"with {len(evidence)} probes; expected some of each"
        )
    for item in evidence:
        found = (item.case.inputs, schema.inputs), (item.outputs, schema.outputs)
        for arrays, ports in found:
            kinds = [(array.ndim, str(array.dtype)) for array in arrays]
            if kinds != [(len(port.shape), port.dtype) for port in ports] or not all(map(np.size, arrays)):
                raise UpdateRefused(
                    f"its probe {quoted(item.case.label)} does not have the inputs and outputs of its schema"
                )


def _check_values(schema: Schema, initial: Weights, evidence: Sequence[Evidence]) -> None:
    for name, array in initial.items():
        kind = initial.kinds[name]
        largest = _MAX_INITIAL if kind is Kind.TRAINABLE else LARGEST.get(kind)
        if largest is not None and array.dtype.kind == "f" and array.size and not is_within(array, largest):
            raise UpdateRefused(
                f"its initial weights {quoted(name)} hold NaN, infinity or more than {largest:.1e}"
            )
        if name in schema.variances and array.size and (least := float(array.min())) < 0:
            raise UpdateRefused(
                f"its initial weights {quoted(name)} hold {least:.3g}, and no variance is negative"
            )
    for item in evidence:
        named = (item.statistics, item.gradients, item.moved, item.updated, item.losses)
        several = [
            # A mask that is added hides by minus infinity.
            *(
                np.where(np.isneginf(array), 0, array)
                for array in item.case.inputs
                if array.dtype.kind == "f"
            ),
            *item.outputs,
            *(array for arrays in named for array in arrays.values()),
        ]
        if not all(np.isfinite(array).all() for array in several if array.dtype.kind == "f"):
            raise UpdateRefused(f"its evidence holds NaN or infinity in the probe {quoted(item.case.label)}")


def _check_consistent(schema: Schema, initial: Weights, evidence: Sequence[Evidence]) -> None:
    """ONNX Runtime computes what the schema says, and must find what the model is said to have found."""
    runtime = Runtime(schema)
    for check in against_runtime(Answers(schema, runtime), evidence):
        if not check.error <= _COARSE:
            raise UpdateRefused(
                f"its evidence is not of its schema: ONNX Runtime finds other outputs in the probe {quoted(check.case)} (relative error {check.error:.1e})"
            )
    if schema.opaque:
        # Its own framework alone runs it; whoever proves a model against it compares what they do.
        return
    shapes = [array.shape for array in evidence[0].case.inputs]
    # A graph may have the sizes of the example written in it.
    for item in (item for item in evidence if [array.shape for array in item.case.inputs] == shapes):
        if not all(np.isfinite(output).all() for output in runtime.outputs(initial, item.case.inputs)):
            raise UpdateRefused(
                f"its initial weights make the outputs NaN or infinite in the probe {quoted(item.case.label)}"
            )


def _check_elsewhere(answer: Message) -> None:
    """As :func:`_check_consistent`, of what stands in an answer, by another process."""
    with tempfile.TemporaryDirectory(prefix="xbfl-") as name:
        frame = Path(name) / "evidence.xbf"
        frame.write_bytes(answer.frame)
        command = [sys.executable, "-m", "xbackend_fl.federation.server.reference", str(frame)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603  our own program, without a shell
    if done.returncode == _REFUSED:
        raise UpdateRefused(public(done.stdout))
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2] or f"its process ended with {done.returncode}"
        raise UpdateRefused(f"its evidence cannot be run: {public(last)}")


def main(frame: Path) -> None:
    """The program of that process: exit code 3, and the reason, if the evidence is not of its schema."""
    answer = Message.from_bytes(frame.read_bytes(), "a silo")
    schema = Schema.from_json(answer.fields["schema"])
    evidence = unpack_evidence(evidence_alone(answer).arrays, answer.fields["about"], schema, "what it sent")
    try:
        _check_consistent(schema, initial_weights(schema, answer), evidence)
    except UpdateRefused as error:
        sys.stdout.write(error.message)
        sys.exit(_REFUSED)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
