"""What a framework must do to take part: two Protocols and the plain data they exchange.

Everything here is *native*: tensors carry the framework's names and layouts, data has the axis order the
model consumes. The core converts, with the binding, on its own side of this seam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from numpy.typing import NDArray

from xbackend_fl.adapter.example import Example
from xbackend_fl.adapter.heads import HeadConfig
from xbackend_fl.adapter.optimizers import Optimizer
from xbackend_fl.adapter.rules import LocalRule
from xbackend_fl.canonical import Description
from xbackend_fl.canonical.layout import Native
from xbackend_fl.losses import Loss
from xbackend_fl.losses.kinds.cross_entropy import CrossEntropy

Array: TypeAlias = NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]
"""Native arrays by native name."""


@dataclass(frozen=True)
class Batch:
    """One step's data: in ONNX layout for whoever asks a model in canonical terms, in the model's own for its trainer.

    Attributes:
        inputs: One array per input, batch first.
        targets: In the shape of the model's output, without its class axis if the loss is of classes. Where several outputs have a loss each, a
            structured array ``[N]`` with a field for every one, which holds its targets.
    """

    inputs: tuple[Array, ...]
    targets: Array


Precision: TypeAlias = Literal["float32", "bfloat16"]
"""What forward passes of training compute with."""


@dataclass(frozen=True)
class TrainConfig:
    """Local training, the same on every backend.

    Attributes:
        optimizer: Update rule.
        precision: NumPy dtype name of what forward passes compute with where the framework deems it safe; weights, gradients of weights and the
            step are float32. See :class:`Autocasting`.
        rates: Learning rate of every step, in order; that of the optimizer if ``None``. A trainer that compiles its steps takes them as data.
        loss: What a step makes smaller: its mean over the positions of the batch that count. A batch in which none counts has loss and
            gradient zero.
        class_axis: Axis of the output that holds the classes, or the labels of an output ``[N, labels]``; native for a trainer.
        ignore_index: Targets of this value do not count; ``None`` if all do.
        output: The place of the output that the loss reads.
        heads: Several outputs with a loss each, which a step makes smaller together; the four above say nothing then. Only for who
            :class:`~xbackend_fl.adapter.heads.TrainsHeads`.
        clip_norm: Largest global gradient norm; ``None`` for no clipping.
        dropout: Whether dropout layers drop. Every backend draws its own masks.
        attributes: Layer or module name to the schema's values of attributes that only training sees
            (``momentum`` of running statistics, ``ratio`` of dropout).
        masked: Parts of native tensors that stay zero and do not count in the gradient norm.
        frozen: Tensors that would be trained and are not: no gradient, no state, no part of the norm. A layer whose statistics are among them
            normalises with these and leaves them. Canonical names; native ones for a trainer.
        rule: What a federated algorithm does to the clipped gradient; ``None`` for nothing at all.
        slots: For every slot of the rule, an array for each trainable tensor, by native name for a trainer; one that has none is left to its
            plain gradient.
    """

    optimizer: Optimizer
    loss: Loss = field(default_factory=CrossEntropy)
    class_axis: int = 1
    ignore_index: int | None = None
    output: int = 0
    heads: tuple[HeadConfig, ...] = ()
    clip_norm: float | None = None
    dropout: bool = True
    precision: Precision = "float32"
    attributes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    masked: tuple[Native, ...] = ()
    frozen: frozenset[str] = frozenset()
    rule: LocalRule | None = None
    slots: Mapping[str, Tensors] = field(default_factory=dict, repr=False)
    rates: tuple[float, ...] | None = field(default=None, repr=False)

    def of_head(self, head: HeadConfig) -> TrainConfig:
        """The same for the loss of one head alone."""
        return replace(
            self,
            loss=head.loss,
            class_axis=head.class_axis,
            ignore_index=head.ignore_index,
            output=head.output,
            heads=(),
        )


@dataclass(frozen=True)
class LossSum:
    """The training loss, as seen on the way.

    Attributes:
        total: Sum over positions that count, of every step.
        positions: How many these were.
    """

    total: float
    positions: int

    @property
    def mean(self) -> float:
        """Mean over positions; 0 if none counted."""
        return self.total / max(self.positions, 1)


@dataclass(frozen=True)
class Scaling:
    """Bytes as floats: ``value * factor + offset``."""

    factor: float
    offset: float


@runtime_checkable
class Judging(Protocol):
    """A trainer that can say what a loss makes of any output, without its model."""

    def judge(self, output: Array, targets: Array, config: TrainConfig) -> tuple[float, Array | None]:
        """The mean loss as :meth:`Trainer.train` computes it, and its gradient with respect to the output; ``None`` if no gradient reaches it.

        Args:
            output: In place of the output that the loss reads, in the model's own layout.
            targets: As in a batch for the trainer.
            config: Loss, class axis and what does not count.
        """
        ...


@runtime_checkable
class Preserving(Protocol):
    """A trainer that can be probed and leave no trace in the user's model."""

    def preserved(self) -> AbstractContextManager[None]:
        """Whatever is done inside, afterwards the model is as it was, also where the block raises.

        That is every bit of its tensors and how they lie in memory, flags, attributes and hooks, and the generators of
        random numbers.
        """
        ...


@runtime_checkable
class Renewing(Protocol):
    """A trainer that holds handles or copies of its model's tensors, which the user may have replaced."""

    def renew(self) -> None:
        """Hold the tensors that the model has now, and compute those again that it computes from others.

        Raises:
            RefusedInput: They are not those that were described: others, of other shapes or dtypes.
        """
        ...


@runtime_checkable
class Reordering(Protocol):
    """A trainer that can return its model's outputs in another order than the model does."""

    def return_in(self, order: Sequence[int]) -> None:
        """From now on output ``i`` is the one that the model returns in place ``order[i]``, and the description says so.

        Args:
            order: Every place once; ``range(n)`` for the model's own order.
        """
        ...


@runtime_checkable
class Exporting(Protocol):
    """A trainer whose framework writes ONNX files itself: what it computes needs no canonical form then."""

    def export_onnx(
        self, path: Path, inputs: Sequence[Array], batch_axes: Sequence[int]
    ) -> Mapping[str, str]:
        """Write the model in evaluation mode; its graph takes and returns arrays as the model does, in its own order of arrays and axes.

        Args:
            path: The new file.
            inputs: An example, of at least two examples.
            batch_axes: Where each input has its batch, which alone is free.

        Returns:
            Native tensors by the names of their initializers, as far as the exporter keeps them.

        Raises:
            RefusedInput: The exporter is not installed, or cannot write this model.
        """
        ...


@dataclass(frozen=True)
class LiteModel:
    """A file for small machines that a framework wrote, opened by its runtime.

    Attributes:
        runtime: Name and version of the runtime.
        inputs: What each input is called in the file; empty where they have places and no names.
        examples: Fewest and most examples that it takes at once; ``None`` for any number.
        run: Takes and returns arrays as the trainer does; raises :class:`RefusedInput` if the runtime cannot run it.
    """

    runtime: str
    inputs: tuple[str, ...]
    examples: tuple[int, int | None]
    run: Callable[[Sequence[Array]], tuple[Array, ...]] = field(repr=False)


@runtime_checkable
class LiteExporting(Protocol):
    """A trainer whose framework writes files for a runtime on small machines, which has neither the framework nor the model's code."""

    @property
    def lite_format(self) -> str:
        """What these files end in, without the dot."""
        ...

    def export_lite(self, path: Path, inputs: Sequence[Array], batch_axes: Sequence[int]) -> LiteModel:
        """Write the model in evaluation mode with the weights that it holds, and open the file.

        Args:
            path: The new file.
            inputs: An example, with the most examples that the file has to take.
            batch_axes: Where each input has its batch.

        Raises:
            AdapterError: The exporter or the runtime is not installed.
            RefusedInput: The exporter or the runtime cannot do it; the message names the operator and its place.
        """
        ...


@runtime_checkable
class Rounding(Protocol):
    """A trainer whose model may hold or compute its numbers in half precision by itself; here it computes in float32.

    :meth:`Trainer.read` gives float32 masters, of which the model holds the rounding, and :meth:`Trainer.write` sets both.
    """

    @property
    def precision(self) -> str:
        """NumPy dtype name of the coarsest numbers that the model computes with by itself."""
        ...

    def forward_by_itself(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Outputs in evaluation mode that the model computes in its own precision, as float32.

        Raises:
            RefusedInput: It takes no such inputs.
        """
        ...


@runtime_checkable
class Autocasting(Protocol):
    """A trainer that can train with forward passes in half precision, as its framework does it."""

    def autocasts(self) -> str:
        """Why it cannot with this model; empty if it can."""
        ...


@runtime_checkable
class Numbering(Protocol):
    """An adapter whose framework numbers the layers that have no name, through all models of a process."""

    def number_anew(self) -> None:
        """Let the next model that is built have the names that it would have as the first of its process."""
        ...


@runtime_checkable
class Unbuilding(Protocol):
    """An adapter of models that a first call gives their tensors."""

    def unbuilt(self, model: object) -> AbstractContextManager[None]:
        """Whatever is done inside, afterwards what had no tensors yet has none again, also where the block raises."""
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

    def predict(self, batches: Iterable[Sequence[Array]]) -> Iterator[tuple[Array, ...]]:
        """Outputs in evaluation mode, batch by batch: :meth:`forward` for many inputs, which may be prepared for once."""
        ...

    def train(self, batches: Iterable[Batch], config: TrainConfig) -> LossSum:
        """One optimizer step per batch; returns the loss seen on the way."""
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

    def load_model(self, model: object, example: Example) -> Trainer:
        """Describe ``model`` at ``example`` (ONNX layout) and make it ready; the model is left as it was.

        The schema has the inputs in the example's order: by name where the example and the model have the same names, else in the
        order in which the model takes them.

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
