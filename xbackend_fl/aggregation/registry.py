"""All ways to merge updates by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from xbackend_fl.aggregation import rules
from xbackend_fl.aggregation.aggregator import Rule


def _found() -> dict[str, type[Rule]]:
    modules = [module.name for module in pkgutil.iter_modules(rules.__path__)]
    return {name: importlib.import_module(f"{rules.__name__}.{name}").RULE for name in modules}


AGGREGATORS: Mapping[str, type[Rule]] = _found()
"""Rule by the name of its file, which courses write."""
