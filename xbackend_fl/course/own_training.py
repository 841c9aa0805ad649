"""Settings of training that a participant has for itself, and the section as it then holds for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from xbackend_fl.adapter import OPTIMIZERS
from xbackend_fl.course.any_kind import completed
from xbackend_fl.course.diagnostics import mistake, refuse
from xbackend_fl.course.section import Section
from xbackend_fl.course.training import OwnTraining, Training
from xbackend_fl.text import shown_names

S = TypeVar("S", bound=Section)

_NAMED = 6
"""Participants that a line names."""
COMMON = Training.model_fields.keys() - OwnTraining.model_fields.keys()
"""Keys of ``training`` in which participants do not differ."""


def only_own(value: Any) -> Any:
    """Refuse keys in which participants do not differ, with the reason."""
    if isinstance(value, dict):
        refuse(
            [
                mistake(
                    f"`{key}` is the same for everybody: the course's mean, and its figures, are of one function",
                    (key,),
                    value[key],
                    hint=f"say it once: training.{key}",
                    at_key=True,
                )
                for key in value
                if key in COMMON
            ]
        )
    return value


def overridden(section: S, own: Section | None) -> S:
    """A section with what another one says itself, and not by default."""
    if own is None:
        return section
    said = {name: getattr(own, name) for name in own.model_fields_set}
    held = {name: getattr(section, name) for name in type(section).model_fields}
    if isinstance(optimizer := said.get("optimizer"), Section):
        said["optimizer"] = completed(optimizer, held["optimizer"], OPTIMIZERS)
    return type(section).model_validate({**held, **said})


def dotted_items(own: Section, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What a section says itself, by dotted key."""
    for name in type(own).model_fields:
        value = getattr(own, name)
        if name not in own.model_fields_set:
            continue
        if isinstance(value, Section):
            yield from dotted_items(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def shown_own(own: OwnTraining) -> str:
    """What a participant says itself, in words: ``batch_size 8, optimizer.lr 0.01``."""
    return ", ".join(f"{key} {_shown(value)}" for key, value in dotted_items(own))


def own_training_note(participants: Mapping[str, OwnTraining | None]) -> str:
    """One line about the participants that have settings of their own; empty if none has."""
    said = [f"{name} ({shown_own(own)})" for name, own in participants.items() if own is not None]
    more = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
    return f"settings of their own: {', '.join(said[:_NAMED])}{more}" if said else ""


def precision_note(trainings: Mapping[str, Training]) -> str:
    """One line about participants whose forward passes are rounded; empty if there are none."""
    found = [name for name, training in trainings.items() if training.precision != "float32"]
    if not found:
        return ""
    who = "all participants" if len(found) == len(trainings) else shown_names(found)
    return (
        f"{who} train with forward passes in bfloat16, each as its framework rounds: "
        "what backends and machines make of one course is not comparable bit by bit"
    )


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " × ".join(schedule.name for schedule in value) or "none"
    return "none" if value is None else str(value)


def misfits(error: ValidationError, place: tuple[int | str, ...]) -> Iterator[InitErrorDetails]:
    """What does not go together with the course's section, at a participant's place."""
    where = ".".join(map(str, place))
    for detail in error.errors(include_url=False):
        about = detail.get("ctx", {})
        yield mistake(
            detail["msg"].replace("`training.", f"`{where}."),
            (*place, *detail["loc"]),
            detail["input"],
            hint=about.get("hint") or "",
            at_key=bool(about.get("at_key")),
        )
