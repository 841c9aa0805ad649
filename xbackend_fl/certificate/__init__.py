"""Signed statements that models are one function, and their repetition elsewhere."""

from xbackend_fl.certificate.embedding import certificate_in, embed
from xbackend_fl.certificate.making import certify
from xbackend_fl.certificate.model import Model
from xbackend_fl.certificate.statement import Certificate, Statement, read, sign, write
from xbackend_fl.certificate.verifying import Line, lines

__all__ = [
    "Certificate",
    "Line",
    "Model",
    "Statement",
    "certificate_in",
    "certify",
    "embed",
    "lines",
    "read",
    "sign",
    "write",
]
