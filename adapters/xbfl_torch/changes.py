"""Changes in place that a graph does not show: of a tensor through a view of it."""

from __future__ import annotations

from torch._ops import OpOverload
from torch.fx import Node

from xbackend_fl.errors import UnsupportedError


def refuse_hidden_changes(node: Node) -> None:
    """Refuse an operation that changes, through a view, a tensor that is read again afterwards.

    A graph has edges for values. What ``y[:, 0] = 0`` does to ``y`` runs along none.

    Raises:
        UnsupportedError: It does.
    """
    if not isinstance(node.target, OpOverload) or not node.target._schema.is_mutable:  # noqa: SLF001  the operator's signature
        return
    viewed = node.args[0] if node.args else None
    while isinstance(viewed, Node) and _is_view(viewed):
        viewed = viewed.args[0]
        if isinstance(viewed, Node) and any(user > node for user in viewed.users):
            raise UnsupportedError(
                f"torch operation {node.target} changes a part of {viewed.name!r} in place",
                hint="make a new tensor instead: torch.cat, torch.stack, or a product with a mask",
            )


def _is_view(node: Node) -> bool:
    """Whether what a node yields shares its storage with what it reads."""
    if not isinstance(node.target, OpOverload) or node.target._schema.is_mutable:  # noqa: SLF001  the operator's signature
        return False
    return any(item.alias_info is not None for item in node.target._schema.returns)  # noqa: SLF001
