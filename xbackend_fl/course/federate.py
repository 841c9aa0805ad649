"""The section ``federate``: how participants train together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from xbackend_fl.aggregation import Aggregator, Precision, Start
from xbackend_fl.aggregation.rules.mean import Mean
from xbackend_fl.algorithms.kinds.fedavg import FedAvg
from xbackend_fl.algorithms.servers.fedavg import FedAvgServer
from xbackend_fl.course.registered import AggregatorSection, AlgorithmSection, ServerSection
from xbackend_fl.course.section import Section
from xbackend_fl.weights import Weights


class Federate(Section):
    """How updates are collected and merged."""

    cohort: PositiveInt | None = Field(None, description="participants per round; all if left out")
    algorithm: AlgorithmSection = Field(
        FedAvg(), description="how participants train and how what they give is merged"
    )
    aggregator: AggregatorSection = Field(Mean(), description="how updates are merged")
    local: list[str] = Field(
        default_factory=list,
        description="parameters that stay with their participant: roles (norm, embedding, bias) and patterns of canonical names, "
        "for example [norm, 'head.*']",
    )
    frozen: list[str] = Field(
        default_factory=list,
        description="parameters that are not trained, and sent once: roles and patterns as in local, for example ['encoder.*']",
    )
    server: ServerSection = Field(
        FedAvgServer(), description="what the mean of a round does to the global weights"
    )
    precision: Precision = "float32"
    on_failure: Literal["stop", "continue"] = Field(
        "stop", description="what a refused update does: stop the course, or go on with the rest"
    )
    workers: PositiveInt | None = Field(
        None,
        description="processes per backend; if left out, as many as there are processor cores for, up to 4, or one for each GPU; more than there are GPUs share them",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where models train; auto: a GPU, if there is one"
    )
    replicas: PositiveInt | Literal["auto", "lockstep"] = Field(
        "lockstep",
        description="how a cohort trains on a GPU (PyTorch); lockstep: one run of the model's code for all participants, or 16 copies side by side "
        "where that cannot be; a number: so many copies; auto measures on the first cohort, and the last bits of sums then depend on what it finds",
    )
    device_memory_mib: PositiveInt | None = Field(
        None, description="most that a worker may allocate on its GPU; all of it if left out"
    )
    memory: Literal["normal", "low"] = Field(
        "normal", description="low: one worker and one model per backend, whatever the machine"
    )
    state_memory_mib: Annotated[int, Field(ge=0, le=1 << 20)] = Field(
        1024,
        description="most of a worker's memory that participants' states may take; the rest is on disk only",
    )
    share_local_model: bool = Field(
        default=True, description="one model per backend; else one per participant"
    )
    online_aggr: bool = Field(
        default=True, description="merge updates as they come; else keep all until the end"
    )


def merging(
    federate: Federate,
    base: Weights,
    vectors: Mapping[str, Weights],
    *,
    variances: frozenset[str] = frozenset(),
    folder: Path | None = None,
) -> Aggregator:
    """What merges a round's updates.

    Args:
        federate: The section of the course.
        base: Weights that updates start from.
        vectors: What they have beside the weights.
        variances: Names of the parameters of which no value is negative.
        folder: Where a rule that needs every update may keep them for the round.
    """
    return federate.aggregator.make(
        Start(base, vectors, federate.algorithm.weighing, federate.precision, variances, folder)
    )
