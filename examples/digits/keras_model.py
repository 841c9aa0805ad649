"""The digits classifier as a Keras team writes it: channels last, its own names."""

import keras
from keras import layers


def build() -> keras.Model:
    """A fresh model; images arrive as ``[N, 8, 8, 1]``."""
    image = keras.Input((8, 8, 1), name="scan")
    x = image
    for block, filters in enumerate((32, 64), start=1):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"block{block}_conv")(x)
        x = layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"block{block}_norm")(x)
        x = layers.Activation("relu", name=f"block{block}_relu")(x)
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(128, activation="relu", name="dense")(x)
    x = layers.Dropout(0.3, name="drop")(x)
    return keras.Model(image, layers.Dense(10, name="digit")(x), name="digits")
