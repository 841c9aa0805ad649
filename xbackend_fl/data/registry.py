"""All partitions by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.data import partitions
from xbackend_fl.data.partition import Partition
from xbackend_fl.registry import discover_kinds

PARTITIONS: Mapping[str, type[Partition]] = discover_kinds(partitions, "PARTITION", Partition, named="kind")
"""Partition by the name of its file, which courses write."""
