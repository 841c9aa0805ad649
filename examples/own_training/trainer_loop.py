"""Hugging Face's Trainer trains a participant: ``train: trainer_loop.py:train``."""

import tempfile

import torch
from torch.nn import functional
from transformers import Trainer, TrainingArguments

from xbackend_fl import Task


class WithLoss(torch.nn.Module):
    """A model as the Trainer wants it: it computes its own loss."""

    def __init__(self, task: Task) -> None:
        """Train the model that is lent, and no other."""
        super().__init__()
        self.net, self.task = task.model, task

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Loss and logits."""
        logits = self.net(images)
        return {"loss": functional.cross_entropy(logits, labels) + self.task.penalty(), "logits": logits}


def train(task: Task) -> dict[str, float]:
    """One round."""
    images, labels = task.data
    rows = [{"images": image, "labels": int(label)} for image, label in zip(images, labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=task.settings["epochs"],
            per_device_train_batch_size=16,
            learning_rate=task.lr,
            lr_scheduler_type="constant",
            seed=task.seed,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        done = Trainer(WithLoss(task), arguments, train_dataset=rows).train()
    return {"num_examples": len(labels), "loss": done.training_loss}
