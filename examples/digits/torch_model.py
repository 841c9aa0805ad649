"""The digits classifier as a PyTorch team writes it."""

import torch
from torch import nn


class DigitNet(nn.Module):
    """Two convolution blocks and two dense layers; images arrive as ``[N, 1, 8, 8]``."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.hidden = nn.Linear(64 * 2 * 2, 128)
        self.dropout = nn.Dropout(0.3)
        self.classifier = nn.Linear(128, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``[N, 10]``."""
        x = torch.flatten(self.features(images), 1)
        x = self.dropout(torch.relu(self.hidden(x)))
        return self.classifier(x)


def build() -> DigitNet:
    """A fresh model."""
    return DigitNet()
