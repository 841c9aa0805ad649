"""Code of the user's own that takes part: a model, and what trains and evaluates it."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from xbackend_fl.course.section import TextSection

TRAIN = "FILE_OR_MODULE:CALLABLE that trains instead of the built-in loop; it takes a task"
EVALUATE = "FILE_OR_MODULE:CALLABLE that gives the figures of evaluation.reported; it takes a task"
CODE = ("train", "evaluate")
"""Keys of code of the user's own that takes a task."""


class ModelSection(TextSection):
    """A backend's model: the text of ``build`` alone, or a mapping."""

    text_field = "build"
    whole = "FILE_OR_MODULE:CALLABLE, or a mapping with build (in Python a function or a model, too)"

    build: str = Field(description="FILE_OR_MODULE:CALLABLE that returns the model")
    train: str | None = Field(None, description=TRAIN)
    evaluate: str | None = Field(None, description=EVALUATE)

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> Any:
        return handler(self) if self.train or self.evaluate else self.build
