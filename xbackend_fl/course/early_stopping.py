"""The section ``early_stopping``: when a course ends before its last round."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from xbackend_fl.course.section import Section


class EarlyStopping(Section):
    """A course ends where a validation figure no longer improves."""

    patience: PositiveInt = Field(
        10, description="after so many rounds in a row without an improvement the course ends"
    )
    min_delta: Annotated[float, Field(ge=0)] = Field(
        0.0, description="smallest change of the figure that is an improvement"
    )
    metric: str | None = Field(
        None, description="the validation figure; what chooses the best weights if left out"
    )
