"""Finds, proves and explains the map between two independently written models."""

from xbackend_fl.mapping.align.structure import find_binding
from xbackend_fl.mapping.bind import (
    as_known,
    bind,
    bind_trainer,
    describe,
    describe_reference,
    evidence_of,
    gather_evidence,
)
from xbackend_fl.mapping.bound import BoundModel
from xbackend_fl.mapping.probe.drawn import forget_draws
from xbackend_fl.mapping.probe.probe import Evidence
from xbackend_fl.mapping.probe.runtime import execute
from xbackend_fl.mapping.proof.lengths import check_lengths
from xbackend_fl.mapping.proof.publish import pack_evidence, unpack_evidence
from xbackend_fl.mapping.proof.verify import Check, Proof

__all__ = [
    "BoundModel",
    "Check",
    "Evidence",
    "Proof",
    "as_known",
    "bind",
    "bind_trainer",
    "check_lengths",
    "describe",
    "describe_reference",
    "evidence_of",
    "execute",
    "find_binding",
    "forget_draws",
    "gather_evidence",
    "pack_evidence",
    "unpack_evidence",
]
