"""Two graphs with equal weights: the first change that makes one of the other is the cause, and it is said in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xbackend_fl
from tests.adapters.row import Lambda
from xbackend_fl.adapter import adapter_of
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping.diagnosis.cause import Cause, cause_of

Scores = Callable[[Tensor], Tensor]


class Mixer(nn.Module):
    """Attention by hand in one head; ``scores`` and ``after`` are what is written otherwise."""

    def __init__(self, scores: Scores, after: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(6, 6) for _ in range(4))
        self.scores, self.after = scores, after

    def forward(self, x: Tensor) -> Tensor:
        s = self.scores(self.q(x) @ self.k(x).transpose(1, 2))
        return self.out(self.after(s @ self.v(x), x))


def scores(s: Tensor, *, scale: float = 0.5, axis: int = -1, above: int = 1, low: float = -1e9) -> Tensor:
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(above)
    return torch.softmax((s * scale).masked_fill(hidden, low), axis)


def after(y: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(y[:, 1:4] + x[:, 1:4])


REFERENCE = (scores, after)
CHANGED: dict[str, tuple[Any, Any, str]] = {
    "scale": (lambda s: scores(s, scale=0.25), after, r"constant is 0\.5 in the reference, 0\.25 in the"),
    "no scale": (lambda s: scores(s, scale=1.0), after, r"constant is 0\.5 in the reference, 1 in the"),
    "axis": (lambda s: scores(s, axis=1), after, r"Softmax over axis -1 .* axis is -1 in the reference, -2 in"),
    "no mask": (lambda s: torch.softmax(s * 0.5, -1), after, r"mask .* missing in the candidate"),
    "one ahead": (lambda s: scores(s, above=2), after, r"(mask|constant).* in the reference, "),
    "activation": (scores, lambda y, x: torch.sigmoid(y[:, 1:4] + x[:, 1:4]), r"Tanh in the reference, Sigmoid in"),
    "no residual": (scores, lambda y, _: torch.tanh(y[:, 1:4]), r"Add .* missing in the candidate"),
    "difference": (scores, lambda y, x: torch.tanh(y[:, 1:4] - x[:, 1:4]), r"Add in the reference, Sub in"),
    "part": (scores, lambda y, x: torch.tanh(y[:, 1:4] + x[:, 2:5]), r"part is 1:4 in the reference, 2:5 in"),
}  # fmt: skip


EACH_RUN = {"no mask"}


def cause(changed: nn.Module, example: np.ndarray[Any, Any]) -> Cause | None:
    schema = xbackend_fl.describe(Mixer(*REFERENCE), (example,))
    trainer = adapter_of(changed).load_model(changed, (example,))
    return cause_of(schema, trainer, (example,), None, None)


@pytest.fixture(scope="module")
def example() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((2, 5, 6)).astype(np.float32)


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=() if what in EACH_RUN else pytest.mark.slow) for what in CHANGED],
)
def test_one_change_is_named(what: str, example: np.ndarray[Any, Any]) -> None:
    one, two, words = CHANGED[what]
    found = cause(Mixer(one, two), example)
    assert found is not None
    assert found.sure
    assert re.search(words, found.lines[0]), found.lines


@pytest.mark.slow
def test_equal_graphs_have_no_cause(example: np.ndarray[Any, Any]) -> None:
    turned = Mixer(lambda s: torch.softmax((s / 2).masked_fill(torch.ones(5, 5).triu(1) > 0, -1e9), 2), after)
    assert cause(turned, example) is None


@pytest.mark.slow
def test_where_two_changes_meet_the_place_is_named(example: np.ndarray[Any, Any]) -> None:
    found = cause(
        Mixer(lambda s: torch.softmax(s * 0.3 + s.sin(), 1), lambda y, x: torch.relu(y * x)[:, 1:4]), example
    )
    assert found is not None
    assert not found.sure
    assert "values agree up to" in found.lines[0]


def test_the_cause_is_in_the_refusal(example: np.ndarray[Any, Any]) -> None:
    schema, evidence = xbackend_fl.describe_reference(Mixer(*REFERENCE), (example,))
    with pytest.raises(MismatchError, match="axis is -1 in the reference, -2 in the candidate"):
        xbackend_fl.bind(Mixer(lambda s: scores(s, axis=1), after), schema, (example,), evidence)


class Floored(nn.Module):
    """A norm by hand behind an operation without a canonical form."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.layer, self.epsilon = nn.Linear(6, 6), epsilon

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return torch.digamma(1 + y.square()) * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.epsilon)


@pytest.mark.slow
def test_numbers_speak_where_graphs_cannot_run(example: np.ndarray[Any, Any]) -> None:
    schema = xbackend_fl.describe(Floored(1e-5), (example,))
    trainer = adapter_of(changed := Floored(1e-4)).load_model(changed, (example,))
    assert schema.opaque
    found = cause_of(schema, trainer, (example,), None, None)
    assert found is not None
    assert re.search("epsilon is 1e-05 .* in the reference alone, and 0.0001", found.lines[0])


def picked(y: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(y)[:, 0] + x[:, -1] * 0.1


def weighed(y: Tensor, x: Tensor, *, again: bool = True, gated: bool = True, hops: int = 2) -> Tensor:
    w = torch.relu(y + 1)
    w = w / (w.sum(-1, keepdim=True) + 1) if again else w
    for _ in range(hops):
        w = w + torch.sin(w @ x.transpose(1, 2)) @ x
    return w * torch.sigmoid(20 + w) if gated else w


BRANCHES: dict[str, tuple[Any, Any, str]] = {
    "pick": (picked, lambda y, x: torch.sigmoid(y)[:, 0] + x[:, -1] * 0.1, r"Tanh in the reference, Sigmoid"),
    "another pick": (picked, lambda y, x: torch.tanh(y)[:, -1] + x[:, -1] * 0.1, r"index is 0 in the reference, -1"),
    "not normalised again": (weighed, lambda y, x: weighed(y, x, again=False), r"^Div .* missing in the candidate"),
    "one hop": (weighed, lambda y, x: weighed(y, x, hops=1), r"^Add .*, with MatMul .*Sin .*: missing in the candidate"),
    "another branch": (
        lambda y, x: torch.tanh(y) * x.exp().mean(-1, keepdim=True),
        lambda y, x: torch.tanh(y) * x.square().amax(-1, keepdim=True),
        r"^in front of .*: reference has Exp .*ReduceMean .*, candidate has .*Pow .*ReduceMax",
    ),
}  # fmt: skip

QUICK_BRANCHES = {"pick", "another branch"}


@pytest.mark.parametrize(
    "what", [pytest.param(w, marks=() if w in QUICK_BRANCHES else pytest.mark.slow) for w in BRANCHES]
)
def test_a_branch_that_differs_is_named(what: str, example: np.ndarray[Any, Any]) -> None:
    one, two, words = BRANCHES[what]
    schema = xbackend_fl.describe(Mixer(scores, one), (example,))
    changed = Mixer(scores, two)
    found = cause_of(schema, adapter_of(changed).load_model(changed, (example,)), (example,), None, None)
    assert found is not None
    assert found.sure, found.lines
    assert re.search(words, found.lines[0]), found.lines


@pytest.mark.slow
def test_a_gate_that_is_open_everywhere_is_missing_and_no_other_activation(
    example: np.ndarray[Any, Any],
) -> None:
    schema = xbackend_fl.describe(Mixer(scores, weighed), (example,))
    changed = Mixer(scores, lambda y, x: 0.5 * weighed(y, x, gated=False))
    found = cause_of(schema, adapter_of(changed).load_model(changed, (example,)), (example,), None, None)
    assert found is not None
    assert "Sign" not in found.lines[0]


@pytest.mark.slow
def test_a_branch_with_weights_of_its_own_is_missing(example: np.ndarray[Any, Any]) -> None:
    gated = Lambda(lambda m, x: m.out(torch.relu(m.a(x)) * torch.sigmoid(m.gate(x))), a=nn.Linear(6, 5), gate=nn.Linear(6, 5), out=nn.Linear(5, 3))  # fmt: skip
    plain = Lambda(lambda m, x: m.out(torch.relu(m.a(x))), a=nn.Linear(6, 5), out=nn.Linear(5, 3))
    schema = xbackend_fl.describe(gated, (example,))
    found = cause_of(schema, adapter_of(plain).load_model(plain, (example,)), (example,), None, None)
    assert found is not None
    assert found.sure
    assert re.search("Mul .* missing in the candidate", found.lines[0]), found.lines


def tied(activation: Any, turned: Any) -> Lambda:
    return Lambda(
        lambda m, x: nn.functional.linear(activation(m.a(x)), turned(m.a.weight)), a=nn.Linear(6, 6)
    )


def test_what_only_symmetric_weights_forgive_is_no_cause(example: np.ndarray[Any, Any]) -> None:
    schema = xbackend_fl.describe(tied(torch.tanh, torch.t), (example,))
    for turned, alone in ((torch.t, True), (torch.clone, False)):
        changed = tied(torch.sigmoid, turned)
        found = cause_of(schema, adapter_of(changed).load_model(changed, (example,)), (example,), None, None)
        assert found is not None
        # Two reads of one matrix: with the other activation alone, they are no pair of its transposes.
        assert ("MatMul" not in found.lines[0]) is alone, found.lines


def test_axes_that_are_turned_are_named_and_not_what_reads_them(example: np.ndarray[Any, Any]) -> None:
    def first(*, turned: bool) -> Lambda:
        def forward(m: Any, x: Tensor) -> Tensor:
            y = torch.relu(m.a(x))
            return m.o((y.mT if turned else y).reshape(len(x), -1)[:, :10])

        return Lambda(forward, a=nn.Linear(6, 5), o=nn.Linear(10, 3))

    schema = xbackend_fl.describe(first(turned=False), (example,))
    changed = first(turned=True)
    found = cause_of(schema, adapter_of(changed).load_model(changed, (example,)), (example,), None, None)
    assert found is not None
    assert "Transpose" in found.lines[0], found.lines
    assert "Slice" not in found.lines[0], found.lines
