"""An engine and the graph beside it, with which it is brought to other weights.

``net.engine`` is TensorRT's own file. ``net.engine.graph`` beside it is the ONNX model without the values of its weights: it never changes,
so that one rename replaces an engine. ``net.engine.sha256`` says what both are (:mod:`xbackend_fl.tensorrt.record`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from xbackend_fl.errors import FileError, SchemaError
from xbackend_fl.formats.limits import MAX_TENSORS
from xbackend_fl.tensorrt.building import Sizes, build, return_own
from xbackend_fl.tensorrt.library import library
from xbackend_fl.tensorrt.record import (
    damage,
    graph_beside,
    new_engine,
    record_beside,
    recorded,
    replace_engine,
)
from xbackend_fl.tensorrt.refitting import refitted
from xbackend_fl.text import line
from xbackend_fl.weights.values import check_values
from xbackend_fl.writing import check_new, followed

Array = NDArray[Any]

_ABOUT = "engine"
"""Key of the graph's metadata that says how the engine was built."""

_PLACES = (Path, graph_beside, record_beside)
"""Of an engine's files. The first is looked at first: what has no name, as a folder may, has nothing beside it."""

_VARIANCE = 4
"""Input of ONNX's BatchNormalization."""


@final
@dataclass(frozen=True)
class Engine:
    """An engine on disk.

    Attributes:
        path: ``net.engine``.
        graph: The model without the values of its weights.
        version: Of TensorRT.
        sizes: Of free axes.
        refittable: Whether its weights can be replaced; else it is built anew.
        digests: The SHA-256 that the file has if it is whole; two where a process was killed that replaced it.
    """

    path: Path
    graph: onnx.ModelProto
    version: str
    sizes: Mapping[str, Sizes]
    refittable: bool
    digests: Collection[str]

    @property
    def fingerprint(self) -> str:
        """Of the schema."""
        return next((item.value for item in self.graph.metadata_props if item.key == "fingerprint"), "")

    @staticmethod
    def load(path: Path) -> Engine:
        """An engine that is to be brought to other weights.

        Raises:
            AdapterError: TensorRT is not installed.
            FileError: A file is missing, the graph or the record is damaged, or the engine is of another version of TensorRT.
        """
        # What lies beside it lies where a link leads.
        path = followed(path)
        for place in _PLACES:
            if not (file := place(path)).is_file():
                raise FileError(
                    f"no such file: {file}", hint="xbfl engine build makes an engine and what lies beside it"
                )
        beside = graph_beside(path)
        of_graph, digests = recorded(path)
        if said := damage(beside, [of_graph]):
            raise FileError(said, hint="build the engine again")
        try:
            graph = onnx.load_model_from_string(beside.read_bytes())
            about = json.loads({item.key: item.value for item in graph.metadata_props}[_ABOUT])
            sizes = {name: Sizes(**ends) for name, ends in about["sizes"].items()}
            found = Engine(path, graph, str(about["version"]), sizes, bool(about["refittable"]), digests)
        except Exception as error:  # whatever a damaged file makes protobuf say
            raise FileError(
                f"{beside} is no graph of an engine: {line(str(error), 100)}", hint="build the engine again"
            ) from error
        installed = library().__version__
        if found.version != installed:
            raise FileError(
                f"{path} was built by TensorRT {line(found.version, 20)}, and {installed} is installed",
                hint="build it again: xbfl engine build",
            )
        return found

    def require(self, fingerprint: str | None) -> None:
        """Refuse weights of another schema.

        Raises:
            SchemaError: They are.
        """
        if fingerprint is None:
            raise SchemaError(
                f"the weights for {self.path} do not say of which schema they are",
                hint="give canonical weights: best.safetensors of a run, or model.onnx",
            )
        if fingerprint != self.fingerprint:
            raise SchemaError(
                f"{self.path} is of schema {self.fingerprint[:12]}, the weights are of {fingerprint[:12]}",
                hint="build an engine of this model: xbfl engine build",
            )

    @property
    def damage(self) -> str:
        """What is wrong with the file, in words; empty if it is what was written."""
        return damage(self.path, self.digests)

    def require_whole(self) -> None:
        """Refuse a file that is not what was written.

        Raises:
            FileError: It is not.
        """
        if said := self.damage:
            again = "xbfl engine build" if self.refittable else f"xbfl engine refit {self.path} WEIGHTS"
            raise FileError(said, hint=f"put back a copy, or build it anew: {again}")

    def write(self, weights: Mapping[str, Array]) -> str:
        """Bring it to other weights; the file is the old one or the new one at any time.

        Args:
            weights: Arrays by canonical name.

        Returns:
            What was done.

        Raises:
            SchemaError: A weight is missing, has another shape, or holds what no weights hold.
            FileError: The engine is damaged, and its weights are to be replaced in it.
            RefusedInput: TensorRT cannot do it here.
        """
        model = self._with(weights)
        if self.refittable:
            self.require_whole()
            replace_engine(self.path, refitted(self.path.read_bytes(), model))
            return "refitted"
        # Nothing of an engine that is built anew is read.
        said = self.damage
        replace_engine(self.path, build(model, self.sizes))
        return f"built anew, since {said}" if said else "built anew"

    def _with(self, weights: Mapping[str, Array]) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self.graph)
        norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
        wanted = {item.name for item in model.graph.initializer}
        held = {name: array for name, array in weights.items() if name in wanted}
        check_values(held, {node.input[_VARIANCE] for node in norms})
        for item in model.graph.initializer:
            array = held.get(item.name)
            if array is None or array.shape != tuple(item.dims):
                raise SchemaError(f"{self.path} needs {item.name!r} of shape {list(item.dims)}")
            item.raw_data = numpy_helper.from_array(np.ascontiguousarray(array, np.float32)).raw_data
        return model


def build_engine(source: Path, path: Path, sizes: Mapping[str, Sizes], *, refittable: bool = False) -> Engine:
    """Build an engine and the graph beside it.

    Args:
        source: An ONNX file of ours, or the folder of a run, which holds ``model.onnx``.
        path: The new engine.
        sizes: Of free axes, by name.
        refittable: Whether its weights can be replaced, on a supported card.

    Raises:
        FileError: There is no such file, it is none of ours, or an engine is there already.
        RefusedInput: It cannot be built.
    """
    file = source / "model.onnx" if source.is_dir() else source
    for place in _PLACES:
        check_new(place(path), "choose another file, or xbfl engine refit")
    if not file.is_file():
        raise FileError(f"no such file: {file}")
    try:
        model = onnx.load_model_from_string(file.read_bytes())
    except Exception as error:  # whatever protobuf says
        raise FileError(f"{file} is no ONNX file: {line(str(error), 100)}") from error
    metadata = {item.key: item.value for item in model.metadata_props}
    if "fingerprint" not in metadata or len(model.graph.initializer) > MAX_TENSORS:
        raise FileError(
            f"{file} says of no schema that it is of it", hint="xbfl convert and xbfl run write files that do"
        )
    return_own(model)
    plan = build(model, sizes, refittable=refittable)
    about = {
        "version": library().__version__,
        "sizes": {name: asdict(ends) for name, ends in sizes.items()},
        "refittable": refittable,
    }
    helper.set_model_props(model, {"fingerprint": metadata["fingerprint"], _ABOUT: json.dumps(about)})
    for item in model.graph.initializer:
        item.ClearField("raw_data")
    new_engine(path, plan, model.SerializeToString(deterministic=True))
    return Engine.load(path)


def refit_engine(path: Path, fingerprint: str | None, weights: Mapping[str, Array]) -> str:
    """Bring an engine to other weights of its schema.

    Args:
        path: The engine.
        fingerprint: Of the weights' schema.
        weights: Arrays by canonical name.

    Returns:
        What was done.

    Raises:
        RefusedInput: It is of another schema or another version, or cannot be done here.
    """
    engine = Engine.load(path)
    engine.require(fingerprint)
    return engine.write(weights)
