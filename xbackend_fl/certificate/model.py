"""A model at hand, to certify or to prove against a certificate."""

from __future__ import annotations

from dataclasses import dataclass

from xbackend_fl.adapter import Adapter


@dataclass(frozen=True)
class Model:
    """A model.

    Attributes:
        source: As a person names it, ``BACKEND:FILE:CALLABLE``.
        adapter: Its adapter.
        native: The model.
    """

    source: str
    adapter: Adapter
    native: object
