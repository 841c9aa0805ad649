"""Turns whatever goes wrong while a model is read or proven into one reason, with a place in the user's own code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.example import shown
from xbackend_fl.errors import RefusedInput, UnsupportedError, XbflError, shortened
from xbackend_fl.places import Frames, defined_at, place_of, users_place

Array = NDArray[Any]


@contextmanager
def explained(what: str, model: object = None, frames: Callable[[], Frames] = tuple) -> Iterator[None]:
    """Refuse, with a reason and a place, where the block ends in an exception that nobody foresaw.

    A refusal goes on as it is; if ``frames`` know a place, it is added.

    Args:
        what: What is done, for the message.
        model: The user's model; its class is the place if the exception shows none.
        frames: The calls that led to what the block reads, if the framework remembers them.

    Raises:
        UnsupportedError: The block raised something else than an error of the toolkit.
    """
    try:
        yield
    except XbflError as error:
        place = users_place(frames()) or (place_of(error.__cause__) if error.__cause__ else "")
        place = place or defined_at(model)
        if place and "(at " not in error.message:
            error.message = f"{error.message} (at {place})"
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        place = users_place(frames()) or place_of(error, model)
        where = f" (at {place})" if place else ""
        raise UnsupportedError(
            f"{what} failed{where}: {_said(error)}",
            hint="the toolkit does not know this form; write it in another way there",
        ) from error


def not_accepted(
    word: str, inputs: Sequence[Array], error: BaseException, model: object = None
) -> RefusedInput:
    """The refusal of a model that raised where it was given some data.

    Args:
        word: Whose model it is.
        inputs: The data, in the model's own order of axes.
        error: What was raised.
        model: The user's model.
    """
    return RefusedInput(
        f"the {word} model does not accept inputs of {shown(inputs)}{_at(error, model)}: {_said(error)}"
    )


def untraceable(
    what: str,
    model: object,
    error: BaseException,
    native: Sequence[Array],
    call: Callable[[Sequence[Array]], object],
) -> UnsupportedError:
    """The refusal of a model that raised while its graph was made, with what it does when it is only called.

    Args:
        what: Who makes the graph.
        model: The user's model.
        error: What was raised.
        native: Two examples, in the model's own order of axes.
        call: Calls the model with arrays like these.
    """
    name = type(model).__name__
    raised = _raised(call, native)
    if raised is None:
        return UnsupportedError(
            f"{what} cannot trace {name}{_at(error, model)}: {_said(error)}; when it is only called, it runs",
            hint="a graph holds operations on tensors: decide by the data with where(…) instead of if, and keep out .item(), .numpy() "
            "and lists",
        )
    reason, cure = _instead(call, native)
    return UnsupportedError(
        f"{name} cannot be called with {shown(native)}{_at(raised, model)}: {_said(raised)}{reason}",
        hint=cure,
    )


def _instead(call: Callable[[Sequence[Array]], object], native: Sequence[Array]) -> tuple[str, str]:
    """What a model takes that does not take ``native``, and so the cure: each was tried."""
    if _raised(call, [array[:1] for array in native]) is None:
        return "; it takes one example and not two", (
            "take the number of examples from the data wherever it is written out or assumed: "
            "x.reshape(x.shape[0], -1), token.expand(x.shape[0], -1, -1), or tf.shape(x)[0]"
        )
    whole = [array.dtype.kind in "biu" for array in native]
    for dtype, wrong in (("int64", [not item for item in whole]), ("float32", whole)):
        for chosen in _choices(wrong):
            other = [np.ones_like(a, dtype) if i in chosen else a for i, a in enumerate(native)]
            if _raised(call, other) is None:
                words = " and ".join(f"input {index}" for index in chosen)
                prefix = "int64:" if dtype == "int64" else ""
                example = f"--input {prefix}{','.join(map(str, (1, *native[chosen[0]].shape[1:])))}"
                return f"; it takes {dtype} for {words}", f"give {words} as {dtype}: {example}"
    if (
        any(whole)
        and _raised(call, [np.zeros_like(a) if w else a for a, w in zip(native, whole, strict=True)]) is None
    ):
        largest = max(int(array.max()) for array, w in zip(native, whole, strict=True) if w)
        return (
            f"; it takes zeros, and the example goes up to {largest}",
            "give numbers that its tables have rows for",
        )
    for index, array in enumerate(native):
        for to, back in ((-1, 1), (1, -1)) if array.ndim > 2 else ():
            turned = [np.moveaxis(a, to, back) if i == index else a for i, a in enumerate(native)]
            if _raised(call, turned) is None:
                return f"; it takes input {index} as {list(turned[index].shape)}", (
                    "the example has channels second (ONNX layout); a model that takes another order of axes says so: "
                    "with_axes(model, inputs=[…])"
                )
    return (
        "",
        "the model itself raises this, without the toolkit: give inputs that it takes, or mend it there",
    )


def _choices(wrong: Sequence[bool]) -> Iterator[tuple[int, ...]]:
    """Each of some inputs alone, and all of them."""
    places = tuple(index for index, item in enumerate(wrong) if item)
    yield from ((index,) for index in places)
    if len(places) > 1:
        yield places


def _at(error: BaseException, model: object) -> str:
    place = place_of(error, model)
    return f" (at {place})" if place else ""


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {shortened(error)}"


def _raised(call: Callable[[Sequence[Array]], object], inputs: Sequence[Array]) -> BaseException | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(inputs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  a model may raise anything
        return error
    return None
