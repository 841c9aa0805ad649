"""Federated data: loading, sharing out, and every random choice of a course."""

from xbackend_fl.data.dataset import Dataset, Splits, load_dataset, load_npz, load_splits, split_users
from xbackend_fl.data.draws import batches, cohort, generator, seed_of
from xbackend_fl.data.leaf import read_leaf
from xbackend_fl.data.partition import by_id, dirichlet, iid, pathological, quantity

__all__ = [
    "Dataset",
    "Splits",
    "batches",
    "by_id",
    "cohort",
    "dirichlet",
    "generator",
    "iid",
    "load_dataset",
    "load_npz",
    "load_splits",
    "pathological",
    "quantity",
    "read_leaf",
    "seed_of",
    "split_users",
]
