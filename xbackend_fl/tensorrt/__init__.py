"""Engines of TensorRT that follow a federation: built of an ONNX file once, and brought to other weights."""

from xbackend_fl.tensorrt.building import Sizes, build
from xbackend_fl.tensorrt.engine import Engine, build_engine, refit_engine

__all__ = ["Engine", "Sizes", "build", "build_engine", "refit_engine"]
