"""What becomes of a mutant of glue: whether it is another function is decided by both frameworks alone, in float64 and on drawn weights."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

import xbackend_fl
from tests.mutations.glue import exported, mutants, plain
from tests.networks.textbook.pair import Arrays, Pair
from tests.networks.textbook.proof import flat, keras_outputs, randomise
from xbackend_fl.adapter import adapter_of
from xbackend_fl.canonical import Schema
from xbackend_fl.certificate import Model, certify
from xbackend_fl.certificate.probes import restored
from xbackend_fl.errors import MismatchError, XbflError
from xbackend_fl.mapping import Evidence, evidence_of
from xbackend_fl.mapping.bind import bind_trainer
from xbackend_fl.mapping.probe.distributions import Distribution

NO_PAIR = "left out"
"""Of a pair that is not bound as it is."""

EQUIVALENT, LOST, REFUSED, OTHER, FAINT, SILENT = (
    "equivalent", "equivalent and refused", "refused", "bound under another right map", "bound, below the tolerance", "SILENT",
)  # fmt: skip
STATES = (EQUIVALENT, LOST, REFUSED, OTHER, FAINT, SILENT)

DRAWS, WEIGHTS = 8, 2
EXACT, TOLERANCE = 1e-9, 1e-3


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant.

    Attributes:
        what: The change.
        state: One of :data:`STATES`.
        said: First line of the refusal's cause, or how far outputs differ.
        opaque: Whether one of both graphs has an operation of its own framework.
    """

    what: str
    state: str
    said: str
    opaque: bool


def verdicts(pair: Pair, seed: int, most: int, *, certified: bool = False) -> Iterator[Verdict]:
    """Bind mutants of a pair's PyTorch model to its Keras model.

    Args:
        pair: One function in both frameworks.
        seed: Draws the mutants.
        most: How many.
        certified: Whether they are held to a certificate of the Keras model, in place of its own evidence.
    """
    keras.utils.clear_session()
    model, example = pair.torch(), pair.example(np.random.default_rng(0))
    randomise(model, np.random.default_rng(7))
    other = pair.keras()
    if pair.declared:
        orders = [pair.inputs.get(i, range(array.ndim)) for i, array in enumerate(example)]
        other = xbackend_fl.with_axes(other, inputs=orders)
    try:
        reference = adapter_of(other).load_model(other, example)
        schema = reference.description.schema
        evidence = evidence_of(reference, example)
        if certified:
            evidence = from_certificate(other, example)
        graph = exported(model, example)
        xbackend_fl.bind(plain(graph), schema, example, evidence)
    except Exception as error:  # noqa: BLE001 -- a pair that is refused as it is has no mutants, whatever the reason
        yield Verdict(
            "as it is",
            NO_PAIR,
            f"{type(error).__name__}: {str(error)[:200]}".replace("\n", " "),
            opaque=False,
        )
        return
    for mutant in mutants(graph, seed, most, example):
        apart = native_difference(graph, mutant.model, pair)
        opaque = bool(schema.opaque)
        try:
            trainer = adapter_of(mutant.model).load_model(mutant.model, example)
            opaque = opaque or bool(trainer.description.schema.opaque)
            bound = bind_trainer(adapter_of(mutant.model), trainer, schema, example, evidence)
        except XbflError as refused:
            state = LOST if apart <= EXACT else REFUSED
            yield Verdict(mutant.what, state, _said(refused), opaque)
            continue
        if apart <= EXACT:
            yield Verdict(mutant.what, EQUIVALENT, "", opaque)
            continue
        error = _mapped_difference(pair, mutant.model, other, bound, reference, schema)
        state = SILENT if error > TOLERANCE else OTHER if apart > TOLERANCE else FAINT
        yield Verdict(mutant.what, state, f"{apart:.0e} by name, {error:.0e} as mapped", opaque)


def from_certificate(model: Any, example: Arrays) -> tuple[Evidence, ...]:
    """What a certificate of a model says that it does."""
    specs = [",".join(map(str, array.shape)) for array in example]
    statement = certify([Model("a:b", adapter_of(model), model)], example, specs)
    schema = Schema.from_json(json.dumps(statement.schema))
    usual = tuple(map(Distribution, statement.usual))
    return tuple(restored(schema, example, usual, statement.probes))


def native_difference(one: nn.Module, two: nn.Module, pair: Pair) -> float:
    """How far two models with the same tensors differ in float64, at most, over draws of data and weights; infinite where one is not finite."""
    worst = 0.0
    for weights in range(WEIGHTS):
        models = [copy.deepcopy(model).double() for model in (one, two)]
        _same_weights(models, weights)
        for draw in range(DRAWS):
            arrays = pair.example(np.random.default_rng(100 + draw))
            scale = (1.0, 10.0)[draw % 2]
            scaled = [a.astype(np.float64) * scale if a.dtype.kind == "f" else a for a in arrays]
            try:
                answers = [_torch(model, tuple(scaled)) for model in models]
            except RuntimeError:
                return float("inf")
            for a, b in zip(*answers, strict=True):
                if a.shape != b.shape or not (np.isfinite(a) == np.isfinite(b)).all():
                    return float("inf")
                a, b = np.nan_to_num(a), np.nan_to_num(b)  # noqa: PLW2901 -- what is not finite is so on both sides
                size = max(float(np.abs(a).max(initial=0)), 1e-12)
                worst = max(worst, float(np.abs(a - b).max(initial=0)) / size)
    return worst


def _same_weights(models: list[nn.Module], seed: int) -> None:
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        ours, theirs = (dict(model.named_parameters()) for model in models)
        for name, value in ours.items():
            noise = rng.standard_normal(value.shape)
            drawn = noise / np.sqrt(value[0].numel()) if value.ndim > 1 else 0.5 + 0.5 * noise
            # Of a single number, NumPy makes no array.
            new = torch.from_numpy(np.asarray(drawn))
            value.copy_(new)
            if name in theirs:
                theirs[name].copy_(new)


def _torch(model: nn.Module, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [value.double().numpy() for value in flat(model(*(torch.from_numpy(a) for a in arrays)))]


def _mapped_difference(
    pair: Pair, mutant: nn.Module, other: Any, bound: Any, reference: Any, schema: Schema
) -> float:
    """How far a bound mutant and the Keras model differ with the same canonical weights, each run by its framework alone."""
    worst = 0.0
    for seed in range(WEIGHTS):
        rng = np.random.default_rng(1000 + seed)
        start = reference.description.binding.export(reference.read())
        drawn = {
            name: value
            if schema.by_name[name].kind != "trainable"
            else (
                rng.standard_normal(value.shape) / np.sqrt(max(value[0].size if value.ndim > 1 else 4, 1))
            ).astype(value.dtype)
            for name, value in start.items()
        }
        weights = xbackend_fl.Weights.from_schema(schema, drawn)
        bound.write(weights)
        reference.write(reference.description.binding.restore(drawn))
        for draw in range(DRAWS // 2):
            arrays = pair.example(np.random.default_rng(200 + draw))
            here = _torch(mutant, arrays)
            there = keras_outputs(pair, getattr(other, "model", other), arrays)
            for a, b in zip(here, there, strict=True):
                size = max(float(np.abs(b).max(initial=0)), 1e-3)
                apart = float(np.abs(a - b).max(initial=0)) / size if a.shape == b.shape else float("inf")
                worst = max(worst, apart if np.isfinite(apart) else float("inf"))
    return worst


def _said(refused: XbflError) -> str:
    lines = [line.strip() for line in refused.message.splitlines()]
    kind = "" if isinstance(refused, MismatchError) else f"{type(refused).__name__}: "
    return (kind + " ".join(lines[: 1 + lines[0].endswith(":")]))[:230].replace("|", "/")
