"""Runs an ONNX model with other weights; it infers and does not train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import onnx
from onnx import external_data_helper, numpy_helper
from onnx.inliner import inline_local_functions

from xbackend_fl.adapter.blame import explained, not_accepted
from xbackend_fl.adapter.contract import Array, Batch, LossSum, TrainConfig
from xbackend_fl.adapter.example import Example, checked, with_masks
from xbackend_fl.adapter.renewing import check_same
from xbackend_fl.canonical import Description, NativeTensor
from xbackend_fl.canonical.dtypes import rounded, widened
from xbackend_fl.canonical.onnx_session import OnnxSession, SessionRefused
from xbackend_fl.errors import FileError, RefusedInput, shortened
from xbfl_onnx.describe import describe, fixed_batch, way_of_file
from xbfl_onnx.half import in_float32


def read(path: Path) -> onnx.ModelProto:
    """Read a model, and tensors that lie in files beside it: PyTorch's exporter writes them so by itself.

    Raises:
        FileError: It is missing, is no ONNX model, or keeps tensors outside of its folder, behind a link, or in a file that is
            too short.
    """
    if not path.is_file():
        raise FileError(f"no such file: {path}")
    try:
        model = onnx.load(path, load_external_data=False)
        _load_apart(path, model)
        onnx.checker.check_model(model)
    except FileError:
        raise
    except Exception as error:
        # The parser and the checker each have exceptions of their own, without a common base.
        raise FileError(f"{path} is not a valid ONNX model: {shortened(error)}") from error
    return model


def _load_apart(path: Path, model: onnx.ModelProto) -> None:
    """Put the tensors that lie in other files into a model."""
    apart = [item for item in model.graph.initializer if item.data_location == onnx.TensorProto.EXTERNAL]
    try:
        # It follows no link and no path out of the folder.
        external_data_helper.load_external_data_for_model(model, str(path.parent))
        for item in apart:
            numpy_helper.to_array(item)
    except Exception as error:
        # The loader raises its own, the system's, and ValueError where a file is too short.
        raise FileError(
            f"{path} keeps tensors in other files, which cannot be read: {shortened(error)}",
            hint="keep them in its folder, or export it whole: torch.onnx.export(..., external_data=False)",
        ) from error


@final
class OnnxTrainer:
    """An ONNX model behind the trainer contract.

    Args:
        model: A ``ModelProto``; it is copied.
        example: Its arrays in the layout of the file; the schema has them in its order.
    """

    def __init__(self, model: object, example: Example) -> None:
        if not isinstance(model, onnx.ModelProto):
            raise RefusedInput(f"expected an onnx.ModelProto, received {type(model).__name__}")
        with explained("describing the ONNX model"):
            given = checked(example)
            file = self._file = model
            # A function of the file's own is a name for nodes.
            whole = inline_local_functions(file) if file.functions else file
            model, dtypes = in_float32(whole)
            way = way_of_file(model, given)
            described = describe(model, way.own(given.arrays)).with_inputs(way.back).stored_in(dtypes)
            self._description = with_masks(described, given.arrays)
        self._in_half: onnx.ModelProto | None = None
        if dtypes:
            self._in_half = onnx.ModelProto()
            self._in_half.CopyFrom(file)
            held = " and ".join(sorted(set(dtypes.values())))
            note = f"the ONNX file is in {held}: its graph is computed with the same numbers in float32"
            self._description = replace(self._description, notes=(*self._description.notes, note))
        self._tensors = _initializers(model)
        self._seen = dict(self._tensors)
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        # Weights become inputs, so that one session serves them all.
        shared = self._description.binding.owners
        kept = [item for item in self._model.graph.initializer if item.name not in shared]
        inputs = {item.name for item in self._model.graph.input}
        for name in shared:
            if name not in inputs:
                array = self._tensors[name]
                element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                self._model.graph.input.append(onnx.helper.make_tensor_value_info(name, element, array.shape))
        del self._model.graph.initializer[:]
        self._model.graph.initializer.extend(kept)
        self._session: OnnxSession | None = None
        self._batch = fixed_batch(model)

    @property
    def description(self) -> Description:
        """Schema and binding of the model."""
        return self._description

    def read(self) -> dict[str, Array]:
        """Copies of all initializers."""
        return {name: array.copy() for name, array in self._tensors.items()}

    def renew(self) -> None:
        """Take the initializers that the user has changed in the model that was given; others stay as they were written here."""
        found = _initializers(in_float32(self._file)[0])
        natives = {name: NativeTensor(array.shape, array.dtype.name) for name, array in found.items()}
        known = {name: NativeTensor(array.shape, array.dtype.name) for name, array in self._seen.items()}
        check_same(known, natives, found)
        for name, array in found.items():
            if not np.array_equal(array, self._seen[name], equal_nan=array.dtype.kind == "f"):
                self._tensors[name] = array
        self._seen = found

    def write(self, tensors: Mapping[str, Array]) -> None:
        """Set initializers."""
        self._tensors |= {name: widened(array.copy()) for name, array in tensors.items()}

    def reset(self, seed: int) -> None:
        """Nothing is left of a run."""
        del seed

    def forward(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Outputs in ONNX Runtime."""
        if self._session is None:
            self._session = OnnxSession(self._model)
        names = self._description.binding.in_own_order(
            [port.name for port in self._description.schema.inputs]
        )
        feeds = {name: self._tensors[name] for name in self._description.binding.owners}
        rows = len(inputs[0])
        size = self._batch or rows
        parts = []
        try:
            for start in range(0, rows, size):
                given = [np.ascontiguousarray(array[start : start + size]) for array in inputs]
                parts.append(self._session.run(feeds | dict(zip(names, given, strict=True))))
            return tuple(np.concatenate(part) for part in zip(*parts, strict=True))
        except SessionRefused as error:
            raise not_accepted("ONNX", inputs, error) from error

    def predict(self, batches: Iterable[Sequence[Array]]) -> Iterator[tuple[Array, ...]]:
        """Outputs in ONNX Runtime, batch by batch."""
        return map(self.forward, batches)

    def gradients(self, inputs: Sequence[Array], cotangents: Sequence[Array]) -> dict[str, Array]:
        """An inference graph has no gradients: no parameter is named."""
        del inputs, cotangents
        return {}

    def train(self, batches: Iterable[Batch], config: TrainConfig) -> LossSum:
        """Refuse."""
        del batches, config
        raise RefusedInput("an ONNX file is a reference: it infers and does not train")

    @property
    def formats(self) -> tuple[str, ...]:
        """ONNX has one."""
        return ("onnx",)

    def save(self, path: Path, file_format: str | None = None) -> Path:
        """Write the model with its current weights as ``.onnx``."""
        del file_format
        path = path.with_name(f"{path.name}.onnx")
        natives, shared = self._description.binding.natives, self._description.binding.owners
        model = onnx.ModelProto()
        if self._in_half is not None:
            model.CopyFrom(self._in_half)
            for item in model.graph.initializer:
                if item.name in shared:
                    held = rounded(self._tensors[item.name], natives[item.name].dtype)
                    item.CopyFrom(numpy_helper.from_array(held, item.name))
            onnx.save(model, path)
            return path
        model.CopyFrom(self._model)
        inputs = [item for item in model.graph.input if item.name not in shared]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.graph.initializer.extend(numpy_helper.from_array(self._tensors[name], name) for name in shared)
        onnx.save(model, path)
        return path


def _initializers(model: onnx.ModelProto) -> dict[str, Array]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
