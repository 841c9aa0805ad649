"""The key ``federate.algorithm``: made from the algorithms' own fields, so that every name and default stands once."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from pydantic import AfterValidator, BeforeValidator, Field

from xbackend_fl.algorithms import ALGORITHMS, Algorithm
from xbackend_fl.course.diagnostics import look_alike, mistake, refuse
from xbackend_fl.course.excerpt import printed
from xbackend_fl.course.numbers import single


def _named(value: Any) -> Any:
    """``fedavg`` alone is ``{name: fedavg}``; a name that is none is said with what it looks like."""
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, dict):
        name = value.get("name")
        if name not in ALGORITHMS:
            known = ", ".join(ALGORITHMS)
            text = f"`federate.algorithm` is {printed(repr(name))}; there are {known}"
            refuse([mistake(text, (), name, hint=look_alike(str(name), ALGORITHMS))])
    return value


def held(algorithm: Algorithm) -> Algorithm:
    """An algorithm whose numbers are numbers in float32, too."""
    for field in fields(algorithm):
        value = getattr(algorithm, field.name)
        if isinstance(value, float):
            single(value)
    return algorithm


if TYPE_CHECKING:
    AlgorithmSection: TypeAlias = Algorithm
else:
    # As many alternatives as there are files of algorithms.
    AlgorithmSection = Annotated[
        Annotated[Union[tuple(ALGORITHMS.values())], Field(discriminator="name")],  # noqa: UP007
        BeforeValidator(_named),
        AfterValidator(held),
    ]
