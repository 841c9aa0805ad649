"""Attention: PyTorch's function, and its module, whose nodes are put together again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.fx import Node

from xbackend_fl.canonical import Value
from xbackend_fl.canonical.graph import axes_ops
from xbackend_fl.canonical.graph.attention import join_heads, split_heads
from xbackend_fl.canonical.graph.masked_attention import attended, repeat_heads
from xbackend_fl.canonical.graph.operands import Operand
from xbackend_fl.canonical.graph.operands import native_shape as operand_shape
from xbackend_fl.canonical.layout import Layout, Native
from xbfl_torch.graph import Context, Handler, base_name, module_path, require


def _dot_product_attention(context: Context, node: Node) -> Value:
    a = context.arguments(node)
    name, builder = context.name(node), context.builder
    query, key, value = (context.data(a[part]) for part in ("query", "key", "value"))
    if a.get("enable_gqa"):
        key, value = (repeat_heads(builder, name, item, query.native_shape[1]) for item in (key, value))
    rate, place = context.drop(node, "attention")
    return attended(
        builder,
        name,
        query,
        key,
        value,
        a.get("attn_mask"),
        scale=float(a["scale"] or 1.0 / math.sqrt(query.native_shape[-1])),
        causal=bool(a["is_causal"]),
        dropout=rate,
        origin=place,
    )


def attention(context: Context, node: Node) -> bool:
    """Handle all nodes of an ``nn.MultiheadAttention`` at once; false if ``node`` belongs to none."""
    path = next(
        (
            str(entry[0])
            for entry in (node.meta.get("nn_module_stack") or {}).values()
            if isinstance(context.modules.get(str(entry[0])), torch.nn.MultiheadAttention)
        ),
        None,
    )
    if path is None:
        return False
    module = context.modules[path]
    assert isinstance(module, torch.nn.MultiheadAttention)
    group = [n for n in node.graph.nodes if n.op == "call_function" and _inside(n, path)]
    members = set(group)
    require(module.bias_k is None and not module.add_zero_attn, path, "bias_k and add_zero_attn")
    products = [n for n in group if str(n.target) == "aten.linear.default"]
    sources = [_source(product, members) for product in products[:-1]]
    require(1 <= len(sources) <= 3, path, "attention of an unknown form")
    query = sources[0]
    key = sources[1] if len(sources) > 1 else query
    content = sources[2] if len(sources) > 2 else key
    mask = _mask(context, group)
    causal = any(n.kwargs.get("is_causal") or (len(n.args) > 5 and n.args[5]) for n in group)
    results = [n for n in group if any(user not in members for user in n.users)]
    require(
        len(results) == 1,
        path,
        "the attention weights are used; only the first output is canonical",
        "torch: call it with need_weights=False, and return its first output",
    )
    order = (0, 1, 2) if module.batch_first else (1, 0, 2)
    values = [context.data(context.values[m]) for m in (query, key, content)]
    layouts = _attention_layouts(path, module)
    projected = []
    for part, value in zip(("query", "key", "value"), values, strict=True):
        by_batch = context.builder.transpose(context.builder.arrange(value, order), order)
        linear = context.builder.linear(
            f"{path}.{part}", by_batch, layouts[f"{part}.weight"], layouts.get(f"{part}.bias")
        )
        projected.append(split_heads(context.builder, f"{path}.heads", linear, module.num_heads))
    if mask is not None and len(operand_shape(mask)) == 3:
        # Masks of [N · heads, T, S] where the weights are wanted, too.
        batch, heads = projected[0].native_shape[:2]
        lead = (batch, heads) if operand_shape(mask)[0] == batch * heads else (1, 1)
        shape = (*lead, *operand_shape(mask)[1:])
        mask = axes_ops.reshape(context.builder, f"{path}.mask", mask, shape)
    query_heads, key_heads, value_heads = projected
    mixed = attended(
        context.builder,
        path,
        query_heads,
        key_heads,
        value_heads,
        mask,
        scale=1.0 / math.sqrt(module.head_dim),
        causal=causal,
        dropout=context.rate(module),
        origin=path,
    )
    joined = join_heads(context.builder, f"{path}.heads", mixed)
    made = context.builder.linear(
        f"{path}.output", joined, layouts["output.weight"], layouts.get("output.bias")
    )
    for member in group:
        context.values[member] = None
    context.values[results[0]] = context.builder.transpose(made, order)
    for user in results[0].users:
        if user in members:
            context.values[user] = None
    return True


def _mask(context: Context, group: Sequence[Node]) -> Operand | None:
    """The mask that the scores of a group get; the nodes that make it are told to the builder."""
    members = set(group)
    for node in group:
        if base_name(node) == "scaled_dot_product_attention":
            mask = node.kwargs.get("attn_mask", node.args[3] if len(node.args) > 3 else None)
        elif base_name(node) == "baddbmm":
            mask = node.args[0]
        else:
            continue
        if isinstance(mask, Node):
            needed, waiting = {mask}, [mask]
            while waiting:
                inner = [m for m in waiting.pop().all_input_nodes if m in members and m not in needed]
                needed.update(inner)
                waiting += inner
            for member in group:
                if member in needed:
                    context.handle(member)
            found: Operand = context.values[mask]
            return found
    return None


def _inside(node: Node, path: str) -> bool:
    inner = module_path(node)
    return inner == path or inner.startswith(f"{path}.")


def _source(node: Node, members: set[Node]) -> Node:
    source = node.args[0]
    assert isinstance(source, Node)
    while source in members:
        source = source.all_input_nodes[0]
    return source


def _attention_layouts(path: str, module: torch.nn.MultiheadAttention) -> dict[str, Layout]:
    size = module.embed_dim
    layouts: dict[str, Layout] = {}
    for index, part in enumerate(("query", "key", "value")):
        rows = ((0, index * size, (index + 1) * size),)
        packed: torch.Tensor | None = module.in_proj_weight
        if packed is not None:
            layouts[f"{part}.weight"] = Native(f"{path}.in_proj_weight", (3 * size, size), rows)
        else:
            separate = getattr(module, f"{part[0]}_proj_weight")
            layouts[f"{part}.weight"] = Native(f"{path}.{part[0]}_proj_weight", tuple(separate.shape))
        if module.in_proj_bias is not None:
            layouts[f"{part}.bias"] = Native(f"{path}.in_proj_bias", (3 * size,), rows)
    layouts["output.weight"] = Native(f"{path}.out_proj.weight", (size, size))
    if module.out_proj.bias is not None:
        layouts["output.bias"] = Native(f"{path}.out_proj.bias", (size,))
    return layouts


HANDLERS: Mapping[str, Handler] = {"scaled_dot_product_attention": _dot_product_attention}
"""Names of operations, without their overloads, to their handlers."""
