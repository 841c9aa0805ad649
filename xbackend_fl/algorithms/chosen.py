"""Which parameters stay with their participant, and which are not trained."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence

from xbackend_fl.canonical import Kind, Property, Schema, has
from xbackend_fl.canonical.schema import Parameter
from xbackend_fl.errors import ConfigError
from xbackend_fl.text import shown_names

ROLES: Mapping[str, Callable[[Parameter], bool]] = {
    "norm": lambda parameter: has(parameter.operator, Property.NORMALISES),
    "embedding": lambda parameter: parameter.operator == "Gather",
    "bias": lambda parameter: parameter.role == "bias",
}
"""What a word in ``federate.local`` and ``federate.frozen`` means; any other word is a pattern of canonical names, such as ``head.*``."""


def kinds_in_course(schema: Schema, local: Sequence[str], frozen: Sequence[str]) -> dict[str, Kind]:
    """What every parameter is in a course: as the schema says, or local, or frozen.

    Args:
        schema: The schema.
        local: Words of :data:`ROLES`, and shell patterns of canonical names, that choose what stays with its participant.
        frozen: Such words that choose what is not trained.

    Raises:
        ConfigError: A word chooses nothing, a parameter is chosen for both, or nothing that trains is left to share.
    """
    staying, still = local_parameters(schema, local), frozen_parameters(schema, frozen)
    if both := staying & still:
        raise ConfigError(
            f"federate.frozen: {shown_names(sorted(both))} are local too: each participant would keep what nobody trained",
            hint="leave them out of federate.frozen, or out of federate.local",
        )
    kinds = {p.name: p.kind for p in schema.parameters}
    found = kinds | dict.fromkeys(staying, Kind.LOCAL) | dict.fromkeys(still, Kind.FROZEN)
    if Kind.TRAINABLE not in found.values() and Kind.TRAINABLE in kinds.values():
        raise ConfigError(
            "federate.local and federate.frozen leave nothing to train together",
            hint="leave a layer out of one of them",
        )
    return found


def local_parameters(schema: Schema, wanted: Sequence[str]) -> frozenset[str]:
    """Names of the parameters that stay with their participant.

    Raises:
        ConfigError: A word chooses nothing, or nothing that trains is left to share.
    """
    found = _chosen(schema, wanted, "federate.local")
    if found and not _trains_beside(schema, found):
        raise ConfigError(
            f"federate.local: with {', '.join(map(repr, wanted))} nothing is left to train together: every trainable parameter is local",
            hint="leave a layer out of federate.local; participants who share nothing need no federation",
        )
    return found


def frozen_parameters(schema: Schema, wanted: Sequence[str]) -> frozenset[str]:
    """Names of the parameters that are not trained.

    A normalisation layer keeps all of its statistics or none: one whose statistics are frozen normalises with them.

    Raises:
        ConfigError: A word chooses nothing, everything that trains is frozen, or a layer would keep some of its statistics only.
    """
    found = _chosen(schema, wanted, "federate.frozen")
    if found and not _trains_beside(schema, found):
        raise ConfigError(
            f"federate.frozen: with {', '.join(map(repr, wanted))} everything that trains is frozen",
            hint="leave a layer out of federate.frozen",
        )
    for node in schema.nodes:
        moving = {n for n in node.parameters.values() if schema.by_name[n].kind is Kind.STATISTIC}
        if moving & found and not moving <= found:
            raise ConfigError(
                f"federate.frozen: of the statistics of {node.name!r}, {shown_names(sorted(moving & found))} is frozen and "
                f"{shown_names(sorted(moving - found))} is not",
                hint="freeze both or neither; the role norm chooses whole layers",
            )
    return found


def _trains_beside(schema: Schema, chosen: frozenset[str]) -> bool:
    return any(p.kind is Kind.TRAINABLE and p.name not in chosen for p in schema.parameters)


def _chosen(schema: Schema, wanted: Sequence[str], key: str) -> frozenset[str]:
    found: set[str] = set()
    for word in wanted:
        chosen = {p.name for p in schema.parameters if _chooses(word, p)}
        if not chosen:
            raise ConfigError(
                f"{key}: {word!r} chooses no parameter of the model, which has {shown_names(list(schema.by_name))}",
                hint=f"a role ({', '.join(ROLES)}), or a pattern of these names, such as '{_pattern(schema)}'",
            )
        found |= chosen
    return frozenset(found)


def _pattern(schema: Schema) -> str:
    """A pattern that chooses something."""
    first = next(iter(schema.by_name))
    return f"{first.rpartition('.')[0]}.*" if "." in first else first


def _chooses(word: str, parameter: Parameter) -> bool:
    role = ROLES.get(word)
    return role(parameter) if role is not None else fnmatch.fnmatchcase(parameter.name, word)
