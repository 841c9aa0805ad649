"""Keys that name one of a registry, with its settings: made from the registered classes' own fields, so that every name and default stands once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import InitErrorDetails, PydanticCustomError

from xbackend_fl.aggregation import AGGREGATORS, Rule
from xbackend_fl.algorithms import ALGORITHMS, Algorithm
from xbackend_fl.course.diagnostics import look_alike, mistake, refuse
from xbackend_fl.course.excerpt import printed
from xbackend_fl.course.numbers import single
from xbackend_fl.losses import LOSSES, Loss, NativeLoss, OwnLoss
from xbackend_fl.schedules import SCHEDULES, Schedule


def chosen(value: Any, registry: Mapping[str, type[Any]], key: str, others: str = "") -> Any:
    """What a file says of one of a registry: its name alone, or a mapping with the name and settings.

    Args:
        value: As the file has it.
        registry: Classes whose fields are the settings, by name.
        key: What messages call the place.
        others: What else may stand there, in words.

    Returns:
        A mapping, or what is none.

    Raises:
        ValidationError: No such name, an unknown setting, or a switch for a number; each with its place.
    """
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict):
        return value
    there = f"there are {', '.join(registry)}{others}"
    if "name" not in value:
        hint = f"{key.rpartition('.')[2]}: {{name: {next(iter(registry))}}}"
        refuse([mistake(f"`{key}` has no name; {there}", (), value, hint=hint)])
    name = value["name"]
    if not isinstance(name, str) or name not in registry:
        text = f"`{key}` is {printed(repr(name))}; {there}"
        refuse([mistake(text, (), name, hint=look_alike(str(name), registry))])
    refuse([*_wrong_settings(value, registry[name], key)])
    return value


def _wrong_settings(value: dict[Any, Any], kind: type[Any], key: str) -> Iterator[InitErrorDetails]:
    known = {field.name: str(field.type) for field in fields(kind)}
    for name, given in value.items():
        where = printed(f"{key}.{name}")
        if name not in known:
            others = ", ".join(other for other in known if other != "name") or "nothing but its name"
            hint = look_alike(str(name), known) or f"{value['name']} has {others}"
            yield mistake(f"unknown key `{where}`", (str(name),), given, hint=hint, at_key=True)
        elif isinstance(given, bool) and "bool" not in known[name].lower():
            # To pydantic true is also the number 1.
            yield mistake(f"`{where}`: input is a switch, and this is none, got {given}", (name,), given)


def _held(key: str, made: Any) -> Any:
    """What was made of a section, with numbers that are numbers in float32, too."""
    for field in fields(made):
        value = getattr(made, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            try:
                if isinstance(number, float):
                    single(number)
            except PydanticCustomError as error:
                refuse([mistake(f"`{key}.{field.name}`: {error.message()}", (field.name,), number)])
    return made


def section(registry: Mapping[str, type[Any]], key: str) -> Any:
    """The type of a key: as many alternatives as there are files, by their name."""
    found: Any = Annotated[Union[tuple(registry.values())], Field(discriminator="name")]  # noqa: UP007
    before = BeforeValidator(partial(chosen, registry=registry, key=key))
    return Annotated[found, before, AfterValidator(partial(_held, key))]


def _several(value: Any) -> Any:
    """One alone is a list with it; nothing is an empty one."""
    return value if isinstance(value, list | tuple) else [] if value is None else [value]


def _kind_of_loss(value: Any) -> str:
    """Whether a loss is one of the toolkit's, or one of the user's own in one function or in several."""
    if isinstance(value, list | tuple):
        text = "`training.loss` is a list, and a course has one loss, of the model's first output"
        refuse([mistake(text, (), value, hint="name one alone: training.loss: huber")])
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
    ScheduleSections: TypeAlias = tuple[Schedule, ...]
else:
    AlgorithmSection = section(ALGORITHMS, "federate.algorithm")
    AggregatorSection = section(AGGREGATORS, "federate.aggregator")
    LossSection = Annotated[
        Annotated[section(LOSSES, "training.loss"), Tag("known")]
        | Annotated[
            OwnLoss, BeforeValidator(_alone), AfterValidator(partial(_held, "training.loss")), Tag("own")
        ]
        | Annotated[NativeLoss, BeforeValidator(_by_backend), Tag("native")],
        Discriminator(_kind_of_loss),
    ]
    ScheduleSections = Annotated[
        tuple[section(SCHEDULES, "training.schedule"), ...], BeforeValidator(_several)
    ]
