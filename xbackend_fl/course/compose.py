"""Builds what a YAML document says within bounds, and remembers where everything stands.

Values are those of YAML 1.2: ``1e-3`` is a number, ``010`` is ten, and ``no``, ``1:30`` or ``2026-11-28`` are texts, which fields that are
switches or numbers read for themselves. There are no tags but the plain ones, so that nothing is ever constructed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from xbackend_fl.course.excerpt import SHOWN, Location, printed
from xbackend_fl.objects import is_function

MAX_VALUES = 75_000
MAX_DEPTH = 32
MAX_DIGITS = 18
MAX_PARTICIPANTS = 10_000

TOO_MANY = f"a course has at most {MAX_PARTICIPANTS} participants"
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_TAGS = {None, "!", *(_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map"))}


class Core(yaml.resolver.BaseResolver):
    """Which kind an unquoted text is: the core schema of YAML 1.2."""


for _name, _pattern, _first in (
    ("null", r"^(?:null|Null|NULL|~|)$", "nN~"),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
):
    Core.add_implicit_resolver(_TAG + _name, re.compile(_pattern), list(_first) + [""] * (_name == "null"))


@dataclass
class Node:
    """A value of the file.

    Attributes:
        event: The parser's, which knows where it begins.
        value: A text, number, switch or nothing; a list of nodes; or pairs of nodes by the key's text.
        size: Values in it, aliases written out.
        height: Levels below it, aliases written out.
    """

    event: yaml.NodeEvent
    value: Any
    size: int = 1
    height: int = 0

    @property
    def location(self) -> Location:
        """Where it begins."""
        return _place(self.event)

    @property
    def text(self) -> str:
        """A scalar as it is written."""
        return str(self.event.value) if isinstance(self.event, yaml.ScalarEvent) else ""

    @property
    def quoted(self) -> bool:
        """Whether it stands in quotes."""
        return isinstance(self.event, yaml.ScalarEvent) and bool(self.event.style)


class ReadingError(Exception):
    """A mistake that ends the reading."""

    def __init__(self, message: str, place: Location | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.location, self.hint = message, place, hint


class Several(Exception):  # noqa: N818  caught by the reader
    """Mistakes that do not."""

    def __init__(self, mistakes: list[ReadingError]) -> None:
        super().__init__()
        self.mistakes = mistakes


def plain(node: Node) -> Any:
    """What a node says, as dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(inner) for key, (_, inner) in node.value.items()}
    if isinstance(node.value, list):
        return [plain(inner) for inner in node.value]
    return node.value


_KINDS = {
    dict: "a mapping",
    list: "a list",
    tuple: "a list",
    str: "a text",
    bool: "a switch",
    int: "a number",
    float: "a number",
    bytes: "bytes",
    set: "a set",
    type(None): "nothing",
}


def named_kind(value: Any) -> str:
    """What a value is, in words; in Python it may be anything."""
    if (known := _KINDS.get(type(value))) is not None:
        return known
    if hasattr(value, "__array__"):
        return "an array"
    return "a function" if is_function(value) else f"an object of the class {type(value).__name__}"


class Composer:
    """Builds the nodes of one document, without recursion: whatever is too much ends it at once."""

    def __init__(self) -> None:
        self._anchors: dict[str, Node] = {}
        self._open: list[tuple[Node, str | None, list[Node]]] = []
        self._root: Node | None = None
        self._count = 0
        self._mistakes: list[ReadingError] = []

    def compose(self, text: str) -> Node | None:
        """The root of a text; ``None`` if it says nothing.

        Raises:
            ReadingError: It is too much, or says what no course says.
            Several: Keys stand twice.
            yaml.YAMLError: It is no YAML.
        """
        documents = 0
        for event in yaml.parse(text, Loader=_PARSER):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise ReadingError("a second document begins here; a course is one", _place(event))
            elif isinstance(event, yaml.ScalarEvent):
                self._count_in(1, event)
                self._add(Node(event, _scalar(event)), event.anchor)
            elif isinstance(event, yaml.AliasEvent):
                self._add(self._aliased(event), None)
            elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                self._count_in(1, event)
                _check_tag(event.tag, event)
                mapping = isinstance(event, yaml.MappingStartEvent)
                self._open.append((Node(event, {} if mapping else []), event.anchor, []))
                if len(self._open) > MAX_DEPTH:
                    raise ReadingError(TOO_DEEP, _place(event))
            elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                node, anchor, children = self._open.pop()
                self._fill(node, children)
                self._add(node, anchor)
        if self._mistakes:
            raise Several(self._mistakes)
        return self._root

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if self._open:
            parent, _, siblings = self._open[-1]
            siblings.append(node)
            listed = isinstance(parent.value, list) and len(self._open) == 2
            if listed and len(siblings) > MAX_PARTICIPANTS and self._section == "participants":
                # Here, because there may be more of them than there may be values.
                raise ReadingError(f"{TOO_MANY}, and this is the {len(siblings)}st", node.location)
        else:
            self._root = node

    @property
    def _section(self) -> str:
        """The key of the document that is being read; empty between two."""
        children = self._open[0][2] if self._open else []
        return children[-1].text if len(children) % 2 else ""

    def _aliased(self, event: yaml.AliasEvent) -> Node:
        anchor = str(event.anchor)
        name = printed(anchor)
        if any(anchor == other for _, other, _ in self._open):
            raise ReadingError(f"`*{name}` is a part of itself", _place(event))
        found = self._anchors.get(anchor)
        if found is None:
            raise ReadingError(f"`*{name}` is not defined above with `&{name}`", _place(event))
        self._count_in(found.size, event)
        if len(self._open) + found.height > MAX_DEPTH:
            raise ReadingError(TOO_DEEP, _place(event))
        return found

    def _count_in(self, values: int, event: yaml.Event) -> None:
        self._count += values
        if self._count > MAX_VALUES:
            where = f"; this one is under `{printed(self._section)}`" if self._section else ""
            raise ReadingError(f"more than {MAX_VALUES} values, aliases written out{where}", _place(event))

    def _fill(self, node: Node, children: list[Node]) -> None:
        node.size = 1 + sum(child.size for child in children)
        node.height = 1 + max((child.height for child in children), default=0)
        if isinstance(node.value, list):
            node.value.extend(children)
            return
        merged: list[Node] = []
        for key, value in zip(children[::2], children[1::2], strict=True):
            if isinstance(key.value, dict | list):
                raise ReadingError(f"a key is a text, received {named_kind(plain(key))}", key.location)
            if key.text == "<<" and not key.quoted:
                merged += value.value if isinstance(value.value, list) else [value]
            elif key.text in node.value:
                message = f"the key `{printed(key.text)}` stands here a second time"
                first = node.value[key.text][0].location.row + 1
                self._mistakes.append(
                    ReadingError(message, key.location, f"it stands in line {first} already")
                )
                if len(self._mistakes) == SHOWN:
                    raise Several(self._mistakes)
            else:
                node.value[key.text] = (key, value)
        for other in merged:
            if not isinstance(other.value, dict):
                raise ReadingError(
                    f"`<<` takes mappings, received {named_kind(plain(other))}", other.location
                )
            for name, pair in other.value.items():
                node.value.setdefault(name, pair)


def _scalar(event: yaml.ScalarEvent) -> Any:
    tag, text = event.tag, event.value
    found = _resolved(text, event.implicit)
    if tag in {None, "!"}:
        tag = found
    _check_tag(tag, event)
    kind = tag.removeprefix(_TAG)
    if kind == "str":
        return text
    # Of a tag that is written out, as `!!int "7"`, the text must be of that kind, or a whole number for a float.
    if _resolved(text, (True, False)) not in {tag, _TAG + "int" if kind == "float" else tag}:
        raise ReadingError(f"{printed(text)!r} is no {kind}", _place(event), "leave the tag out")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return _whole(text, event)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_CORE = Core()


@lru_cache(maxsize=4096)
def _resolved(text: str, implicit: tuple[bool, bool]) -> str:
    return str(_CORE.resolve(yaml.ScalarNode, text, implicit))  # type: ignore[no-untyped-call]  # PyYAML's


def _whole(text: str, event: yaml.Event) -> int:
    digits = text.lstrip("+-")
    if len(digits) > MAX_DIGITS:
        reason = f"a whole number of {len(digits)} digits"
        raise ReadingError(reason, _place(event), f"at most {MAX_DIGITS} digits are read")
    return int(text, {"0o": 8, "0x": 16}.get(digits[:2], 10))


def _check_tag(tag: str | None, event: yaml.Event) -> None:
    if tag not in _TAGS:
        raise ReadingError(f"the tag `{printed(str(tag))}` is not known", _place(event), "leave the tag out")


def _place(event: Any) -> Location:
    start, end = event.start_mark, event.end_mark
    return Location(
        start.line, start.column, max(1, end.column - start.column) if end.line == start.line else 1
    )
