"""Makes the statement of a certificate: the reference probed, and every other model proven against it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.example import Example, checked
from xbackend_fl.canonical import Binding
from xbackend_fl.certificate.bounds import differentiated
from xbackend_fl.certificate.model import Model
from xbackend_fl.certificate.probes import recorded, usual_kind
from xbackend_fl.certificate.statement import Certified, Input, Probe, Statement, StoredArray, digest_of
from xbackend_fl.certificate.verifying import lines
from xbackend_fl.errors import UnprovenError
from xbackend_fl.mapping import as_known, bind_trainer, evidence_of
from xbackend_fl.mapping.bound import BoundModel
from xbackend_fl.mapping.proof.verify import ROUNDINGS, TOLERANCE

Array = NDArray[Any]

_SMALL = 1 << 16
_PACKAGES = ("xbackend-fl", "numpy", "onnx", "onnxruntime", "torch", "tensorflow", "keras")
_NOT_PROVEN = (
    "data and weights unlike those of the probes",
    "more than one step of training",
    "dropout and other noise, which were off",
    "what training alone sees, as momentum of running statistics, ratios of dropout, regularizers, constraints and rows of padding: a note says where a model has others",
    "other devices, other precisions and other sizes than the probes name",
)


def certify(models: Sequence[Model], example: Example, specs: Sequence[str], own_loop: str = "") -> Statement:
    """Probe the first model, and prove that every other one is the same function.

    Args:
        models: The reference first.
        example: One array per input, in ONNX layout.
        specs: How ``--input`` names each.
        own_loop: A training loop of the user's own, by name; it is named and not looked at.

    Raises:
        MismatchError: A model is not the reference's function.
        UnprovenError: No probe sees some parameters, or the statement cannot be repeated with the first model itself.
    """
    first = models[0]
    trainer = first.adapter.load_model(first.native, example)
    schema, arrays = trainer.description.schema, checked(example).arrays
    evidence = evidence_of(trainer, example)
    usual = usual_kind(schema, arrays, evidence)
    probes, left = recorded(schema, arrays, usual, evidence)
    told = dict.fromkeys(note for item in evidence for note in item.notes)
    certified = [_reference(first, trainer.description.binding, probes, (*trainer.description.notes, *told))]
    known = (first.adapter, trainer.description.binding)
    for model in models[1:]:
        opened = model.adapter.load_model(model.native, as_known(schema, example))
        bound = bind_trainer(model.adapter, opened, schema, example, evidence, known)
        certified.append(_other(model, bound))
    alone = trainer.description.binding.inference_only and not differentiated(probes)
    less = ("gradients and a step: the reference only infers",) if alone else ()
    loop = (f"{own_loop}, a training loop of the user's own: that it is one, and nothing else of it",)
    statement = Statement(
        fingerprint=schema.fingerprint,
        schema=json.loads(schema.to_json()),
        inputs=tuple(_input(spec, array) for spec, array in zip(specs, arrays, strict=True)),
        usual=tuple(map(str, usual)),
        probes=probes,
        models=tuple(certified),
        tolerance=TOLERANCE,
        roundings=ROUNDINGS,
        packages=_versions(),
        machine=_machine(),
        own_loop=own_loop,
        not_proven=(*_NOT_PROVEN, *less, *left, *(loop if own_loop else ())),
    )
    for item in lines(statement, arrays, [first]):
        if not item.passed:
            raise UnprovenError(
                f"nobody could repeat a certificate of {first.source}, not even here: {item.name}: {item.said}",
                hint=f"xbfl map {first.source} {first.source} --input … says more",
            )
    return statement


def _reference(model: Model, binding: Binding, probes: Sequence[Probe], notes: tuple[str, ...]) -> Certified:
    errors = [probe.runtime for probe in probes if probe.runtime is not None]
    found = {"onnx runtime": max(errors)} if errors else {}
    return _certified(model, binding, found, len(errors), notes)


def _other(model: Model, bound: BoundModel) -> Certified:
    errors: dict[str, float] = {}
    for check in bound.proof.checks:
        if check.what != "reacts":
            errors[check.what] = max(errors.get(check.what, 0.0), check.error)
    return _certified(model, bound.binding, errors, len(bound.proof.checks), bound.notes)


def _certified(
    model: Model, binding: Binding, errors: Mapping[str, float], comparisons: int, notes: tuple[str, ...]
) -> Certified:
    file = Path(model.source.split(":")[1]) if ":" in model.source else Path()
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    return Certified(
        model.adapter.name,
        model.adapter.version,
        model.source,
        digest,
        json.loads(binding.to_json()),
        errors,
        comparisons,
        tuple(dict.fromkeys(notes)),
    )


def _input(spec: str, array: Array) -> Input:
    kept = spec.endswith(".npy") and array.nbytes <= _SMALL
    return Input(spec, digest_of([array]), StoredArray.from_array(array) if kept else None)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, str]:
    told: Any = np.show_config(mode="dicts")
    instructions = told.get("SIMD Extensions", {})
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "instructions": " ".join((*instructions.get("baseline", ()), *instructions.get("found", ()))),
        "linear algebra": str(told.get("Build Dependencies", {}).get("blas", {}).get("name", "")),
    }
