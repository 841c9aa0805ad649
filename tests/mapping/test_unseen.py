"""No parameter is paired by name or order alone: what normal numbers hide, other data shows, or the map is not proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from keras import ops
from torch import nn

import xbackend_fl
from tests.mapping.masked import MASKED, Masked, Written, dense, linear, normal
from tests.networks.catalogue import NETWORKS
from xbackend_fl.adapter import adapter_of
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.cli.mapping import map_models
from xbackend_fl.errors import RefusedInput, UnprovenError
from xbackend_fl.mapping import evidence_of
from xbackend_fl.mapping.align.structure import find_binding
from xbackend_fl.mapping.proof.prove import prove


def moved_over(pair: Masked, left: nn.Module, right: keras.Model) -> tuple[xbackend_fl.BoundModel, float]:
    """Map, carry random weights over, and run both frameworks on data as it is in use."""
    schema, evidence = xbackend_fl.describe_reference(left, pair.example)
    bound = xbackend_fl.bind(right, schema, pair.example, evidence)
    bound.write(xbackend_fl.bind(left, schema, pair.example, evidence).read())
    return bound, difference(pair, left, right)


def difference(pair: Masked, left: nn.Module, right: keras.Model) -> float:
    """How far both frameworks differ on data as it is in use, relatively."""
    with torch.no_grad():
        expected = left(*map(torch.from_numpy, pair.real)).numpy()
    received = np.asarray(right([*pair.real]))
    return float(np.abs(received - expected).max() / np.abs(expected).max())


@pytest.mark.one_in(6)
@pytest.mark.parametrize("pair", MASKED, ids=lambda pair: pair.name)
def test_layers_behind_a_mask_are_paired_by_what_they_do(pair: Masked) -> None:
    torch.manual_seed(0)
    bound, error = moved_over(pair, pair.torch(), pair.keras())
    assert bound.proof.proven
    assert error < 1e-5


def test_frozen_look_alikes_behind_a_mask_are_never_swapped() -> None:
    pair = MASKED[0]
    left, right = pair.torch(), pair.keras()
    left.requires_grad_(requires_grad=False)
    left.layers["project"].requires_grad_(requires_grad=True)  # type: ignore[index,union-attr]
    for layer in right.layers:
        layer.trainable = layer.count_params() == 48
    try:
        _, error = moved_over(pair, left, right)
    except RefusedInput:
        return
    assert error < 1e-5


def test_a_swapped_pair_behind_a_mask_is_refuted() -> None:
    pair = MASKED[0]
    left, right = (adapter_of(m).load_model(m, pair.example) for m in (pair.torch(), pair.keras()))
    schema, evidence = left.description.schema, evidence_of(left, pair.example)
    binding, _ = find_binding(schema, right.description)
    names = [name for name in binding.parameters if "left" in name or "right" in name]
    swapped = dict(zip(names, (binding.parameters[name] for name in reversed(names)), strict=True))
    wrong = replace(binding, parameters={**binding.parameters, **swapped})
    proven = [
        prove(CanonicalModel(schema, b, right), pair.example, evidence).proven for b in (binding, wrong)
    ]
    assert sorted(proven) == [False, True]


def test_a_square_weight_the_other_way_round_is_turned_behind_a_mask() -> None:
    def written(layers: Any, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        h = layers["project"](x)
        return ((layers["square"](h) @ h.transpose(1, 2)) + (a - 1) * 1e9).softmax(-1) @ h

    def native() -> keras.Model:
        x, a = keras.Input((5, 8)), keras.Input((5, 5))
        h = dense(6)(x)
        scores = ops.matmul(h, ops.transpose(dense(6)(h), (0, 2, 1)))
        return keras.Model([x, a], ops.matmul(K.Softmax()(scores + (a - 1) * 1e9), h))

    example = (normal(1, 5, 8), normal(1, 5, 5))
    left = Written(written, project=linear(8, 6), square=linear(6, 6))
    schema, evidence = xbackend_fl.describe_reference(left, example)
    candidate = native()
    bound = xbackend_fl.bind(candidate, schema, example, evidence)
    bound.write(xbackend_fl.bind(left, schema, example, evidence).read())
    x, a = normal(3, 5, 8), (normal(3, 5, 5) > 0).astype(np.float32)
    with torch.no_grad():
        expected = left(torch.from_numpy(x), torch.from_numpy(a)).numpy()
    np.testing.assert_allclose(candidate([x, a]), expected, rtol=1e-4, atol=1e-5)


def gated(threshold: float) -> Masked:
    """Two layers of one shape that count only where the second input is above a threshold."""

    def written(layers: Any, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        open_ = torch.relu(gate - threshold)
        return layers["head"](torch.tanh(x)) + open_ * torch.tanh(layers["one"](x)) * layers["two"](x)

    def native() -> keras.Model:
        x, gate = keras.Input((6,)), keras.Input((1,))
        two, one = dense(3), dense(3)
        return keras.Model(
            [x, gate], dense(3)(ops.tanh(x)) + ops.relu(gate - threshold) * (ops.tanh(one(x)) * two(x))
        )

    layers: Callable[[], Any] = lambda: {name: linear(6, 3) for name in ("head", "one", "two")}  # noqa: E731
    example = (normal(1, 6), normal(1, 1))
    return Masked(
        "gated",
        lambda: Written(written, **layers()),
        native,
        example,
        (normal(4, 6), np.full((4, 1), 2 * threshold, np.float32)),
    )


def test_what_no_draw_sees_is_unproven_and_real_data_is_the_cure() -> None:
    pair = gated(1e12)
    with pytest.raises(UnprovenError, match=r"layers\.one\.weight.*\n.*layers\.two\.weight") as caught:
        moved_over(pair, pair.torch(), pair.keras())
    assert caught.value.exit_code == 1
    assert "npy" in str(caught.value.hint)
    bound, error = moved_over(
        replace(pair, example=tuple(a[:1] for a in pair.real)), pair.torch(), pair.keras()
    )
    assert bound.proof.proven
    assert error < 1e-5


def test_without_evidence_from_the_reference_nothing_unseen_is_proven_either() -> None:
    pair = gated(1e12)
    schema = xbackend_fl.describe(pair.torch(), pair.example)
    with pytest.raises(UnprovenError):
        xbackend_fl.bind(pair.keras(), schema, pair.example)


def test_without_evidence_look_alikes_are_paired_by_how_outputs_move() -> None:
    pair = MASKED[0]
    left, right = pair.torch(), pair.keras()
    schema = xbackend_fl.describe(left, pair.example)
    bound = xbackend_fl.bind(right, schema, pair.example)
    bound.write(xbackend_fl.bind(left, schema, pair.example).read())
    assert difference(pair, left, right) < 1e-5


@pytest.mark.slow
def test_a_bias_that_cancels_is_said_as_it_is() -> None:
    network = next(network for network in NETWORKS if network.name == "transformer encoder")
    example, left = network.example(), network.torch()
    schema, evidence = xbackend_fl.describe_reference(left, example)
    notes = xbackend_fl.bind(network.tensorflow(), schema, example, evidence).proof.notes
    assert not any("any value is as good" in note for note in notes)
    said = [note for note in notes if "bias move an output; its place follows from" in note]
    assert len(said) == len([note for note in notes if "no draw saw" in note]) > 0


def test_a_gradient_that_is_stopped_is_no_output_that_stands_still() -> None:
    def written(layers: Any, x: torch.Tensor) -> torch.Tensor:
        return layers["head"](x) + torch.tanh(layers["frozen"](x)).detach()

    left = Written(written, head=linear(6, 3), frozen=nn.Linear(6, 3))
    example = (normal(1, 6),)
    x = keras.Input((6,))
    right = keras.Model(x, dense(3)(x) + ops.stop_gradient(ops.tanh(K.Dense(3)(x))))
    schema, evidence = xbackend_fl.describe_reference(left, example)
    notes = xbackend_fl.bind(right, schema, example, evidence).proof.notes
    assert not any("move an output" in note for note in notes)
    for name in ("layers.frozen.weight", "layers.frozen.bias"):
        wanted = f"the gradient of {name} is zero, or rounding, in every draw; outputs move with it"
        assert any(note.startswith(wanted) for note in notes)


def test_the_command_says_what_is_unproven_and_takes_data_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models.py").write_text(
        "from tests.mapping.test_unseen import gated\nleft, right = gated(1e12).torch, gated(1e12).keras\n"
    )
    for place, array in enumerate(gated(1e12).real):
        np.save(tmp_path / f"{place}.npy", array[:1])
    monkeypatch.chdir(tmp_path)
    models = ("torch:models.py:left", "tensorflow:models.py:right")
    with pytest.raises(UnprovenError, match=r"layers\.one\.weight"):
        map_models(*models, inputs=["1,6", "1,1"])
    map_models(*models, inputs=["0.npy", "1.npy"])
    assert "proven" in capsys.readouterr().out
