"""Every network is certified and repeated by either framework as the reference; pairs that are not one function are refused."""

from __future__ import annotations

import pytest

from tests.networks.catalogue import NETWORKS
from tests.networks.certificates import REFERENCES, repeated
from tests.networks.network import Network
from xbackend_fl.errors import MismatchError

EACH_RUN = {"two towers"}


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize(
    "network",
    [pytest.param(n, id=n.name, marks=() if n.name in EACH_RUN else pytest.mark.slow) for n in NETWORKS],
)
def test_every_network_is_certified_and_repeated(network: Network, reference: str) -> None:
    if not network.same:
        with pytest.raises(MismatchError, match="not the same function"):
            repeated(network, reference)
        return
    wrong, _ = repeated(network, reference)
    assert wrong == []
