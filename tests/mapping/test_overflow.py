"""NaN or infinity where the other model has a number is a difference, and never rounding."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from keras import ops
from torch import nn

import xbackend_fl
from tests.mapping.masked import Written, normal
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping.bind import describe
from xbackend_fl.mapping.probe.cases import cases
from xbackend_fl.mapping.probe.probe import Case, Evidence
from xbackend_fl.mapping.probe.runtime import Runtime
from xbackend_fl.mapping.proof.agreement import agreement
from xbackend_fl.mapping.proof.noise import Run, output_noise, widest_noise
from xbackend_fl.mapping.proof.observed import moving_outputs
from xbackend_fl.mapping.proof.reaction import reaction
from xbackend_fl.mapping.proof.verify import Answers, against_runtime, output_check, relative_error

Function = Callable[[Any], Any]

OVERFLOWING: dict[str, tuple[Function, Function]] = {
    "softmax": (lambda h: h.softmax(-1), lambda h: ops.exp(h) / ops.sum(ops.exp(h), -1, keepdims=True)),
    "softplus": (nn.functional.softplus, lambda h: ops.log(1.0 + ops.exp(h))),
    "logsigmoid": (nn.functional.logsigmoid, lambda h: ops.log(1.0 / (1.0 + ops.exp(-h)))),
    "tanh": (torch.tanh, lambda h: (ops.exp(h) - ops.exp(-h)) / (ops.exp(h) + ops.exp(-h))),
    "logsumexp": (
        lambda h: h - h.logsumexp(-1, keepdim=True),
        lambda h: h - ops.log(ops.sum(ops.exp(h), -1, keepdims=True)),
    ),
}


def pair(there: Function, here: Function) -> tuple[nn.Module, keras.Model]:
    x = keras.Input((8,))
    candidate = keras.Model(x, K.Dense(3)(here(K.Dense(6)(x))))
    layers = {"first": nn.Linear(8, 6), "last": nn.Linear(6, 3)}
    return Written(lambda own, x: own["last"](there(own["first"](x))), **layers), candidate


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", OVERFLOWING)
def test_what_overflows_on_data_that_the_reference_answers_is_refused(name: str) -> None:
    reference, candidate = pair(*OVERFLOWING[name])
    example = (normal(1, 8),)
    evidence = xbackend_fl.gather_evidence(reference, example)
    with pytest.raises(MismatchError, match=r"received (nan|-?inf) at \[\d, \d\], where data is \d"):
        xbackend_fl.bind(candidate, xbackend_fl.describe(reference, example), example, evidence)


def test_a_bounded_form_of_the_same_function_is_proven() -> None:
    def bounded(h: Any) -> Any:
        powers = ops.exp(h - ops.max(h, -1, keepdims=True))
        return powers / ops.sum(powers, -1, keepdims=True)

    reference, candidate = pair(lambda h: h.softmax(-1), bounded)
    example = (normal(1, 8),)
    evidence = xbackend_fl.gather_evidence(reference, example)
    bound = xbackend_fl.bind(candidate, xbackend_fl.describe(reference, example), example, evidence)
    assert bound.proof.proven


def test_a_mean_over_a_mask_that_may_be_empty_needs_its_bound() -> None:
    x, m = keras.Input((5, 8)), keras.Input((5,))
    summed = ops.sum(x * ops.expand_dims(m, -1), 1)
    candidate = keras.Model([x, m], K.Dense(3)(summed / ops.sum(m, 1, keepdims=True)))

    def written(own: Any, x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        last: torch.Tensor = own["last"]((x * m[..., None]).sum(1) / m.sum(1, keepdim=True).clamp(min=1))
        return last

    reference = Written(written, last=nn.Linear(8, 3))
    mask = np.ones((2, 5), np.float32)
    mask[0, 3:], mask[1] = 0, 0
    example = (normal(2, 5, 8), mask)
    evidence = xbackend_fl.gather_evidence(reference, example)
    with pytest.raises(MismatchError, match="received nan"):
        xbackend_fl.bind(candidate, xbackend_fl.describe(reference, example), example, evidence)


def nan_once(bad: int) -> Run:
    calls = count()
    return lambda _weights, _inputs: [np.full((4, 3), np.nan if next(calls) == bad else 1.0, np.float32)]


def test_noise_that_is_not_finite_is_nan_wherever_it_appears() -> None:
    schema = describe(nn.Linear(8, 3), (normal(1, 8),))
    item = Evidence(cases(schema, (normal(1, 8),))[0], {}, ())
    for bad in range(3):
        for noise in (output_noise, widest_noise):
            assert np.isnan(noise(schema, nan_once(bad), item))


def test_a_comparison_is_infinite_and_never_nan() -> None:
    number, nothing = np.ones(3, np.float32), np.array([1.0, np.nan, 1.0], np.float32)
    schema = describe(nn.Linear(8, 3), (normal(1, 8),))
    case = Case("ours", 0, (normal(1, 8),))
    for one, two in ((number, nothing), (nothing, number), (nothing, nothing)):
        assert relative_error(one, two) == np.inf
        assert not output_check("outputs", schema, case, (one,), (two,)).passed
    assert reaction(Evidence(case, {}, (nothing,))) == np.inf


def test_rounding_that_could_not_be_measured_excuses_no_statistics_and_no_gradient() -> None:
    schema = describe(nn.Linear(8, 3), (normal(1, 8),))
    case, outputs = Case("ours", 0, (normal(1, 8),)), (np.ones((1, 3), np.float32),)
    values, noise = np.ones(4), {f"{part}/a": np.array([np.nan]) for part in ("gradients", "updated")}

    def did(factor: float) -> Evidence:
        arrays = {"a": values * factor}
        return Evidence(case, {}, outputs, arrays, updated=arrays, rounding=noise)

    found = agreement(schema, [did(1.0)], [did(1.005)])
    assert {check.what for check in found.checks if not check.passed} == {"gradients", "statistics"}
    found = agreement(schema, [did(np.nan)], [did(1.0)])
    assert {check.what for check in found.checks if not check.passed} == {"gradients", "statistics"}


class Says:
    """Answers with what it is told, the first time and later."""

    def __init__(self, *answers: Any) -> None:
        self.answers = iter(answers)

    def outputs(self, _weights: object, _inputs: object) -> list[Any]:
        return [next(self.answers)]

    def batch_statistics(self, _weights: object, _inputs: object) -> dict[str, Any]:
        return {}


def test_an_output_that_becomes_nan_shows_no_parameter() -> None:
    schema = describe(nn.Linear(8, 3), (normal(1, 8),))
    item = Evidence(cases(schema, (normal(1, 8),))[0], {}, ())
    number = np.ones((4, 3), np.float32)
    for before, after in ((number, number * np.nan), (number * np.nan, number)):
        assert not moving_outputs(Answers(schema, Says(before, after)), [item], [schema.parameters[0].name])
    name = schema.parameters[0].name
    assert moving_outputs(Answers(schema, Says(number, number * 2)), [item], [name]) == {name}


class Adds:
    """Answers with the sum of some weights: the others move nothing, and one of them makes everything NaN."""

    def __init__(self, *names: str, poison: str = "") -> None:
        self.names, self.poison, self.usual, self.runs = names, poison, None, 0

    def outputs(self, weights: Any, _inputs: object) -> list[Any]:
        self.runs += 1
        if self.usual is None:
            self.usual = weights.get(self.poison)
        spoilt = self.poison and weights[self.poison] is not self.usual
        total = np.float32(sum(float(weights[name].sum()) for name in self.names))
        return [np.full((4, 3), np.nan if spoilt else total + 1.0, np.float32)]

    def batch_statistics(self, _weights: object, _inputs: object) -> dict[str, Any]:
        return {}


def test_parameters_that_move_outputs_are_found_among_many() -> None:
    schema = describe(nn.Sequential(*(nn.Linear(64, 64) for _ in range(8))), (normal(1, 64),))
    item = Evidence(cases(schema, (normal(1, 64),))[0], {}, ())
    names = [parameter.name for parameter in schema.parameters]
    for moving in ((), (names[3],), (names[0], names[8], names[15])):
        graph = Adds(*moving)
        assert moving_outputs(Answers(schema, graph), [item], names) == set(moving)
        assert graph.runs <= 2 + 2 * 4 * len(moving), "what moves nothing is asked all at once"
    graph = Adds(names[3], poison=names[4])
    assert moving_outputs(Answers(schema, graph), [item], names) == {names[3]}


def test_a_graph_that_alone_overflows_is_not_asked_where_the_reference_answers() -> None:
    x = keras.Input((8,))
    schema = describe(keras.Model(x, ops.exp(x) / ops.sum(ops.exp(x), -1, keepdims=True)), (normal(1, 8),))
    case = Case("ours", 0, (np.full((1, 8), 200, np.float32),))
    number = Evidence(case, {}, (np.full((1, 8), 0.125, np.float32),))
    nothing = Evidence(case, {}, (np.full((1, 8), np.nan, np.float32),))
    assert not list(against_runtime(Answers(schema, Runtime(schema)), [number], [number]))
    assert not list(against_runtime(Answers(schema, Runtime(schema)), [nothing]))
    (check,) = against_runtime(Answers(schema, Runtime(schema)), [number])
    assert not check.passed
