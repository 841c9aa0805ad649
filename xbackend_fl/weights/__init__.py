"""The weights of one model in canonical form, and the weight files of every format."""

from xbackend_fl.formats.archive import Archive, Entry
from xbackend_fl.weights.container import Weights, digest
from xbackend_fl.weights.files import load_weights, read_tensors, save_weights, write_tensors
from xbackend_fl.weights.store import open_weights, save

__all__ = [
    "Archive",
    "Entry",
    "Weights",
    "digest",
    "load_weights",
    "open_weights",
    "read_tensors",
    "save",
    "save_weights",
    "write_tensors",
]
