"""A small model, certified."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from xbackend_fl.adapter import load
from xbackend_fl.certificate import Certificate, Model, certify, sign
from xbackend_fl.signing import new_pair, read_private


@pytest.fixture(scope="session")
def private(tmp_path_factory: pytest.TempPathFactory) -> Ed25519PrivateKey:
    key = tmp_path_factory.mktemp("key") / "a.ed25519"
    key.write_bytes(new_pair()[0])
    return read_private(key)


@pytest.fixture(scope="session")
def certificate(private: Ed25519PrivateKey) -> Certificate:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).eval()
    example = (np.random.Generator(np.random.Philox(0)).standard_normal((2, 4)).astype(np.float32),)
    return sign(certify([Model("torch:n.py:f", load("torch"), net)], example, ["2,4"]), private)
