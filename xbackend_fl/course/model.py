"""A course: one federated training, as its YAML file says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails

from xbackend_fl.algorithms import Algorithm, ServerAlgorithm
from xbackend_fl.algorithms.chosen import kinds_in_course
from xbackend_fl.canonical import Kind, Schema
from xbackend_fl.canonical.onnx_opset import NEWEST, OLDEST, OPSET
from xbackend_fl.course import shapes
from xbackend_fl.course.counted import written_out
from xbackend_fl.course.data import Data
from xbackend_fl.course.deployment import DeploymentSection
from xbackend_fl.course.diagnostics import look_alike, mistake, refuse
from xbackend_fl.course.early_stopping import EarlyStopping
from xbackend_fl.course.evaluation import EvaluationSection
from xbackend_fl.course.excerpt import printed
from xbackend_fl.course.federate import Federate
from xbackend_fl.course.figures import Figures
from xbackend_fl.course.model_section import CODE, ModelSection
from xbackend_fl.course.numbers import there
from xbackend_fl.course.own_training import misfits, overridden
from xbackend_fl.course.participant import Name, Participant
from xbackend_fl.course.section import Section
from xbackend_fl.course.settings import Path as Keys
from xbackend_fl.course.training import Training
from xbackend_fl.errors import ConfigError
from xbackend_fl.losses import Loss, NativeLoss
from xbackend_fl.losses.own import NUMPY
from xbackend_fl.metrics import Choice, Heads
from xbackend_fl.schedules import Watching, factor_over_rounds


class Course(Section):
    """One federated training.

    ``models`` names one native model per backend, and perhaps a training loop of its own; the first one is the reference, whose module paths name
    the canonical parameters and whose initial weights start the course.
    """

    name: Name
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    rounds: PositiveInt
    models: Annotated[dict[str, ModelSection], Field(min_length=1)]
    input: Annotated[
        list[str],
        Field(
            min_length=1,
            description="ONNX layout, for example ['1,3,64,64'] or ['ids=int64:1,128', 'mask=1,128']",
        ),
    ]
    initial: str | None = Field(
        None,
        description="weights to begin with: any weight file that xbfl convert reads, or the folder of another run; "
        "those of the reference model if left out",
    )
    sequence_axes: list[str] = Field(
        default_factory=list,
        description="axes of any length in model.onnx, INPUT.AXIS in ONNX layout, both from 0 on, for example ['0.1']",
    )
    opset: int = Field(
        OPSET, ge=OLDEST, le=NEWEST, description="version of ONNX's operators that model.onnx is of"
    )
    onnx_every: PositiveInt | None = Field(
        None,
        description="after how many rounds each the model is written as onnx/round-N.onnx; once, at the end, if left out",
    )
    data: Data
    participants: Annotated[list[Participant], BeforeValidator(written_out), Field(min_length=1)]
    training: Training = Training()
    evaluation: EvaluationSection = EvaluationSection()
    federate: Federate = Federate()
    deployment: DeploymentSection = DeploymentSection()
    early_stopping: EarlyStopping | None = None
    keep_checkpoints: PositiveInt = Field(3, description="how many of the latest checkpoints stay on disk")

    _base: Path = PrivateAttr(default=Path())

    if TYPE_CHECKING:

        def __init__(self, **keys: Any) -> None:
            """Keys as arguments; functions, classes, models and data may be objects."""

    @property
    def base(self) -> Path:
        """Folder that relative files start from."""
        return self._base

    def with_base(self, base: Path) -> Course:
        """The same course with files relative to ``base``."""
        copy = self.model_copy()
        copy._base = base  # noqa: SLF001  its own attribute, on a copy
        return copy

    @property
    def local(self) -> tuple[str, ...]:
        """Roles and patterns of the parameters that stay with their participant."""
        return (*self.federate.local, *self.federate.algorithm.local)

    def kinds(self, schema: Schema) -> dict[str, Kind]:
        """What every parameter of the model is in this course: trained, local, frozen.

        Raises:
            ConfigError: ``federate.local`` or ``federate.frozen`` do not fit the model.
        """
        return kinds_in_course(schema, self.local, self.federate.frozen)

    @property
    def keeps_state(self) -> bool:
        """Whether participants keep something from one of their rounds to the next."""
        own = any(self.training_of(participant) for participant in self.participants)
        return own or bool(self.local) or self.federate.algorithm.keeps_state

    def training_of(self, participant: Participant) -> str | None:
        """The training loop of a participant's own, or of its model: a callable in words; ``None`` for the built-in one."""
        return participant.train or self.models[participant.backend].train

    def evaluation_of(self, participant: Participant) -> str | None:
        """What gives a participant's figures of ``evaluation.reported``, or its model's: a callable in words; ``None`` if it reports none."""
        return participant.evaluate or self.models[participant.backend].evaluate

    def at_site(self, name: str) -> Course:
        """The course as the silo of a participant runs it: its own code is that of ``deployment``, as far as that names some."""
        own = {key: code for key in CODE if (code := getattr(self.deployment, key)) is not None}
        if not own:
            return self
        people = [p.model_copy(update=own) if p.name == name else p for p in self.participants]
        return self.model_copy(update={"participants": people}).with_base(self.base)

    @property
    def trainings(self) -> dict[str, Training]:
        """The section ``training`` as it holds for every participant; the course's own for those that say nothing."""
        return {p.name: overridden(self.training, p.training) for p in self.participants}

    @property
    def watched(self) -> tuple[tuple[Watching, Choice], ...]:
        """Schedules that follow a validation figure, and which."""
        return tuple(
            (schedule, self.figure_called(schedule.metric))
            for schedule in self.training.schedule
            if isinstance(schedule, Watching)
        )

    @property
    def waits_for_figures(self) -> bool:
        """Whether the figures of a round must be known before the next begins."""
        return bool(self.watched or self.early_stopping)

    @property
    def server_algorithm(self) -> ServerAlgorithm:
        """The server's side of the algorithm."""
        algorithm: Algorithm = self.federate.algorithm
        return algorithm.server(self.federate.server, len(self.participants))

    @property
    def figures(self) -> Figures:
        """What it minimises and measures."""
        return Figures(self.training, self.evaluation, self._base)

    @property
    def heads(self) -> Heads:
        """The outputs of the model that its losses read; code of the user's own is named by its absolute file."""
        return self.figures.heads

    @property
    def losses(self) -> dict[Keys, Loss]:
        """What training minimises, as the course says it, by the keys that lead there."""
        outputs = self.training.outputs
        if outputs is None:
            return {("training", "loss"): self.training.loss}
        return {("training", "outputs", name, "loss"): one.loss for name, one in outputs.items()}

    @property
    def chosen_by(self) -> Choice:
        """What chooses the best weights.

        Raises:
            ConfigError: It is a metric of the user's own, and cannot be loaded.
        """
        return self.figures.chosen_by

    def figure_called(self, name: str | None) -> Choice:
        """A figure that is watched; what chooses the best weights if it has no name."""
        return self.chosen_by if name is None else self.figures.choice(name)

    @property
    def free_axes(self) -> list[tuple[int, int]]:
        """Declared sequence axes: position of the input, and axis in ONNX layout."""
        return [shapes.sequence_axis(text, self.input) for text in self.sequence_axes]

    @property
    def reference(self) -> str:
        """Backend of the reference model."""
        return next(iter(self.models))

    @property
    def backends(self) -> list[str]:
        """Backends that take part: the reference first, then those with participants."""
        used = {participant.backend for participant in self.participants}
        return [name for name in self.models if name in used or name == self.reference]

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """What no field can say for itself, each mistake at its own place."""
        refuse(
            [
                *self._participants(),
                *self._shapes(),
                *self._cohort(),
                *self._evaluation(),
                *self._functions(),
                *self._algorithm(),
                *self._schedule(),
            ]
        )
        return self

    def _participants(self) -> Iterator[InitErrorDetails]:
        seen: dict[str, int] = {}
        meant: dict[str, str] = {}
        for index, participant in enumerate(self.participants):
            name, backend = participant.name, participant.backend
            # Some file systems take capitals for small letters.
            first = seen.setdefault(name.lower(), index)
            if first != index:
                other = self.participants[first].name
                text = f"two participants are called {name!r}"
                text += "" if other == name else f", but for capitals: {other!r}"
                beside: Keys = ("participants", first, "name")
                yield mistake(text, ("participants", index, "name"), name, beside=beside)
            if backend not in self.models:
                text = f"participant {name!r} uses backend {printed(repr(backend))}, which has no model; models has {', '.join(self.models)}"
                if backend not in meant:
                    meant[backend] = look_alike(backend, self.models)
                yield mistake(text, ("participants", index, "backend"), backend, hint=meant[backend])

    def _shapes(self) -> Iterator[InitErrorDetails]:
        for index, text in enumerate(self.input):
            try:
                shapes.check(text)
            except ConfigError as error:
                yield mistake(error.message, ("input", index), text, hint=error.hint or "")
                return
        try:
            shapes.input_names(self.input)
        except ConfigError as error:
            yield mistake(error.message, ("input",), self.input, hint=error.hint or "")
            return
        for index, text in enumerate(self.sequence_axes):
            try:
                shapes.sequence_axis(text, self.input)
            except ConfigError as error:
                said = f"`sequence_axes.{index}`: {error.message}"
                yield mistake(said, ("sequence_axes", index), text, hint=error.hint or "")

    def _cohort(self) -> Iterator[InitErrorDetails]:
        cohort, count = self.federate.cohort, len(self.participants)
        if cohort is not None and cohort > count:
            text = f"federate.cohort is {cohort}, but there are {count} participants"
            yield mistake(text, ("federate", "cohort"), cohort)
        quorum = self.deployment.quorum
        if quorum is not None and quorum > count:
            text = f"deployment.quorum is {quorum}, but there are {count} participants"
            yield mistake(text, ("deployment", "quorum"), quorum)

    def _algorithm(self) -> Iterator[InitErrorDetails]:
        if self.federate.algorithm.vectors and not self.federate.aggregator.vectors:
            name, merging = self.federate.algorithm.name, self.federate.aggregator.name
            text = f"federate.aggregator {merging} merges weights alone, and {name} sends {', '.join(self.federate.algorithm.vectors)} too"
            yield mistake(text, ("federate", "aggregator"), merging, hint="federate.aggregator: mean")
        rule, count = self.federate.aggregator, self.federate.cohort or len(self.participants)
        if count < rule.min_updates:
            text = f"federate.aggregator {rule.name} needs {rule.min_updates} updates a round, and {count} take part in one"
            enough = len(self.participants) >= rule.min_updates
            hint = f"federate.cohort: {rule.min_updates}" if enough else "federate.aggregator: mean"
            yield mistake(text, ("federate", "aggregator"), rule.name, hint=hint)
        algorithm, server = self.federate.algorithm, self.federate.server
        hint = "training.optimizer: {name: sgd}, federate.server: {name: fedavg}"
        if reason := algorithm.unfit(self.training.optimizer, server):
            yield mistake(reason, ("federate", "algorithm"), algorithm.name, hint=hint)
            return
        for index, participant in enumerate(self.participants):
            if participant.training is None:
                continue
            keys: Keys = ("participants", index, "training")
            try:
                training = overridden(self.training, participant.training)
            except ValidationError as error:
                yield from misfits(error, keys)
                continue
            if reason := algorithm.unfit(training.optimizer, server):
                cure = f"participants.{index}.training.optimizer: {{name: sgd}}"
                yield mistake(f"{participant.name}: {reason}", keys, training.optimizer.name, hint=cure)
            if any(isinstance(schedule, Watching) for schedule in participant.training.schedule):
                text = f"{participant.name}: plateau follows the figures of all, and is the course's alone"
                yield mistake(text, (*keys, "schedule"), None, hint="training.schedule: {name: plateau}")
            yield from self._lowest(training, (*keys, "schedule"))

    def _schedule(self) -> Iterator[InitErrorDetails]:
        keys: Keys = ("training", "schedule")
        watching: dict[Keys, str | None] = {
            (*keys, index): schedule.metric
            for index, schedule in enumerate(self.training.schedule)
            if isinstance(schedule, Watching)
        }
        if self.early_stopping is not None:
            watching["early_stopping",] = self.early_stopping.metric
        for place, name in watching.items():
            if name is not None and not self.figures.gives(name):
                known = self.figures.labels
                text = f"{place[0]}.{'metric' if len(place) == 1 else 'schedule'} watches {printed(repr(name))}; evaluation.metrics has {', '.join(known)}"
                yield mistake(text, (*place, "metric"), name, hint=look_alike(name, known))
        yield from self._lowest(self.training, keys)

    def _lowest(self, training: Training, keys: Keys) -> Iterator[InitErrorDetails]:
        lowest = factor_over_rounds(training.schedule, self.rounds, 1.0) * training.optimizer.lr
        if not there(lowest):
            text = f"training.schedule: the learning rate of round {self.rounds} is {lowest:.3g}, which is 0 in float32: nothing would be trained"
            yield mistake(text, keys, None, hint="a floor above 0, a larger gamma, or fewer rounds")

    def _functions(self) -> Iterator[InitErrorDetails]:
        """Every backend that trains has its function of a loss of the user's own, and some backend or NumPy one to compare with."""
        for place, loss in self.losses.items():
            if isinstance(loss, NativeLoss):
                yield from self._functions_of(loss, place)

    def _functions_of(self, loss: NativeLoss, place: Keys) -> Iterator[InitErrorDetails]:
        key = ".".join(map(str, place))
        needed = {participant.backend for participant in self.participants}
        if missing := sorted(needed - loss.backends):
            text = f"{key} has no function for {', '.join(missing)}, and participants train with it"
            yield mistake(text, place, loss.name, hint=f"{missing[0]}: losses.py:{loss.name}")
        elif unknown := sorted(loss.backends - self.models.keys() - {NUMPY}):
            text = f"{key} has a function for {unknown[0]}, which has no model; models has {', '.join(self.models)}"
            yield mistake(text, place, loss.name, hint=look_alike(unknown[0], self.models))
        elif len(needed) > 1 and self.reference not in needed and not {NUMPY, self.reference} & loss.backends:
            text = f"{key} has functions that nothing can be compared with: nobody computes it for the reference, {self.reference}"
            yield mistake(
                text, place, loss.name, hint=f"numpy: losses.py:{loss.name}, over arrays in ONNX layout"
            )

    def _evaluation(self) -> Iterator[InitErrorDetails]:
        if self.evaluation.validation == "participants":
            for index, one in enumerate(self.participants):
                if one.data is not None and self.training_of(one) is not None:
                    text = f"participant {one.name!r} trains by a loop of its own on data of its own: nothing can be held out of them"
                    yield mistake(
                        text, ("participants", index), one.name, hint="evaluation.validation: common"
                    )
        if not self.evaluation.reported:
            sections: list[tuple[Keys, Any]] = [(("deployment",), self.deployment)]
            sections += [(("models", backend), model) for backend, model in self.models.items()]
            sections += [(("participants", index), one) for index, one in enumerate(self.participants)]
            for place, section in sections:
                if section.evaluate is not None:
                    text = "`evaluate` gives the figures that evaluation.reported names, and it names none"
                    hint = "evaluation: {reported: {recall: max}}, by name, and where each is better"
                    yield mistake(text, (*place, "evaluate"), section.evaluate, hint=hint)
        yield from self.figures.mistakes()
