"""Code of the user's own that takes part: a model, and what trains it."""

from __future__ import annotations

from typing import Any

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError

from xbackend_fl.course.section import Section

TRAIN = "FILE_OR_MODULE:CALLABLE that trains instead of the built-in loop; it takes a task"


class ModelSection(Section):
    """A backend's model: the text of ``build`` alone, or a mapping."""

    build: str = Field(description="FILE_OR_MODULE:CALLABLE that returns the model")
    train: str | None = Field(None, description=TRAIN)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if not isinstance(value, str | dict | ModelSection):
            raise PydanticKnownError("string_type")
        return {"build": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> Any:
        return handler(self) if self.train else self.build

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Either form."""
        return {"anyOf": [{"type": "string"}, handler(schema)]}
