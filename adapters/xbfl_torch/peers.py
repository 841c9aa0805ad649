"""The processes that ``torch.distributed`` has brought together."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import distributed

from xbfl_torch.describe import tensors_of


def peers() -> TorchPeers | None:
    """Those of the process group that the script has made."""
    if (
        not distributed.is_available()
        or not distributed.is_initialized()
        or distributed.get_world_size() == 1
    ):
        return None
    return TorchPeers()


@final
class TorchPeers:
    """See :class:`~xbackend_fl.adapter.peers.Peers`."""

    def __init__(self) -> None:
        self.rank = distributed.get_rank()

    def broadcast(self, said: Any) -> Any:
        """By the group's own broadcast."""
        found = [said]
        distributed.broadcast_object_list(found, src=0)
        return found[0]

    @torch.no_grad()
    def broadcast_weights(self, model: torch.nn.Module) -> None:
        """Parameters and buffers, in the order of their names."""
        for _, tensor in sorted(tensors_of(model).items()):
            distributed.broadcast(tensor, src=0)

    def device(self, model: torch.nn.Module) -> str:
        """The device of its first tensor."""
        return str(next(iter(tensors_of(model).values())).device)
