"""Replaces the weights in an engine, and holds what it then computes against ONNX Runtime. It takes a supported card.

The parser's own refitter is used: batch normalisations are folded into convolutions, so that by name alone most weights are never reached. What it
reports as done is not believed: an engine that drops a bias, or keeps a stale weight, says nothing of it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from xbackend_fl.canonical.onnx_session import OnnxSession
from xbackend_fl.errors import RefusedInput, RunFailed
from xbackend_fl.tensorrt.library import Messages, library

Array = NDArray[Any]

TOLERANCE = 1e-3
"""Largest relative error of an engine's outputs against ONNX Runtime's, without TF32."""


def refitted(plan: bytes, model: onnx.ModelProto) -> bytes:
    """A refittable engine with the weights of a model.

    Args:
        plan: The serialized engine.
        model: The model, with the new weights.

    Raises:
        RefusedInput: The engine cannot be opened here, or weights are missing in it.
        RunFailed: It then computes something else than ONNX Runtime.
    """
    trt = library()
    said = Messages(trt)
    runtime = trt.Runtime(said.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise said.refusal("the engine cannot be opened", "build it again: xbfl engine build --refittable")
    refitter = trt.Refitter(engine, said.logger)
    if not trt.OnnxParserRefitter(refitter, said.logger).refit_from_bytes(model.SerializeToString()):
        raise said.refusal("the engine takes no weights of this graph", "build it again")
    if missing := refitter.get_missing_weights():
        raise RefusedInput(
            f"the engine misses {len(missing)} weights, {missing[0]!r} first", hint="build it again"
        )
    if not refitter.refit_cuda_engine():
        raise said.refusal("the engine was not refitted", "build it again")
    feeds = _drawn(model)
    expected = OnnxSession(model).run(feeds)
    for name, one, two in zip(_names(model), run(engine, feeds, expected, model), expected, strict=True):
        error = float(np.abs(one - two).max(initial=0.0)) / max(float(np.abs(two).max(initial=0.0)), 1e-12)
        if not error <= TOLERANCE:
            raise RunFailed(
                f"the refitted engine differs from ONNX Runtime in {name!r} by {error:.1e}; the old one is kept"
            )
    return bytes(engine.serialize())


def run(
    engine: Any, feeds: Mapping[str, Array], like: Sequence[Array], model: onnx.ModelProto
) -> list[Array]:
    """Outputs of an engine on this machine's first card.

    Args:
        engine: It is open.
        feeds: Every input by name.
        like: Arrays of the shapes and dtypes of the outputs.
        model: Names the outputs.
    """
    context, made = engine.create_execution_context(), [np.empty_like(array) for array in like]
    with _memory() as (allocate, copy_in, copy_out, synchronize):
        for name, array in feeds.items():
            context.set_input_shape(name, array.shape)
            context.set_tensor_address(name, copy_in(array))
        places = {name: allocate(array.nbytes) for name, array in zip(_names(model), made, strict=True)}
        for name, place in places.items():
            context.set_tensor_address(name, place)
        if not context.execute_async_v3(0):
            raise RunFailed("the engine did not run")
        synchronize()
        for name, array in zip(_names(model), made, strict=True):
            copy_out(places[name], array)
    return made


def _names(model: onnx.ModelProto) -> list[str]:
    return [item.name for item in model.graph.output]


def _drawn(model: onnx.ModelProto) -> dict[str, Array]:
    """Data for every input: normal numbers, or zeros where they are whole."""
    generator, feeds = np.random.Generator(np.random.Philox(0)), {}
    for item in model.graph.input:
        shape = [dim.dim_value or 2 for dim in item.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)
        feeds[item.name] = (
            generator.standard_normal(shape).astype(dtype) if dtype.kind == "f" else np.zeros(shape, dtype)
        )
    return feeds


@contextmanager
def _memory() -> Iterator[tuple[Any, Any, Any, Any]]:
    """Memory of a card by its driver alone, so that no framework is needed; all of it is given back at the end."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RefusedInput("there is no driver of a card on this machine") from error
    held: list[ctypes.c_uint64] = []

    def asked(code: int) -> None:
        if code:
            raise RunFailed(f"the card's driver says {code}")

    def allocate(count: int) -> int:
        place = ctypes.c_uint64()
        asked(driver.cuMemAlloc_v2(ctypes.byref(place), ctypes.c_size_t(max(count, 1))))
        held.append(place)
        return place.value

    def copy_in(array: Array) -> int:
        contiguous = np.ascontiguousarray(array)
        place = allocate(contiguous.nbytes)
        asked(
            driver.cuMemcpyHtoD_v2(
                ctypes.c_uint64(place),
                ctypes.c_void_p(contiguous.ctypes.data),
                ctypes.c_size_t(contiguous.nbytes),
            )
        )
        return place

    def copy_out(place: int, array: Array) -> None:
        asked(
            driver.cuMemcpyDtoH_v2(
                ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(place), ctypes.c_size_t(array.nbytes)
            )
        )

    # The context of TensorRT's own runtime is current in this thread.
    try:
        yield allocate, copy_in, copy_out, lambda: asked(driver.cuCtxSynchronize())
    finally:
        for place in held:
            driver.cuMemFree_v2(place)
