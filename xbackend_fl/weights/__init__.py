"""The weights of one model in canonical form, in memory and on disk."""

from xbackend_fl.weights.container import Weights, digest
from xbackend_fl.weights.files import load_weights, read_tensors, save_weights, write_tensors

__all__ = ["Weights", "digest", "load_weights", "read_tensors", "save_weights", "write_tensors"]
