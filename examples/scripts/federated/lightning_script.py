"""A Lightning training script, as a tutorial has it."""

import sys
from pathlib import Path

import lightning
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import xbackend_fl as xb

sys.path.append(str(Path(__file__).parents[2] / "digits"))
import data
import torch_model


class Digits(lightning.LightningModule):
    """A classifier of digits."""

    def __init__(self, net: torch.nn.Module) -> None:
        """Hold the network."""
        super().__init__()
        self.net = net

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The loss of a batch."""
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.002)


images, labels = map(torch.from_numpy, data.load()["train"])
loader = DataLoader(TensorDataset(images, labels), batch_size=32, shuffle=True)
model = torch_model.build()
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}

with xb.federate(model, sys.argv[1], "amsterdam", rehearse=True) as rounds:
    for epoch, _ in enumerate(rounds):
        lightning.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet).fit(
            Digits(model), loader
        )
        print(f"epoch {epoch + 1} is over")
        rounds.report(len(labels))
