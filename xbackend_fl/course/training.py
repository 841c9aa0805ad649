"""The section ``training``: what every participant does with its examples."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveInt

from xbackend_fl.adapter.contract import Precision
from xbackend_fl.adapter.optimizers.kinds.sgd import SGD
from xbackend_fl.course.numbers import HELD, Seconds
from xbackend_fl.course.outputs import OutputSections
from xbackend_fl.course.registered import LossSection, OptimizerSection, OwnOptimizer, ScheduleSections
from xbackend_fl.course.section import Section
from xbackend_fl.losses.kinds.cross_entropy import CrossEntropy


class OwnTraining(Section):
    """Local training as far as participants may differ in it."""

    optimizer: OwnOptimizer = OwnOptimizer()
    schedule: ScheduleSections = Field(
        (),
        description="what multiplies the learning rate over rounds or steps: one, or several that multiply",
    )
    batch_size: PositiveInt = 32
    epochs: PositiveInt = 1
    steps: PositiveInt | None = Field(None, description="replaces epochs")
    clip_norm: Annotated[float, Field(gt=0), HELD] | None = None
    precision: Precision = Field(
        "float32",
        description="bfloat16: forward passes by the framework's own mixed precision; weights stay float32, and bits differ between backends",
    )
    dropout: bool = Field(
        default=True, description="whether dropout layers drop; every backend draws its own masks"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="for training loops of your own: whatever their task.settings is to hold",
    )
    timeout_s: Seconds | None = Field(
        None,
        description="most seconds that a training loop of your own may take in a round; any number if left out",
    )

    def num_steps(self, examples: int) -> int:
        """Steps that a participant with so many examples takes in a round."""
        return self.steps or self.epochs * -(-examples // self.batch_size)

    def num_seen(self, examples: int) -> int:
        """Examples that these steps see, those of every pass over the data counted anew."""
        passes, rest = divmod(self.num_steps(examples), -(-examples // self.batch_size))
        return passes * examples + rest * self.batch_size


class Training(OwnTraining):
    """Local training of every participant."""

    optimizer: OptimizerSection = Field(
        SGD(), description="what a step does with a gradient; the same arithmetic on every backend"
    )
    loss: LossSection = CrossEntropy()
    outputs: OutputSections | None = Field(
        None,
        description="several outputs with a loss each, of which training minimises the sum; replaces loss, ignore_index and class_axis. "
        "The name of an output is that of its targets, too",
    )
    ignore_index: int | None = Field(
        -100, description="classes and binary outputs: targets of this value do not count; null if all do"
    )
    class_axis: int | None = Field(
        None,
        description="cross_entropy: axis of the output in ONNX layout that holds the classes, the batch is 0; "
        "needed only where the shapes of outputs and targets leave several",
    )
