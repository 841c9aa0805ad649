"""Which parameters stay with their participant."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence

from xbackend_fl.canonical import Property, Schema, has
from xbackend_fl.canonical.schema import Parameter
from xbackend_fl.errors import ConfigError
from xbackend_fl.text import shown_names

ROLES: Mapping[str, Callable[[Parameter], bool]] = {
    "norm": lambda parameter: has(parameter.operator, Property.NORMALISES),
    "embedding": lambda parameter: parameter.operator == "Gather",
    "bias": lambda parameter: parameter.role == "bias",
}
"""What a word in ``federate.local`` means; any other word is a pattern of canonical names, such as ``head.*``."""


def local_parameters(schema: Schema, wanted: Sequence[str]) -> frozenset[str]:
    """Names of the parameters that roles and patterns choose.

    Args:
        schema: The schema.
        wanted: Words of :data:`ROLES`, and shell patterns of canonical names.

    Raises:
        ConfigError: One chooses nothing, or nothing that trains is left to share.
    """
    found: set[str] = set()
    for word in wanted:
        chosen = {p.name for p in schema.parameters if _chooses(word, p)}
        if not chosen:
            raise ConfigError(
                f"federate.local: {word!r} chooses no parameter of the model, which has {shown_names(list(schema.by_name))}",
                hint=f"a role ({', '.join(ROLES)}), or a pattern of canonical names: xbfl inspect lists them",
            )
        found |= chosen
    if found and not any(p.kind == "trainable" and p.name not in found for p in schema.parameters):
        raise ConfigError(
            f"federate.local: {', '.join(map(repr, wanted))} leave nothing to train together: every trainable parameter is local",
            hint="leave a layer out of federate.local; participants who share nothing need no federation",
        )
    return frozenset(found)


def _chooses(word: str, parameter: Parameter) -> bool:
    role = ROLES.get(word)
    return role(parameter) if role is not None else fnmatch.fnmatchcase(parameter.name, word)
