"""The section ``data``: where examples come from, and who gets which."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from xbackend_fl.adapter import Scaling
from xbackend_fl.course.diagnostics import mistake, refuse
from xbackend_fl.course.numbers import HELD, single, there
from xbackend_fl.course.registered import PartitionSection
from xbackend_fl.course.section import Section, TextSection
from xbackend_fl.data.partitions.iid import IID


class Scale(Section):
    """Whole-number inputs as floats, batch by batch: ``(value / divide - mean) / std``."""

    divide: Annotated[float, Field(gt=0), HELD] = 255.0
    mean: Annotated[float, HELD] = 0.0
    std: Annotated[float, Field(gt=0), HELD] = 1.0

    def rule(self) -> Scaling:
        """As plain data for adapters."""
        return Scaling(1 / (self.divide * self.std), -self.mean / self.std)

    @model_validator(mode="after")
    def _check_rule(self) -> Self:
        """Two numbers that are none together."""
        for value, beside in ((1 / self.divide / self.std, "divide"), (self.mean / self.std, "mean")):
            try:
                single(value)
            except PydanticCustomError:
                text = f"`std` {self.std!r} does not go with `{beside}` {getattr(self, beside)!r}: together they are {value:.3g}, which is {there(value):g} in float32"
                refuse([mistake(text, ("std",), self.std, beside=(beside,))])
        return self


Share = Annotated[float, Field(gt=0), HELD]


class Data(TextSection):
    """Where examples come from: the text of ``source`` alone, or a mapping."""

    text_field = "source"
    whole = "FILE_OR_MODULE:CALLABLE or a source such as images:FOLDER, or a mapping with source (in Python examples or a function, too)"

    source: str = Field(
        description="FILE_OR_MODULE:CALLABLE returning train, validation and test; or images:FOLDER, parquet:FILE#COLUMNS:TARGET, "
        "csv:FILE#COLUMNS:TARGET, npz:FILE, leaf:FOLDER"
    )
    partition: PartitionSection = Field(IID(), description="how the training data are shared out")
    splits: tuple[Share, Share, Share] = Field(
        (0.6, 0.2, 0.2),
        description="images, parquet, csv, and leaf for every user: shares of training, validation and test",
    )
    split_by: str | None = Field(
        None, description="parquet, csv: the column that says train, validation or test; replaces splits"
    )
    owners: str | None = Field(None, description="parquet, csv: the column that says whose a row is")
    classes: Annotated[list[str], Field(min_length=2)] | None = Field(
        None,
        description="images, parquet, csv: classes that are text, in the order of their numbers; sorted if left out, "
        "which needs data that all share",
    )
    deduplicate: bool = Field(default=False, description="leaf: drop examples that a user has twice")
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="images, parquet: what becomes of an image that cannot be read"
    )
    cache: str | None = Field(
        None, description="folder for what files are read into, on this machine; beside the files if left out"
    )
    transform: str | None = Field(
        None,
        description="FILE_OR_MODULE:CALLABLE over (inputs, targets, rng) of every batch that is trained on, in ONNX layout; rng has random numbers of the course",
    )
    evaluation_transform: str | None = Field(
        None,
        description="the same for every batch that is evaluated; what is trained on alone is transformed if left out",
    )
    scale: Scale | None = Field(
        None, description="uint8 inputs stay so in memory, and are scaled batch by batch"
    )
