"""A metric of the user's own: a class that a course names, whose sums merge as those of the toolkit do."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import ConfigError, RunFailed, raised, turned
from xbackend_fl.locate import call
from xbackend_fl.metrics.metric import ANY, Figures, Metric, MetricState, Sums
from xbackend_fl.metrics.objective import Shape
from xbackend_fl.metrics.pairs import Pairs
from xbackend_fl.places import defined_at, place_of

MAX_SUMS = 64
_HINT = "value returns None where the figure is not defined, as for want of examples"


class OwnMetric(Protocol):
    """What ``evaluation.metrics: [FILE_OR_MODULE:CALLABLE]`` gives when it is called without arguments; a class is such a callable.

    Attributes:
        sums: Names of the sums, at most 64.
        higher_is_better: Its direction.
    """

    sums: tuple[str, ...]
    higher_is_better: bool

    def measure(self, outputs: NDArray[np.float64], targets: NDArray[Any]) -> Mapping[str, float]:
        """Sums over some positions: examples, tokens or pixels whose target counts. Those of two parts are added up.

        Args:
            outputs: The model's, float64. Classes: scores ``[P, classes]``. Labels of their own: logits ``[P, 1]``. Numbers: ``[P, columns]``.
            targets: Classes: int64 ``[P]``. Otherwise float64, in the shape of ``outputs``.

        Returns:
            A finite number, 0 or more, for every name of :attr:`sums`.
        """
        ...

    def value(self, sums: Mapping[str, float]) -> float | None:
        """The figure that sums over all data have; ``None`` where it is not defined."""
        ...


@final
@dataclass(frozen=True)
class Own(Metric):
    """A metric of the user's own; it is loaded in every process that needs it.

    Attributes:
        name: Its name in events and tables: that of the callable.
        text: ``FILE_OR_MODULE:CALLABLE``, with an absolute file.
    """

    fits = ANY
    text: str

    @staticmethod
    def from_text(text: str) -> Own:
        """That of a callable."""
        return Own(text.rpartition(":")[2], text)

    @property
    def higher_is_better(self) -> bool:
        """See :class:`Metric`.

        Raises:
            ConfigError: There is no such metric.
        """
        return self._own.higher_is_better

    @property
    def _own(self) -> OwnMetric:
        return _loaded(self.text)

    def max_sums(self, output: Shape) -> int:
        """See :class:`Metric`."""
        del output
        return MAX_SUMS

    def measure(self, pairs: Pairs) -> Sums:
        """See :class:`Metric`.

        Raises:
            RunFailed: It raised, or returned something else than sums.
        """
        own, what = self._own, self._what
        found = self._said("measure", pairs.outputs, pairs.targets)
        if not isinstance(found, Mapping) or found.keys() != {*own.sums}:
            received = (
                (", ".join(map(str, found)) or "an empty dict")
                if isinstance(found, Mapping)
                else type(found).__name__
            )
            raise RunFailed(f"{what}: measure returned {received}, expected a dict of {', '.join(own.sums)}")
        return {f"{self.name}.{key}": _number(f"{what}: measure: {key}", found[key]) for key in own.sums}

    def figures(self, state: MetricState) -> Figures:
        """See :class:`Metric`.

        Raises:
            RunFailed: It raised, or its value is no number.
        """
        found = self._said("value", {key: state.sums[f"{self.name}.{key}"] for key in self._own.sums})
        if found is not None and not (_is_number(found) and math.isfinite(_float(found))):
            raise RunFailed(
                f"{self._what}: value returned {_shown(found)}, expected a finite number", hint=_HINT
            )
        return Figures({}) if found is None else Figures({self.name: float(found)})

    def impossible(self, state: MetricState, output: Shape) -> str | None:
        """See :class:`Metric`."""
        del output
        sums = self._own.sums
        if state.sums.keys() != {f"{self.name}.{key}" for key in sums}:
            return f"{self.name} is not the sums {', '.join(sums)}"
        if min(state.sums.values()) < 0:
            return f"{self.name} has a negative sum"
        try:
            self.figures(state)
        except RunFailed as error:
            return error.message
        return None

    @property
    def _what(self) -> str:
        place = defined_at(self._own.measure)
        return f"the metric {self.name} ({place})" if place else f"the metric {self.name}"

    def _said(self, method: str, *arguments: Any) -> Any:
        own, what = self._own, self._what

        def failed(error: BaseException) -> RunFailed:
            hint = _HINT if method == "value" else None
            return RunFailed(raised(f"{what}: {method}", error, place_of(error)), hint=hint)

        with turned(failed):
            return getattr(own, method)(*arguments)


@functools.cache
def _loaded(text: str) -> OwnMetric:
    own = call(text, Path())
    _check(text, own)
    found: OwnMetric = own
    return found


def _check(text: str, own: Any) -> None:
    """Refuse what is no metric."""
    missing = [name for name in ("sums", "higher_is_better", "measure", "value") if not hasattr(own, name)]
    hint = "a class with sums, higher_is_better, measure(outputs, targets) and value(sums): see the guide Metrics"
    if missing:
        raise ConfigError(f"{text} is no metric: it has no {', '.join(missing)}", hint=hint)
    names = own.sums if isinstance(own.sums, tuple | list) else ()
    if not 0 < len(names) <= MAX_SUMS or not all(isinstance(n, str) and n.isidentifier() for n in names):
        raise ConfigError(
            f"{text}: sums is {_shown(own.sums)}, expected 1 to {MAX_SUMS} names",
            hint='sums = ("hits", "all")',
        )
    if len({*names}) < len(names):
        raise ConfigError(
            f"{text}: sums is {_shown(own.sums)}, with a name twice", hint="one name for each sum"
        )
    for method, count in (("measure", 2), ("value", 1)):
        if not _takes(getattr(own, method), count):
            raise ConfigError(
                f"{text}: {method} cannot be called with {count} argument{'s' * (count > 1)}",
                hint=f"def {'measure(self, outputs, targets)' if count == 2 else 'value(self, sums)'}: ...",
            )
    if not isinstance(own.higher_is_better, bool):
        raise ConfigError(
            f"{text}: higher_is_better is {_shown(own.higher_is_better)}, expected True or False"
        )


def _takes(method: Any, count: int) -> bool:
    try:
        inspect.signature(method).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        # Some callables of C have none.
        return callable(method)
    return True


def _number(what: str, value: Any) -> float:
    if not _is_number(value):
        raise RunFailed(f"{what} is {_shown(value)}, expected one number", hint="sum it up: float(x.sum())")
    number = _float(value)
    if not (math.isfinite(number) and number >= 0):
        raise RunFailed(
            f"{what} is {number}, expected a finite number, 0 or more",
            hint="sums of silos must not cancel: give what is below zero as a sum of its own"
            if number < 0 and math.isfinite(number)
            else "leave out what is not finite: x[np.isfinite(x)].sum()",
        )
    return number


def _float(value: Any) -> float:
    """Infinite where a whole number has more digits than a float."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iuf"
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {list(value.shape)}"
    return repr(value) if isinstance(value, int | float | str | tuple) else f"a {type(value).__name__}"
