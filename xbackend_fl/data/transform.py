"""Augmentation by a function of the user's own, with random numbers of the course: the same on every backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from xbackend_fl.data.dataset import Examples, input_names
from xbackend_fl.data.draws import generator
from xbackend_fl.data.targets import named
from xbackend_fl.errors import ConfigError
from xbackend_fl.locate import explained, load_callable
from xbackend_fl.losses import each_of, joined, parts_of


@final
class Transform:
    """A function over batches in ONNX layout: ``inputs, targets = function(inputs, targets, rng)``.

    ``inputs`` is an array, or a tuple of arrays if the model takes several, as the data hold them: bytes are not scaled yet. The arrays
    are copies, which it may change; targets of several outputs are a dict of arrays. ``rng`` is a NumPy generator; whoever draws from it alone gives the same on every backend, in any
    process.

    Args:
        key: What a course calls the function, for messages.
        text: ``FILE_OR_MODULE:CALLABLE``.
        base: Folder that relative files start from.
        seed: The course's seed.

    Attributes:
        what: What messages call it.

    Raises:
        ConfigError: There is no such function.
    """

    def __init__(self, key: str, text: str, base: Path, seed: int) -> None:
        self.what, self._seed = f"{key} {text}", seed
        self._function = load_callable(text, base)

    def __call__(self, examples: Examples, *key: int | str) -> Examples:
        """A batch transformed.

        Args:
            examples: The batch.
            key: What the random numbers are for.

        Raises:
            ConfigError: The function raised, or returned something else than arrays of the same shapes, in the same dtype or as float32.
        """
        inputs = examples.inputs
        handed = inputs[0] if len(inputs) == 1 else inputs
        with explained(self.what, self._function):
            targets = each_of(examples.targets, np.ascontiguousarray)
            returned = self._function(handed, targets, generator(self._seed, "transform", *key))
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise ConfigError(
                f"{self.what}: returned {type(returned).__name__}, expected (inputs, targets)",
                hint="end the function with: return inputs, targets",
            )
        found = (returned[0],) if len(inputs) == 1 else tuple(returned[0])
        if len(found) != len(inputs):
            raise ConfigError(f"{self.what}: returned {len(found)} inputs of {len(inputs)}")
        names = input_names(len(inputs))
        checked = tuple(map(self._checked, names, found, inputs))
        before = parts_of(examples.targets)
        found_targets = {"": returned[1]} if "" in before else returned[1]
        if not isinstance(found_targets, Mapping) or found_targets.keys() != before.keys():
            raise ConfigError(
                f"{self.what}: returned targets that are not a dict of {', '.join(before)}",
                hint="it is given one, and returns one with the same keys",
            )
        named_targets = {
            name: self._checked(named("targets", name), found_targets[name], part)
            for name, part in before.items()
        }
        return Examples(checked, joined(named_targets))

    def _checked(self, name: str, found: Any, before: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        array = np.asarray(found)
        if array.dtype == np.float64 and before.dtype != np.float64:
            # What NumPy makes of products with its own random numbers.
            array = array.astype(np.float32)
        if array.shape != before.shape or array.dtype not in {before.dtype, np.dtype(np.float32)}:
            raise ConfigError(
                f"{self.what}: returned {name} of {array.dtype} {list(array.shape)}, expected {before.dtype} {list(before.shape)}, or float32",
                hint="a transform changes values, not shapes; pad before you crop",
            )
        return array
