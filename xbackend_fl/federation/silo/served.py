"""The engine of a silo, which follows the course: after each round it has the weights of that round, or those of the round before."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import final

from xbackend_fl.errors import XbflError
from xbackend_fl.text import line
from xbackend_fl.weights import Weights

_LOG = logging.getLogger("xbfl")


@final
class Served:
    """An engine that is kept up to date.

    Args:
        path: The engine, with its graph beside it.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._digest = path, ""

    def require(self, fingerprint: str) -> None:
        """Refuse, before anything is trained, an engine that cannot follow.

        Raises:
            RefusedInput: It is missing, damaged, of another version of TensorRT or of another schema.
        """
        from xbackend_fl.tensorrt import Engine  # noqa: PLC0415  only who serves an engine has TensorRT

        engine = Engine.load(self._path)
        engine.require(fingerprint)
        engine.require_whole()

    def update(self, weights: Weights) -> None:
        """Give it other weights; what goes wrong is said here and ends no training, and the engine is then the one before."""
        from xbackend_fl.tensorrt import refit_engine  # noqa: PLC0415

        digest = weights.digest
        if digest == self._digest:
            return
        try:
            done = refit_engine(self._path, weights.fingerprint, weights)
        except (XbflError, OSError) as error:
            _LOG.warning("%s keeps the weights of an earlier round: %s", self._path, line(str(error)))
        else:
            self._digest = digest
            _LOG.info("%s has the weights of this round: %s", self._path, done)
