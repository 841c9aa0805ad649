"""On the path of a process: it has no torchvision.

Lightning and transformers import torchvision where it is installed, and do without where it is not. A build for another PyTorch is installed and cannot be
imported, so that neither can they. Nothing of PyTorch, Lightning or transformers is changed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution
from typing import Any

_find_spec, _find_distributions = PathFinder.find_spec, PathFinder.find_distributions


def _other_modules(fullname: str, *arguments: Any) -> ModuleSpec | None:
    return None if fullname.partition(".")[0] == "torchvision" else _find_spec(fullname, *arguments)


def _other_packages(*arguments: Any) -> Iterator[Distribution]:
    return (found for found in _find_distributions(*arguments) if found.metadata["Name"] != "torchvision")


PathFinder.find_spec = staticmethod(_other_modules)  # type: ignore[method-assign, assignment]
PathFinder.find_distributions = staticmethod(_other_packages)  # type: ignore[method-assign, assignment]
