"""Training loops of a user's own: right ones, and every wrong one."""

from __future__ import annotations

import copy
import threading
from typing import Any

from xbackend_fl.participant import Task


def _descend(task: Task, change: Any = lambda loss: loss, between: Any = lambda: None) -> dict[str, float]:
    """Plain steps of the course, in PyTorch's own words."""
    import torch
    from torch.nn import functional

    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    total = steps = 0.0
    for inputs, targets in task.batches():
        optimizer.zero_grad()
        loss = change(functional.mse_loss(task.model(inputs), targets))
        loss.backward()
        between()
        optimizer.step()
        total, steps = total + float(loss.detach()), steps + 1
    return {"num_examples": len(task.data[1]), "loss": total / steps}


def train(task: Task) -> dict[str, float]:
    return _descend(task)


def follows_the_schedule(task: Task) -> dict[str, float]:
    import torch
    from torch.nn import functional

    optimizer = torch.optim.SGD(task.model.parameters(), lr=task.lr)
    for step, (inputs, targets) in enumerate(task.batches()):
        optimizer.param_groups[0]["lr"] = task.lr_at(step)
        optimizer.zero_grad()
        functional.mse_loss(task.model(inputs), targets).backward()
        optimizer.step()
    return {"num_examples": len(task.data[1]), "first": task.lr_at(0), "second": task.lr_at(1)}


def counts_from_one(task: Task) -> dict[str, float]:
    return {"num_examples": len(task.data[1]), "rate": task.lr_at(-1)}


def counts_halves(task: Task) -> dict[str, float]:
    return {"num_examples": len(task.data[1]), "rate": task.lr_at(1.5)}  # type: ignore[arg-type]


def keras_freezes(task: Task) -> dict[str, float]:
    task.model.layers[0].trainable = False
    return keras_train(task)


def keras_train(task: Task) -> dict[str, float]:
    import tensorflow as tf

    variables = task.model.trainable_variables
    total = steps = 0.0
    for inputs, targets in task.batches():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(task.model(inputs, training=True) - targets))
        gradients = task.correct_gradients(tape.gradient(loss, variables))
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign(variable.value - 0.1 * gradient)
        total, steps = total + float(loss), steps + 1
    return {"num_examples": len(task.data[1]), "loss": total / steps, "steps": steps}


def keras_fit(task: Task) -> dict[str, float]:
    import keras

    def loss(targets: Any, outputs: Any) -> Any:
        return keras.losses.mean_squared_error(targets, outputs) + task.penalty()

    inputs, targets = task.data
    task.model.compile(keras.optimizers.SGD(0.1), loss)
    found = task.model.fit(inputs, targets, batch_size=64, verbose=0)
    return {"num_examples": len(targets), "loss": found.history["loss"][-1]}


def penalised(task: Task) -> dict[str, float]:
    return _descend(task, lambda loss: loss + task.penalty())


def corrected(task: Task) -> dict[str, float]:
    return _descend(task, between=task.correct_gradients)


def penalised_once(task: Task) -> dict[str, float]:
    left = [task.penalty()]
    return _descend(task, lambda loss: loss + left.pop() if left else loss)


def penalised_in_vain(task: Task) -> dict[str, float]:
    def change(loss: Any) -> Any:
        task.penalty()
        return loss

    return _descend(task, change)


def penalised_by_a_number(task: Task) -> dict[str, float]:
    return _descend(task, lambda loss: loss + float(task.penalty().detach()))


def both(task: Task) -> dict[str, float]:
    return _descend(task, lambda loss: loss + task.penalty(), task.correct_gradients)


def corrected_once(task: Task) -> dict[str, float]:
    left = [task.correct_gradients]
    return _descend(task, between=lambda: left.pop()() if left else None)


def corrected_twice(task: Task) -> dict[str, float]:
    def twice() -> None:
        task.correct_gradients()
        task.correct_gradients()

    return _descend(task, between=twice)


def corrected_too_early(task: Task) -> dict[str, float]:
    def change(loss: Any) -> Any:
        task.correct_gradients()
        return loss

    return _descend(task, change)


def accumulates(task: Task) -> dict[str, float]:
    """Two backward passes a step, each with half of what the algorithm adds."""
    import torch
    from torch.nn import functional

    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    for number, (inputs, targets) in enumerate(task.batches()):
        loss = functional.mse_loss(task.model(inputs), targets) + task.penalty()
        (loss / 2).backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
    return {"num_examples": len(task.data[1])}


def accumulates_and_corrects(task: Task) -> dict[str, float]:
    import torch
    from torch.nn import functional

    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    for number, (inputs, targets) in enumerate(task.batches()):
        (functional.mse_loss(task.model(inputs), targets) / 2).backward()
        if number % 2:
            task.correct_gradients()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
    return {"num_examples": len(task.data[1])}


def closes(task: Task) -> dict[str, float]:
    """Goes backward within the step, as Lightning does."""
    import torch
    from torch.nn import functional

    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    for inputs, targets in task.batches():

        def closure(inputs: Any = inputs, targets: Any = targets) -> Any:
            optimizer.zero_grad()
            loss = functional.mse_loss(task.model(inputs), targets) + task.penalty()
            loss.backward()
            return loss

        optimizer.step(closure)
    return {"num_examples": len(task.data[1])}


def two_optimizers(task: Task) -> dict[str, float]:
    """Each trains a part."""
    import torch
    from torch.nn import functional

    parts = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in task.model]
    for inputs, targets in task.batches():
        task.model.zero_grad()
        (functional.mse_loss(task.model(inputs), targets) + task.penalty()).backward()
        for optimizer in parts:
            optimizer.step()
    return {"num_examples": len(task.data[1])}


def compiled(task: Task) -> dict[str, float]:
    import torch

    return _descend(task, torch.compile(lambda loss: loss + task.penalty(), backend="eager"))


def _keras_steps(task: Task, gradients_of: Any, lr: float = 0.1) -> dict[str, float]:
    import keras

    optimizer, variables = keras.optimizers.SGD(lr), task.model.trainable_variables
    for number, (inputs, targets) in enumerate(task.batches()):
        optimizer.apply(gradients_of(task, number, inputs, targets), variables)
    return {"num_examples": len(task.data[1])}


def _keras_gradients(task: Task, inputs: Any, targets: Any, *, penalised: bool = False) -> Any:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(task.model(inputs, training=True) - targets))
        if penalised:
            loss += task.penalty()
    return tape.gradient(loss, task.model.trainable_variables)


def keras_penalised(task: Task) -> dict[str, float]:
    return _keras_steps(task, lambda t, _, x, y: _keras_gradients(t, x, y, penalised=True))


def keras_penalised_once(task: Task) -> dict[str, float]:
    return _keras_steps(task, lambda t, n, x, y: _keras_gradients(t, x, y, penalised=n == 0))


def keras_penalised_in_vain(task: Task) -> dict[str, float]:
    def found(_: Task, __: int, inputs: Any, targets: Any) -> Any:
        task.penalty()
        return _keras_gradients(task, inputs, targets)

    return _keras_steps(task, found)


def keras_both(task: Task) -> dict[str, float]:
    return _keras_steps(
        task, lambda t, _, x, y: t.correct_gradients(_keras_gradients(t, x, y, penalised=True))
    )


def keras_corrects_nothing(task: Task) -> dict[str, float]:
    return _keras_steps(task, lambda t, *_: t.correct_gradients([None] * len(t.model.trainable_variables)))


def keras_corrected(task: Task) -> dict[str, float]:
    return _keras_steps(task, lambda t, _, x, y: t.correct_gradients(_keras_gradients(t, x, y)))


def keras_corrects_in_vain(task: Task) -> dict[str, float]:
    """As with PyTorch, where nothing is returned."""

    def found(_: Task, __: int, inputs: Any, targets: Any) -> Any:
        gradients = _keras_gradients(task, inputs, targets)
        task.correct_gradients(gradients)
        return gradients

    return _keras_steps(task, found)


def keras_corrects_a_copy_in_vain(task: Task) -> dict[str, float]:
    def found(_: Task, __: int, inputs: Any, targets: Any) -> Any:
        gradients = _keras_gradients(task, inputs, targets)
        task.correct_gradients([gradient.numpy() for gradient in gradients])
        return gradients

    return _keras_steps(task, found)


def keras_corrects_in_vain_in_a_graph(task: Task) -> dict[str, float]:
    import keras
    import tensorflow as tf

    optimizer, variables = keras.optimizers.SGD(0.1), task.model.trainable_variables
    optimizer.build(variables)

    @tf.function
    def step(inputs: Any, targets: Any) -> None:
        gradients = _keras_gradients(task, inputs, targets)
        task.correct_gradients(gradients)
        optimizer.apply(gradients)

    for inputs, targets in task.batches():
        step(inputs, targets)
    return {"num_examples": len(task.data[1])}


def keras_corrects_in_place(task: Task) -> dict[str, float]:
    """Gradients that lie in variables, which are handed over before and after."""
    import tensorflow as tf

    held = [tf.Variable(tf.zeros_like(one.value)) for one in task.model.trainable_variables]

    def found(_: Task, __: int, inputs: Any, targets: Any) -> Any:
        for place, gradient in zip(held, _keras_gradients(task, inputs, targets), strict=True):
            place.assign(gradient)
        for place, gradient in zip(held, task.correct_gradients(held), strict=True):
            place.assign(gradient)
        return held

    return _keras_steps(task, found)


def keras_clips_what_it_corrected(task: Task) -> dict[str, float]:
    """To a norm that none has."""
    import tensorflow as tf

    def found(_: Task, __: int, inputs: Any, targets: Any) -> Any:
        gradients = task.correct_gradients(_keras_gradients(task, inputs, targets))
        return tf.clip_by_global_norm(gradients, 1e6)[0]

    return _keras_steps(task, found)


def keras_corrects_parts(task: Task) -> dict[str, float]:
    """Each optimizer trains a part."""
    import keras

    optimizers = [keras.optimizers.SGD(0.1) for _ in task.model.trainable_variables]
    for inputs, targets in task.batches():
        gradients = task.correct_gradients(_keras_gradients(task, inputs, targets))
        parts = zip(optimizers, gradients, task.model.trainable_variables, strict=True)
        for optimizer, gradient, variable in parts:
            optimizer.apply_gradients([(gradient, variable)])
    return {"num_examples": len(task.data[1])}


def keras_corrects_in_a_graph(task: Task) -> dict[str, float]:
    import tensorflow as tf

    found = tf.function(lambda x, y: task.correct_gradients(_keras_gradients(task, x, y)))
    return _keras_steps(task, lambda _, __, x, y: found(x, y))


def keras_graph(task: Task) -> dict[str, float]:
    """What is made a graph calls the task once, and every step has the term all the same."""
    import tensorflow as tf

    found = tf.function(lambda x, y: _keras_gradients(task, x, y, penalised=True))
    return _keras_steps(task, lambda _, __, x, y: found(x, y))


def counts(task: Task) -> dict[str, float]:
    """Keeps Adam's state and counts its rounds."""
    import torch

    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.01)
    if "optimizer" in task.state:
        optimizer.load_state_dict(task.state["optimizer"])
    for inputs, targets in task.batches():
        optimizer.zero_grad()
        ((task.model(inputs) - targets) ** 2).mean().backward()
        optimizer.step()
    task.state["optimizer"] = optimizer.state_dict()
    task.state["rounds"] = task.state.get("rounds", 0) + 1
    steps = optimizer.state[next(iter(task.model.parameters()))]["step"]
    return {"num_examples": 64, "rounds": task.state["rounds"], "adam_steps": float(steps)}


def settled(task: Task) -> dict[str, float]:
    return {**_descend(task), "patience": task.settings["patience"], "seed": task.seed}


def evaluates_between(task: Task) -> dict[str, float]:
    found = _descend(task)
    task.model.eval()
    task.model(next(iter(task.batches()))[0])
    return found


def nothing(task: Task) -> None:
    _descend(task)


def a_text(task: Task) -> Any:
    return f"trained {task.participant}"


def no_examples(task: Task) -> Any:
    return {**_descend(task), "num_examples": 0}


def too_many(task: Task) -> Any:
    return {**_descend(task), "num_examples": 65}


def endless_figure(task: Task) -> Any:
    return {**_descend(task), "recall": float("nan")}


def raises(task: Task) -> Any:
    raise ValueError(f"no scanner today, {task.participant}")


def exits(_: Task) -> Any:
    raise SystemExit(3)


def another_layer(task: Task) -> Any:
    import torch

    task.model[1] = torch.nn.Linear(8, 2)
    return 64


def another_activation(task: Task) -> Any:
    import torch

    task.model.append(torch.nn.ReLU())
    return 64


def a_pop(task: Task) -> Any:
    task.model.pop()
    return 64


def leaves_nan(task: Task) -> Any:
    import torch

    with torch.no_grad():
        task.model[0].weight[0, 0] = float("nan")
    return 64


def leaves_a_negative_variance(task: Task) -> Any:
    task.model[1].running_var[2] = -0.5
    return 8


def leaves_a_statistic_without_value(task: Task) -> Any:
    task.model[1].running_mean[2] = float("inf")
    return 8


def keras_leaves_a_negative_variance(task: Task) -> Any:
    task.model.layers[1].moving_variance.assign([-0.5] * 8)
    return 8


def forgets(task: Task) -> Any:
    """Trains a copy."""
    import torch

    twin = copy.deepcopy(task.model)
    with torch.no_grad():
        twin[0].weight.fill_(1.0)
    return 64


def unfreezes(task: Task) -> Any:
    import torch

    with torch.no_grad():
        task.model[0].weight.fill_(7.0)
    return _descend(task)


def leaves_flags(task: Task) -> Any:
    """Freezes a layer for itself, and leaves it so."""
    task.model[0].requires_grad_(requires_grad=False)
    return _descend(task)


def doubles(task: Task) -> Any:
    task.model.double()
    return 32


def halves(task: Task) -> Any:
    task.model.half()
    return 32


def moves(task: Task) -> Any:
    task.model.to("meta")
    return 32


def swaps_memory(task: Task) -> Any:
    """Gives its weights to tensors of another dtype, and raises before it takes them back."""
    import torch

    for value in task.model.parameters():
        value.data = torch.zeros_like(value, dtype=torch.bfloat16)
    raise ValueError("in the middle")


def sets_everything(task: Task) -> Any:
    """Whatever PyTorch has for a whole process."""
    import torch

    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_num_threads(3)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    torch.backends.cudnn.benchmark = True
    torch.autograd.set_detect_anomaly(mode=True)
    torch.set_grad_enabled(mode=False)
    raise ValueError(f"after all settings, {task.participant}")


def keras_sets_everything(task: Task) -> Any:
    import keras
    import tensorflow as tf

    keras.config.set_floatx("float64")
    keras.config.set_epsilon(1e-3)
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_bfloat16")
    tf.config.run_functions_eagerly(run_eagerly=True)
    for layer in task.model.layers:
        layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    raise ValueError(f"after all settings, {task.participant}")


def waits(_: Task) -> Any:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
    return 64


def hurries_not(_: Task) -> Any:
    while True:
        try:
            threading.Event().wait(0.01)
        except Exception:  # noqa: BLE001  as loops do that go on whatever happens
            continue


def adam_swapped(task: Task) -> Any:
    import torch

    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.1)
    for inputs, targets in task.batches():
        optimizer.zero_grad()
        (((task.model(inputs) - targets) ** 2).mean() + task.penalty()).backward()
        optimizer.step()
    return 64


def keeps_an_object(task: Task) -> Any:
    task.state["model"] = {"best": [task.model]}
    return _descend(task)


def takes_two(_: Task, other: Any) -> Any:
    return other
