"""The seam for trainers that take a whole cohort at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.contract import Array, LossSum, Scaling, Tensors, TrainConfig


@dataclass(frozen=True)
class Own:
    """What one participant begins with, and others do not.

    Attributes:
        tensors: Native tensors that are its own.
        slots: The constants of the algorithm's rule, as in :attr:`TrainConfig.slots`.
    """

    tensors: Tensors
    slots: Mapping[str, Tensors]


@dataclass(frozen=True)
class ClientWork:
    """One participant's work in a cohort.

    Attributes:
        batches: Rows of every step, of the arrays that the trainer holds.
        num_examples: How much its update weighs.
        seed: What its random choices come from.
        own: What it begins with, asked for when its turn comes; ``None`` where all begin with the same.
    """

    batches: tuple[NDArray[np.intp], ...]
    num_examples: int
    seed: int = 0
    own: Callable[[], Own] | None = None


@dataclass(frozen=True)
class CohortResult:
    """What came of a cohort.

    Attributes:
        sums: For every shared native tensor of floats, the sum over accepted clients of ``num_examples * (after - start)``; valid
            until the next cohort.
        largest: The largest magnitude in each of these; NaN if a value is.
        losses: Training loss of every part.
        accepted: Whether each part's loss and update are finite; the others are not in the sums.
        notes: What was decided on the way, one line each, for people.
    """

    sums: dict[str, Array]
    largest: Mapping[str, float]
    losses: tuple[LossSum, ...]
    accepted: tuple[bool, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClientResult:
    """What came of one participant of a cohort.

    Attributes:
        index: Its place in the cohort.
        after: Every shared native tensor of floats after its last step; valid until the next result is asked for.
        loss: Its training loss.
    """

    index: int
    after: dict[str, Array]
    loss: LossSum


LOCKSTEP = 0
"""No copies of a model: what all participants of a cohort hold is stacked."""


@runtime_checkable
class CohortTrainer(Protocol):
    """A trainer that can keep data and sums on a device of its own and train a whole cohort there."""

    def to_device(self, device: str, replicas: int | None = 1, memory_bytes: int | None = None) -> None:
        """Move the model to ``cpu`` or to a GPU.

        Args:
            device: ``cpu``, ``cuda``, or ``cuda:1``, counted from zero.
            replicas: Copies of the model that a cohort may use at a time; ``None`` to measure how many are fastest, :data:`LOCKSTEP` for one
                run of the model's code for all participants, where that can be.
            memory_bytes: Most that may be allocated on the device; all of it if left out.

        Raises:
            AdapterError: The device is not there.
        """
        ...

    def load_data(self, inputs: Sequence[Array], targets: Array, scaling: Scaling | None) -> None:
        """Keep data on the device, in the model's own axis order, batch first; ``scaling`` is for inputs of bytes."""
        ...

    def device_memory(self) -> tuple[int, int]:
        """Bytes: most that was allocated on the device so far, and what is in use on it now; zeros on a processor."""
        ...

    def begin(self, start: Tensors) -> None:
        """Begin to move to the device what the next cohort starts from, if that is given to :meth:`train_cohort` next; it is only read."""
        ...

    def expect(self, steps: Sequence[int], batch: int, count: int = 0) -> None:
        """Learn who may be in a cohort, to make room once for all that may come.

        Args:
            steps: Of every participant.
            batch: Examples of the largest batch.
            count: Participants of a cohort, usually at most.
        """
        ...

    def supports(self, config: TrainConfig, clients: Sequence[ClientWork] = ()) -> bool:
        """Whether :meth:`train_cohort`, or :meth:`train_apart` where somebody has something of its own, would compute what :meth:`Trainer.train` does."""
        ...

    def train_cohort(
        self,
        start: Tensors,
        clients: Sequence[ClientWork],
        config: TrainConfig,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> CohortResult:
        """Train every part from ``start``, each with one pass over its batches.

        Args:
            start: What they start from.
            clients: Their work.
            config: How all of them train.
            meanwhile: Called when nothing is left to do but to wait for the device; more than once where a cohort has to begin again.

        Raises:
            RunFailed: The device has not enough memory.
        """
        ...

    def train_apart(
        self, start: Tensors, clients: Sequence[ClientWork], config: TrainConfig
    ) -> Iterator[ClientResult]:
        """As :meth:`train_cohort`, where every part begins with something of its own, or what each one gives is needed by itself.

        Nothing is added up, and nothing is looked at: weights may be NaN. As many parts are on the device as have room there, and one
        at a time is on the processor.

        Raises:
            RunFailed: The device has not enough memory.
        """
        ...
