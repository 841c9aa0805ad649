"""Repeats a certificate, line by line; the first line that fails says what is not so here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.example import Example
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.certificate.bounds import differentiated, malformed, unasked
from xbackend_fl.certificate.model import Model
from xbackend_fl.certificate.probes import restored
from xbackend_fl.certificate.statement import Probe, Statement, digest_of
from xbackend_fl.course import example_arrays
from xbackend_fl.errors import RefusedInput, SchemaError
from xbackend_fl.mapping import as_known, bind_trainer
from xbackend_fl.mapping.probe.distributions import Distribution
from xbackend_fl.mapping.probe.probe import Evidence
from xbackend_fl.mapping.probe.runtime import GraphRefused, Runtime
from xbackend_fl.mapping.probe.sketch import sketch
from xbackend_fl.mapping.proof.verify import Answers, relative_error
from xbackend_fl.text import line

Array = NDArray[Any]

_FILE = ".npy"


@dataclass(frozen=True)
class Line:
    """One line of a certificate, repeated.

    Attributes:
        name: What is said there.
        passed: Whether it is so here.
        said: What was found.
        notes: What is so and was not compared: training's own settings, sizes that a model refuses; of ``bindings``, what the signer was told of each model.
    """

    name: str
    passed: bool
    said: str
    notes: tuple[str, ...] = ()


def lines(statement: Statement, example: Sequence[Array], models: Sequence[Model] = ()) -> Iterator[Line]:
    """Repeat a statement: schema, bindings, example and probes, ONNX Runtime's outputs, and every model at hand.

    It ends behind the first of the lines before the models that fails: those behind it rest on it.

    Args:
        statement: From a certificate whose signature was checked.
        example: One array per input, as the statement's ``inputs`` name them.
        models: Models to prove against it, of any framework.
    """
    try:
        schema = Schema.from_json(json.dumps(statement.schema))
    except SchemaError as error:
        yield Line("schema", passed=False, said=line(error.message))
        return
    strange = malformed(schema, statement)
    same = schema.fingerprint == statement.fingerprint
    yield Line("schema", same and not strange, strange or f"fingerprint {schema.fingerprint[:12]}")
    if strange or not same:
        return
    wrong = [model.source for model in statement.models if not _fits(model.binding, schema)]
    told = tuple(f"{model.source}: {note}" for model in statement.models for note in model.notes)
    said = f"not of this schema: {wrong[0]}" if wrong else f"{len(statement.models)}"
    yield Line("bindings", not wrong, said, told)
    if len(example) != len(statement.inputs):
        yield Line("example", passed=False, said=f"{len(example)} inputs, expected {len(statement.inputs)}")
        return
    found = [digest_of([array]) for array in example]
    apart = [item.spec for item, digest in zip(statement.inputs, found, strict=True) if item.digest != digest]
    yield Line("example", not apart, "the same data" if not apart else f"other data as {apart[0]}")
    if wrong or apart:
        return
    usual = tuple(Distribution(kind) for kind in statement.usual)
    stepless = Binding.from_json(json.dumps(statement.models[0].binding)).inference_only
    less, asked = unasked(schema, example, usual, statement.probes, inference_only=bool(stepless))
    if less:
        yield Line("probes", passed=False, said=f"less than this version asks: {less}")
        return
    try:
        evidence = tuple(restored(schema, example, usual, statement.probes))
    except RefusedInput as error:
        yield Line("probes", passed=False, said=line(error.message))
        return
    gradients = "" if differentiated(statement.probes) else "no gradients were asked and "
    without = f"{gradients}no step was taken"
    yield Line(
        "probes",
        passed=True,
        said=f"{len(evidence)} drawn again, {asked} of which every certificate of this schema asks"
        + (f"; {without}: {line(stepless, 200)}" if stepless else ""),
    )
    if not schema.opaque:
        outputs = _outputs(schema, statement, evidence)
        yield outputs
        if not outputs.passed:
            return
    for model in models:
        yield _model(model, schema, tuple(example), evidence)


def example_of(statement: Statement, specs: Sequence[str] = ()) -> tuple[Array, ...]:
    """The example of a statement: as its certificate holds it, as its shapes draw it, or as ``specs`` name it here.

    Raises:
        RefusedInput: Data that the certificate only names must be given; ``specs`` are not as many as its inputs.
    """
    if specs and len(specs) != len(statement.inputs):
        raise RefusedInput(
            f"{len(specs)} inputs are given, expected {len(statement.inputs)}, as the certificate has",
            hint="give all: " + " ".join(f"--input {line(item.spec)}" for item in statement.inputs),
        )
    if specs:
        return example_arrays(specs)
    for index, item in enumerate(statement.inputs):
        if item.values is None and item.spec.endswith(_FILE):
            raise RefusedInput(
                f"input {index} was data of the signer's own, {line(item.spec)}",
                hint=f"give it: --input {line(item.spec)}",
            )
    # A file that it names is held, and is looked for nowhere; its place counts, for a shape is drawn by its place.
    shapes = ["1" if item.values is not None else item.spec for item in statement.inputs]
    drawn = example_arrays(shapes)
    pairs = zip(statement.inputs, drawn, strict=True)
    return tuple(array if item.values is None else item.values.array() for item, array in pairs)


def _fits(plain: Any, schema: Schema) -> bool:
    try:
        binding = Binding.from_json(json.dumps(plain))
    except SchemaError:
        return False
    return binding.fingerprint == schema.fingerprint and binding.parameters.keys() == schema.by_name.keys()


def _outputs(schema: Schema, statement: Statement, evidence: Sequence[Evidence]) -> Line:
    """ONNX Runtime's outputs here against the reference's there."""
    answers, worst, asked = Answers(schema, Runtime(schema)), 0.0, 0
    for probe, item in zip(statement.probes, evidence, strict=True):
        if probe.runtime is None:
            continue
        try:
            error = _apart(probe, answers.outputs(item))
        except GraphRefused as refused:
            return Line("onnx runtime", passed=False, said=f"{probe.label}: {line(refused.message)}")
        if not error <= max(statement.tolerance, statement.roundings * probe.runtime):
            return Line("onnx runtime", passed=False, said=f"{probe.label}: outputs differ by {error:.1e}")
        worst, asked = max(worst, error), asked + 1
    return Line("onnx runtime", passed=True, said=f"outputs of {asked} probes, largest error {worst:.1e}")


def _apart(probe: Probe, received: Sequence[Array]) -> float:
    expected = [held.array() for held in probe.outputs]
    if probe.sketched:
        received = [sketch(array) for array in received]
    return max(relative_error(np.asarray(a), b) for a, b in zip(received, expected, strict=True))


def _model(model: Model, schema: Schema, example: Example, evidence: Sequence[Evidence]) -> Line:
    name = f"model {model.source}"
    try:
        opened = model.adapter.load_model(model.native, as_known(schema, example))
        bound = bind_trainer(model.adapter, opened, schema, example, evidence)
    except RefusedInput as error:
        # What a mismatch is, is said in its second line.
        said = " ".join(part.strip() for part in error.message.splitlines()[:2])
        return Line(name, passed=False, said=line(said, 400))
    what = ", ".join(dict.fromkeys(check.what for check in bound.proof.checks))
    return Line(
        name,
        passed=True,
        said=f"{len(bound.proof.checks)} comparisons ({what}), largest error {bound.proof.largest_error:.1e}",
        notes=bound.notes,
    )
