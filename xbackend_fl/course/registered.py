"""Keys that name one of a registry, with its settings: made from the registered classes' own fields, so that every name and default stands once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from xbackend_fl.aggregation import AGGREGATORS, Rule
from xbackend_fl.algorithms import ALGORITHMS, Algorithm
from xbackend_fl.course.diagnostics import look_alike, mistake, refuse
from xbackend_fl.course.excerpt import printed
from xbackend_fl.course.numbers import single
from xbackend_fl.losses import LOSSES, Loss, NativeLoss, OwnLoss
from xbackend_fl.schedules import SCHEDULES, Schedule


def _held(chosen: Any) -> Any:
    """What was chosen, with numbers that are numbers in float32, too."""
    for field in fields(chosen):
        value = getattr(chosen, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float):
                single(number)
    return chosen


def section(registry: Mapping[str, type[Any]], key: str) -> Any:
    """The type of a key: as many alternatives as there are files, by their name."""

    def named(value: Any) -> Any:
        """A name alone is a mapping with it; a name that is none is said with what it looks like."""
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, dict) and (name := value.get("name")) not in registry:
            text = f"`{key}` is {printed(repr(name))}; there are {', '.join(registry)}"
            refuse([mistake(text, (), name, hint=look_alike(str(name), registry))])
        return value

    found: Any = Annotated[Union[tuple(registry.values())], Field(discriminator="name")]  # noqa: UP007
    return Annotated[found, BeforeValidator(named), AfterValidator(_held)]


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
        | Annotated[OwnLoss, BeforeValidator(_alone), AfterValidator(_held), Tag("own")]
        | Annotated[NativeLoss, BeforeValidator(_by_backend), Tag("native")],
        Discriminator(_kind_of_loss),
    ]
    ScheduleSections = Annotated[
        tuple[section(SCHEDULES, "training.schedule"), ...], BeforeValidator(_several)
    ]
