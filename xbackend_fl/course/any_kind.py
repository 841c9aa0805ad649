"""Settings of a registry before it is known which one they are of: any key that any one has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Literal, Union, get_type_hints

from pydantic import Field, create_model

from xbackend_fl.course.section import Section, TextSection


class _Named(TextSection):
    """A name alone is a mapping with it."""

    text_field: ClassVar[str] = "name"
    whole: ClassVar[str] = "a name, or a mapping with settings"


def any_kind(
    registry: Mapping[str, type[Any]], title: str, about: str, module: str, named: str = "name"
) -> type[Section]:
    """A section that has every key of every class, and of which none need be said.

    Args:
        registry: Classes whose fields are the keys, by name.
        title: What the section is called.
        about: What it says, in words.
        module: Where it is found by that.
        named: The key that says which class.
    """
    found: dict[str, list[Any]] = {named: [Literal[tuple(registry)]]}
    for kind in registry.values():
        hints = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            known = found.setdefault(field.name, [])
            if field.name != named and hints[field.name] not in known:
                known.append(hints[field.name])
    # What is left out has no value, and so no default that somebody could read.
    left_out: Any = Field(default_factory=_nothing)
    keys: dict[str, Any] = {key: (Union[tuple(types)], left_out) for key, types in found.items()}  # noqa: UP007
    made: type[Section] = create_model(title, __base__=_Named, __module__=module, __doc__=about, **keys)
    return made


def _nothing() -> None:
    return None


def completed(own: Section, held: Any, registry: Mapping[str, type[Any]]) -> dict[str, Any]:
    """What a section of :func:`any_kind` says, and for the rest what one of the registry says, as far as the named class has it.

    Args:
        own: What is said.
        held: One of the registry's classes, made.
        registry: All of them.
    """
    said = {name: getattr(own, name) for name in own.model_fields_set}
    kind = registry[said.get("name", held.name)]
    rest = {field.name: getattr(held, field.name) for field in fields(kind) if hasattr(held, field.name)}
    return rest | {"name": held.name} | said
