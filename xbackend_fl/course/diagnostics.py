"""All mistakes of a course file at once, each with its place and a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Path = tuple[int | str, ...]


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Attributes:
        message: What is wrong.
        path: Keys that lead to it.
        hint: What was probably meant.
        at_key: The key itself is the mistake, rather than its value.
    """

    message: str
    path: Path
    hint: str | None = None
    at_key: bool = False


def explain(error: ValidationError, model: type[BaseModel]) -> list[Mistake]:
    """Pydantic's errors in our words, with look-alikes."""
    details = error.errors()
    unknown = {tuple(d["loc"]): str(d["loc"][-1]) for d in details if d["type"] == "extra_forbidden"}
    missing = {tuple(d["loc"]): str(d["loc"][-1]) for d in details if d["type"] == "missing"}
    mistakes: list[Mistake] = []
    for detail in details:
        loc = tuple(detail["loc"])
        if detail["type"] == "missing":
            # A missing key beside a look-alike unknown one is one mistake, reported at the unknown key.
            beside = [name for path, name in unknown.items() if path[:-1] == loc[:-1]]
            if not difflib.get_close_matches(str(loc[-1]), beside, n=1):
                mistakes.append(Mistake(f"missing key `{_dotted(loc)}`", loc[:-1], at_key=bool(loc[:-1])))
        elif detail["type"] == "extra_forbidden":
            lacking = [name for path, name in missing.items() if path[:-1] == loc[:-1]]
            hint = _suggest(str(loc[-1]), [*lacking, *_keys(model, loc[:-1])])
            mistakes.append(Mistake(f"unknown key `{_dotted(loc)}`", loc, hint, at_key=True))
        else:
            mistakes.append(Mistake(_message(detail), loc, _literal_hint(detail)))
    return mistakes


def render(mistakes: Sequence[Mistake], text: str, name: str) -> str:
    """Mistakes with file, line, column and an excerpt."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        root = None
    lines = text.splitlines()
    blocks = ["\n".join(_block(mistake, root, lines, name)) for mistake in mistakes]
    count = f"{len(mistakes)} error{'s' if len(mistakes) > 1 else ''}; nothing was run."
    return "\n\n".join([*blocks, count])


def render_syntax(error: yaml.YAMLError, name: str) -> str:
    """A YAML syntax error with its place."""
    mark = getattr(error, "problem_mark", None)
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    problem = getattr(error, "problem", None) or str(error)
    return f"error: not YAML: {problem}\n  --> {where}\n\n1 error; nothing was run."


def _block(mistake: Mistake, root: yaml.Node | None, lines: list[str], name: str) -> Iterator[str]:
    yield f"error: {mistake.message}"
    node = _find(root, mistake.path, at_key=mistake.at_key)
    if node is not None:
        row, column = node.start_mark.line, node.start_mark.column
        width = node.end_mark.column - column if node.end_mark.line == row else 1
        margin = " " * len(str(row + 1))
        yield f" {margin}--> {name}:{row + 1}:{column + 1}"
        yield f" {margin} |"
        yield f" {row + 1} | {lines[row] if row < len(lines) else ''}"
        yield f" {margin} | {' ' * column}{'^' * max(width, 1)}"
    else:
        yield f"  --> {name}"
    if mistake.hint:
        yield f"  = help: {mistake.hint}"


def _find(root: yaml.Node | None, path: Path, *, at_key: bool) -> yaml.Node | None:
    """The YAML node of a path, or of its deepest part that is written in the file."""
    node, found = root, root
    for index, step in enumerate(path):
        last = index == len(path) - 1
        child = None
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(step)), None)
            if pair is not None:
                child = pair[1]
                found = pair[0] if last and at_key else pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            child = found = node.value[step]
        if child is None:
            break
        node = child
    return found


def _message(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    where = _dotted(detail["loc"])
    if not where:
        return message
    received = detail["input"]
    shown = (
        repr(received)
        if isinstance(received, str | int | float | bool | type(None))
        else type(received).__name__
    )
    return f"`{where}`: {message[:1].lower()}{message[1:]}, got {shown}"


def _literal_hint(detail: ErrorDetails) -> str | None:
    if detail["type"] != "literal_error" or not isinstance(detail["input"], str):
        return None
    expected = str(detail.get("ctx", {}).get("expected", ""))
    return _suggest(detail["input"], [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")])


def _suggest(word: str, known: Sequence[str]) -> str | None:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean `{close[0]}`?" if close else None


def _keys(model: type[BaseModel], path: Path) -> list[str]:
    """Keys that are allowed at a path."""
    current: Any = model
    for step in path:
        if isinstance(step, int):
            continue
        field = current.model_fields.get(step) if _is_model(current) else None
        if field is None:
            return []
        current = next((kind for kind in _flatten(field.annotation) if _is_model(kind)), None)
    return list(current.model_fields) if _is_model(current) else []


def _flatten(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _flatten(inner)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _dotted(path: Sequence[int | str]) -> str:
    return ".".join(map(str, path))
