"""What the round loop needs from whoever does the training: one Protocol for simulation and deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from xbackend_fl.adapter.exporting import Exported
from xbackend_fl.aggregation import Aggregator
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.events import Observer
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant import Usage
from xbackend_fl.report.summary import Participation
from xbackend_fl.weights import Weights


@dataclass(frozen=True)
class Prepared:
    """What is known once every model is bound.

    Attributes:
        schema: The schema.
        bindings: Binding of every backend.
        initial: The reference model's initial weights.
        data: Digest of every array of the course's data, by its name; empty where they are elsewhere.
    """

    schema: Schema
    bindings: dict[str, Binding]
    initial: Weights
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundOutcome:
    """What came back from one cohort.

    Attributes:
        mean: What merges the updates that were accepted.
        failed: Participants whose update was refused, with the reason.
        hints: What such a reason says can be done, by name; who has none is not in it.
        enough: Whether the engine's own rule, a quorum, says that the rest will do.
        before: Metrics on the validation set of the weights that the round started from, if the engine evaluates with training.
        states: Digest of what each participant that was accepted keeps from now on, by its name; empty where that is elsewhere.
    """

    mean: Aggregator
    failed: dict[str, str]
    hints: Mapping[str, str] = field(default_factory=dict)
    enough: bool = False
    before: Metrics | None = None
    states: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outputs:
    """Answers of several models to the same inputs.

    Attributes:
        inputs: In ONNX layout.
        answers: Outputs in ONNX layout, by who gave them: a backend of this machine, or a silo.
        all_needed: Whether every answer must be right; else those that are not are named, and the rest will do if they are not fewer.
    """

    inputs: tuple[NDArray[Any], ...]
    answers: Mapping[str, tuple[NDArray[Any], ...]]
    all_needed: bool = True


class Engine(Protocol):
    """Trains cohorts."""

    @property
    def evaluates_with_training(self) -> bool:
        """Whether weights are evaluated where the next round trains from them, instead of for themselves."""
        ...

    def prepare(self, observer: Observer) -> Prepared:
        """Open every model and prove that they are one function."""
        ...

    def train_round(
        self,
        number: int,
        weights: Weights,
        vectors: Mapping[str, Weights],
        cohort: Sequence[str],
        observer: Observer,
        watched: float = 1.0,
    ) -> RoundOutcome:
        """Train a cohort from ``weights``, and from what the algorithm sends beside them, and merge what comes back.

        Schedules that follow validation figures multiply learning rates with ``watched``.
        """
        ...

    @property
    def take_out(self) -> Callable[[int, str, str], Iterator[str]] | None:
        """Takes out of a round, from weights of a digest, the update that stood out most, for a reason; the same round then has the others only.

        Yields what is to be said, before it is done. ``None`` where updates are not kept: then no :class:`~xbackend_fl.rounds.back.Ruined` is raised.
        """
        ...

    def evaluate(self, weights: Weights, split: str, number: int = 0) -> Metrics:
        """Metrics of ``weights``, which round ``number`` gave, on ``validation`` or ``test``."""
        ...

    def outputs(self, weights: Weights, split: str, count: int) -> Outputs:
        """Answers to the first ``count`` examples of a split."""
        ...

    def save_native(self, weights: Weights, path: Path, number: int = 0) -> list[Path]:
        """Write ``weights``, which round ``number`` gave, in the format of every backend; the suffix is the backend's."""
        ...

    def read_native(self, path: Path) -> tuple[Mapping[str, NDArray[Any]], str]:
        """The weights of a file in the names of one of the course's models, in canonical form, and whose it is.

        Raises:
            RefusedInput: It fits none, or nobody here has the models.
        """
        ...

    def export_native(self, weights: Weights, inputs: Sequence[NDArray[Any]], path: Path) -> Exported:
        """Write a model that has no canonical graph as ONNX, by the exporter of a framework that is here.

        Args:
            weights: The trained model.
            inputs: In ONNX layout; the file is run with them.
            path: The new file.

        Raises:
            RefusedInput: None here can; the message has the reason of each.
        """
        ...

    def usage(self) -> dict[str, Usage]:
        """What every process of this machine has used so far, by backend; ``server`` is this one."""
        ...

    def participation(self) -> Sequence[Participation]:
        """How every silo took part; empty where nobody can be late."""
        ...

    def close(self) -> None:
        """Release everything; safe to call twice."""
        ...
