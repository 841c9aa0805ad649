"""The entries of ``participants``: who takes part, and what may be a name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from xbackend_fl.course.excerpt import printed
from xbackend_fl.course.model_section import EVALUATE, TRAIN
from xbackend_fl.course.own_training import only_own
from xbackend_fl.course.section import Section
from xbackend_fl.course.training import OwnTraining
from xbackend_fl.course.wording import said
from xbackend_fl.errors import ConfigError

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
        why = said(error.errors(include_url=False)[0], ())
        raise ConfigError(f"{printed(repr(text))} is no name of a participant: {why}") from error


class Participant(Section):
    """A party with data."""

    positional = ("name", "backend")

    name: Name
    backend: str
    training: Annotated[OwnTraining | None, BeforeValidator(only_own)] = Field(
        None, description="what it does otherwise than the course's training says; the rest is as there"
    )
    data: str | None = Field(None, description="FILE_OR_MODULE:CALLABLE with this participant's own examples")
    train: str | None = Field(None, description=TRAIN)
    evaluate: str | None = Field(None, description=EVALUATE)

    if TYPE_CHECKING:

        def __init__(
            self,
            name: str,
            backend: str,
            *,
            training: Any = None,
            data: Any = None,
            train: Any = None,
            evaluate: Any = None,
        ) -> None:
            """Keys as arguments; data and functions may be objects."""
