"""Sections that name one of a registry: messages keep the key, say what was received, and name a cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbackend_fl import load_course
from xbackend_fl.errors import ConfigError

pytestmark = pytest.mark.quick

COURSE = """\
name: small
rounds: 1
models: {torch: "net.py:build"}
input: ["1,4"]
data: {source: "data.py:load"}
participants: [{name: a, backend: torch}, {name: b, backend: torch}, {name: c, backend: torch}]
"""
SAID = {
    "federate.algorithm={name: fedprox, nu: 1}": ("unknown key `federate.algorithm.nu`", "fedprox has mu"),
    "federate.algorithm={mu: 1}": ("`federate.algorithm` has no name; there are fedavg", "algorithm: {name: fedavg}"),
    "federate.algorithm={name: [a]}": ("`federate.algorithm` is ", "; there are fedavg"),
    "federate.algorithm={name: fedprox, mu: true}": ("`federate.algorithm.mu`: input is a switch, and this is none, got True",),
    "federate.algorithm={name: fedprox, mu: .nan}": ("`federate.algorithm.mu`: input should be", "got nan"),
    "federate.algorithm={name: fedprox, mu: 1e-60}": ("`federate.algorithm.mu`: input should be a number for float32", "there 1e-60 is 0"),
    "federate.algorithm={name: fedprox, mu: -1}": ("`federate.algorithm.mu`: input should be greater than or equal to 0, got -1",),
    "federate.algorithm=3": ("`federate.algorithm`: ", "got 3"),
    "federate.aggregator={name: median, count: 3}": ("unknown key `federate.aggregator.count`",),
    "federate.aggregator=media": ("`federate.aggregator` is 'media'; there are", "did you mean `median`?"),
    "training.loss={name: cross_entropy, foo: 2}": ("unknown key `training.loss.foo`",),
    "training.loss={name: huber, delta: true}": ("`training.loss.delta`: input is a switch",),
    "training.loss={name: huber, delta: -1}": ("`training.loss.delta`: input should be greater than 0, got -1",),
    "training.optimizer=adan": ("`training.optimizer` is 'adan'; there are adadelta", "did you mean `adam`?"),
    "training.optimizer={name: adan, lr: fast, mass: 1}": ("did you mean `adam`?", "`training.optimizer.lr`: input should be a number", "got 'fast'", "unknown key `training.optimizer.mass`"),
    "training.optimizer={lr: 0}": ("`training.optimizer.lr`: input should be greater than 0, got 0",),
    "training.optimizer={name: sgd, momentum: 0.9}": ("unknown key `training.optimizer.momentum`", "sgd has lr, weight_decay; momentum, nesterov have momentum"),
    "training.optimizer={momentum: 0.9}": ("unknown key `training.optimizer.momentum`", "momentum, nesterov have momentum"),
    "training.optimizer={name: momentum, momentun: 0.9}": ("unknown key `training.optimizer.momentun`", "did you mean `momentum`?"),
    "training.optimizer={name: momentum, momentum: true}": ("`training.optimizer.momentum`: input is a switch",),
    "training.optimizer={name: momentum, momentum: 1}": ("`training.optimizer.momentum`: input should be less than 1, got 1",),
    "training.optimizer={name: adam, beta2: 0.99999999999}": ("`training.optimizer.beta2`: input should be a number for float32", "there 0.99999999999 is 1"),
    "training.optimizer=3": ("`training.optimizer`: ", "got 3"),
    "training.optimizer=": ("`training.optimizer`: ",),
    "participants.0.training={optimizer: {momentum: 0.5}}": ("unknown key `participants.0.training.optimizer.momentum`", "sgd has lr"),
    "participants.0.training={optimizer: {lr: 0}}": ("`participants.0.training.optimizer.lr`: input should be greater than 0, got 0",),
    "participants.0.training={optimizer: {name: adan}}": ("`participants.0.training.optimizer.name`", "did you mean `adam`?"),
    "participants.0.training={optimizer: {lrr: 1}}": ("unknown key `participants.0.training.optimizer.lrr`", "did you mean `lr`?"),
    "federate.server=fedadan": ("`federate.server` is 'fedadan'; there are fedadagrad", "did you mean `fedadam`?"),
    "federate.server={name: fedavg, tau: 0.1}": ("unknown key `federate.server.tau`", "fedavg has lr; fedadagrad, fedadam, fedyogi have tau"),
    "federate.server={lr: true}": ("`federate.server.lr`: input is a switch",),
    "federate.server={name: fedavgm, momentum: 1}": ("`federate.server.momentum`: input should be less than 1, got 1",),
    "data.partition={kind: dirichlett, alpha: -1}": ("`data.partition` is 'dirichlett'; there are by_id", "did you mean `dirichlet`?", "`data.partition.alpha`: input should be greater than 0, got -1"),
    "data.partition={alpha: 0.1}": ("unknown key `data.partition.alpha`", "iid has nothing but its kind; dirichlet, quantity_dirichlet have alpha"),
    "data.partition={kind: quantity, sigma: 51}": ("`data.partition.sigma`: input should be less than or equal to 50, got 51",),
    "data.partition={kind: dirichlet, min_examples: true}": ("`data.partition.min_examples`: input is a switch",),
    "training.schedule={name: step, every: true}": ("`training.schedule.every`: input is a switch",),
    "training.schedule={name: step, evry: 3}": ("unknown key `training.schedule.evry`", "did you mean `every`?"),
    "evaluation.metrics=[{name: top_k, k: true}]": ("`evaluation.metrics.0.k`: input is a switch",),
    "evaluation.metrics=[{name: top_k, q: 5}]": ("unknown key `evaluation.metrics.q`",),
    "evaluation.metrics=[{k: 5}]": ("`evaluation.metrics.0` has no name; there are",),
}  # fmt: skip


@pytest.mark.parametrize("setting", SAID)
def test_the_key_and_what_was_received_are_said(setting: str, tmp_path: Path) -> None:
    (tmp_path / "course.yaml").write_text(COURSE)
    with pytest.raises(ConfigError) as caught:
        load_course(tmp_path / "course.yaml", [setting])
    for words in SAID[setting]:
        assert words in str(caught.value)
    assert f"--set {setting}"[:30] in str(caught.value)
