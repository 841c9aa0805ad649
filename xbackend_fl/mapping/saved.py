"""A file as a model's own framework writes it, to be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from xbackend_fl import weights
from xbackend_fl.adapter import Trainer
from xbackend_fl.weights import Archive
from xbackend_fl.writing import as_the_system_says, naming_file


@contextmanager
def saved(trainer: Trainer, file_format: str) -> Iterator[Archive]:
    """A model's weights in a file of its framework's, opened; afterwards it is gone.

    Args:
        trainer: The model.
        file_format: One of the trainer's formats.

    Raises:
        OSError: The system has no room for it; it names the file.
    """
    with TemporaryDirectory(prefix="xbfl-") as folder:
        place = Path(folder) / "weights"
        with naming_file(place), as_the_system_says(place):
            written = trainer.save(place, file_format)
        yield weights.open_weights(written, file_format)
