"""FederatedScope's ConvNet2 in Keras, channels last."""

import keras
from keras import layers


def build(hidden: int = 2048, *, normalise: bool = True) -> keras.Model:
    """Two convolutions with batch normalisation, two dense layers: 6,603,902 trainable values."""

    def block(filters: int) -> list[keras.layers.Layer]:
        norm = [layers.BatchNormalization(epsilon=1e-5, momentum=0.9)] if normalise else []
        return [layers.Conv2D(filters, 5, padding="same"), *norm, layers.ReLU(), layers.MaxPooling2D(2)]

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *block(32),
            *block(64),
            layers.Flatten(),
            layers.Dense(hidden, activation="relu"),
            layers.Dense(62),
        ]
    )


def leaf_cnn() -> keras.Model:
    """LEAF's own network: the same without batch normalisation."""
    return build(normalise=False)
