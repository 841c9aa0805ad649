"""All mistakes of a course file at once, each with its place and a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from xbackend_fl.course.compose import Node
from xbackend_fl.course.excerpt import SHOWN, Location, block, listed, printed
from xbackend_fl.course.reading import Document
from xbackend_fl.course.settings import Path, Setting
from xbackend_fl.course.wording import as_given, dotted, hint_for, in_full, said, whose

_LONGEST = 100
RENAMED = {
    "join_within_s": "join_timeout_s",
    "most_examples": "max_examples",
    "restarts": "max_restarts",
    "round_within_s": "round_timeout_s",
}
"""Keys of earlier courses and what they are called now; they are refused, and the new one is named."""
_MOVED = {("training", "metric"): "evaluation.best"}
"""The same of keys that are in another section now."""


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Attributes:
        message: What is wrong.
        path: Keys that lead to it.
        hint: What was probably meant.
        at_key: The key itself is the mistake, rather than its value.
        beside: Keys that lead to what the value does not go with.
    """

    message: str
    path: Path
    hint: str | None = None
    at_key: bool = False
    beside: Path | None = None


def mistake(
    message: str,
    path: Path,
    received: object,
    *,
    hint: str = "",
    at_key: bool = False,
    beside: Path | None = None,
) -> InitErrorDetails:
    """A mistake that a check of several fields found, for :func:`refuse`.

    Args:
        message: What is wrong, with the values in it.
        path: Keys that lead to it from the section that checks.
        received: The value.
        hint: What was probably meant.
        at_key: The key itself is the mistake, rather than its value.
        beside: Keys that lead to what the value does not go with.
    """
    # The message is a template to pydantic.
    context = {"said": message, "hint": hint or None, "at_key": at_key, "beside": beside}
    return InitErrorDetails(type=PydanticCustomError("course", "{said}", context), loc=path, input=received)


def refuse(found: Sequence[InitErrorDetails]) -> None:
    """Raise mistakes, if there are any, so that each keeps its place.

    Raises:
        ValidationError: There are.
    """
    if found:
        raise ValidationError.from_exception_data("course", list(found))


def explain(
    error: ValidationError,
    model: type[BaseModel],
    given: object = None,
    objects: Mapping[str, Any] | None = None,
) -> tuple[list[Mistake], int]:
    """Pydantic's errors in our words, with look-alikes: the first ones, and how many there are.

    Args:
        error: What it found.
        model: The section that was read.
        given: What was read, which says what participants are called.
        objects: What stood where a course in Python has these texts now.
    """
    details = error.errors(include_url=False)
    unknown = {tuple(d["loc"]): str(d["loc"][-1]) for d in details if d["type"] == "extra_forbidden"}
    missing = {tuple(d["loc"]): str(d["loc"][-1]) for d in details if d["type"] == "missing"}
    mistakes: dict[Path, Mistake] = {}
    left_out = 0
    for detail in details:
        if len(mistakes) == SHOWN:
            left_out += 1
            continue
        loc = as_given(_written(detail["loc"], model), given)
        if loc in mistakes:
            # Of the alternatives of a field, the first that was missed is told.
            continue
        if detail["type"] == "missing":
            # A missing key beside a look-alike unknown one is one mistake, reported at the unknown key.
            beside = [name for path, name in unknown.items() if path[:-1] == loc[:-1]]
            if _suggest(str(loc[-1]), beside) is None:
                mistakes[loc] = Mistake(f"missing key `{dotted(loc)}`", loc[:-1], at_key=bool(loc[:-1]))
        elif detail["type"] == "extra_forbidden":
            lacking = [name for path, name in missing.items() if path[:-1] == loc[:-1]]
            hint = _suggest(str(loc[-1]), [*lacking, *_keys(model, loc[:-1])])
            if (now := RENAMED.get(str(loc[-1]))) in _keys(model, loc[:-1]):
                hint = f"`{loc[-1]}` is now `{now}`"
            if loc in _MOVED:
                hint = f"`{dotted(loc)}` is now `{_MOVED[loc]}`"
            mistakes[loc] = Mistake(f"unknown key `{dotted(loc)}`", loc, hint, at_key=True)
        elif detail["type"] == "course":
            context = dict(detail["ctx"])
            mistakes[loc] = Mistake(in_full(context.pop("said"), loc), loc, **context)
        else:
            field = _field(model, loc)
            hint = hint_for(detail, field) or _meant(detail)
            mistakes[loc] = Mistake(said(detail, loc, field, objects), loc, hint)
    return [owned(one, given) for one in mistakes.values()], len(mistakes) + left_out


def render(
    mistakes: Sequence[Mistake],
    document: Document,
    settings: Sequence[Setting] = (),
    count: int | None = None,
) -> str:
    """Mistakes with file, line, column and an excerpt, or with the setting that they come from.

    Args:
        mistakes: Those to show.
        document: The file.
        settings: What replaced parts of it, in order.
        count: How many mistakes there are.
    """
    blocks = [block(m.message, _where(m, document, settings), m.hint) for m in mistakes[:SHOWN]]
    return listed(blocks, count or len(mistakes))


def _where(mistake: Mistake, document: Document, settings: Sequence[Setting]) -> Iterator[str]:
    place, reached = _find(document.root, mistake.path, at_key=mistake.at_key)
    for setting in reversed(settings):
        depth = len(setting.path)
        replaced = any(path and path[:depth] == setting.path for path in (mistake.path, mistake.beside))
        # A section that only a setting has is not in the file at all.
        if replaced or (reached < len(mistake.path) and setting.path[: len(mistake.path)] == mistake.path):
            yield f"  --> {setting.name}"
            return
    yield from document.source.where(place)


def _find(root: Node | None, path: Path, *, at_key: bool) -> tuple[Location | None, int]:
    """The place of a path, or of its deepest part that is written in the file, and how many steps these are."""
    if root is None:
        return None, 0
    node, place = root, root.location
    for index, step in enumerate(path):
        if isinstance(node.value, dict) and str(step) in node.value:
            key, node = node.value[str(step)]
            place = (key if at_key and index == len(path) - 1 else node).location
        elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            place = node.location
        else:
            return place, index
    return place, len(path)


def _written(loc: tuple[int | str, ...], model: type[BaseModel]) -> Path:
    """The part of pydantic's path that a file has: the alternatives of a field are steps of their own to pydantic."""
    current: list[Any] = [model]
    written: list[int | str] = []
    for step in loc:
        kinds = [inner for kind in current for inner in _flatten(kind)]
        models = [kind for kind in kinds if _is_model(kind)]
        registered = [kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)]
        if isinstance(step, int):
            current = kinds
        elif step == "[key]":
            return tuple(written[:-1])
        elif models:
            current = [kind.model_fields[step].annotation for kind in models if step in kind.model_fields]
            if not current:
                return (*written, step)
        elif any(get_origin(kind) is dict for kind in kinds):
            current = [get_args(kind)[1] for kind in kinds if get_origin(kind) is dict]
        elif any(step in {field.name for field in fields(kind)} for kind in registered):
            return (*written, step)
        elif registered:
            # The name of one of several.
            continue
        else:
            return tuple(written)
        written.append(step)
    return tuple(written)


def _meant(detail: ErrorDetails) -> str | None:
    received = detail["input"]
    if detail["type"] != "literal_error" or not isinstance(received, str):
        return None
    expected = str(detail.get("ctx", {}).get("expected", ""))
    return _suggest(received, [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")])


def owned(found: Mistake, given: object) -> Mistake:
    """A mistake of a participant with its name, which a place in a list does not tell.

    Args:
        found: The mistake.
        given: What was read.
    """
    name = whose(found.path, given)
    if not name or name in found.message:
        return found
    return replace(found, message=f"participant {printed(repr(name))}: {found.message}")


def look_alike(word: str, known: Iterable[str]) -> str:
    """A question whether one of some words was meant; empty if none is alike."""
    return _suggest(word, list(known)) or ""


def _suggest(word: str, known: Sequence[str]) -> str | None:
    if len(word) > _LONGEST:
        return None
    # Of a flood of words a few will do: comparing is slow.
    close = difflib.get_close_matches(word, [k for k in known[:_LONGEST] if len(k) <= _LONGEST], n=1)
    return f"did you mean `{close[0]}`?" if close else None


def _keys(model: type[BaseModel], path: Path) -> list[str]:
    """Keys that are allowed at a path."""
    kinds = _at(model, path)[1]
    return next((list(kind.model_fields) for kind in kinds if _is_model(kind)), [])


def _field(model: type[BaseModel], path: Path) -> FieldInfo | None:
    """The field at a path; ``None`` if a section has none, or something else has it."""
    return _at(model, path)[0]


def _at(model: type[BaseModel], path: Path) -> tuple[FieldInfo | None, list[Any]]:
    """The field at a path, and what may stand there; a key of a mapping is of the mapping's field."""
    kinds: list[Any] = [model]
    found = None
    for step in path:
        if isinstance(step, int):
            continue
        own = [k.model_fields[step] for k in kinds if _is_model(k) and step in k.model_fields]
        held = [own[0].annotation] if own else [get_args(k)[1] for k in kinds if get_origin(k) is dict]
        if not held:
            return None, []
        found = own[0] if own else found
        kinds = [inner for kind in held for inner in _flatten(kind)]
    return found, kinds


def _flatten(annotation: Any) -> Iterator[Any]:
    """An annotation and those that it is made of; what a mapping's values are, its own key says first."""
    yield annotation
    for inner in get_args(annotation) if get_origin(annotation) is not dict else ():
        yield from _flatten(inner)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
