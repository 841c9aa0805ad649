"""The packages that the models come from: an extra of this project, imported on use."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from types import ModuleType
from typing import Any

from tests.networks.network import torchvision_models

PACKAGES = ("keras_hub", "timm", "transformers")


def missing() -> str:
    """Why the corpus cannot be built here; empty if it can."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return f"the extra 'corpus' is not installed: {', '.join(absent)}" if absent else ""


@functools.cache
def package(name: str) -> Any:
    """One of the packages, behind torchvision, which timm imports and which needs declarations here."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    torchvision_models()
    return importlib.import_module(name)


def converter(kind: str) -> ModuleType:
    """KerasHub's own module that reads ``transformers/bert`` or ``timm/resnet``: its configuration and weights."""
    package("keras_hub")
    source, _, name = kind.partition("/")
    return importlib.import_module(f"keras_hub.src.utils.{source}.convert_{name}")
