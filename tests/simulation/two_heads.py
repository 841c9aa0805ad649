"""Models with two outputs, as their users write them, and data with two targets of each example."""

from __future__ import annotations

from typing import Any

import numpy as np

PARTS = {"train": 0, "validation": 1, "test": 2}


def _torch(returned: Any) -> Any:
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.organ, self.age = nn.Linear(6, 16), nn.Linear(16, 4), nn.Linear(16, 1)

        def forward(self, x: torch.Tensor) -> Any:
            x = torch.tanh(self.body(x))
            return returned(self.organ(x), self.age(x))

    return Net()


def torch_three() -> Any:
    """A third output, which no loss reads."""
    return _torch(lambda organ, age: {"organ": organ, "age": age, "sum": organ[:, :3] * age})


def keras_three() -> Any:
    return _keras(lambda organ, age: [organ[:, :3] * age, age, organ])


def keras_three_named() -> Any:
    return _keras(lambda organ, age: {"sum": organ[:, :3] * age, "age": age, "organ": organ})


def _keras(returned: Any) -> Any:
    import keras
    from keras import layers as K

    x = keras.Input((6,))
    y = K.Dense(16, activation="tanh")(x)
    return keras.Model(x, returned(K.Dense(4)(y), K.Dense(1)(y)))


def torch_tuple() -> Any:
    return _torch(lambda organ, age: (organ, age))


def torch_dict() -> Any:
    return _torch(lambda organ, age: {"organ": organ, "age": age})


def torch_softmax() -> Any:
    return _torch(lambda organ, age: (organ.softmax(1), age))


def keras_dict() -> Any:
    return _keras(lambda organ, age: {"age": age, "organ": organ})


def keras_tuple() -> Any:
    return _keras(lambda organ, age: [organ, age])


def keras_other() -> Any:
    return _keras(lambda organ, age: [age, organ])


def examples(seed: int, rows: int) -> tuple[Any, dict[str, Any]]:
    """Inputs ``[N, 6]``, classes ``[N]`` and numbers ``[N, 1]``; some classes do not count."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((rows, 6)).astype(np.float32)
    organ = (x[:, :4] + 0.1).argmax(1)
    organ[: rows // 8] = -100
    return x, {"organ": organ, "age": (x @ np.arange(6) / 3 + 1).astype(np.float32)[:, None]}


def load() -> dict[str, Any]:
    return {name: examples(seed, 96 if name == "train" else 40) for name, seed in PARTS.items()}


def of_osaka() -> Any:
    return examples(3, 40)


def of_lyon() -> Any:
    return examples(4, 56)


def unlabelled(data: Any) -> Any:
    x, y = data
    return x, {**y, "organ": np.full(len(x), -100)}


def of_lyon_unlabelled() -> Any:
    """No class of any example is known."""
    return unlabelled(of_lyon())


def validated_unlabelled() -> dict[str, Any]:
    return load() | {"validation": unlabelled(load()["validation"])}


def sorted_by_labels() -> dict[str, Any]:
    """Of the first 300 examples no class is known."""
    x, y = examples(1, 400)
    y["organ"][:300] = -100
    return load() | {"validation": (x, y)}


def nothing_counts() -> dict[str, Any]:
    """Of two outputs of classes and of labels."""
    return {
        name: (x, {"organ": y["organ"] * 0 - 100, "age": y["age"] * 0 - 100})
        for name, (x, y) in load().items()
    }


def as_tuples() -> dict[str, Any]:
    return {name: (x, (y["organ"], y["age"])) for name, (x, y) in load().items()}


class Items:
    """A data set as PyTorch's: one example for a number."""

    def __init__(self, data: Any, form: Any) -> None:
        (self.x, self.y), self.form = data, form

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        if index >= len(self):
            raise IndexError
        return self.form(self.x[index], self.y["organ"][index], self.y["age"][index])


def as_items() -> dict[str, Any]:
    return {n: Items(d, lambda x, organ, age: (x, {"organ": organ, "age": age})) for n, d in load().items()}


def as_named_items() -> dict[str, Any]:
    return {
        n: Items(d, lambda x, organ, age: {"x": x, "organ": organ, "age": age}) for n, d in load().items()
    }


def as_triples() -> dict[str, Any]:
    return {n: Items(d, lambda x, organ, age: (x, organ, age)) for n, d in load().items()}


def loader_of_osaka() -> Any:
    return _loader(of_osaka())


def loader_of_lyon() -> Any:
    return _loader(of_lyon())


def pairs_of_osaka() -> Any:
    return _pairs(of_osaka())


def pairs_of_lyon() -> Any:
    return _pairs(of_lyon())


def tf_data_of_osaka() -> Any:
    return _tf_data(of_osaka())


def tf_data_of_lyon() -> Any:
    return _tf_data(of_lyon())


def _loader(data: Any) -> Any:
    from torch.utils.data import DataLoader

    items = Items(data, lambda x, organ, age: (x, {"organ": organ, "age": age}))
    return DataLoader(items, batch_size=8)  # type: ignore[arg-type]


def _pairs(data: Any) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(Items(data, lambda x, organ, age: (x, (organ, age))), batch_size=8)  # type: ignore[arg-type]


def _tf_data(data: Any) -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data).batch(8)


def one_target() -> dict[str, Any]:
    return {name: (x, y["organ"]) for name, (x, y) in load().items()}


def no_age() -> dict[str, Any]:
    return {name: (x, {"organ": y["organ"], "weight": y["age"]}) for name, (x, y) in load().items()}


def shorter() -> dict[str, Any]:
    return {name: (x, {**y, "age": y["age"][:-1]}) for name, (x, y) in load().items()}


def beyond() -> dict[str, Any]:
    found = load()
    found["train"][1]["organ"][20] = 4
    return found


def endless() -> dict[str, Any]:
    found = load()
    found["train"][1]["age"][20] = np.nan
    return found


def words() -> dict[str, Any]:
    return {name: (x, {**y, "age": y["age"].astype(str)}) for name, (x, y) in load().items()}


def moved(inputs: Any, targets: Any, rng: Any) -> Any:
    """A transform that changes both targets."""
    targets["age"] += rng.random(targets["age"].shape).astype(np.float32)
    targets["organ"] = np.where(rng.random(len(inputs)) < 0.2, -100, targets["organ"])
    return inputs, targets


def too_far(inputs: Any, targets: Any, rng: Any) -> Any:
    del rng
    return inputs, {**targets, "organ": targets["organ"] * 0 + 9}


def forgetful(inputs: Any, targets: Any, rng: Any) -> Any:
    del rng
    return inputs, {"organ": targets["organ"]}


def as_huber(outputs: Any, targets: Any, ops: Any) -> Any:
    size = ops.abs(outputs - targets)
    return ops.where(size < 1.0, 0.5 * size * size, size - 0.5)


def torch_huber(outputs: Any, targets: Any) -> Any:
    import torch

    return torch.nn.functional.huber_loss(outputs, targets, reduction="none")


def keras_huber(outputs: Any, targets: Any) -> Any:
    import keras

    size = keras.ops.abs(outputs - targets)
    return keras.ops.where(size < 1.0, 0.5 * size * size, size - 0.5)


def keras_half(outputs: Any, targets: Any) -> Any:
    return keras_huber(outputs, targets) * 0.5


class Bias:
    """A metric of the user's own: the mean error."""

    sums = ("over", "under", "count")
    higher_is_better = False

    def measure(self, outputs: Any, targets: Any) -> dict[str, float]:
        errors = outputs - targets
        return {
            "over": float(errors.clip(0).sum()),
            "under": float(-errors.clip(max=0).sum()),
            "count": float(errors.size),
        }

    def value(self, sums: Any) -> float:
        return float((sums["over"] - sums["under"]) / max(sums["count"], 1))


def train(task: Any, *, corrects: bool = False) -> dict[str, float]:
    """A loop of PyTorch's own: what the built-in one does."""
    import torch
    from torch.nn import functional as F

    optimizer, count = torch.optim.SGD(task.model.parameters(), task.lr), 0
    for inputs, targets in task.batches():
        optimizer.zero_grad()
        organ, age = task.model(inputs)
        loss = F.cross_entropy(organ, targets["organ"]) + 0.1 * F.huber_loss(age, targets["age"])
        if corrects:
            loss.backward()
            task.correct_gradients()
        else:
            (loss + task.penalty()).backward()
        optimizer.step()
        count += len(inputs)
    inputs, targets = task.data
    assert targets.keys() == {"organ", "age"}
    assert targets["age"].shape == (len(inputs), 1)
    return {"num_examples": len(inputs), "seen": float(count)}


def corrected_train(task: Any) -> dict[str, float]:
    return train(task, corrects=True)


def keras_train(task: Any) -> dict[str, float]:
    """The same in Keras, whose model returns its outputs by name."""
    import keras
    import tensorflow as tf

    variables, count, steps = task.model.trainable_variables, 0, 0
    for inputs, targets in task.batches():
        counted = tf.cast(targets["organ"] != -100, tf.float32)
        with tf.GradientTape() as tape:
            found = task.model(inputs, training=True)
            each = keras.ops.sparse_categorical_crossentropy(
                tf.maximum(targets["organ"], 0), found["organ"], from_logits=True
            )
            organ = tf.reduce_sum(each * counted) / tf.reduce_sum(counted)
            age = tf.reduce_mean(keras_huber(found["age"], targets["age"]))
            loss = organ + 0.1 * age
        gradients = task.correct_gradients(tape.gradient(loss, variables))
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(task.lr * gradient)
        count, steps = count + len(inputs), steps + 1
    inputs, targets = task.data
    assert targets.keys() == {"organ", "age"}
    return {"num_examples": len(inputs), "seen": float(count), "steps": steps}


def judge(task: Any) -> dict[str, float]:
    """An evaluation of the user's own: of one target."""
    import torch

    with torch.no_grad():
        found = [(task.model(x)[1] - y["age"]).abs() for x, y in task.batches()]
    errors = torch.cat(found)
    return {"num_examples": len(errors), "furthest": float(errors.max())}
