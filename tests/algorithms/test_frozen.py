"""Frozen parameters: against requires_grad and trainable of the frameworks, in courses, on the wire."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch import nn

import xbfl_tensorflow
import xbfl_torch
from tests.algorithms.smooth import NAMES, course_of
from tests.algorithms.test_federation import Seen
from tests.federation.conftest import files_of  # noqa: F401  a fixture
from tests.federation.links import deployed
from xbackend_fl import Course, run_course
from xbackend_fl.adapter import OPTIMIZERS, Batch, TrainConfig
from xbackend_fl.errors import ConfigError
from xbackend_fl.federation import Silo
from xbackend_fl.federation.protocol.message import Message
from xbackend_fl.losses.kinds.mean_squared_error import MeanSquaredError

DRAW = np.random.default_rng(0)
BATCHES = [
    Batch((DRAW.standard_normal((8, 4), np.float32),), DRAW.standard_normal((8, 2), np.float32))
    for _ in range(3)
]
EXAMPLE = (np.zeros((1, 4), np.float32),)
RULE = OPTIMIZERS["momentum"](lr=0.2, weight_decay=0.01)
LAYER = frozenset({"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"})


@pytest.mark.parametrize(
    "frozen", [LAYER, frozenset({"0.weight", "1.bias"}), frozenset({"1.running_mean", "1.running_var"})]
)
def test_pytorch_trains_so_without_gradients(frozen: frozenset[str]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))
    theirs = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))
    theirs.load_state_dict(model.state_dict())
    trainer: Any = xbfl_torch.adapter.load_model(model, EXAMPLE)
    before = trainer.read()
    trainer.train(BATCHES, TrainConfig(RULE, MeanSquaredError(), clip_norm=0.3, frozen=frozen))
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_(name not in frozen)
    theirs[1].train("1.running_mean" not in frozen)
    moving = [p for p in theirs.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(moving, 0.2, momentum=0.9, weight_decay=0.01)
    for batch in BATCHES:
        optimizer.zero_grad()
        nn.functional.mse_loss(theirs(torch.tensor(batch.inputs[0])), torch.tensor(batch.targets)).backward()
        nn.utils.clip_grad_norm_(moving, 0.3)
        optimizer.step()
    found, expected = trainer.read(), theirs.state_dict()
    for name in before:
        if name in frozen:
            assert (found[name] == before[name]).all(), name
        elif name == "1.running_var":
            assert (found[name] != before[name]).all()  # ONNX's variance is the biased one
        elif "num_batches" not in name:
            np.testing.assert_allclose(found[name], expected[name].numpy(), rtol=0, atol=1e-6)
            assert (found[name] != before[name]).any(), name


@pytest.mark.parametrize("whole", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_keras_trains_so_with_layers_that_are_not_trainable(whole: bool) -> None:  # noqa: FBT001  a row
    def build() -> keras.Sequential:
        keras.utils.set_random_seed(0)
        return keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(6, name="first"), keras.layers.BatchNormalization(name="norm"),
             keras.layers.Activation("tanh"), keras.layers.Dense(2, name="last")]
        )  # fmt: skip

    theirs = build()
    for name in ("first", "norm") if whole else ("first",):
        theirs.get_layer(name).trainable = False
    theirs.compile(keras.optimizers.SGD(0.2, momentum=0.9, global_clipnorm=0.3), "mse")
    trainer: Any = xbfl_tensorflow.adapter.load_model(build(), EXAMPLE)
    before = trainer.read()
    frozen = frozenset(n for n in before if "/first/" in n or (whole and "/norm/" in n))
    rule = OPTIMIZERS["momentum"](lr=0.2)
    trainer.train(BATCHES, TrainConfig(rule, MeanSquaredError(), clip_norm=0.3, frozen=frozen))
    for batch in BATCHES:
        theirs.train_on_batch(batch.inputs[0], batch.targets)
    found = trainer.read()
    expected = {variable.path.split("/", 1)[1]: variable.numpy() for variable in theirs.variables}
    assert len(frozen) == (6 if whole else 2)
    for name in before:
        if name in frozen:
            assert (found[name] == before[name]).all(), name
        elif "moving" not in name:
            np.testing.assert_allclose(found[name], expected[name.split("/", 1)[1]], rtol=0, atol=1e-5)
            assert (found[name] != before[name]).any(), name
    # A graph that was traced for other parameters serves no others.
    trainer.train(BATCHES, TrainConfig(rule, MeanSquaredError(), clip_norm=0.3))
    assert all((trainer.read()[name] != before[name]).any() for name in frozen if "moving" not in name)


def test_they_cross_once_and_never_move(tmp_path: Path, files_of: Callable[[Course], Path]) -> None:  # noqa: F811
    settings = ("federate.frozen=[norm, hidden.weight]", "federate.precision=exact", "training.steps=4")
    course = course_of(tmp_path / "course", ["torch"], *settings, norm=True, rounds=3)
    run = run_course(course, tmp_path / "run", in_process=True)
    data = files_of(course)
    silos = [Silo.from_course(course, n, data / f"{n}.npz", out=tmp_path / n) for n in NAMES]
    link = Counted(silos)
    real, _ = deployed(course, link, tmp_path / "deployed")
    assert real.weights.digest == run.weights.digest
    names = {"hidden.weight", *(name for name in run.weights if name.startswith("norm."))}
    assert {f"frozen/{name}" for name in names} <= link.names["bind"]
    for kind in ("train", "trained", "evaluate", "save"):
        assert not names & link.names[kind], kind
    assert link.kinds.count("bind") == len(NAMES)
    assert (run.weights["norm.weight"] == 1).all()
    assert (run.weights["norm.mean"] == 0).all()
    first = silos[0]._initial
    assert first is not None
    assert (run.weights["hidden.weight"] == first["hidden.weight"]).all()
    assert (run.weights["out.weight"] != first["out.weight"]).any()


@pytest.mark.slow
def test_a_silo_that_has_others_gets_them_again(tmp_path: Path, files_of: Callable[[Course], Path]) -> None:  # noqa: F811
    course = course_of(
        tmp_path / "course", ["torch"], "federate.frozen=[hidden.*]", "federate.precision=exact", rounds=2
    )
    data = files_of(course)
    silos = [Silo.from_course(course, n, data / f"{n}.npz", out=tmp_path / n) for n in NAMES]
    whole, _ = deployed(course, Counted(silos), tmp_path / "whole")
    again = [Silo.from_course(course, n, data / f"{n}.npz", out=tmp_path / f"{n}-again") for n in NAMES]
    link = Forgetful(again)
    real, _ = deployed(course, link, tmp_path / "real")
    assert link.kinds.count("bind") == len(NAMES) + 1
    assert real.weights.digest == whole.weights.digest


@pytest.mark.parametrize(
    ("frozen", "words"),
    {
        "[nothing.*]": "federate.frozen: 'nothing.*' chooses no parameter",
        "['*']": "everything that trains is frozen",
        "[norm.mean]": "of the statistics of 'norm', 'norm.mean' is frozen and 'norm.variance' is not",
        "[norm], federate.local: [norm]": "are local too",
        "['hidden.*', 'norm.*'], federate.local: ['out.*']": "leave nothing to train together",
    }.items(),
)
def test_what_cannot_be_frozen_is_refused(frozen: str, words: str, tmp_path: Path) -> None:
    settings = [
        part if "=" in part else f"federate.frozen={part}"
        for part in frozen.replace(", federate.local: ", "|federate.local=").split("|")
    ]
    course = course_of(tmp_path / "course", ["torch"], *settings, norm=True, rounds=1)
    with pytest.raises(ConfigError) as caught:
        run_course(course, tmp_path / "run", in_process=True)
    assert words in caught.value.message


class Counted(Seen):
    """Remembers every request."""

    def __init__(self, silos: list[Silo]) -> None:
        super().__init__(silos)
        self.kinds: list[str] = []

    def _see(self, message: Message) -> None:
        self.kinds.append(message.kind)
        super()._see(message)


class Forgetful(Counted):
    """One silo has lost what is frozen when it is asked to train first."""

    def __init__(self, silos: list[Silo]) -> None:
        super().__init__(silos)
        self._first = silos[0]

    def _see(self, message: Message) -> None:
        if message.kind == "train" and "train" not in self.kinds:
            self._first._frozen, self._first._frozen_digest = {}, ""
        super()._see(message)
