"""Reads course files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from xbackend_fl.adapter import names
from xbackend_fl.course import compose, diagnostics, reading, settings, shapes
from xbackend_fl.course.counted import counted
from xbackend_fl.course.excerpt import printed
from xbackend_fl.course.model import Course
from xbackend_fl.course.model_section import CODE
from xbackend_fl.course.outputs import ONE_LOSS
from xbackend_fl.course.section import Section
from xbackend_fl.course.settings import Path as Keys
from xbackend_fl.course.wording import dotted
from xbackend_fl.data import absolute
from xbackend_fl.errors import ConfigError, XbflError
from xbackend_fl.locate import resolve
from xbackend_fl.losses import NativeLoss, OwnLoss


def load_course(path: str | Path, overrides: Sequence[str] = ()) -> Course:
    """Read and check a course file.

    Args:
        path: The YAML file, of at most 4 MiB; the files it names are relative to its folder.
        overrides: ``a.b=value`` settings that replace what the file says; values are YAML.

    Raises:
        ConfigError: All mistakes at once, each with line and column, or with the setting that it comes from.
    """
    path = Path(path)
    document = reading.read_file(path, "course")
    assert document.root is not None
    plain = compose.plain(document.root)
    replaced = settings.apply(plain, overrides)
    try:
        course = Course.model_validate(plain).with_base(path.resolve().parent)
    except ValidationError as error:
        mistakes, count = diagnostics.explain(error, Course, plain)
        raise ConfigError(diagnostics.render(mistakes, document, replaced, count)) from error
    mistakes = _outside(course)
    if mistakes:
        raise ConfigError(diagnostics.render(mistakes, document, replaced))
    return course


def complete(course: Course) -> dict[str, Any]:
    """The course as plain data, with whatever is left out filled in and with absolute files."""
    plain = course.model_dump(mode="json", exclude_none=True)
    for backend, model in plain["models"].items():
        text = isinstance(model, str)
        plain["models"][backend] = (
            resolve(model, course.base) if text else {k: resolve(v, course.base) for k, v in model.items()}
        )
    plain["input"] = [shapes.absolute(text, course.base) for text in course.input]
    plain["data"]["source"] = absolute(course.data.source, course.base)
    for name in {"transform", "evaluation_transform"} & plain["data"].keys():
        plain["data"][name] = resolve(plain["data"][name], course.base)
    _absolute_metrics(plain, course)
    _absolute_losses(plain, course)
    deployment = plain["deployment"]
    places = (
        (plain, "initial"),
        (plain["data"], "cache"),
        (deployment, "keys"),
        (deployment.get("serve", {}), "engine"),
    )
    for section, key in places:
        if key in section:
            section[key] = str((course.base / section[key]).resolve())
    if "data_path" in deployment:
        deployment["data_path"] = absolute(deployment["data_path"], course.base)
    for participant, said in zip(plain["participants"], course.participants, strict=True):
        if "data" in participant:
            participant["data"] = absolute(participant["data"], course.base)
        if said.training is not None:
            # What it leaves out is the course's, and what is null it says itself.
            participant["training"] = said.training.model_dump(mode="json", exclude_unset=True)
    for section in (deployment, *plain["participants"]):
        for name in {*CODE} & section.keys():
            section[name] = resolve(section[name], course.base)
    return plain


def _absolute_metrics(plain: dict[str, Any], course: Course) -> None:
    """Metrics of the user's own by their absolute files."""
    for path, text in course.figures.files:
        section: Any = plain
        for step in path[:-1]:
            section = section[step]
        section[path[-1]] = resolve(text, course.base)


def _absolute_losses(plain: dict[str, Any], course: Course) -> None:
    for head, (*path, key) in zip(course.heads.each, course.losses, strict=True):
        section: Any = plain
        for step in path:
            section = section[step]
        if isinstance(loss := head.loss, OwnLoss | NativeLoss):
            section[key] = TypeAdapter(type(loss)).dump_python(loss, mode="json", by_alias=True)
    if course.training.outputs is not None:
        # What is of one loss alone says nothing.
        for key in ONE_LOSS:
            plain["training"].pop(key, None)


def dump(course: Course) -> str:
    """The course as YAML, complete, with absolute files: what a run folder keeps."""
    plain = complete(course)
    return reading.write_text(plain | {"participants": counted(plain["participants"])})


def _outside(course: Course) -> list[diagnostics.Mistake]:
    """Mistakes that need a look outside the file: backends and files."""
    mistakes = []
    known = names()
    for backend, model in course.models.items():
        if backend not in known:
            hint = f"known backends: {', '.join(known)}"
            mistakes.append(
                diagnostics.Mistake(f"unknown backend `{backend}`", ("models", backend), hint, at_key=True)
            )
        short = not any(getattr(model, name) for name in CODE)
        mistakes += _missing(model.build, course, ("models", backend, *(() if short else ("build",))))
    for name in ("source", "transform", "evaluation_transform"):
        if (named := getattr(course.data, name)) is not None:
            mistakes += _missing(named, course, ("data", name))
    for path, metric in course.figures.files:
        mistakes += _missing(metric, course, path)
    for path, loss in course.losses.items():
        for code in loss.files if isinstance(loss, OwnLoss | NativeLoss) else ():
            mistakes += _missing(code, course, path)
    # Thousands may name one file.
    looked_at: dict[str, list[diagnostics.Mistake]] = {}
    sections: list[tuple[Keys, Section]] = [(("deployment",), course.deployment)]
    sections += [(("models", backend), model) for backend, model in course.models.items()]
    sections += [(("participants", index), item) for index, item in enumerate(course.participants)]
    for keys, section in sections:
        for name in ("data", *CODE):
            text = getattr(section, name, None)
            if text is None:
                continue
            if text not in looked_at:
                looked_at[text] = _missing(text, course, ())
            mistakes += [replace(one, path=(*keys, name)) for one in looked_at[text]]
    given = {"participants": course.participants}
    return [diagnostics.owned(_with_key(one), given) for one in mistakes]


def _with_key(found: diagnostics.Mistake) -> diagnostics.Mistake:
    return found if found.at_key else replace(found, message=f"`{dotted(found.path)}`: {found.message}")


def _missing(text: str | None, course: Course, path: tuple[int | str, ...]) -> list[diagnostics.Mistake]:
    if text is None:
        return []
    try:
        resolve(text, course.base)
    except XbflError as error:
        return [diagnostics.Mistake(error.message, path)]
    if ":" not in text:
        return [diagnostics.Mistake(f"{printed(repr(text))} is not FILE_OR_MODULE:CALLABLE", path)]
    return []
