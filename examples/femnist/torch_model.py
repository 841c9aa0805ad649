"""FederatedScope's ConvNet2 in PyTorch."""

from torch import nn


def build(hidden: int = 2048) -> nn.Module:
    """Two convolutions with batch normalisation, two dense layers: 6,603,902 trainable values."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 62),
    )


def leaf_cnn() -> nn.Module:
    """LEAF's own network: the same without batch normalisation."""
    return nn.Sequential(*(layer for layer in build() if not isinstance(layer, nn.BatchNorm2d)))
