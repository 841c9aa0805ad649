"""Tests of one trainer; subclass :class:`TrainerConformance` in a pytest module and fill in two methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl import weights
from xbackend_fl.adapter import OPTIMIZERS, Batch, HeadConfig, Optimizer, TrainConfig, Trainer, TrainsHeads
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.contract import LossSum
from xbackend_fl.adapter.optimizers.kinds.adam import Adam
from xbackend_fl.adapter.optimizers.kinds.sgd import SGD
from xbackend_fl.canonical import Kind
from xbackend_fl.losses import joined
from xbackend_fl.losses.kinds.mean_squared_error import MeanSquaredError
from xbackend_fl.mapping.names import naming
from xbackend_fl.mapping.probe.cases import cases
from xbackend_fl.mapping.probe.draw import draw_inputs, draw_weights
from xbackend_fl.mapping.probe.runtime import execute
from xbackend_fl.mapping.proof.verify import TOLERANCE, relative_error
from xbackend_fl.testing.formulas import descend

Array = NDArray[Any]
Arrays = Mapping[str, Array]


class TrainerConformance:
    """Inherit, implement :meth:`load_model` and :meth:`example`, and run pytest.

    For example::

    class TestMine(TrainerConformance):
        def example(self):
            return (np.zeros((1, 3, 8, 8), np.float32),)

        def load_model(self):
            return MyTrainer(my_model(), self.example())

    The model takes float inputs, returns one float output, and trains at least one parameter.
    """

    def load_model(self) -> Trainer:
        """A fresh trainer."""
        raise AssertionError("implement load_model()")

    def example(self) -> tuple[Array, ...]:
        """One array per input, in ONNX layout."""
        raise AssertionError("implement example()")

    def test_is_a_trainer(self) -> None:
        """Every method of the contract is there."""
        assert isinstance(self.load_model(), Trainer)

    def test_reads_what_was_written(self) -> None:
        """Importing canonical weights and exporting them again changes no bit."""
        model = CanonicalModel.described(self.load_model())
        weights = draw_weights(model.schema, 0)
        model.write(weights)
        again = model.read()
        for name, array in weights.items():
            np.testing.assert_array_equal(again[name], array, err_msg=name)

    def test_files_hold_every_shared_tensor(self, tmp_path: Path) -> None:
        """Each of the framework's own formats is read back, and ``xbfl convert`` finds every tensor in it."""
        model = CanonicalModel.described(self.load_model())
        model.write(draw_weights(model.schema, 3))
        trainer, before = model.trainer, model.trainer.read()
        for file_format in trainer.formats:
            path = trainer.save(tmp_path / file_format, file_format)
            archive = weights.open_weights(path, file_format)
            for native, name in naming(archive, model.binding, trainer, file_format).items():
                np.testing.assert_array_equal(archive[name], before[native], err_msg=f"{file_format}: {name}")

    def test_outputs_are_those_of_onnx_runtime(self) -> None:
        """The described graph computes what the model computes."""
        model = CanonicalModel.described(self.load_model())
        for case in cases(model.schema, self.example())[:1]:
            weights = draw_weights(model.schema, case.seed)
            model.write(weights)
            answers = execute(model.schema, weights, case.inputs)
            for received, expected in zip(model.forward(case.inputs), answers, strict=True):
                assert relative_error(received, expected) <= TOLERANCE

    def test_evaluation_changes_nothing(self) -> None:
        """Forward, gradients and evaluation leave every tensor as it was."""
        model, batch = self._drawn()
        before = model.trainer.read()
        (output,) = model.forward(batch.inputs)
        model.gradients(batch.inputs, [np.ones_like(output)])
        list(model.predict([batch.inputs]))
        for name, array in model.trainer.read().items():
            np.testing.assert_array_equal(array, before[name], err_msg=name)

    def test_gradients_predict_the_change(self) -> None:
        """A small step along the gradient changes the output by the squared norm (first order)."""
        model, batch = self._drawn()
        start = model.read()
        (output,) = model.forward(batch.inputs)
        weight = np.random.default_rng(0).standard_normal(output.shape).astype(np.float32)
        grads = model.gradients(batch.inputs, [weight])
        squared = sum(float((g.astype(np.float64) ** 2).sum()) for g in grads.values())
        size = 1e-3 / np.sqrt(squared)

        def value(step: float) -> float:
            moved = {name: (start[name] + step * grad).astype(np.float32) for name, grad in grads.items()}
            model.write(start | moved)
            return float((model.forward(batch.inputs)[0].astype(np.float64) * weight).sum())

        measured = (value(size) - value(-size)) / (2 * size)
        assert abs(measured - squared) <= 0.05 * squared

    def test_training_follows_the_slope_of_its_loss(self) -> None:
        """The loss that training reports falls along the step that it makes, as fast as the step is long (first order)."""
        model, batch = self._drawn()
        start = model.read()
        gradient = self._gradient(model, batch, start, {})
        squared = sum(float((g**2).sum()) for g in gradient.values())
        size = 1e-3 / np.sqrt(squared)

        def value(step: float) -> float:
            moved = {name: (start[name] + step * g).astype(np.float32) for name, g in gradient.items()}
            return self._train(model, [batch], start | moved, SGD(lr=0.0)).mean

        measured = (value(size) - value(-size)) / (2 * size)
        assert abs(measured - squared) <= 0.05 * squared

    def test_one_step_is_the_formula(self) -> None:
        """Two steps of every optimizer, with weight decay and with clipping, are the formulas in float64."""
        model, batch = self._drawn()
        start = model.read()
        slope = self._gradient(model, batch, start, {})
        norm = float(np.sqrt(sum(float((g**2).sum()) for g in slope.values())))
        before = {name: start[name] for name in slope}
        rules = [_made(kind, lr=0.05, eps=0.1 * norm, weight_decay=0.1) for kind in OPTIMIZERS.values()]
        for rule, limit in [*((rule, None) for rule in rules), (SGD(lr=0.05), 0.5 * norm)]:
            expected = descend(rule, before, partial(self._gradient, model, batch, start), 2, limit)
            trained = self._train(model, [batch, batch], start, rule, limit)
            assert trained.positions == 2 * batch.targets.size
            after = model.read()
            # A step of Adam is as long for every element; those of one parameter are compared with its longest.
            for name, value in expected.items():
                longest = float(np.abs(value - before[name]).max())
                error = float(np.abs(after[name] - value).max())
                assert error <= 1e-3 * longest + 1e-6, f"{rule.name}, clip_norm {limit}: {name}"

    def test_several_losses_are_their_weighted_sum(self) -> None:
        """Two losses of one output, with a quarter and three quarters of the weight, step as one whose targets lie between theirs."""
        model, batch = self._drawn()
        if not isinstance(model.trainer, TrainsHeads) or model.trainer.trains_heads():
            return
        start, loss = model.read(), MeanSquaredError()
        gradient = self._gradient(model, batch, start, {})
        far = batch.targets + 4
        heads = HeadConfig("near", 0, loss, 0.25), HeadConfig("far", 0, loss, 0.75)
        model.reset(0)
        model.write(start)
        both = Batch(batch.inputs, joined({"near": batch.targets, "far": far}))
        trained = model.train([both], TrainConfig(SGD(lr=1024.0), heads=heads, dropout=False))
        assert trained.positions == 2 * batch.targets.size
        after = model.read()
        between = self._gradient(model, Batch(batch.inputs, batch.targets + 3), start, {})
        assert any(np.abs(between[name] - slope).max() > 1e-3 for name, slope in gradient.items())
        for name, slope in between.items():
            stepped = (start[name].astype(np.float64) - after[name]) / 1024.0
            assert np.abs(stepped - slope).max() <= 1e-3 * np.abs(slope).max() + 1e-6, name

    def test_reset_makes_training_repeatable(self) -> None:
        """After a reset, the same weights and batches give the same bits; nothing of the last run is left."""
        model, batch = self._drawn()
        start = model.read()
        config = TrainConfig(Adam(lr=1e-2), loss=MeanSquaredError())
        results = []
        for _ in range(2):
            model.reset(3)
            model.write(start)
            model.train([batch] * 3, config)
            results.append(model.trainer.read())
        for name, array in results[0].items():
            np.testing.assert_array_equal(array, results[1][name], err_msg=name)

    @staticmethod
    def _train(
        model: CanonicalModel,
        batches: list[Batch],
        weights: Arrays,
        rule: Optimizer,
        limit: float | None = None,
    ) -> LossSum:
        """Train from ``weights`` without dropout."""
        model.reset(0)
        model.write(weights)
        return model.train(
            batches, TrainConfig(rule, loss=MeanSquaredError(), clip_norm=limit, dropout=False)
        )

    def _gradient(
        self, model: CanonicalModel, batch: Batch, start: Arrays, weights: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, NDArray[np.float64]]:
        """What one step of plain SGD follows, by the name of what trains; a long step loses few digits."""
        rate = 1024.0
        at = {**start, **{name: value.astype(np.float32) for name, value in weights.items()}}
        self._train(model, [batch], at, SGD(lr=rate))
        after = model.read()
        moving = [item.name for item in model.schema.parameters if item.kind is Kind.TRAINABLE]
        return {name: (at[name].astype(np.float64) - after[name]) / rate for name in moving}

    def _drawn(self) -> tuple[CanonicalModel, Batch]:
        """A fresh model, and a batch for it in ONNX layout."""
        model = CanonicalModel.described(self.load_model())
        inputs = tuple(draw_inputs(model.schema, [array.shape for array in self.example()], 0))
        (output,) = model.forward(inputs)
        targets = np.random.default_rng(1).standard_normal(output.shape).astype(np.float32)
        return model, Batch(inputs, targets)


def _made(kind: type[Optimizer], **settings: Any) -> Optimizer:
    """An optimizer with those of some settings that it has."""
    own = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in settings.items() if name in own})
