"""The canonical schema: operator table, layouts, schema and binding, and the canonical graph as ONNX."""

from xbackend_fl.canonical.binding import Axes, Binding, Description, NativeTensor
from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.node import Node
from xbackend_fl.canonical.ops import OPERATORS, has
from xbackend_fl.canonical.row import Effect, Kind, Operator, Property, Slot
from xbackend_fl.canonical.schema import Parameter, Port, Schema, TrainingEffect
from xbackend_fl.canonical.value import Value

__all__ = [
    "OPERATORS",
    "Axes",
    "Binding",
    "Description",
    "Effect",
    "GraphBuilder",
    "Kind",
    "NativeTensor",
    "Node",
    "Operator",
    "Parameter",
    "Port",
    "Property",
    "Schema",
    "Slot",
    "TrainingEffect",
    "Value",
    "has",
]
