"""What a server may ask of a silo: every request is checked before anything of it reaches a model, a path or a disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xbackend_fl.errors import UpdateRefused
from xbackend_fl.federation.protocol.message import Message
from xbackend_fl.federation.protocol.payload import Encoding
from xbackend_fl.text import line

Identifier: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\z")]
"""A run or a digest: no part of a path."""
Frozen: TypeAlias = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?\z")]
"""Digest of the frozen parameters that belong to the weights of a request; empty if there are none."""
Split: TypeAlias = Literal["validation", "test"]
Receipts: TypeAlias = Annotated[dict[str, Identifier], Field(max_length=100_000)]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


R = TypeVar("R", bound=_Request)


class PayloadRequest(_Request):
    """How an update is to be encoded; see :class:`~xbackend_fl.federation.protocol.payload.Payload`."""

    kind: Encoding
    share: Annotated[float, Field(gt=0, le=1)]


class BindRequest(_Request):
    """The schema, as JSON, and what is said of the evidence."""

    text: str = Field(alias="schema")
    about: dict[str, str]


class TrainRequest(_Request):
    """A round: which one of which run, from which weights, which earlier update is certain, and what validation makes of the learning rate."""

    run: Identifier
    round: Annotated[int, Field(ge=1, lt=1 << 31)]
    base: Identifier
    fingerprint: Identifier
    frozen: Frozen = ""
    receipts: Receipts
    payload: PayloadRequest
    watched: Annotated[float, Field(gt=0, le=1)] = 1.0
    evaluate: Split | None


class EvaluateRequest(_Request):
    """Splits to evaluate weights on, and which earlier updates are in these."""

    run: Identifier
    receipts: Receipts
    fingerprint: Identifier
    frozen: Frozen = ""
    splits: Annotated[list[Split], Field(max_length=2)]


class SaveRequest(_Request):
    """The end of the course."""

    run: Identifier
    fingerprint: Identifier
    frozen: Frozen = ""
    receipts: Receipts


def asked(kind: type[R], request: Message) -> R:
    """What a request asks for.

    Args:
        kind: What may be asked.
        request: What came.

    Raises:
        UpdateRefused: It asks for something else.
    """
    fields: Mapping[str, Any] = request.fields
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UpdateRefused(
            f"the request '{line(request.kind, 40)}' cannot be answered: its {line(where, 100)}: {line(first['msg'], 200)}",
            hint="install the same version of xbackend-fl on both sides",
        ) from error
