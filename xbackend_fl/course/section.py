"""What every part of a course file is: fixed keys, plain numbers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A mapping of a course file: no key but its fields, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

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
