"""What a training loop of a user's own is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

from xbackend_fl.adapter import Lent
from xbackend_fl.errors import ConfigError
from xbackend_fl.schedules import Schedule, factor_over_steps


@final
@dataclass(frozen=True)
class Task:
    """One participant's part of one round, for ``train(task)`` or ``evaluate(task)``.

    Attributes:
        model: The participant's native model, as its ``build`` returned it, in training mode, and in evaluation mode to evaluate. It holds the
            weights of the round, with the participant's own local parameters among them. Train this object, in place; what evaluates leaves it as it is.
        participant: Who trains.
        round: The round, from 1; 0 to evaluate.
        seed: 31 bits that are this participant's in this round alone, the same in every process.
        settings: ``training.settings`` of the course, as they are.
        lr: ``training.optimizer.lr`` as the course's schedules over rounds have it in this round; :meth:`lr_at` has those within it too.
        device: Where the model lies, as its framework calls that place.
        state: A place that lasts: what is put here is there again in the participant's next round, in a simulation and at a silo, and after an
            interruption. It holds numbers, texts, arrays, tensors of the framework, and lists, tuples and dicts of these, such as
            ``optimizer.state_dict()``. It counts only if the update does: a round that is lost, or made again, finds what was there before. To
            evaluate it is empty, and nothing of it lasts.
        split: What the examples are for: ``train``, ``validation`` or ``test``.
    """

    model: Any
    participant: str
    round: int
    seed: int
    settings: Mapping[str, Any]
    lr: float
    device: str
    state: MutableMapping[str, Any]
    split: str
    _lent: Lent = field(repr=False)
    _given: Callable[[], Any] = field(repr=False)
    _batches: Callable[[], Iterator[tuple[Any, Any]]] = field(repr=False)
    _within: tuple[Schedule, ...] | None = field(default=(), repr=False)

    @cached_property
    def data(self) -> Any:
        """What the participant's own data function returned, untouched: the same object in every round of a process.

        Without such a function, its training examples ``(inputs, targets)``: NumPy arrays in ONNX layout ``[N, ...]``, a tuple of them where the
        model has several inputs, and a dict of them by name where several outputs have a loss.

        To evaluate: what that function returned if the toolkit can make no batches of it, so that its code alone reads it; otherwise the examples to
        evaluate on, its own where ``evaluation.validation`` is ``participants``.
        """
        return self._given()

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """The batches that the built-in loop would train on: as many as ``training`` says, in its order, the same on every backend.

        To evaluate, all examples in their order, 256 at a time.

        Yields:
            Inputs and targets, tensors of the framework in the model's own layout, batch first, on its device; inputs are a tuple where the model has
            several, targets a dict by name where several outputs have a loss.

        Raises:
            ConfigError: The data are none of which batches can be made.
        """
        return self._batches()

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, with all schedules of the course: what the built-in loop has.

        Args:
            step: The step in this round, from 0. A loop counts its own.

        Raises:
            ConfigError: The step is no whole number, or before the first; or a schedule of steps goes with an algorithm that takes all steps of a round as equal.
        """
        if isinstance(step, bool) or not hasattr(step, "__index__"):
            raise ConfigError(
                f"task.lr_at({step!r}): a step is a whole number",
                hint="count the steps of the round: task.lr_at(number)",
            )
        if step < 0:
            raise ConfigError(f"task.lr_at({step}): steps of a round are counted from 0")
        if self._within is None:
            raise ConfigError(
                "task.lr_at: the course's algorithm takes the steps of a loop of your own as equally long, and training.schedule changes them within a round",
                hint="use task.lr for all steps; or leave `per: step` out of training.schedule",
            )
        return self.lr * factor_over_steps(self._within, step)

    def penalty(self) -> Any:
        """What the course's algorithm adds to the loss of a step, as rules of clients do: ``loss = loss + task.penalty()``.

        It is a scalar tensor of the framework that can be differentiated, and 0 for an algorithm that adds nothing. Use it or
        :meth:`correct_gradients`, once a step, and not both. A norm that the loop clips gradients to is then over the sum.
        """
        return self._lent.penalty()

    def correct_gradients(self, gradients: Any = None) -> Any:
        """The same as :meth:`penalty`, to gradients: as the built-in loop does it, behind clipping and before the optimizer.

        Args:
            gradients: For PyTorch nothing: call it between ``backward()`` and ``step()``. For TensorFlow those of
                ``model.trainable_variables``, in their order.

        Returns:
            For TensorFlow the new gradients, a list.
        """
        return self._lent.corrected(gradients)
