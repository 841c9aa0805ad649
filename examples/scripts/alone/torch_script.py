"""A PyTorch training script, as a tutorial has it."""

import sys
from pathlib import Path

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

sys.path.append(str(Path(__file__).parents[2] / "digits"))
import data
import torch_model

images, labels = map(torch.from_numpy, data.load()["train"])
loader = DataLoader(TensorDataset(images, labels), batch_size=32, shuffle=True)
model = torch_model.build()
optimizer = torch.optim.Adam(model.parameters(), lr=0.002)


def train_one_epoch() -> float:
    """The mean loss of one pass over the data."""
    model.train()
    total = 0.0
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


for epoch in range(3):
    print(f"epoch {epoch + 1}: loss {train_one_epoch():.4f}")
