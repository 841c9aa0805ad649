"""Federated data: loading, sharing out, and every random choice of a course."""

from xbackend_fl.data.dataset import Dataset, Splits, load_dataset, load_splits
from xbackend_fl.data.draws import batches, cohort, generator, seed_of
from xbackend_fl.data.partition import dirichlet, iid

__all__ = [
    "Dataset",
    "Splits",
    "batches",
    "cohort",
    "dirichlet",
    "generator",
    "iid",
    "load_dataset",
    "load_splits",
    "seed_of",
]
