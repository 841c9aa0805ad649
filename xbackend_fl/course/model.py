"""A course: one federated training, as its YAML file says it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from xbackend_fl.adapter import LossName, Optimizer, Scaling
from xbackend_fl.algorithms import Algorithm, ServerAlgorithm
from xbackend_fl.course import compose, shapes
from xbackend_fl.course.deployment import DeploymentSection
from xbackend_fl.course.diagnostics import look_alike, mistake, refuse
from xbackend_fl.course.excerpt import printed
from xbackend_fl.course.federate import Federate
from xbackend_fl.course.numbers import HELD, Decay, single, there
from xbackend_fl.course.section import Section
from xbackend_fl.course.settings import Path as Keys
from xbackend_fl.errors import ConfigError
from xbackend_fl.locate import resolve
from xbackend_fl.metrics import METRICS, Metric, MetricFile, default_metric, metrics_for

_MAX_NAME = 100
# Folders and files of silos and runs are called by these names, on any system.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")


def _file_name(name: str) -> str:
    if name.endswith(".") or _RESERVED.fullmatch(name):
        raise ValueError("this is no name of a file on every system")
    return name


Name = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=_MAX_NAME), AfterValidator(_file_name)
]

_NAME: TypeAdapter[str] = TypeAdapter(Name)


def checked_name(text: str) -> str:
    """A name of a participant, which may be one of a file.

    Raises:
        ConfigError: It is none.
    """
    try:
        return _NAME.validate_python(text)
    except ValidationError as error:
        raise ConfigError(
            f"{printed(repr(text))} is no name of a participant: {error.errors()[0]['msg']}"
        ) from error


class Participant(Section):
    """A party with data."""

    name: Name
    backend: str
    data: str | None = Field(None, description="FILE_OR_MODULE:CALLABLE with this participant's own examples")


class Partition(Section):
    """How the training data are shared out."""

    kind: Literal["iid", "dirichlet", "pathological", "quantity", "by_id"] = "iid"
    alpha: Annotated[float, Field(gt=0, description="dirichlet: small values skew more"), HELD] = 0.5
    min_examples: PositiveInt = Field(1, description="dirichlet: fewest examples of a participant")
    classes: PositiveInt = Field(
        2, description="pathological: shards, and so about classes, of a participant"
    )
    sigma: Annotated[
        float, Field(ge=0, le=50, description="quantity: spread of the logarithm of the sizes")
    ] = 1.0


class Scale(Section):
    """Whole-number inputs as floats, batch by batch: ``(value / divide - mean) / std``."""

    divide: Annotated[float, Field(gt=0), HELD] = 255.0
    mean: Annotated[float, HELD] = 0.0
    std: Annotated[float, Field(gt=0), HELD] = 1.0

    def rule(self) -> Scaling:
        """As plain data for adapters."""
        return Scaling(1 / (self.divide * self.std), -self.mean / self.std)

    @model_validator(mode="after")
    def _check_rule(self) -> Self:
        """Two numbers that are none together."""
        for value, beside in ((1 / self.divide / self.std, "divide"), (self.mean / self.std, "mean")):
            try:
                single(value)
            except PydanticCustomError:
                text = f"`std` {self.std!r} does not go with `{beside}` {getattr(self, beside)!r}: together they are {value:.3g}, which is {there(value):g} in float32"
                refuse([mistake(text, ("std",), self.std, beside=(beside,))])
        return self


Share = Annotated[float, Field(gt=0), HELD]


class Data(Section):
    """Where examples come from."""

    source: str = Field(
        description="FILE_OR_MODULE:CALLABLE returning train, validation and test; or leaf:FOLDER, or npz:FILE"
    )
    partition: Partition = Partition()
    splits: tuple[Share, Share, Share] = Field(
        (0.6, 0.2, 0.2), description="leaf: shares of training, validation and test, for every user"
    )
    deduplicate: bool = Field(default=False, description="leaf: drop examples that a user has twice")
    scale: Scale | None = Field(
        None, description="uint8 inputs stay so in memory, and are scaled batch by batch"
    )


class OptimizerSection(Section):
    """The participants' optimizer; the same arithmetic on every backend."""

    name: Literal["sgd", "momentum", "nesterov", "adam", "adamw", "adagrad", "rmsprop"] = "sgd"
    lr: Annotated[float, Field(gt=0), HELD] = 0.01
    momentum: Decay = 0.9
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    alpha: Decay = 0.99
    eps: Annotated[float, Field(gt=0), HELD] = 1e-8
    weight_decay: Annotated[float, Field(ge=0), HELD] = 0.0

    def rule(self) -> Optimizer:
        """As plain data for adapters."""
        return Optimizer(**self.model_dump())


class Training(Section):
    """Local training of every participant."""

    optimizer: OptimizerSection = OptimizerSection()
    loss: LossName = "cross_entropy"
    metric: str | None = Field(
        None,
        description="what chooses the best weights, on the validation set: loss, accuracy (classes and binary outputs), rmse, mae "
        "or r2 (mean_squared_error); accuracy or rmse, by the loss, if left out; FILE_OR_MODULE:CALLABLE names one of your own",
        json_schema_extra={"anyOf": [{"enum": [*METRICS, None]}, {"type": "string", "pattern": ":"}]},
    )
    ignore_index: int | None = Field(
        -100, description="classes and binary outputs: targets of this value do not count; null if all do"
    )
    class_axis: int | None = Field(
        None,
        description="cross_entropy: axis of the output in ONNX layout that holds the classes, the batch is 0; "
        "needed only where the shapes of outputs and targets leave several",
    )
    batch_size: PositiveInt = 32
    epochs: PositiveInt = 1
    steps: PositiveInt | None = Field(None, description="replaces epochs")
    clip_norm: Annotated[float, Field(gt=0), HELD] | None = None
    dropout: bool = Field(
        default=True, description="whether dropout layers drop; every backend draws its own masks"
    )


def _named(value: Any) -> Any:
    """``{torch: 500, tensorflow: 500}`` as a list of named participants."""
    if isinstance(value, list) and len(value) > compose.MAX_PARTICIPANTS:
        refuse([mistake(f"{compose.TOO_MANY}, not {len(value)}", (), value)])
    if not isinstance(value, dict):
        return value
    refuse(
        [
            mistake(f"`participants.{backend}` is a number of participants, from 1", (backend,), count)
            for backend, count in value.items()
            if not isinstance(count, int) or isinstance(count, bool) or count < 1
        ]
    )
    total = sum(value.values())
    if total > compose.MAX_PARTICIPANTS:
        refuse([mistake(f"{compose.TOO_MANY}, not {total}", (), value)])
    return [
        {"name": f"{backend}-{index:0{len(str(count))}d}", "backend": backend}
        for backend, count in value.items()
        for index in range(1, count + 1)
    ]


class Course(Section):
    """One federated training.

    ``models`` names one native model per backend; the first one is the reference, whose module paths name
    the canonical parameters and whose initial weights start the course.
    """

    name: Name
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    rounds: PositiveInt
    models: Annotated[dict[str, str], Field(min_length=1)]
    input: Annotated[
        list[str],
        Field(
            min_length=1,
            description="ONNX layout, for example ['1,3,64,64'] or ['ids=int64:1,128', 'mask=1,128']",
        ),
    ]
    sequence_axes: list[str] = Field(
        default_factory=list,
        description="axes of any length in model.onnx, INPUT.AXIS in ONNX layout, both from 0 on, for example ['0.1']",
    )
    data: Data
    participants: Annotated[list[Participant], BeforeValidator(_named), Field(min_length=1)]
    training: Training = Training()
    federate: Federate = Federate()
    deployment: DeploymentSection = DeploymentSection()
    keep_checkpoints: PositiveInt = Field(3, description="how many of the latest checkpoints stay on disk")

    _base: Path = PrivateAttr(default=Path())

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

    @property
    def keeps_state(self) -> bool:
        """Whether participants keep something from one of their rounds to the next."""
        return bool(self.local) or self.federate.algorithm.keeps_state

    @property
    def server_algorithm(self) -> ServerAlgorithm:
        """The server's side of the algorithm."""
        algorithm: Algorithm = self.federate.algorithm
        return algorithm.server(self.federate.server.rule(), len(self.participants))

    @property
    def own_metric(self) -> MetricFile | None:
        """The metric of the user's own, if there is one."""
        text = self.training.metric
        return MetricFile(resolve(text, self._base)) if text is not None and ":" in text else None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is measured: the loss first.

        Raises:
            ConfigError: The metric of the user's own cannot be loaded.
        """
        return metrics_for(self.training.loss, self.own_metric)

    @property
    def chosen_by(self) -> Metric:
        """What chooses the best weights, loaded."""
        if (own := self.own_metric) is not None:
            return own.metric
        name = self.training.metric
        return default_metric(self.training.loss) if name is None else METRICS[name]

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
        refuse([*self._participants(), *self._shapes(), *self._cohort(), *self._metric(), *self._algorithm()])
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
                yield mistake(error.message, ("sequence_axes", index), text, hint=error.hint or "")

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
            name, rule = self.federate.algorithm.name, self.federate.aggregator.name
            text = f"federate.aggregator {rule} merges weights alone, and {name} sends {', '.join(self.federate.algorithm.vectors)} too"
            yield mistake(text, ("federate", "aggregator"), rule, hint="federate.aggregator: mean")
        reason = self.federate.algorithm.unfit(self.training.optimizer.rule(), self.federate.server.rule())
        if reason:
            keys: Keys = ("federate", "algorithm")
            yield mistake(
                reason,
                keys,
                self.federate.algorithm.name,
                hint="training.optimizer: {name: sgd}, federate.server: {name: fedavg}",
            )

    def _metric(self) -> Iterator[InitErrorDetails]:
        metric, loss = self.training.metric, self.training.loss
        if metric is not None and ":" in metric:
            name = metric.rpartition(":")[2]
            if name in METRICS:
                text = f"training.metric: a metric called {name} is there already"
                yield mistake(text, ("training", "metric"), metric, hint="give the callable another name")
            return
        fitting = [item.name for item in metrics_for(loss)]
        if metric is not None and metric not in fitting:
            text = f"training.metric is {printed(metric)}, but the loss is {loss}, which has {', '.join(fitting)}"
            yield mistake(
                text,
                ("training", "metric"),
                metric,
                hint=look_alike(metric, fitting),
                beside=("training", "loss"),
            )
