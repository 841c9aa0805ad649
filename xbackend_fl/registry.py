"""Registries: every file of a package is one of a kind, and is found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Annotated, Any, ClassVar, TypeAlias

from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict

Decay: TypeAlias = Annotated[float, Ge(0), Lt(1)]
"""What is kept of an average from one step to the next."""
Positive: TypeAlias = Annotated[float, Gt(0)]


class Registered:
    """What a course names and gives settings: a frozen dataclass whose fields are the keys, with their defaults and bounds."""

    # There are no other keys than the fields.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)


def discover(package: ModuleType, name: str) -> dict[str, Any]:
    """What every module of a package calls ``name``, by the module: a registry to which a file is added by being there."""
    return {
        file: getattr(importlib.import_module(f"{package.__name__}.{file}"), name)
        for file in files_of(package)
    }


def files_of(package: ModuleType) -> list[str]:
    """Names of a package's modules, sorted; none is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))
