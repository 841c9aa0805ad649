"""Products that sum over axes."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Node

from xbackend_fl.canonical.graph import contractions
from xbackend_fl.canonical.graph.operands import Operand, combine
from xbfl_torch.graph import Context, Handler, require


def _linear(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    name = context.name(node, a["weight"])
    return contractions.linear(context.builder, name, a["input"], a["weight"], a["bias"])


def _matmul(context: Context, node: Node) -> Operand:
    left, right = context.get(node.args[0]), context.get(node.args[1])
    return contractions.matmul(context.builder, context.name(node, left, right), left, right)


def _added(context: Context, node: Node) -> Operand:
    """``addmm``, ``addmv``, ``baddbmm`` and their like: a product beside what is added to it."""
    a = context.arguments(node)
    words = [word for word in ("mat1", "mat2", "batch1", "batch2", "mat", "vec", "vec1", "vec2") if word in a]
    left, right = (a[word] for word in words)
    name, builder = context.name(node, left, right), context.builder
    if "vec1" in a:
        made = contractions.einsum(builder, name, "i,j->ij", [left, right])
    else:
        made = contractions.matmul(builder, name, left, right)
    added: Operand = a["self"]
    if a["alpha"] != 1:
        made = combine(builder, "Mul", name, made, float(a["alpha"]))
    if a["beta"] != 1:
        added = combine(builder, "Mul", name, added, float(a["beta"]))
    return combine(builder, "Add", name, made, added)


def _einsum(context: Context, node: Node) -> Operand:
    equation, operands = context.get(node.args[0]), context.get(node.args[1])
    return contractions.einsum(context.builder, context.name(node, *operands), equation, operands)


def _spelled(equation: str) -> Handler:
    def handle(context: Context, node: Node) -> Operand:
        left, right = context.get(node.args[0]), context.get(node.args[1])
        name = context.name(node, left, right)
        return contractions.einsum(context.builder, name, equation, [left, right])

    return handle


def _vector_dot(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    left, right = a["x"], a["y"]
    name, builder = context.name(node), context.builder
    both = context.data(combine(builder, "Mul", name, left, right))
    return builder.reduce("ReduceSum", name, both, [a.get("dim", -1)], keepdims=False)


def _bilinear(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    name = context.name(node, a["weight"])
    return contractions.bilinear(context.builder, name, a["input1"], a["input2"], a["weight"], a["bias"])


def _tensordot(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    name = context.name(node, a["self"], a["other"])
    return contractions.tensordot(
        context.builder, name, a["self"], a["other"], a["dims_self"], a["dims_other"]
    )


def _cosine(context: Context, node: Node) -> Operand:
    """``x · y / (|x| |y|)`` along an axis, by two vectors of length one."""
    a = context.arguments(node)
    name, builder = context.name(node), context.builder
    first, second = (context.data(a[word]) for word in ("x1", "x2"))
    require(len(first.shape) == len(second.shape), name, "vectors of different rank")
    parts = [builder.along("LpNormalization", name, value, a["dim"]) for value in (first, second)]
    return builder.reduce("ReduceSum", name, builder.binary("Mul", name, *parts), [a["dim"]], keepdims=False)


HANDLERS: Mapping[str, Handler] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "linalg_matmul", "inner"), _matmul),
    **dict.fromkeys(("addmm", "addmv", "baddbmm", "addr"), _added),
    "einsum": _einsum,
    **dict.fromkeys(("outer", "ger"), _spelled("i,j->ij")),
    "linalg_vecdot": _vector_dot,
    "bilinear": _bilinear,
    "tensordot": _tensordot,
    "cosine_similarity": _cosine,
}
"""Names of operations, without their overloads, to their handlers."""
