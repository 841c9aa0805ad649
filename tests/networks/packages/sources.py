"""The packages that the models come from: an extra of this project, imported on use."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from types import ModuleType
from typing import Any
from unittest import mock

import keras
import tensorflow as tf

from tests.networks.network import torchvision_models

PACKAGES = (
    "deepctr",
    "deepctr_torch",
    "keras_hub",
    "keras_rs",
    "segmentation_models",
    "segmentation_models_pytorch",
    "timm",
    "transformers",
)


def missing() -> str:
    """Why the corpus cannot be built here; empty if it can."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return f"the extra 'corpus' is not installed: {', '.join(absent)}" if absent else ""


@functools.cache
def package(name: str) -> Any:
    """One of the packages, behind torchvision, which timm imports and which needs declarations here."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    torchvision_models()
    with mock.patch("threading.Thread") if name.startswith("deepctr") else nullcontext():
        return importlib.import_module(name)  # deepctr would ask in a thread whether there is a newer one


def converter(kind: str) -> ModuleType:
    """KerasHub's own module that reads ``transformers/bert`` or ``timm/resnet``: its configuration and weights."""
    package("keras_hub")
    source, _, name = kind.partition("/")
    return importlib.import_module(f"keras_hub.src.utils.{source}.convert_{name}")


def part(name: str, end: str) -> Any:
    """A class of KerasHub that is part of a model."""
    package("keras_hub")
    return getattr(importlib.import_module(f"keras_hub.src.models.{end}"), name)


@functools.cache
def segmentation_models(name: str) -> ModuleType:
    """A module of ``segmentation_models.models``, with the modules of Keras, one of whose names has moved since it was written."""
    with (
        mock.patch.dict(os.environ, {"SM_FRAMEWORK": "keras"}),
        mock.patch.object(keras.utils, "generic_utils", keras.utils, create=True),
        redirect_stdout(StringIO()),
    ):
        package("segmentation_models")
    found = importlib.import_module(f"segmentation_models.models.{name}")
    found.__dict__.update(layers=keras.layers, models=keras.models, backend=tf.keras.backend)
    return found
