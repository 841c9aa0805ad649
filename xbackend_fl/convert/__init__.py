"""Weights from one file and framework to another, compared before they are kept."""

from xbackend_fl.convert.compare import Difference, compare
from xbackend_fl.convert.models import Side, open_pair, open_side, read_side
from xbackend_fl.convert.move import Report, canonical_of, convert
from xbackend_fl.convert.select import selected

__all__ = [
    "Difference",
    "Report",
    "Side",
    "canonical_of",
    "compare",
    "convert",
    "open_pair",
    "open_side",
    "read_side",
    "selected",
]
