"""The section ``deployment``: silos, deadlines and how updates travel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from xbackend_fl.course import compose
from xbackend_fl.course.address import Address
from xbackend_fl.course.model_section import EVALUATE, TRAIN
from xbackend_fl.course.numbers import Seconds
from xbackend_fl.course.section import Section
from xbackend_fl.errors import ConfigError

_MAX_EXAMPLES = 1 << 39
"""Of a silo; those of as many as a course may have are still whole numbers in float64."""


def _address(text: str) -> str:
    try:
        Address(text)
    except ConfigError as error:
        raise ValueError(f"{error.message}; {error.hint}") from error
    return text


class ServeSection(Section):
    """What a silo keeps up to date while the course runs."""

    engine: str = Field(
        description="engine of TensorRT (xbfl engine build), which has the weights of each round as soon as this silo has them"
    )


class DeploymentSection(Section):
    """Real silos; a simulation does not look at it."""

    role: Literal["server", "silo"] | None = Field(None, description="what this machine is")
    name: str | None = Field(None, description="silo: which participant this is")
    data_path: str | None = Field(
        None, description="silo: its .npz file with its own examples, or a source as `data.source` names one"
    )
    train: str | None = Field(None, description=f"silo: {TRAIN}")
    evaluate: str | None = Field(None, description=f"silo: {EVALUATE}")
    address: Annotated[str, AfterValidator(_address)] = Field(
        "127.0.0.1:8000", description="HOST:PORT of the server"
    )
    keys: str | None = Field(None, description="folder of this machine's keys")
    serve: ServeSection | None = Field(None, description="silo: what is kept up to date after each round")
    quorum: PositiveInt | None = Field(
        None,
        description="fewest silos to start, and updates of a round; all if left out. With one, silos that are refused are left out, "
        "and a round that has enough updates waits for silos at work, not for those that are gone",
    )
    join_timeout_s: Seconds = Field(300.0, description="how long the server waits for silos")
    round_timeout_s: Seconds = Field(3600.0, description="how long the server waits for a round's updates")
    max_examples: Annotated[int, Field(gt=0, le=_MAX_EXAMPLES)] = Field(
        10_000_000,
        description="most training examples that a silo may say it has, and so the largest weight of an update",
    )
    over_selection: Annotated[float, Field(ge=1, le=compose.MAX_PARTICIPANTS)] = Field(
        1.0, description="how many times a cohort's silos are asked; the first that answer make the round"
    )
    payload: Literal["float32", "bfloat16", "float16", "int8", "top-k"] = Field(
        "float32", description="how updates travel; float32 keeps every bit"
    )
    top_k_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01, description="top-k: part of every parameter's values that is sent"
    )
    max_restarts: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        10, description="how often in a row the server starts Flower again after a process of it ended"
    )

    def min_silos(self, silos: int) -> int:
        """The quorum among so many silos."""
        return min(self.quorum or silos, silos)
