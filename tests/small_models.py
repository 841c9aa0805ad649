"""A pair of models with a layer of every kind that those of the digits example have: their courses cost half as much.

For tests of what surrounds a model; what a course makes of the example's own models is tested with these.
"""

from __future__ import annotations

from typing import Any

TORCH = f"models={{torch: '{__file__}:in_torch'}}"
"""The setting of a course that has the first one alone."""
PAIR = f"models={{torch: '{__file__}:in_torch', tensorflow: '{__file__}:in_keras'}}"


def in_torch() -> Any:
    """Images arrive as ``[N, 1, 8, 8]``."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8 * 4 * 4, 10),
    )


def in_keras() -> Any:
    """Images arrive as ``[N, 8, 8, 1]``."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(epsilon=1e-5, momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(10),
        ]
    )
