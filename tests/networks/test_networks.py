"""Every network of the table is mapped and proven, or diagnosed where the two are not the same function."""

from __future__ import annotations

import gc

import pytest

import xbackend_fl
from tests.networks.catalogue import NETWORKS
from tests.networks.network import Network
from xbackend_fl.canonical.layout import leaves
from xbackend_fl.errors import MismatchError

LARGE = {
    "ConvNeXt-Tiny", "DenseNet-121", "EfficientNet-B0", "InceptionV3", "ResNet-50", "ResNet-50, stride first", "VGG-16", "Xception",
}  # fmt: skip
"""The better part of a minute each, and more on a slow machine; ``--thorough`` and ``python -m tests.networks`` run them."""


@pytest.mark.parametrize("network", [n for n in NETWORKS if n.same], ids=lambda n: n.name)
def test_mapped_and_proven(network: Network, *, thorough: bool) -> None:
    if network.name in LARGE and not thorough:
        pytest.skip("large: --thorough, or python -m tests.networks")
    example, reference = network.example(), network.torch()
    schema = xbackend_fl.describe(reference, example)
    evidence = xbackend_fl.gather_evidence(reference, example)
    bound = xbackend_fl.bind(network.tensorflow(), schema, example, evidence)
    assert bound.proof.proven
    assert set(bound.binding.parameters) == set(schema.by_name)
    used = {leaf.tensor for layout in bound.binding.parameters.values() for leaf in leaves(layout)}
    left = {name for name in bound.binding.natives if name not in used}
    assert all("seed_generator" in name for name in left), left
    gc.collect()


@pytest.mark.parametrize("network", [n for n in NETWORKS if not n.same], ids=lambda n: n.name)
def test_diagnosed(network: Network) -> None:
    example = network.example()
    schema = xbackend_fl.describe(network.torch(), example)
    evidence = xbackend_fl.gather_evidence(network.torch(), example)
    with pytest.raises(MismatchError) as caught:
        xbackend_fl.bind(network.tensorflow(), schema, example, evidence)
    assert "not the same function" in caught.value.message
