"""Training loops of a user's own: right ones, and every wrong one."""

from __future__ import annotations

import copy
import threading
from typing import Any

from xbackend_fl.participant import Task


def descend(task: Task, change: Any = lambda loss: loss, between: Any = lambda: None) -> dict[str, float]:
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
    return descend(task)


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
    return descend(task, lambda loss: loss + task.penalty())


def corrected(task: Task) -> dict[str, float]:
    return descend(task, between=task.correct_gradients)


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
    return {**descend(task), "patience": task.settings["patience"], "seed": task.seed}


def evaluates_between(task: Task) -> dict[str, float]:
    found = descend(task)
    task.model.eval()
    task.model(next(iter(task.batches()))[0])
    return found


def nothing(task: Task) -> None:
    descend(task)


def a_text(task: Task) -> Any:
    return f"trained {task.participant}"


def no_examples(task: Task) -> Any:
    return {**descend(task), "num_examples": 0}


def too_many(task: Task) -> Any:
    return {**descend(task), "num_examples": 65}


def endless_figure(task: Task) -> Any:
    return {**descend(task), "recall": float("nan")}


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
    return descend(task)


def leaves_flags(task: Task) -> Any:
    """Freezes a layer for itself, and leaves it so."""
    task.model[0].requires_grad_(requires_grad=False)
    return descend(task)


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
    return descend(task)


def takes_two(_: Task, other: Any) -> Any:
    return other
