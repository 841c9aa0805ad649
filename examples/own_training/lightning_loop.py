"""Lightning trains a participant: ``train: lightning_loop.py:train``."""

import lightning
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from xbackend_fl import Task


class Digits(lightning.LightningModule):
    """What a team that uses Lightning has already."""

    def __init__(self, task: Task) -> None:
        """Train the model that is lent, and no other."""
        super().__init__()
        self.net, self.task = task.model, task

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The loss, with what the course's algorithm adds."""
        images, labels = batch
        loss = functional.cross_entropy(self.net(images), labels)
        self.log("loss", loss)
        return loss + self.task.penalty()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """An optimizer of the team's own."""
        return torch.optim.AdamW(self.net.parameters(), lr=self.task.lr)


def train(task: Task) -> dict[str, float]:
    """One round."""
    images, labels = map(torch.from_numpy, task.data)
    order = torch.Generator().manual_seed(task.seed)
    loader = DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=True, generator=order)
    trainer = lightning.Trainer(
        max_epochs=task.settings["epochs"],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(task), loader)
    return {"num_examples": len(labels), "loss": float(trainer.callback_metrics["loss"])}
