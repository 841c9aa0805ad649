"""What every part of a course is: fixed keys, plain numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from xbackend_fl.course.in_python import SectionMeta
from xbackend_fl.objects import RegisteredObject


class Section(BaseModel, metaclass=SectionMeta):
    """A mapping of a course file: no key but its fields, and nothing changes once it is read.

    In Python its keys are arguments, and functions, classes, models and data may stand wherever a file has ``FILE:CALLABLE``. A function that an
    importable file has goes by that; any other object is held, and sent to workers by value.

    Attributes:
        positional: Arguments that need no name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    positional: ClassVar[tuple[str, ...]] = ()
    _held: tuple[RegisteredObject, ...] = PrivateAttr(default=())

    def with_objects(self, objects: Iterable[RegisteredObject]) -> Self:
        """This section, which keeps objects alive as long as it lives itself."""
        self._held = tuple(objects)
        return self

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """To pydantic ``true`` is also the number 1."""
        given = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, bool) for item in given):
            field = cls.model_fields[str(info.field_name)]
            if field.annotation is not bool:
                raise PydanticCustomError("switch", "input is a switch, and this is none")
        return value


class TextSection(Section):
    """A section that is most often one text, and then may be written as that alone.

    Attributes:
        text_field: The field that the text is.
        whole: What may stand there, in words.
    """

    text_field: ClassVar[str]
    whole: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if not isinstance(value, str | dict | cls):
            raise PydanticCustomError("text_section", "input should be {whole}", {"whole": cls.whole})
        return {cls.text_field: value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Either form."""
        return {"anyOf": [{"type": "string"}, handler(schema)]}
