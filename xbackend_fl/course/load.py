"""Reads course files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from xbackend_fl.adapter import names
from xbackend_fl.course import diagnostics
from xbackend_fl.course.model import Course
from xbackend_fl.errors import ConfigError, XbflError
from xbackend_fl.locate import resolve


def site_settings(path: Path) -> list[str]:
    """What one machine adds to a shared course, as overrides.

    Args:
        path: A YAML file with fields of ``deployment``: ``name``, ``data_path``, ``address``, ``keys``; paths are relative
            to its own folder.

    Raises:
        ConfigError: It is missing, or no mapping.
    """
    if not path.is_file():
        raise ConfigError(f"no such site file: {path}")
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(diagnostics.render_syntax(error, path.name)) from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path} must be a mapping, received {type(plain).__name__}")
    for name in {"data_path", "keys"} & plain.keys():
        plain[name] = str(path.resolve().parent / str(plain[name]))
    return [f"deployment.{name}={json.dumps(value)}" for name, value in plain.items()]


def load_course(path: str | Path, overrides: Sequence[str] = ()) -> Course:
    """Read and check a course file.

    Args:
        path: The YAML file; the files it names are relative to its folder.
        overrides: ``a.b=value`` settings that replace what the file says; values are YAML.

    Raises:
        ConfigError: All mistakes at once, each with line and column.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no such course file: {path}")
    text = path.read_text(encoding="utf-8")
    try:
        plain = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(diagnostics.render_syntax(error, path.name)) from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path} must be a mapping, received {type(plain).__name__}")
    for override in overrides:
        _apply(plain, override)
    try:
        course = Course.model_validate(_numbers(plain)).at(path.resolve().parent)
    except ValidationError as error:
        mistakes = diagnostics.explain(error, Course)
        raise ConfigError(diagnostics.render(mistakes, text, path.name)) from error
    mistakes = _outside(course)
    if mistakes:
        raise ConfigError(diagnostics.render(mistakes, text, path.name))
    return course


def example_arrays(texts: Sequence[str]) -> tuple[np.ndarray[Any, Any], ...]:
    """One example per ``[dtype:]1,3,64,64``: normal values for floats, zeros for integers.

    Raises:
        ConfigError: A text is not a shape.
    """
    return tuple(_example(text, index) for index, text in enumerate(texts))


def dump(course: Course) -> str:
    """The course as YAML, complete, with absolute files: what a run folder keeps."""
    plain = course.model_dump(mode="json", exclude_none=True)
    plain["models"] = {backend: resolve(text, course.base) for backend, text in course.models.items()}
    plain["data"]["source"] = resolve(course.data.source, course.base)
    for participant in plain["participants"]:
        if "data" in participant:
            participant["data"] = resolve(participant["data"], course.base)
    return yaml.safe_dump(plain, sort_keys=False)


def _example(text: str, index: int) -> np.ndarray[Any, Any]:
    match = re.fullmatch(r"(?:([a-z]+[0-9]+):)?([0-9]+(?:,[0-9]+)*)", text)
    if match is None:
        raise ConfigError(
            f"input {text!r} is not a shape", hint="for example 1,3,64,64 or int64:1,128, in ONNX layout"
        )
    try:
        dtype = np.dtype(match[1] or "float32")
    except TypeError as error:
        raise ConfigError(f"input {text!r}: no dtype {match[1]!r}") from error
    shape = tuple(int(n) for n in match[2].split(","))
    if dtype.kind in "iu":
        return np.zeros(shape, dtype)
    return np.random.Generator(np.random.Philox(index)).standard_normal(shape).astype(dtype)


def _apply(plain: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"--set {override!r} is not KEY=VALUE", hint="for example --set training.batch_size=16"
        )
    *parents, last = key.split(".")
    section: Any = plain
    for parent in parents:
        section = section[int(parent)] if isinstance(section, list) else section.setdefault(parent, {})
        if not isinstance(section, dict | list):
            raise ConfigError(f"--set {override!r}: {parent!r} is not a section")
    section[int(last) if isinstance(section, list) else last] = yaml.safe_load(value)


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text; a number was meant."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]+", value):
        return float(value)
    return value


def _outside(course: Course) -> list[diagnostics.Mistake]:
    """Mistakes that need a look outside the file: backends and files."""
    mistakes = []
    known = names()
    for backend, text in course.models.items():
        if backend not in known:
            hint = f"known backends: {', '.join(known)}"
            mistakes.append(
                diagnostics.Mistake(f"unknown backend `{backend}`", ("models", backend), hint, at_key=True)
            )
        mistakes += _missing(text, course, ("models", backend))
    mistakes += _missing(course.data.source, course, ("data", "source"))
    for index, participant in enumerate(course.participants):
        if participant.data is not None:
            mistakes += _missing(participant.data, course, ("participants", index, "data"))
    return mistakes


def _missing(text: str, course: Course, path: tuple[int | str, ...]) -> list[diagnostics.Mistake]:
    try:
        resolve(text, course.base)
    except XbflError as error:
        return [diagnostics.Mistake(error.message, path)]
    if ":" not in text:
        return [diagnostics.Mistake(f"`{text}` is not FILE_OR_MODULE:CALLABLE", path)]
    return []
