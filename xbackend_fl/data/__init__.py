"""Federated data: loading, sharing out, and every random choice of a course."""

from xbackend_fl.data.ahead import ahead, announced
from xbackend_fl.data.alike import errors_once, notes_once
from xbackend_fl.data.column import Column, Sliced, blocks, is_steady, mapped_file
from xbackend_fl.data.dataset import Dataset, Examples, Splits, extreme_rows, input_names
from xbackend_fl.data.draws import batches, cohort, generator, seed_of
from xbackend_fl.data.examine import content, digest, not_finite, not_held, out_of_range
from xbackend_fl.data.handed import dataset_of
from xbackend_fl.data.leaf import read_leaf, split_users
from xbackend_fl.data.partition import Partition, Pool
from xbackend_fl.data.registry import PARTITIONS
from xbackend_fl.data.source import READING_KEYS, Reading, Source, absolute, source_of
from xbackend_fl.data.sources.code import load_dataset, load_splits
from xbackend_fl.data.sources.npz import load_npz
from xbackend_fl.data.transform import Transform

__all__ = [
    "PARTITIONS",
    "READING_KEYS",
    "Column",
    "Dataset",
    "Examples",
    "Partition",
    "Pool",
    "Reading",
    "Sliced",
    "Source",
    "Splits",
    "Transform",
    "absolute",
    "ahead",
    "announced",
    "batches",
    "blocks",
    "cohort",
    "content",
    "dataset_of",
    "digest",
    "errors_once",
    "extreme_rows",
    "generator",
    "input_names",
    "is_steady",
    "load_dataset",
    "load_npz",
    "load_splits",
    "mapped_file",
    "not_finite",
    "not_held",
    "notes_once",
    "out_of_range",
    "read_leaf",
    "seed_of",
    "source_of",
    "split_users",
]
