"""A Keras training script, as a tutorial has it."""

import sys
from pathlib import Path

import keras

sys.path.append(str(Path(__file__).parents[2] / "digits"))
import data
import keras_model

images, labels = data.load()["train"]
images = images.transpose(0, 2, 3, 1)
model = keras_model.build()
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(0.002), loss, metrics=["accuracy"])

for epoch in range(3):
    found = model.fit(images, labels, batch_size=32, verbose=0)
    print(f"epoch {epoch + 1}: accuracy {found.history['accuracy'][-1]:.4f}")
