"""A participant's step by a training loop of the user's own: the loop gets a task, and what it did is looked at."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Batch, Lending, Lent, Tensors, TrainConfig, Trainer
from xbackend_fl.algorithms import Algorithm
from xbackend_fl.canonical import Kind
from xbackend_fl.course.training import Training
from xbackend_fl.errors import ConfigError, UpdateRefused, XbflError, message_of, raised
from xbackend_fl.locate import load_callable
from xbackend_fl.losses import each_of
from xbackend_fl.participant.client import STATE, Arrays, part_of
from xbackend_fl.participant.nested import packed, unpacked
from xbackend_fl.participant.overtime import Overtime, ended_after
from xbackend_fl.participant.task import Task
from xbackend_fl.places import defined_at, place_of
from xbackend_fl.text import shown_names
from xbackend_fl.weights import Weights

Function = Callable[[Task], Any]
_NUMBER = (int, np.integer)
_SHOWN = 60


@dataclass(frozen=True)
class Loop:
    """What trains or evaluates a participant.

    Attributes:
        text: What messages call it: the callable as the course names it.
        function: The callable.
        own_data: Whether it trains on data that the toolkit does not see, so that it alone knows how many there are.
    """

    text: str
    function: Function
    own_data: bool = False

    @staticmethod
    def load(text: str, base: Path) -> Loop:
        """The loop that a course names.

        Raises:
            ConfigError: There is no such callable, or it takes no task.
        """
        file, _, name = text.rpartition(":")
        return Loop(f"{Path(file).name}:{name}", load_callable(text, base))

    def __post_init__(self) -> None:
        """Refuse what takes no task.

        Raises:
            ConfigError: It cannot be called with one argument.
        """
        try:
            inspect.signature(self.function).bind(None)
        except TypeError as error:
            raise ConfigError(
                f"{self.text} cannot be called with a task alone: {error} ({defined_at(self.function)})",
                hint=f"def {self.text.rpartition(':')[2]}(task):",
            ) from error
        except ValueError:
            # Some callables have no signature to look at.
            pass


@dataclass(frozen=True)
class Brought:
    """What a script hands over as objects, instead of naming it in a course.

    Attributes:
        model: The native model.
        loop: What trains its participant.
    """

    model: object = field(repr=False)
    loop: Loop


@dataclass(frozen=True)
class Job:
    """One participant's part of one round, as what surrounds its loop knows it.

    Attributes:
        participant: Who.
        backend: Its backend.
        round: The round.
        seed: Of its random numbers.
        training: The section of the course.
        max_examples: How many examples it has; ``None`` if only its loop can say.
        given: Its data.
        batches: Those of the built-in loop, in the model's layout.
        algorithm: The course's.
        lr: The learning rate of the round.
        split: What the data are for.
        trace: Where a process that ends since a loop could not be interrupted writes where it was.
    """

    participant: str
    backend: str
    round: int
    seed: int
    training: Training
    max_examples: int | None
    given: Callable[[], Any] = field(repr=False)
    batches: Callable[[], Iterator[Batch]] = field(repr=False)
    algorithm: Algorithm
    lr: float
    split: str = "train"
    trace: Path | None = None


@dataclass(frozen=True)
class Done:
    """What a loop did.

    Attributes:
        after: All native tensors.
        num_examples: What it says that it trained on.
        steps: How many steps it made; 0 if nobody asked.
        figures: What else it reports.
        state: What the participant keeps.
        notes: What people may want to know.
    """

    after: Tensors
    num_examples: int
    steps: int
    figures: Mapping[str, float]
    state: Arrays
    notes: tuple[str, ...]


def train_own(
    loop: Loop, job: Job, trainer: Trainer, start: Weights, config: TrainConfig, kept: Arrays
) -> Done:
    """Let a loop train one participant.

    Args:
        loop: What trains.
        job: The participant's part of the round.
        trainer: The model, which holds the weights that it starts from.
        start: These, native.
        config: Native.
        kept: What it kept from its last round.

    Raises:
        UpdateRefused: The loop raised, took too long, returned something else than it should, left something else than weights of the
            model, or never asked for what the algorithm adds. Whatever it was, the course can go on without it.
    """
    name, limit = job.algorithm.name, job.training.timeout_s
    who = f"the training of {job.participant} ({job.backend}, {loop.text}) in round {job.round}"
    with refusing(who, limit), lendable(trainer, job.backend).lend(config, name) as lent:
        task = task_of(job, lent, kept)
        with ended_after(limit, job.trace):
            answer = loop.function(task)
        num_examples, figures = reported(answer, job.max_examples)
        lent.asked.check_all()
        steps, figures = _steps(lent, figures, name) if job.algorithm.counts_steps else (0, figures)
        state = packed(task.state, lent.array, "task.state") if task.state else {}
        after, notes = _checked(start, lent.read(), config)
    return Done(after, num_examples, steps, figures, {f"{STATE}/{k}": v for k, v in state.items()}, notes)


def lendable(trainer: Trainer, backend: str) -> Lending:
    """The trainer as one that lends its model.

    Raises:
        ConfigError: It does not.
    """
    if not isinstance(trainer, Lending):
        raise ConfigError(
            f"models of {backend!r} cannot be lent to a training loop of your own", hint="leave `train` out"
        )
    return trainer


@contextmanager
def refusing(who: str, timeout_s: float | None = None) -> Iterator[None]:
    """Whatever a user's loop raises becomes a refused update that says who, what and where; the cause stays attached.

    Args:
        who: The beginning of the message.
        timeout_s: How long the block may take, for the message.

    Raises:
        UpdateRefused: The block raised anything but the wish of the person at the keyboard to end.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except XbflError as error:
        # What is said of a loop itself begins with a verb; anything else is a sentence of its own.
        if isinstance(error, UpdateRefused):
            raise type(error)(f"{who} {error.message}", hint=error.hint) from error
        raise UpdateRefused(f"{who}: {error.message}", hint=error.hint) from error
    except Overtime as error:
        place = place_of(error)
        where = f" and was at {place} then" if place else ""
        raise UpdateRefused(
            f"{who} did not return within {timeout_s:g} s (training.timeout_s){where}"
        ) from error
    except BaseException as error:
        if (found := _wrapped(error)) is not None:
            raise UpdateRefused(f"{who} {found.message}", hint=found.hint) from error
        place = place_of(error)
        raise UpdateRefused(raised(who, error, f"at {place}" if place else "")) from error


def _wrapped(error: BaseException) -> UpdateRefused | None:
    """What was said of a loop, where a framework made an error of its own of it, as TensorFlow does while it traces."""
    text, behind = message_of(error), error.__context__
    while behind is not None:
        if isinstance(behind, UpdateRefused) and behind.message in text:
            return behind
        behind = behind.__context__
    return None


def reported(answer: Any, max_examples: int | None = None) -> tuple[int, dict[str, float]]:
    """The number of examples, and figures, that a loop reports.

    Args:
        answer: A whole number, or a mapping with ``num_examples`` and numbers by name.
        max_examples: How many examples there are; ``None`` if nobody knows.

    Raises:
        UpdateRefused: It is something else.
    """
    hint = 'end it with: return {"num_examples": 120, "loss": 0.25}'
    if answer is None:
        raise UpdateRefused(
            "returned nothing (None), expected the number of examples it went through", hint=hint
        )
    found = {"num_examples": answer} if isinstance(answer, _NUMBER) else answer
    if not isinstance(found, Mapping) or "num_examples" not in found:
        shown = repr(answer)[:_SHOWN]
        raise UpdateRefused(
            f"returned {shown}, expected a mapping with num_examples, or that number", hint=hint
        )
    count = found["num_examples"]
    if isinstance(count, bool) or not isinstance(count, _NUMBER) or count < 1:
        raise UpdateRefused(
            f"returned num_examples {repr(count)[:_SHOWN]}, expected a whole number from 1", hint=hint
        )
    if max_examples is not None and count > max_examples:
        raise UpdateRefused(
            f"returned num_examples {count}, and the participant has {max_examples} examples",
            hint="count every example once, however often the loop goes through the data",
        )
    figures: dict[str, float] = {}
    for name, value in found.items():
        if name == "num_examples":
            continue
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise UpdateRefused(
                f"returned {name!r} as a {type(value).__name__}, expected a number", hint=hint
            ) from error
        if not math.isfinite(number):
            raise UpdateRefused(f"returned a {name!r} of {number}, expected a finite number")
        figures[str(name)] = number
    return int(count), figures


def task_of(job: Job, lent: Lent, kept: Arrays) -> Task:
    """What a loop is given.

    Args:
        job: The participant's part of the round.
        lent: Its model.
        kept: What it kept from its last round.
    """

    def batches() -> Iterator[tuple[Any, Any]]:
        for batch in job.batches():
            inputs = tuple(map(lent.tensor, batch.inputs))
            yield (inputs[0] if len(inputs) == 1 else inputs), each_of(batch.targets, lent.tensor)

    within = tuple(schedule for schedule in job.training.schedule if schedule.per == "step")
    return Task(
        lent.model,
        job.participant,
        job.round,
        job.seed,
        job.training.settings,
        job.lr,
        lent.device,
        unpacked(part_of(kept, STATE), lent.tensor),
        job.split,
        lent,
        job.given,
        batches,
        None if within and job.algorithm.counts_steps else within,
    )


def _steps(lent: Lent, figures: Mapping[str, float], algorithm: str) -> tuple[int, dict[str, float]]:
    """How many plain steps were made: as the framework counts them, or as the loop says where it cannot.

    Raises:
        UpdateRefused: Nobody knows, both are known and differ, or the steps are not plain.
    """
    said = figures.get("steps")
    rest = {name: value for name, value in figures.items() if name != "steps"}
    counted = lent.steps
    if lent.unlike:
        raise UpdateRefused(
            f"made steps that are not those of training.optimizer, of which {algorithm} makes its vectors: {lent.unlike}",
            hint="give the loop the course's optimizer, or leave federate.algorithm out",
        )
    if counted is None and said is None:
        raise UpdateRefused(
            f"made no step that could be counted, and {algorithm} must know how many there were",
            hint='return {"num_examples": …, "steps": …}',
        )
    if counted is not None and said is not None and counted != said:
        raise UpdateRefused(f"returned {said:g} steps, and the framework has counted {counted}")
    steps = counted if counted is not None else said
    if not steps or steps != int(steps) or steps < 0:
        raise UpdateRefused(f"made {steps:g} steps, and {algorithm} needs one at least")
    return int(steps), rest


def _checked(
    start: Weights, found: dict[str, NDArray[Any]], config: TrainConfig
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """What the loop left, with masked parts and frozen parameters as they were; and what is said of it."""
    notes = []
    for leaf in config.masked:
        if not np.array_equal(found[leaf.tensor][leaf.index], start[leaf.tensor][leaf.index]):
            found[leaf.tensor][leaf.index] = start[leaf.tensor][leaf.index]
            notes.append(f"it changed a part of {leaf.tensor} that stays zero here; that was put back")
    frozen = [
        name
        for name, kind in start.kinds.items()
        if kind is Kind.FROZEN and not np.array_equal(found[name], start[name], equal_nan=True)
    ]
    found |= {name: np.array(start[name]) for name in frozen}
    if frozen:
        notes.append(f"it changed {shown_names(frozen)}, which the course keeps frozen; that was put back")
    moves = [name for name, kind in start.kinds.items() if kind in {Kind.TRAINABLE, Kind.LOCAL}]
    if all(np.array_equal(found[name], start[name]) for name in moves):
        notes.append(
            "every weight is as it was before: a loop trains task.model itself, in place, and not a copy or another model"
        )
    return found, tuple(notes)
