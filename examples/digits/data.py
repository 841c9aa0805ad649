"""scikit-learn's 1,797 scans of handwritten digits (UCI), split once and for all."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def load() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Training, validation and test scans ``[N, 1, 8, 8]`` in [0, 1], with their digits."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    rest, test, rest_labels, test_labels = train_test_split(
        images, labels, test_size=360, random_state=0, stratify=labels
    )
    train, validation, train_labels, validation_labels = train_test_split(
        rest, rest_labels, test_size=180, random_state=0, stratify=rest_labels
    )
    return {
        "train": (train, train_labels),
        "validation": (validation, validation_labels),
        "test": (test, test_labels),
    }
