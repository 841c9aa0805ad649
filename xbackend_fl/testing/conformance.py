"""Tests of one trainer; subclass :class:`TrainerConformance` in a pytest module and fill in two methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl import weights
from xbackend_fl.adapter import Batch, Optimizer, TrainConfig, Trainer
from xbackend_fl.convert.names import naming
from xbackend_fl.mapping.cases import cases
from xbackend_fl.mapping.draw import draw_inputs, draw_weights
from xbackend_fl.mapping.runtime import execute
from xbackend_fl.mapping.verify import TOLERANCE, relative_error

Array = NDArray[Any]


class TrainerConformance:
    """Inherit, implement :meth:`open` and :meth:`example`, and run pytest.

    For example::

    class TestMine(TrainerConformance):
        def example(self):
            return (np.zeros((1, 3, 8, 8), np.float32),)

        def open(self):
            return MyTrainer(my_model(), self.example())

    The model takes float inputs, returns one float output, and trains at least one parameter.
    """

    def open(self) -> Trainer:
        """A fresh trainer."""
        raise AssertionError("implement open()")

    def example(self) -> tuple[Array, ...]:
        """One array per input, in ONNX layout."""
        raise AssertionError("implement example()")

    def test_is_a_trainer(self) -> None:
        """Every method of the contract is there."""
        assert isinstance(self.open(), Trainer)

    def test_reads_what_was_written(self) -> None:
        """Importing canonical weights and exporting them again changes no bit."""
        trainer = self.open()
        binding, schema = trainer.description.binding, trainer.description.schema
        weights = draw_weights(schema, 0)
        trainer.write(binding.restore(weights))
        again = binding.export(trainer.read())
        for name, array in weights.items():
            np.testing.assert_array_equal(again[name], array, err_msg=name)

    def test_files_hold_every_shared_tensor(self, tmp_path: Path) -> None:
        """Each of the framework's own formats is read back, and ``xbfl convert`` finds every tensor in it."""
        trainer = self.open()
        binding = trainer.description.binding
        trainer.write(binding.restore(draw_weights(trainer.description.schema, 3)))
        before = trainer.read()
        for file_format in trainer.formats:
            path = trainer.save(tmp_path / file_format, file_format)
            archive = weights.open(path, file_format)
            for native, name in naming(archive, binding, trainer, file_format).items():
                np.testing.assert_array_equal(archive[name], before[native], err_msg=f"{file_format}: {name}")

    def test_outputs_are_those_of_onnx_runtime(self) -> None:
        """The described graph computes what the model computes."""
        trainer = self.open()
        binding, schema = trainer.description.binding, trainer.description.schema
        for case in cases(schema, self.example())[:1]:
            weights = draw_weights(schema, case.seed)
            trainer.write(binding.restore(weights))
            inputs = [axes.to_native(a) for axes, a in zip(binding.inputs, case.inputs, strict=True)]
            raw = trainer.forward(inputs)
            outputs = [axes.to_canonical(a) for axes, a in zip(binding.outputs, raw, strict=True)]
            for received, expected in zip(outputs, execute(schema, weights, case.inputs), strict=True):
                assert relative_error(received, expected) <= TOLERANCE

    def test_evaluation_changes_nothing(self) -> None:
        """Forward, gradients and evaluation leave every tensor as it was."""
        trainer, batch = self.open(), self._batch()
        before = trainer.read()
        (output,) = trainer.forward(batch.inputs)
        trainer.gradients(batch.inputs, [np.ones_like(output)])
        list(trainer.predict([batch.inputs]))
        for name, array in trainer.read().items():
            np.testing.assert_array_equal(array, before[name], err_msg=name)

    def test_gradients_predict_the_change(self) -> None:
        """A small step along the gradient changes the output by the squared norm (first order)."""
        trainer, batch = self.open(), self._batch()
        start = trainer.read()
        (output,) = trainer.forward(batch.inputs)
        weight = np.random.default_rng(0).standard_normal(output.shape).astype(np.float32)
        grads = trainer.gradients(batch.inputs, [weight])
        squared = sum(float((g.astype(np.float64) ** 2).sum()) for g in grads.values())
        size = 1e-3 / np.sqrt(squared)

        def value(step: float) -> float:
            trainer.write({name: (start[name] + step * grads[name]).astype(np.float32) for name in grads})
            return float((trainer.forward(batch.inputs)[0].astype(np.float64) * weight).sum())

        measured = (value(size) - value(-size)) / (2 * size)
        assert abs(measured - squared) <= 0.05 * squared

    def test_one_step_is_the_formula(self) -> None:
        """Plain SGD on one batch reduces the loss and moves only what trains."""
        trainer, batch = self.open(), self._batch()
        trainer.reset(0)
        (before,) = trainer.forward(batch.inputs)
        config = TrainConfig(Optimizer("sgd", lr=1e-3), loss="mean_squared_error", dropout=False)
        trained = trainer.train([batch] * 20, config)
        assert trained.positions == 20 * batch.targets.size
        (after,) = trainer.forward(batch.inputs)
        assert np.square(after - batch.targets).mean() < np.square(before - batch.targets).mean()

    def test_reset_makes_training_repeatable(self) -> None:
        """After a reset, the same weights and batches give the same bits; nothing of the last run is left."""
        trainer, batch = self.open(), self._batch()
        start = trainer.read()
        config = TrainConfig(Optimizer("adam", lr=1e-2), loss="mean_squared_error")
        results = []
        for _ in range(2):
            trainer.reset(3)
            trainer.write({name: start[name] for name in trainer.description.binding.owners})
            trainer.train([batch] * 3, config)
            results.append(trainer.read())
        for name, array in results[0].items():
            np.testing.assert_array_equal(array, results[1][name], err_msg=name)

    def _batch(self) -> Batch:
        trainer = self.open()
        binding, schema = trainer.description.binding, trainer.description.schema
        drawn = draw_inputs(schema, [array.shape for array in self.example()], 0)
        inputs = tuple(axes.to_native(a) for axes, a in zip(binding.inputs, drawn, strict=True))
        (output,) = trainer.forward(inputs)
        targets = np.random.default_rng(1).standard_normal(output.shape).astype(np.float32)
        return Batch(inputs, targets)
