"""Code that evaluates, of a user's own: right ones, and every wrong one."""

from __future__ import annotations

from typing import Any

from xbackend_fl.participant import Task


def _errors(task: Task) -> dict[str, float]:
    """The mean squared error, in PyTorch's own words."""
    import torch

    total = count = 0.0
    with torch.no_grad():
        for inputs, targets in task.batches():
            total += float(((task.model(inputs) - targets) ** 2).sum())
            count += targets.numel()
    return {"num_examples": len(task.data[1]), "error": total / count}


def judge(task: Task) -> dict[str, float]:
    return _errors(task)


def keras_judge(task: Task) -> dict[str, float]:
    inputs, targets = task.data
    found = task.model.predict(inputs, verbose=0)
    return {"num_examples": len(targets), "error": float(((found - targets) ** 2).mean())}


def keras_evaluate(task: Task) -> dict[str, float]:
    inputs, targets = task.data
    task.model.compile(loss="mean_squared_error")
    return {"num_examples": len(targets), "error": task.model.evaluate(inputs, targets, verbose=0)}


def by_name(task: Task) -> dict[str, float]:
    """Another figure and another number of examples at each participant."""
    return {"osaka": {"num_examples": 1, "error": 4.0}, "lyon": {"num_examples": 3, "error": 8.0}}[
        task.participant
    ]


def at_osaka(task: Task) -> dict[str, float]:
    if task.participant != "osaka":
        raise ValueError("no scanner today")
    return {"num_examples": 1, "error": 4.0}


def settled(task: Task) -> dict[str, float]:
    assert task.split in {"validation", "test"}
    assert (task.round, dict(task.state)) == (0, {})
    return {"num_examples": 64, "error": float(task.settings["error"])}


def nothing(task: Task) -> None:
    _errors(task)


def a_number(task: Task) -> int:
    return int(_errors(task)["num_examples"])


def no_examples(task: Task) -> dict[str, float]:
    return {"error": _errors(task)["error"]}


def too_many(task: Task) -> dict[str, float]:
    return {**_errors(task), "num_examples": 65}


def another(task: Task) -> dict[str, float]:
    return {**_errors(task), "recall": 0.5}


def endless(task: Task) -> dict[str, float]:
    return {**_errors(task), "error": float("nan")}


def raises(task: Task) -> Any:
    raise ValueError(f"no scanner today, {task.participant}")


def trains(task: Task) -> dict[str, float]:
    """Moves the statistics of a batch normalisation."""
    task.model.train()
    return _errors(task)


def another_layer(task: Task) -> dict[str, float]:
    import torch

    task.model[3] = torch.nn.Linear(8, 2)
    return {"num_examples": 64, "error": 1.0}


def waits(_: Task) -> Any:
    import threading

    threading.Event().wait()
