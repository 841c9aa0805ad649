"""The operator table: every operator of the canonical schema, its parameters and its attributes, as data.

Names, layouts and gate orders are ONNX's. Five operators are *macro nodes* that ONNX spells with several
nodes or other slots; the table says so in ``note`` and ``canonical/onnx_export`` holds the expansion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a parameter is to training, and so how updates of it are merged."""

    TRAINABLE = "trainable"
    STATISTIC = "statistic"
    COUNTER = "counter"
    FROZEN = "frozen"
    LOCAL = "local"
    """Kept by its participant, whatever it is to training; a course says which, no schema does."""


class Effect(StrEnum):
    """What changes when an attribute changes."""

    FUNCTION = "function"
    """The output for the same input: two models must agree."""
    TRAINING = "training"
    """Only training (dropout rate, momentum of running statistics): the schema's value is applied.

    A value that a model cannot be given is absent from its node."""
    SHAPE = "shape"
    """Only the arrangement of values that flow between nodes."""
    NUMBERS = "numbers"
    """Numbers that each framework computed for itself: left to the numeric proof."""


@dataclass(frozen=True)
class Slot:
    """A parameter of an operator.

    Attributes:
        role: Our name for it, the last part of a canonical parameter name.
        formal: The formal input of the ONNX operator that it feeds.
        axes: Canonical axis order in words.
        kind: Its kind unless the model freezes it.
        fan_in_axes: Axes whose product is the fan-in of one output; used to draw informative values.
    """

    role: str
    formal: str
    axes: str
    kind: Kind = Kind.TRAINABLE
    fan_in_axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Operator:
    """A row of the table.

    Attributes:
        name: ONNX operator name.
        slots: Parameters, in the order of the ONNX formal inputs.
        attributes: Attribute name to its effect.
        commutative: The order of the data inputs does not matter.
        shape_only: The node moves values without changing any; matching looks through it.
        note: Where the node is wider than the ONNX operator of that name.
    """

    name: str
    slots: tuple[Slot, ...] = ()
    attributes: Mapping[str, Effect] | None = None
    commutative: bool = False
    shape_only: bool = False
    note: str = ""

    def slot(self, role: str) -> Slot:
        """The slot of ``role``."""
        return next(slot for slot in self.slots if slot.role == role)

    def effect(self, attribute: str) -> Effect:
        """The effect of ``attribute``."""
        return (self.attributes or {})[attribute]


OPAQUE = "Opaque"
"""Row of the operations that have no canonical form."""

_F, _T, _S = Effect.FUNCTION, Effect.TRAINING, Effect.SHAPE
_N = Effect.NUMBERS
_BIAS = Slot("bias", "B", "[out]")
_WINDOW = dict.fromkeys(("kernel_shape", "strides", "pads", "dilations", "ceil_mode"), _F)
_RECURRENT = {"hidden_size": _F, "direction": _F}


def _recurrent(name: str, gates: str, width: str, note: str, **attributes: Effect) -> Operator:
    slots = (
        Slot("weight", "W", f"[directions, {width}·hidden, input], gates {gates}", fan_in_axes=(2,)),
        Slot(
            "recurrent_weight", "R", f"[directions, {width}·hidden, hidden], gates {gates}", fan_in_axes=(2,)
        ),
        Slot("bias", "B", note),
    )
    return Operator(
        name,
        slots,
        _RECURRENT | attributes,
        note="inputs [N, T, F] and, if it does not begin with zeros, the first state (and memory) [N, directions·hidden]; "
        "outputs sequence [N, T, directions·hidden], last state and, if it is read, memory of an LSTM [N, directions·hidden]",
    )


def _norm(name: str, formal: str, **attributes: Effect) -> Operator:
    slots = (Slot("weight", formal, "[channels]"), Slot("bias", "B", "[channels]"))
    return Operator(name, slots, {"epsilon": _F} | attributes)


_PARAMETRIC = (
    Operator(
        "Conv",
        (Slot("weight", "W", "[out, in / group, *kernel]", fan_in_axes=(1, 2, 3, 4)), _BIAS),
        dict.fromkeys(("kernel_shape", "strides", "pads", "dilations", "group"), _F),
    ),
    Operator(
        "ConvTranspose",
        (Slot("weight", "W", "[in, out / group, *kernel]", fan_in_axes=(0, 2, 3, 4)), _BIAS),
        dict.fromkeys(("kernel_shape", "strides", "pads", "output_padding", "dilations", "group"), _F),
    ),
    Operator(
        "Gemm",
        (Slot("weight", "B", "[out, in]", fan_in_axes=(1,)), Slot("bias", "C", "[out]")),
        note="transB=1, applied to the last axis of an input of any rank (ONNX MatMul above rank 2)",
    ),
    Operator(
        "BatchNormalization",
        (
            Slot("weight", "scale", "[channels]"),
            Slot("bias", "B", "[channels]"),
            Slot("mean", "input_mean", "[channels]", Kind.STATISTIC),
            Slot("variance", "input_var", "[channels], biased", Kind.STATISTIC),
        ),
        {"epsilon": _F, "momentum": _T},
        note="momentum is ONNX's: running = momentum · running + (1 - momentum) · batch",
    ),
    _norm("LayerNormalization", "Scale"),
    _norm("GroupNormalization", "scale", num_groups=_F),
    _norm("InstanceNormalization", "scale"),
    Operator("PRelu", (Slot("weight", "slope", "[channels] or [1]"),)),
    Operator(
        "Gather",
        (Slot("weight", "data", "[vocabulary, features]"),),
        {"padding_idx": _T},
        note="embedding; padding_idx is the row that receives no gradient, -1 for none, absent where a model cannot have one",
    ),
    _recurrent("LSTM", "iofc", "4", "[directions, 4·hidden] = Wb + Rb"),
    _recurrent(
        "GRU",
        "zrh",
        "3",
        "[directions, 6·hidden] = Wb, Rb; [directions, 3·hidden] when linear_before_reset is 0",
        linear_before_reset=_F,
    ),
    _recurrent("RNN", "one gate", "1", "[directions, hidden] = Wb + Rb", activation=_F),
    Operator(
        "Parameter",
        (Slot("weight", "input", "as its readers broadcast it, without leading ones"),),
        note="a parameter used as data (ONNX Identity of an initializer)",
    ),
)

_UNARY = (
    *("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Mish", "Swish", "Exp", "Log"),
    *("Sqrt", "Neg", "Abs", "Reciprocal", "Erf", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan"),
    *("Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Sign", "Floor", "Ceil", "Round"),
)
_REDUCTIONS = ("Mean", "Max", "Sum", "Min", "Prod", "LogSumExp")
_PLAIN = (
    *(Operator(name) for name in _UNARY),
    Operator("Celu", attributes={"alpha": _F}),
    Operator("ThresholdedRelu", attributes={"alpha": _F}),
    Operator("Shrink", attributes={"lambd": _F, "bias": _F}),
    Operator("LeakyRelu", attributes={"alpha": _F}),
    Operator("Elu", attributes={"alpha": _F}),
    Operator("Selu", attributes={"alpha": _F, "gamma": _F}),
    Operator("HardSigmoid", attributes={"alpha": _F, "beta": _F}),
    Operator("Gelu", attributes={"approximate": _F}),
    Operator("Clip", attributes={"min": _F, "max": _F}),
    Operator("Constant", attributes={"shape": _F, "value": _N, "dtype": _F}),
    Operator("CausalMask", note="minus infinity above the diagonal of the last two axes"),
    Operator("Softmax", attributes={"axis": _F}),
    Operator("LogSoftmax", attributes={"axis": _F}),
    Operator("Add", attributes={"constant": _F}, commutative=True),
    Operator("Mul", attributes={"constant": _F}, commutative=True),
    Operator("Sub"),
    Operator("Div"),
    Operator("Pow", attributes={"constant": _F}),
    Operator("Max", commutative=True),
    Operator("Min", commutative=True),
    Operator("MatMul"),
    Operator(
        "Attention",
        attributes={"num_heads": _F, "causal": _F, "scale": _F, "dropout": _T},
        note="inputs query, key, value [N, T, heads·size]; softmax(scale · q·kᵀ)·v per head, heads joined; "
        "causal=1 lets position t see positions up to t",
    ),
    Operator("Concat", attributes={"axis": _F}),
    Operator("MaxPool", attributes=_WINDOW),
    Operator("AveragePool", attributes=_WINDOW | {"count_include_pad": _F}),
    *(Operator(f"Reduce{word}", attributes={"axes": _F, "keepdims": _S}) for word in _REDUCTIONS),
    Operator(
        "ArgMax", attributes={"axis": _F, "keepdims": _S}, note="the first of equal ones; whole numbers"
    ),
    Operator(
        "TopK", attributes={"axis": _F, "k": _F}, note="the largest, in falling order, and their positions"
    ),
    Operator("CumSum", attributes={"axis": _F, "exclusive": _F, "reverse": _F}),
    Operator(
        "LpNormalization", attributes={"axis": _F}, note="divided by the Euclidean norm; zeros stay zeros"
    ),
    Operator("Mod", attributes={"constant": _F}, note="the remainder has the sign of the divisor"),
    # Truth values.
    Operator("Equal", attributes={"constant": _F}, commutative=True),
    Operator("Less", attributes={"constant": _F}),
    Operator("Greater", attributes={"constant": _F}, note="than a number; of two values the other is Less"),
    Operator("Not"),
    *(Operator(name, commutative=True) for name in ("And", "Or", "Xor")),
    Operator("Where", note="where the first input is true the second, else the third"),
    Operator("Masked", attributes={"value": _N}, note="ONNX Where: a number where the second input is true"),
    Operator("Pad", attributes={"pads": _F, "value": _F, "mode": _F}),
    Operator("Slice", attributes={"axis": _F, "start": _F, "stop": _F, "step": _F}),
    Operator("Select", attributes={"axis": _F, "index": _F}, note="ONNX Gather with a constant index"),
    Operator("Take", attributes={"axis": _F, "indices": _F}, note="ONNX Gather with constant indices"),
    Operator("GatherElements", attributes={"axis": _F}),
    Operator("GatherND", attributes={"batch_dims": _F}),
    Operator("Flip", attributes={"axis": _F}),
    Operator(
        "Roll", attributes={"axis": _F, "shift": _F}, note="what leaves at the end comes in at the start"
    ),
    Operator("DepthToSpace", attributes={"blocksize": _S}, shape_only=True, note="mode CRD"),
    Operator(
        "SpaceToDepth",
        attributes={"blocksize": _S, "channels": _S},
        shape_only=True,
        note="the inverse of mode CRD: channels before the places of a block",
    ),
    Operator(
        "Resize",
        attributes={"scales": _F, "mode": _F, "align_corners": _F, "sizes": _S},
        note="half-pixel centres; nearest picks the pixel to the left, nearest_exact the nearest centre",
    ),
    Operator("Expand", attributes={"shape": _S}, shape_only=True, note="a length of 0 is the batch"),
    Operator(
        "Dropout",
        attributes={"ratio": _T, "shared_axes": _T},
        shape_only=True,
        note="shared_axes: axes along which one draw counts for all (whole channels, whole examples)",
    ),
    Operator("Identity", shape_only=True),
    Operator("Cast", attributes={"to": _S}, shape_only=True),
    Operator("Flatten", shape_only=True),
    Operator("Reshape", attributes={"shape": _S}, shape_only=True),
    Operator("Transpose", attributes={"perm": _S}, shape_only=True),
    Operator(
        OPAQUE,
        attributes={"framework": _F, "operation": _F, "detail": _F, "dtype": _S},
        note="an operation of one framework that has no canonical form; values lie as that framework has them, and no ONNX graph is made",
    ),
)

ROWS = (*_PARAMETRIC, *_PLAIN)
"""Every row of the table, in the order in which it is printed."""

OPERATORS: Mapping[str, Operator] = {operator.name: operator for operator in ROWS}
"""Operator name to its row."""

PASSES_FEATURES = frozenset(
    name
    for name, row in OPERATORS.items()
    if not row.slots and set(row.attributes or {}) <= {"alpha", "gamma", "beta"}
) - {"MatMul", "Sub", "Div", "Max", "Min", "Flatten", "And", "Or", "Xor", "Where"}
"""Operators of one value that leave its features where they are."""
