"""The conformance kit: tells the author of an adapter, or of a trainer, whether it keeps the contract."""

from xbackend_fl.testing.conformance import TrainerConformance

__all__ = ["TrainerConformance"]
