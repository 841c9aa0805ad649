"""All algorithms by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from xbackend_fl.algorithms import kinds
from xbackend_fl.algorithms.algorithm import Algorithm


def _found() -> dict[str, type[Algorithm]]:
    modules = [module.name for module in pkgutil.iter_modules(kinds.__path__)]
    return {name: importlib.import_module(f"{kinds.__name__}.{name}").ALGORITHM for name in modules}


ALGORITHMS: Mapping[str, type[Algorithm]] = _found()
"""Algorithm by the name of its file, which courses write."""
