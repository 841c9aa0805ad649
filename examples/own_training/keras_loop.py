"""Keras ``compile`` and ``fit`` train a participant: ``train: keras_loop.py:train``."""

import keras
import tensorflow as tf

from xbackend_fl import Task


def train(task: Task) -> dict[str, float]:
    """One round."""
    images, labels = task.data
    # The course's data are channels first, a Keras model takes them channels last.
    images = images.transpose(0, 2, 3, 1)

    def loss(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        each = keras.losses.sparse_categorical_crossentropy(targets, outputs, from_logits=True)
        return each + task.penalty()

    task.model.compile(keras.optimizers.Adam(task.lr), loss, metrics=["accuracy"])
    found = task.model.fit(
        images,
        labels,
        batch_size=16,
        epochs=task.settings["epochs"],
        verbose=0,
        callbacks=[keras.callbacks.TerminateOnNaN(), keras.callbacks.EarlyStopping("loss", patience=2)],
    )
    figures = {name: values[-1] for name, values in found.history.items()}
    return {"num_examples": len(labels), **figures}
