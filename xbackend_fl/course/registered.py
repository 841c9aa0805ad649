"""Keys that name one of a registry, with its settings: made from the registered classes' own fields, so that every name and default stands once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union, get_type_hints

from annotated_types import Lt
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from xbackend_fl.adapter import OPTIMIZERS, Optimizer
from xbackend_fl.adapter.optimizers.kinds.sgd import SGD
from xbackend_fl.aggregation import AGGREGATORS, Rule
from xbackend_fl.algorithms import ALGORITHMS, SERVERS, Algorithm, ServerOptimizer
from xbackend_fl.algorithms.servers.fedavg import FedAvgServer
from xbackend_fl.course.any_kind import any_kind
from xbackend_fl.course.diagnostics import look_alike, mistake, refuse
from xbackend_fl.course.excerpt import printed
from xbackend_fl.course.numbers import single
from xbackend_fl.course.wording import said, shown
from xbackend_fl.data import PARTITIONS, Partition
from xbackend_fl.data.partitions.iid import IID
from xbackend_fl.losses import LOSSES, Loss, NativeLoss, OwnLoss
from xbackend_fl.schedules import SCHEDULES, Schedule


def chosen(
    value: Any,
    registry: Mapping[str, type[Any]],
    key: str,
    others: str = "",
    *,
    named: str = "name",
    default: str | None = None,
) -> Any:
    """What a file says of one of a registry: its name alone, or a mapping with the name and settings.

    Args:
        value: As the file has it.
        registry: Classes whose fields are the settings, by name.
        key: What messages call the place.
        others: What else may stand there, in words.
        named: The key that says which.
        default: Which it is if none is named.

    Returns:
        A mapping, or what is none.

    Raises:
        ValidationError: No such name, an unknown setting, or a switch for a number; each with its place.
    """
    if isinstance(value, str):
        value = {named: value}
    there = f"there are {', '.join(registry)}{others}"
    if isinstance(value, tuple(registry.values())):
        return value
    if not isinstance(value, dict):
        text = f"`{key}`: input should be a name, or a mapping with {named}, got {shown(value)}"
        refuse([mistake(text, (), value, hint=there)])
    if default is not None:
        value = {named: default} | value
    if named not in value:
        hint = f"{key.rpartition('.')[2]}: {{{named}: {next(iter(registry))}}}"
        refuse([mistake(f"`{key}` has no {named}; {there}", (), value, hint=hint)])
    name = value[named]
    if not isinstance(name, str) or name not in registry:
        text = f"`{key}` is {printed(repr(name))}; {there}"
        settings = {inner: given for inner, given in value.items() if inner != named}
        unnamed = mistake(text, (named,), name, hint=look_alike(str(name), registry))
        refuse([unnamed, *_settings_of_none(settings, registry, key, named)])
    refuse([*_wrong_settings(value, registry, key, named)])
    return value


def _settings_of_none(
    settings: dict[Any, Any], registry: Mapping[str, type[Any]], key: str, named: str
) -> Iterator[InitErrorDetails]:
    """Mistakes in settings of nobody knows which: those that are mistakes whichever it is."""
    try:
        any_kind(registry, "Any", "", __name__, named).model_validate(settings)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            name = detail["loc"][0]
            text = (
                f"unknown key `{printed(f'{key}.{name}')}`"
                if detail["type"] == "extra_forbidden"
                else said(detail, (key, name))
            )
            yield mistake(text, (name,), detail["input"], at_key=detail["type"] == "extra_forbidden")


def _wrong_settings(
    value: dict[Any, Any], registry: Mapping[str, type[Any]], key: str, named: str
) -> Iterator[InitErrorDetails]:
    chosen = value[named]
    known = {field.name: str(field.type) for field in fields(registry[chosen])}
    for name, given in value.items():
        where = printed(f"{key}.{name}")
        if name not in known:
            others = ", ".join(other for other in known if other != named) or f"nothing but its {named}"
            having = [
                other for other, kind in registry.items() if name in {field.name for field in fields(kind)}
            ]
            hint = look_alike(str(name), known) or f"{chosen} has {others}"
            if having:
                hint = f"{chosen} has {others}; {', '.join(having)} {'has' if len(having) == 1 else 'have'} {name}"
            yield mistake(f"unknown key `{where}`", (str(name),), given, hint=hint, at_key=True)
        elif isinstance(given, bool) and "bool" not in known[name].lower():
            # To pydantic true is also the number 1.
            yield mistake(f"`{where}`: input is a switch, and this is none, got {given}", (name,), given)


def _held(key: str, made: Any) -> Any:
    """What was made of a section, with numbers that are numbers in float32, too."""
    hints = get_type_hints(type(made), include_extras=True)
    for field in fields(made):
        value = getattr(made, field.name)
        # A number below a bound must be below it where models compute, too.
        about: Any = getattr(hints[field.name], "__metadata__", ())
        limits: list[Any] = [item.lt for item in about if isinstance(item, Lt)]
        for number in value if isinstance(value, tuple) else (value,):
            try:
                if isinstance(number, float):
                    single(number, below=min(limits, default=math.inf))
            except PydanticCustomError as error:
                refuse(
                    [
                        mistake(
                            f"`{key}.{field.name}`: {error.message()}, got {number!r}", (field.name,), number
                        )
                    ]
                )
    return made


@dataclass(frozen=True)
class _InSchema:
    """How a key stands in the JSON Schema: a name alone, or a mapping that says which, unless that is the default."""

    names: tuple[str, ...]
    named: str
    default: str | None

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        found = handler(schema)
        for one in found["oneOf"]:
            kind = handler.resolve_ref_schema(one)
            if kind["properties"][self.named]["const"] != self.default:
                kind["required"] = [self.named]
        return {"anyOf": [{"type": "string", "enum": list(self.names)}, found]}


def section(
    registry: Mapping[str, type[Any]], key: str, *, named: str = "name", default: str | None = None
) -> Any:
    """The type of a key: as many alternatives as there are files, by their name.

    Args:
        registry: Classes whose fields are the settings, by name.
        key: What messages call the place.
        named: The key that says which.
        default: Which it is if none is named.
    """
    found: Any = Annotated[Union[tuple(registry.values())], Field(discriminator=named)]  # noqa: UP007
    before = BeforeValidator(partial(chosen, registry=registry, key=key, named=named, default=default))
    written = _InSchema(tuple(registry), named, default)
    return Annotated[found, before, AfterValidator(partial(_held, key)), written]


def _several(value: Any) -> Any:
    """One alone is a list with it; nothing is an empty one."""
    return value if isinstance(value, list | tuple) else [] if value is None else [value]


def _kind_of_loss(value: Any) -> str:
    """Whether a loss is one of the toolkit's, or one of the user's own in one function or in several."""
    if isinstance(value, list | tuple):
        text = "the loss is a list, and an output has one"
        hint = "name one alone: loss: huber; several outputs have one each in training.outputs"
        refuse([mistake(text, (), value, hint=hint)])
    if isinstance(value, NativeLoss) or (isinstance(value, dict) and value and "name" not in value):
        return "native"
    name = value.get("name") if isinstance(value, dict) else value
    return "own" if isinstance(value, OwnLoss) or (isinstance(name, str) and ":" in name) else "known"


def _alone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _by_backend(value: Any) -> Any:
    """Backends may stand beside what is said of their functions."""
    if not isinstance(value, dict) or "functions" in value:
        return value
    about = {"targets", "applies"} & value.keys()
    functions = {name: text for name, text in value.items() if name not in about}
    return {"functions": functions} | {name: value[name] for name in about}


if TYPE_CHECKING:
    AlgorithmSection: TypeAlias = Algorithm
    AggregatorSection: TypeAlias = Rule
    LossSection: TypeAlias = Loss
    OutputLoss: TypeAlias = Loss
    OptimizerSection: TypeAlias = Optimizer
    OwnOptimizer: TypeAlias = object
    ServerSection: TypeAlias = ServerOptimizer
    PartitionSection: TypeAlias = Partition
    ScheduleSections: TypeAlias = tuple[Schedule, ...]
else:
    AlgorithmSection = section(ALGORITHMS, "federate.algorithm")
    AggregatorSection = section(AGGREGATORS, "federate.aggregator")
    LossSection, OutputLoss = (
        Annotated[
            Annotated[section(LOSSES, key), Tag("known")]
            | Annotated[OwnLoss, BeforeValidator(_alone), AfterValidator(partial(_held, key)), Tag("own")]
            | Annotated[NativeLoss, BeforeValidator(_by_backend), Tag("native")],
            Discriminator(_kind_of_loss),
        ]
        for key in ("training.loss", "training.outputs.OUTPUT.loss")
    )
    OptimizerSection = section(OPTIMIZERS, "training.optimizer", default=SGD().name)
    OwnOptimizer = any_kind(
        OPTIMIZERS,
        "OwnOptimizer",
        "What a participant's optimizer has otherwise than the course's.",
        __name__,
    )
    ServerSection = section(SERVERS, "federate.server", default=FedAvgServer().name)
    PartitionSection = section(PARTITIONS, "data.partition", named="kind", default=IID().kind)
    ScheduleSections = Annotated[
        tuple[section(SCHEDULES, "training.schedule"), ...], BeforeValidator(_several)
    ]
