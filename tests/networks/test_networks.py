"""Every network of the table is mapped and proven, or diagnosed where the two are not the same function."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import xbackend_fl
from tests.networks.catalogue import NETWORKS
from tests.networks.network import Network
from xbackend_fl.canonical.layout import leaves
from xbackend_fl.errors import MismatchError

EACH_RUN = {
    "DCGAN generator", "GPT decoder, tied", "LSTM classifier", "U-Net", "several inputs and outputs", "two towers",
}  # fmt: skip
"""What every run of the suite takes; the others are some ten minutes together, also ``python -m tests.networks``."""


def networks(*, same: bool) -> list[Any]:
    """Pairs that are one function, or pairs that are not."""
    return [
        pytest.param(network, id=network.name, marks=() if network.name in EACH_RUN else pytest.mark.slow)
        for network in NETWORKS
        if network.same == same
    ]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("network", networks(same=True))
def test_mapped_and_proven(network: Network) -> None:
    example, reference = network.example(), network.torch()
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    bound = xbackend_fl.bind(network.tensorflow(), schema, example, evidence)
    assert bound.proof.proven
    assert set(bound.binding.parameters) == set(schema.by_name)
    used = {leaf.tensor for layout in bound.binding.parameters.values() for leaf in leaves(layout)}
    left = {name for name in bound.binding.natives if name not in used}
    assert all("seed_generator" in name for name in left), left
    gc.collect()


@pytest.mark.parametrize("network", networks(same=False))
def test_diagnosed(network: Network) -> None:
    example = network.example()
    schema, evidence = xbackend_fl.describe_reference(network.torch(), example)
    with pytest.raises(MismatchError) as caught:
        xbackend_fl.bind(network.tensorflow(), schema, example, evidence)
    assert "not the same function" in caught.value.message
