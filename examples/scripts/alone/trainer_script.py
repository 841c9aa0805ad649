"""A training script with Hugging Face's Trainer, as a tutorial has it."""

import sys
from pathlib import Path

import torch
from torch.nn import functional
from transformers import Trainer, TrainingArguments

sys.path.append(str(Path(__file__).parents[2] / "digits"))
import data
import torch_model


class DigitsTrainer(Trainer):
    """A Trainer for a model that returns logits alone."""

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], **_: object
    ) -> torch.Tensor:
        """The loss of a batch."""
        return functional.cross_entropy(model(inputs["images"]), inputs["labels"])


images, labels = data.load()["train"]
rows = [{"images": image, "labels": int(label)} for image, label in zip(images, labels, strict=True)]
model = torch_model.build()
arguments = TrainingArguments(
    num_train_epochs=1,
    per_device_train_batch_size=32,
    learning_rate=0.002,
    lr_scheduler_type="constant",
    use_cpu=True,
    remove_unused_columns=False,
    save_strategy="no",
    report_to=[],
    disable_tqdm=True,
)

for epoch in range(10):
    done = DigitsTrainer(model, arguments, train_dataset=rows).train()
    print(f"epoch {epoch + 1}: loss {done.training_loss:.4f}")
