"""A course: one federated training, as its YAML file says it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from xbackend_fl.adapter import LossName, Optimizer, Scaling
from xbackend_fl.aggregation import Precision
from xbackend_fl.aggregation.rules.mean import Mean
from xbackend_fl.algorithms import Algorithm, ServerAlgorithm, ServerOptimizer
from xbackend_fl.algorithms.kinds.fedavg import FedAvg
from xbackend_fl.course import compose, shapes
from xbackend_fl.course.address import Address
from xbackend_fl.course.diagnostics import look_alike, mistake, refuse
from xbackend_fl.course.excerpt import printed
from xbackend_fl.course.numbers import HELD, Decay, single, there
from xbackend_fl.course.registered import AggregatorSection, AlgorithmSection
from xbackend_fl.course.settings import Path as Keys
from xbackend_fl.errors import ConfigError
from xbackend_fl.metrics import METRICS, Metric, default_metric, metrics_for

_MAX_NAME = 100
_MOST_EXAMPLES = 1 << 39
"""Of a silo; those of as many as a course may have are still whole numbers in float64."""
_LONGEST_S = 31_536_000
"""A year: whoever waits longer does not wait for a training."""
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


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """To pydantic ``true`` is also the number 1."""
        given = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, bool) for item in given):
            field = cls.model_fields[str(info.field_name)]
            if field.annotation is not bool:
                raise PydanticCustomError("switch", "input is a switch, and this is none")
        return value


class Participant(_Section):
    """A party with data."""

    name: Name
    backend: str
    data: str | None = Field(None, description="FILE_OR_MODULE:CALLABLE with this participant's own examples")


class Partition(_Section):
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


class Scale(_Section):
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


class Data(_Section):
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


class OptimizerSection(_Section):
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


class Training(_Section):
    """Local training of every participant."""

    optimizer: OptimizerSection = OptimizerSection()
    loss: LossName = "cross_entropy"
    metric: str | None = Field(
        None,
        description="what chooses the best weights, on the validation set: loss, accuracy (classes and binary outputs), rmse, mae "
        "or r2 (mean_squared_error); accuracy or rmse, by the loss, if left out",
        json_schema_extra={"enum": [*METRICS, None]},
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

    @property
    def chosen_by(self) -> Metric:
        """What chooses the best weights."""
        return default_metric(self.loss) if self.metric is None else METRICS[self.metric]


class ServerSection(_Section):
    """The server optimizer."""

    name: Literal["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"] = "fedavg"
    lr: Annotated[float, Field(gt=0), HELD] = 1.0
    momentum: Decay = 0.9
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    tau: Annotated[float, Field(gt=0), HELD] = 1e-3

    def rule(self) -> ServerOptimizer:
        """As plain data for the round loop."""
        return ServerOptimizer(**self.model_dump())


class Federate(_Section):
    """How updates are collected and merged."""

    cohort: PositiveInt | None = Field(None, description="participants per round; all if left out")
    algorithm: AlgorithmSection = Field(
        FedAvg(), description="how participants train and how what they give is merged"
    )
    aggregator: AggregatorSection = Field(Mean(), description="how updates are merged")
    local: list[str] = Field(
        default_factory=list,
        description="parameters that stay with their participant: roles (norm, embedding, bias) and patterns of canonical names, "
        "for example [norm, 'head.*']",
    )
    server: ServerSection = ServerSection()
    precision: Precision = "float32"
    on_failure: Literal["stop", "continue"] = Field(
        "stop", description="what a refused update does: stop the course, or go on with the rest"
    )
    workers: PositiveInt | None = Field(
        None,
        description="processes per backend; as many as there are processor cores for, up to 4, if left out",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where models train; auto: a GPU, if there is one"
    )
    replicas: PositiveInt | Literal["auto"] = Field(
        16,
        description="models that train side by side on a GPU; auto measures on the first cohort, "
        "and the last bits of sums then depend on what it finds",
    )
    device_memory_mib: PositiveInt | None = Field(
        None, description="most that a worker may allocate on its GPU; all of it if left out"
    )
    memory: Literal["normal", "low"] = Field(
        "normal", description="low: one worker and one model per backend, whatever the machine"
    )
    state_memory_mib: Annotated[int, Field(ge=0, le=1 << 20)] = Field(
        1024,
        description="most of a worker's memory that participants' states may take; the rest is on disk only",
    )
    share_local_model: bool = Field(
        default=True, description="one model per backend; else one per participant"
    )
    online_aggr: bool = Field(
        default=True, description="merge updates as they come; else keep all until the end"
    )


def _address(text: str) -> str:
    try:
        Address(text)
    except ConfigError as error:
        raise ValueError(f"{error.message}; {error.hint}") from error
    return text


Seconds = Annotated[float, Field(gt=0, le=_LONGEST_S)]


class DeploymentSection(_Section):
    """Real silos; a simulation does not look at it."""

    role: Literal["server", "silo"] | None = Field(None, description="what this machine is")
    name: str | None = Field(None, description="silo: which participant this is")
    data_path: str | None = Field(None, description="silo: its .npz file with its own examples")
    address: Annotated[str, AfterValidator(_address)] = Field(
        "127.0.0.1:8000", description="HOST:PORT of the server"
    )
    keys: str | None = Field(None, description="folder of this machine's keys")
    quorum: PositiveInt | None = Field(
        None,
        description="fewest silos to start, and updates of a round; all if left out. With one, silos that are refused are left out, "
        "and a round that has enough updates waits for silos at work, not for those that are gone",
    )
    join_timeout_s: Seconds = Field(300.0, description="how long the server waits for silos")
    round_timeout_s: Seconds = Field(3600.0, description="how long the server waits for a round's updates")
    max_examples: Annotated[int, Field(gt=0, le=_MOST_EXAMPLES)] = Field(
        10_000_000,
        description="most training examples that a silo may say it has, and so the largest weight of an update",
    )
    over_selection: Annotated[float, Field(ge=1, le=compose.MAX_PARTICIPANTS)] = Field(
        1.0, description="how many times a cohort's silos are asked; the first that answer make the round"
    )
    payload: Literal["float32", "bfloat16", "float16", "int8", "top-k"] = Field(
        "float32", description="how updates travel; float32 keeps every bit"
    )
    top_k_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01, description="top-k: part of every parameter's values that is sent"
    )
    max_restarts: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        10, description="how often in a row the server starts Flower again after a process of it ended"
    )

    def min_silos(self, silos: int) -> int:
        """The quorum among so many silos."""
        return min(self.quorum or silos, silos)


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


class Course(_Section):
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

    def at(self, base: Path) -> Course:
        """The same course with files relative to ``base``."""
        copy = self.model_copy()
        copy._base = base  # noqa: SLF001  its own attribute, on a copy
        return copy

    def alone(self, name: str, source: str) -> Course:
        """The same course with one participant, who has all examples of ``source``."""
        mine = [p.model_copy(update={"data": None}) for p in self.participants if p.name == name]
        data = self.data.model_copy(update={"source": source, "partition": Partition()})
        federate = self.federate.model_copy(update={"cohort": None})
        changed = {"participants": mine, "data": data, "federate": federate}
        return self.model_copy(update=changed).at(self._base)

    @property
    def local(self) -> tuple[str, ...]:
        """Roles and patterns of the parameters that stay with their participant."""
        return (*self.federate.local, *self.federate.algorithm.local)

    @property
    def server_algorithm(self) -> ServerAlgorithm:
        """The server's side of the algorithm."""
        algorithm: Algorithm = self.federate.algorithm
        return algorithm.server(self.federate.server.rule(), len(self.participants))

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
