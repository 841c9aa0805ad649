"""What a framework must do to take part: two Protocols and the plain data they exchange.

Everything here is *native*: tensors carry the framework's names and layouts, data has the axis order the
model consumes. The core converts, with the binding, on its own side of this seam.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.optimizers import Optimizer
from xbackend_fl.canonical import Description
from xbackend_fl.canonical.layout import Native

Array: TypeAlias = NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]
"""Native arrays by native name."""


@dataclass(frozen=True)
class Batch:
    """One step's data.

    Attributes:
        inputs: Arrays in the model's own axis order, batch first.
        targets: Class indices ``[N]`` for cross entropy, else an array of the shape of the output.
    """

    inputs: tuple[Array, ...]
    targets: Array


@dataclass(frozen=True)
class TrainConfig:
    """Local training, the same on every backend.

    Attributes:
        optimizer: Update rule.
        loss: ``cross_entropy`` (logits), ``binary_cross_entropy`` (logits) or ``mean_squared_error``.
        clip_norm: Largest global gradient norm; ``None`` for no clipping.
        dropout: Whether dropout layers drop. Every backend draws its own masks.
        attributes: Layer or module name to the treaty's values of attributes that only training sees
            (``momentum`` of running statistics, ``ratio`` of dropout).
        silenced: Parts of native tensors that stay zero and do not count in the gradient norm.
    """

    optimizer: Optimizer
    loss: str = "cross_entropy"
    clip_norm: float | None = None
    dropout: bool = True
    attributes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    silenced: tuple[Native, ...] = ()


@dataclass(frozen=True)
class Metrics:
    """Sums over examples, so that parts of a data set can be added.

    Attributes:
        loss_sum: Sum of the per-example losses.
        correct: Number of correct predictions; 0 for a regression.
        num_examples: Number of examples.
    """

    loss_sum: float
    correct: int
    num_examples: int

    @staticmethod
    def total(parts: Iterable[Metrics]) -> Metrics:
        """The metrics over the examples of all parts."""
        loss_sum, correct, num_examples = 0.0, 0, 0
        for part in parts:
            loss_sum, correct = loss_sum + part.loss_sum, correct + part.correct
            num_examples += part.num_examples
        return Metrics(loss_sum, correct, num_examples)

    @property
    def loss(self) -> float:
        """Mean loss."""
        return self.loss_sum / max(self.num_examples, 1)

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return self.correct / max(self.num_examples, 1)


@dataclass(frozen=True)
class Scaling:
    """Bytes as floats: ``value * factor + offset``."""

    factor: float
    offset: float


@dataclass(frozen=True)
class Part:
    """One participant's work in a cohort.

    Attributes:
        batches: Rows of every step, of the arrays that the trainer holds.
        num_examples: How much its update weighs.
    """

    batches: tuple[NDArray[np.intp], ...]
    num_examples: int


@dataclass(frozen=True)
class CohortResult:
    """What came of a cohort.

    Attributes:
        sums: For every shared native tensor of floats, the sum over accepted parts of ``num_examples * (after - start)``; valid
            until the next cohort.
        metrics: Training metrics of every part.
        accepted: Whether each part's loss and update are finite; the others are not in the sums.
        notes: What was decided on the way, one line each, for people.
    """

    sums: dict[str, Array]
    metrics: tuple[Metrics, ...]
    accepted: tuple[bool, ...]
    notes: tuple[str, ...] = ()


@runtime_checkable
class Resident(Protocol):
    """A trainer that can keep data and sums on a device of its own and train a whole cohort there."""

    def place(self, device: str, replicas: int | None = 1, memory_bytes: int | None = None) -> None:
        """Move the model to ``cpu`` or to a GPU.

        Args:
            device: ``cpu``, ``cuda``, or ``cuda:1``, counted from zero.
            replicas: Copies of the model that a cohort may use at a time; ``None`` to measure how many are fastest.
            memory_bytes: Most that may be allocated on the device; all of it if left out.

        Raises:
            AdapterError: The device is not there.
        """
        ...

    def hold(self, inputs: Sequence[Array], targets: Array, scaling: Scaling | None) -> None:
        """Keep data on the device, in the model's own axis order, batch first; ``scaling`` is for inputs of bytes."""
        ...

    def device_memory(self) -> tuple[int, int]:
        """Bytes: most that was allocated on the device so far, and what is in use on it now; zeros on a processor."""
        ...

    def trains_cohorts(self, config: TrainConfig) -> bool:
        """Whether :meth:`train_cohort` would compute what :meth:`Trainer.train` does."""
        ...

    def train_cohort(self, start: Tensors, parts: Sequence[Part], config: TrainConfig) -> CohortResult:
        """Train every part from ``start``, each with one pass over its batches.

        Raises:
            RunFailed: The device has not enough memory.
        """
        ...


@runtime_checkable
class Trainer(Protocol):
    """One native model, ready to compute."""

    @property
    def description(self) -> Description:
        """The model's own schema and the binding to it."""
        ...

    def read(self) -> dict[str, Array]:
        """Copies of all native tensors."""
        ...

    def write(self, tensors: Tensors) -> None:
        """Set the named native tensors."""
        ...

    def reset(self, seed: int) -> None:
        """Forget the last participant.

        Optimizer state is zero, random generators start at ``seed``, and local tensors are as they were when
        the trainer was made.
        """
        ...

    def forward(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Outputs in evaluation mode."""
        ...

    def gradients(self, inputs: Sequence[Array], cotangents: Sequence[Array]) -> dict[str, Array]:
        """Gradient of ``sum(output * cotangent)`` in evaluation mode, by trainable native tensor."""
        ...

    def train(self, batches: Iterable[Batch], config: TrainConfig) -> Metrics:
        """One optimizer step per batch; returns the training metrics seen on the way."""
        ...

    def evaluate(self, batches: Iterable[Batch], loss: str) -> Metrics:
        """Metrics in evaluation mode."""
        ...

    @property
    def formats(self) -> tuple[str, ...]:
        """Names of the framework's own formats that :meth:`save` writes, as ``weights.FORMATS`` calls them."""
        ...

    def save(self, path: Path, file_format: str | None = None) -> Path:
        """Write the model's weights in one of :attr:`formats`, the first by default.

        Args:
            path: Where, without the suffix.
            file_format: Name of the format.

        Returns:
            The file or folder, with its suffix.

        Raises:
            RefusedInput: The framework cannot write this model in this format.
        """
        ...


class Adapter(Protocol):
    """A backend: the object an entry point of the group ``xbackend_fl.adapters`` names."""

    @property
    def name(self) -> str:
        """Backend name, as courses write it."""
        ...

    @property
    def version(self) -> str:
        """Name and version of the framework."""
        ...

    def handles(self, model: object) -> bool:
        """Whether ``model`` is a native model of this backend; must not import the framework."""
        ...

    def load(self, path: Path) -> object:
        """A model that lives in a file or folder of its own, without code.

        Raises:
            RefusedInput: This framework has no such models, or this is none.
        """
        ...

    def open(self, model: object, example: Sequence[Array]) -> Trainer:
        """Describe ``model`` at ``example`` (ONNX layout) and make it ready; the model is left as it was.

        Raises:
            UnsupportedError: The model holds something the canonical schema cannot express.
        """
        ...

    def hint(self, node: str, operator: str, attribute: str, value: object) -> str:
        """Code for this framework that would give ``node`` the wanted value of ``attribute``."""
        ...

    def configure_process(self, threads: int, seed: int) -> None:
        """Prepare a process before a model is built.

        Args:
            threads: Threads the framework may use.
            seed: Seed of initial weights.
        """
        ...
