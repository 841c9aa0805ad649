"""Keras's weights alone (``.weights.h5``): HDF5 as Keras lays it out, which only a model can write."""

from __future__ import annotations

from xbackend_fl.formats.format import Format
from xbackend_fl.formats.kinds import hdf5

FORMAT = Format("keras-weights", hdf5.read, (".weights.h5",))
