"""Every network of the table."""

from __future__ import annotations

from tests.networks import convolutional, mobile, residual, sequences

NETWORKS = (*residual.NETWORKS, *mobile.NETWORKS, *convolutional.NETWORKS, *sequences.NETWORKS)
