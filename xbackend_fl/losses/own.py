"""Losses of the user's own: one function over neutral operations for every backend, or one native function for each."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias, final

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from xbackend_fl.errors import ConfigError, raised, turned
from xbackend_fl.locate import load_callable
from xbackend_fl.losses.operations import Operations
from xbackend_fl.losses.protocol import QUANTITIES, Plain, Targets
from xbackend_fl.places import defined_at, place_of
from xbackend_fl.registry import Registered

NUMPY = "numpy"
"""What stands beside backends: a formula for figures and for the proof, in float64."""


def _pairs(value: Any) -> Any:
    return tuple(value.items()) if isinstance(value, Mapping) else value


Settings: TypeAlias = Annotated[
    tuple[tuple[str, bool | int | float | str], ...],
    BeforeValidator(_pairs),
    PlainSerializer(dict),
    WithJsonSchema({"type": "object"}),
]
Functions: TypeAlias = Annotated[
    tuple[tuple[str, str], ...],
    BeforeValidator(_pairs),
    PlainSerializer(dict),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string", "pattern": ":"}}),
]


@dataclass(frozen=True)
class _Own(Registered, Plain):
    targets: Targets = "values"
    applies: Annotated[frozenset[str], PlainSerializer(sorted)] = frozenset()

    @property
    def metric(self) -> str:
        """Accuracy where there are classes or labels; else the loss: what the outputs of numbers mean is not known."""
        return "loss" if self.targets in QUANTITIES else "accuracy"

    @property
    def bounds(self) -> tuple[float, float]:
        """Nothing is known of its values."""
        return -math.inf, math.inf


@final
@dataclass(frozen=True, kw_only=True)
class OwnLoss(_Own):
    """``training.loss: FILE_OR_MODULE:CALLABLE``: called with outputs, targets and :class:`Operations`, it gives one number per position.

    Attributes:
        file: Where it is: ``training.loss.name``.
        targets: What its targets are.
        applies: Activations, by ONNX operator, that it computes itself.
        settings: What it is called with besides; of a class, what the class is called with.
    """

    file: Annotated[str, Field(alias="name")]
    settings: Settings = ()

    @property
    def name(self) -> str:
        """That of the callable."""
        return _name(self.file)

    def within(self, resolve: Callable[[str], str]) -> OwnLoss:
        """With an absolute file."""
        return replace(self, file=resolve(self.file))

    @property
    def files(self) -> tuple[str, ...]:
        """Where its code is."""
        return (self.file,)

    def called(self, backend: str) -> str:
        """What messages call it in a backend."""
        return f"{_told(self.file, load_callable(self.file, Path()))} in {backend}"

    def each(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """See :class:`~xbackend_fl.losses.protocol.Loss`.

        Raises:
            ConfigError: It raised, or gave something else than one number per position.
        """
        function = _of_settings(self.file, self.settings)
        found = _called(self.file, function, (outputs, targets, ops), "outputs, targets, ops")
        _check(self.file, function, found, [_shape(targets)], "one number per position")
        return found


@final
@dataclass(frozen=True, kw_only=True)
class NativeLoss(_Own):
    """``training.loss: {BACKEND: FILE_OR_MODULE:CALLABLE, …}``: each is called with outputs and targets as its framework has them.

    It gives one number per position, one per example, or their mean. Figures are NumPy's, if there is a function for it; else whoever evaluates asks its own framework.

    Attributes:
        functions: Where the functions are, by backend; ``numpy`` may be one.
        targets: What its targets are.
        applies: Activations, by ONNX operator, that they compute themselves.
    """

    functions: Functions

    @property
    def name(self) -> str:
        """The name of its first function."""
        return _name(self.functions[0][1])

    def within(self, resolve: Callable[[str], str]) -> NativeLoss:
        """With absolute files."""
        return replace(self, functions=tuple((backend, resolve(text)) for backend, text in self.functions))

    @property
    def files(self) -> tuple[str, ...]:
        """Where its code is."""
        return tuple(text for _, text in self.functions)

    @property
    def backends(self) -> frozenset[str]:
        """Who has a function."""
        return frozenset(backend for backend, _ in self.functions)

    def called(self, backend: str) -> str:
        """What messages call its function in a backend."""
        text = dict(self.functions).get(backend)
        return f"the loss of {backend}" if text is None else _told(text, load_callable(text, Path()))

    def each(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """The loss of every position or example, or the mean of them.

        Raises:
            ConfigError: The function raised, or gave something else.
        """
        text = dict(self.functions).get(ops.backend)
        if text is None:
            raise ConfigError(
                f"the loss {self.name} has no function for {ops.backend}, only for {', '.join(sorted(self.backends))}",
                hint=f"{ops.backend}: losses.py:{self.name}",
            )
        function = load_callable(text, Path())
        found = _called(text, function, (outputs, targets), "outputs, targets")
        shapes = [_shape(targets), _shape(targets)[:1], ()]
        _check(text, function, found, shapes, "one number per position or per example, or one number")
        return found


@functools.cache
def _of_settings(text: str, settings: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    function = load_callable(text, Path())
    if not inspect.isclass(function):
        return functools.partial(function, **dict(settings))
    own = _called(text, function, (), "", **dict(settings))
    if not callable(each := getattr(own, "each", None)):
        raise ConfigError(
            f"the loss {text} is a class without each", hint="def each(self, outputs, targets, ops): ..."
        )
    found: Callable[..., Any] = each
    return found


def _called(text: str, function: Any, arguments: tuple[Any, ...], words: str, **settings: Any) -> Any:
    plain = getattr(function, "func", function)

    def failed(error: BaseException) -> ConfigError:
        hint = None
        try:
            inspect.signature(function).bind(*arguments, **settings)
        except (TypeError, ValueError):
            hint = f"it is called with ({words}) and its settings: def {_name(text)}({words}): ..."
        return ConfigError(raised(f"the loss {_name(text)}", error, place_of(error, plain)), hint=hint)

    with turned(failed):
        return function(*arguments, **settings)


def _check(text: str, function: Any, found: Any, shapes: list[tuple[int | None, ...]], words: str) -> None:
    what = _told(text, function)
    if not hasattr(found, "shape") or not hasattr(found, "dtype"):
        raise ConfigError(
            f"{what} returned a {type(found).__name__}, expected {words}, of the kind that the outputs are",
            hint="compute with the outputs that it is given, and return what comes of it",
        )
    shape = _shape(found)
    if not any(_alike(shape, wanted) for wanted in shapes):
        shown = " or ".join(str(list(wanted)) for wanted in dict.fromkeys(shapes))
        raise ConfigError(f"{what} returned the shape {list(shape)}, expected {shown}: {words}")


def _told(text: str, function: Any) -> str:
    """Its name, and where it is defined."""
    plain = getattr(function, "func", function)
    # A class is where its first method is.
    methods = (
        [value for value in vars(plain).values() if inspect.isfunction(value)]
        if inspect.isclass(plain)
        else [plain]
    )
    places = [place for method in methods if (place := defined_at(getattr(method, "__func__", method)))]
    return f"the loss {_name(text)}{f' ({places[0]})' if places else ''}"


def _shape(value: Any) -> tuple[int | None, ...]:
    """A graph of TensorFlow knows some lengths only when it runs."""
    return tuple(value.shape)


def _alike(one: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    return len(one) == len(other) and all(
        n is None or m is None or n == m for n, m in zip(one, other, strict=True)
    )


def _name(text: str) -> str:
    return text.rpartition(":")[2]
