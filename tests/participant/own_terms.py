"""Training loops of a user's own under an algorithm that adds a term to every step: with it once, and without it or with it twice."""

from __future__ import annotations

from typing import Any

from tests.participant.own_loops import descend
from xbackend_fl.participant import Task


def penalised_once(task: Task) -> dict[str, float]:
    left = [task.penalty()]
    return descend(task, lambda loss: loss + left.pop() if left else loss)


def penalised_in_vain(task: Task) -> dict[str, float]:
    def change(loss: Any) -> Any:
        task.penalty()
        return loss

    return descend(task, change)


def penalised_by_a_number(task: Task) -> dict[str, float]:
    return descend(task, lambda loss: loss + float(task.penalty().detach()))


def both(task: Task) -> dict[str, float]:
    return descend(task, lambda loss: loss + task.penalty(), task.correct_gradients)


def corrected_once(task: Task) -> dict[str, float]:
    left = [task.correct_gradients]
    return descend(task, between=lambda: left.pop()() if left else None)


def corrected_twice(task: Task) -> dict[str, float]:
    def twice() -> None:
        task.correct_gradients()
        task.correct_gradients()

    return descend(task, between=twice)


def corrected_too_early(task: Task) -> dict[str, float]:
    def change(loss: Any) -> Any:
        task.correct_gradients()
        return loss

    return descend(task, change)


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


def _scaled(
    task: Task, between: Any, change: Any = lambda loss: loss, *, enabled: bool = True, fused: bool = False
) -> dict[str, float]:
    """Steps of a loss that is scaled, as for half precision."""
    import torch
    from torch.nn import functional

    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", enabled=enabled)
    for inputs, targets in task.batches():
        optimizer.zero_grad(set_to_none=False)
        loss = change(functional.mse_loss(task.model(inputs), targets))
        scaler.scale(loss).backward()
        between(scaler, optimizer)
        scaler.step(optimizer)
        scaler.update()
    return {"num_examples": len(task.data[1])}


def scales_and_penalises(task: Task) -> dict[str, float]:
    return _scaled(task, lambda *_: None, lambda loss: loss + task.penalty())


def _unscaled_and_corrected(task: Task) -> Any:
    def between(scaler: Any, optimizer: Any) -> None:
        scaler.unscale_(optimizer)
        task.correct_gradients()

    return between


def scales_and_corrects(task: Task) -> dict[str, float]:
    return _scaled(task, _unscaled_and_corrected(task))


def scales_fused_and_corrects(task: Task) -> dict[str, float]:
    return _scaled(task, _unscaled_and_corrected(task), fused=True)


def scales_not_and_corrects(task: Task) -> dict[str, float]:
    return _scaled(task, lambda *_: task.correct_gradients(), enabled=False)


def skips_a_scaled_step(task: Task) -> dict[str, float]:
    """The first gradients have no end, as under a scale that is too large, and stay in the parameters; then everything is as without them."""
    import torch

    parameters = list(task.model.parameters())
    optimizer, scaler = torch.optim.SGD(parameters, lr=0.1), torch.amp.GradScaler("cpu")
    optimizer.zero_grad()
    scaler.scale(sum(parameter.sum() for parameter in parameters) * float("inf")).backward()
    scaler.unscale_(optimizer)
    task.correct_gradients()
    scaler.step(optimizer)
    scaler.update()
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.zero_()
    from torch.nn import functional

    for inputs, targets in task.batches():
        scaler.scale(functional.mse_loss(task.model(inputs), targets)).backward()
        scaler.unscale_(optimizer)
        task.correct_gradients()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=False)
    return {"num_examples": len(task.data[1])}


def corrects_scaled(task: Task) -> dict[str, float]:
    return _scaled(task, lambda *_: task.correct_gradients())


def corrects_scaled_fused(task: Task) -> dict[str, float]:
    return _scaled(task, lambda *_: task.correct_gradients(), fused=True)


def corrects_before_it_unscales(task: Task) -> dict[str, float]:
    def between(scaler: Any, optimizer: Any) -> None:
        task.correct_gradients()
        scaler.unscale_(optimizer)

    return _scaled(task, between)


def corrects_one_scaled_part(task: Task) -> dict[str, float]:
    """Of two optimizers, the second unscales within its step."""
    import torch
    from torch.nn import functional

    parts = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in task.model]
    scaler = torch.amp.GradScaler("cpu")
    for inputs, targets in task.batches():
        task.model.zero_grad()
        scaler.scale(functional.mse_loss(task.model(inputs), targets)).backward()
        scaler.unscale_(parts[0])
        task.correct_gradients()
        for optimizer in parts:
            scaler.step(optimizer)
        scaler.update()
    return {"num_examples": len(task.data[1])}


def compiled(task: Task) -> dict[str, float]:
    import torch

    return descend(task, torch.compile(lambda loss: loss + task.penalty(), backend="eager"))


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


def _keras_scaled(task: Task, change: Any, correct: Any) -> dict[str, float]:
    """Steps of a loss that is scaled."""
    import keras
    import tensorflow as tf

    optimizer, variables = (
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
        task.model.trainable_variables,
    )
    optimizer.build(variables)
    for inputs, targets in task.batches():
        with tf.GradientTape() as tape:
            loss = change(tf.reduce_mean(tf.square(task.model(inputs, training=True) - targets)))
            scaled = optimizer.scale_loss(loss)
        optimizer.apply(correct(tape.gradient(scaled, variables)), variables)
    return {"num_examples": len(task.data[1])}


def keras_scales_and_penalises(task: Task) -> dict[str, float]:
    return _keras_scaled(task, lambda loss: loss + task.penalty(), list)


def keras_corrects_scaled(task: Task) -> dict[str, float]:
    return _keras_scaled(task, lambda loss: loss, task.correct_gradients)
