"""Registries: every file of a package is one of a kind, and is found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields
from types import ModuleType
from typing import Annotated, Any, ClassVar, TypeAlias

from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict

from xbackend_fl.errors import ConfigError

Decay: TypeAlias = Annotated[float, Ge(0), Lt(1)]
"""What is kept of an average from one step to the next."""
Positive: TypeAlias = Annotated[float, Gt(0)]


class Registered:
    """What a course names and gives settings: a frozen dataclass whose fields are the keys, with their defaults and bounds."""

    # There are no other keys than the fields.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)


def discover(package: ModuleType, name: str) -> dict[str, Any]:
    """What every module of a package calls ``name``, by the module: a registry to which a file is added by being there.

    Raises:
        ConfigError: A file has none, or a class that courses cannot name by its file.
    """
    found = {}
    for file in files_of(package):
        module = importlib.import_module(f"{package.__name__}.{file}")
        if not hasattr(module, name):
            raise ConfigError(
                f"{module.__file__} has no {name}", hint=f"end the file with {name} = its class"
            )
        found[file] = getattr(module, name)
    return found


def discover_kinds(
    package: ModuleType, name: str, base: type[Any], *, named: str = "name"
) -> dict[str, type[Any]]:
    """As :func:`discover`, where all are classes that courses name.

    Args:
        package: Has the files.
        name: What each of them calls its class.
        base: What the classes are.
        named: The field that says which it is, by default the name of the file.

    Raises:
        ConfigError: A file has no such class.
    """
    found = discover(package, name)
    for file, kind in found.items():
        where = f"{name} of {package.__name__}.{file}"
        if not (isinstance(kind, type) and issubclass(kind, base)):
            raise ConfigError(
                f"{where} is {kind!r}, expected a class made of {base.__name__}",
                hint=f"{name} = THE_CLASS, without brackets",
            )
        if "__dataclass_fields__" not in vars(kind):
            raise ConfigError(
                f"{where}: {kind.__name__} is no dataclass", hint="write @dataclass(frozen=True) above it"
            )
        default = next((field.default for field in fields(kind) if field.name == named), None)
        if default != file:
            raise ConfigError(
                f"{where}: {kind.__name__}.{named} is {default!r} by default, and a course names it by its file",
                hint=f'{named}: Literal["{file}"] = "{file}"',
            )
    return found


def files_of(package: ModuleType) -> list[str]:
    """Names of a package's modules, sorted; none is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))
