"""What a course's numbers and data would do in training, ``check`` finds out with one step: what it lets pass, ``run`` trains."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from textwrap import dedent

import pytest

from xbackend_fl import load_course, run_course
from xbackend_fl.errors import RefusedInput, XbflError
from xbackend_fl.events import Event, Noted
from xbackend_fl.simulation import SimulationEngine

FILES = {
    "nets.py": """
        import torch
        from torch import nn

        def classes():
            return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

        def values():
            return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))

        class Log(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 3)

            def forward(self, x):
                return self.layer(torch.log(x.abs()))

        def large():
            model = classes()
            with torch.no_grad():
                model[0].weight.mul_(1e20)
            return model

        class NotFive(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 3)

            def forward(self, x):
                if self.training and x.shape[0] == 5:
                    raise ValueError("five examples")
                return self.layer(x)

        calls = []

        def frozen():
            return classes().requires_grad_(False)

        class Shifted(nn.Module):
            def __init__(self):
                super().__init__()
                self.table, self.layer = nn.Embedding(10, 4), nn.Linear(4, 3)

            def forward(self, x):
                return self.layer(self.table(x + 1).mean(1))

        def one_then_another():
            calls.append(1)
            return nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 3)) if len(calls) % 2 else classes()
        """,
    "keras_nets.py": """
        import keras
        from keras import layers as K

        def classes():
            return keras.Sequential([keras.Input((8,)), K.Dense(16, "relu"), K.Dense(3)])

        def frozen():
            model = classes()
            model.trainable = False
            return model
        """,
    "data.py": """
        import numpy as np

        def three(make, **sizes):
            draw = np.random.default_rng(0)
            return {name: make(draw, size) for name, size in {"train": 48, "validation": 12, "test": 12, **sizes}.items()}

        def pair(draw, size):
            return draw.standard_normal((size, 8)).astype(np.float32), draw.integers(0, 3, size)

        def classes(scale=1):
            found = three(pair)
            return {name: (x * np.float32(scale), y) for name, (x, y) in found.items()}

        def large():
            return classes(1e30)

        def larger_after_a_step():
            return classes(1e15)

        def values(scale=1, **sizes):
            return {name: (x, x[:, :2] * np.float32(scale)) for name, (x, _) in three(pair, **sizes).items()}

        def large_values():
            return values(1e18)

        def values_of_1e12():
            return values(1e12)

        def one_large_value(split, row):
            found = values()
            found[split][1][row, 1] = 1e25
            return found

        def one_in_train():
            return one_large_value("train", 40)

        def one_in_validation():
            return one_large_value("validation", 11)

        def one_in_test():
            return one_large_value("test", 11)

        def one_large_index():
            found = three(lambda draw, size: (draw.integers(0, 9, (size, 8)), draw.integers(0, 3, size)), train=900)
            found["train"][0][500, 3] = 9
            return found

        def one_zero():
            found = classes()
            found["train"][0][40, 3] = 0
            return found

        def one_to_validate():
            return values(validation=1)

        def same_everywhere():
            found = classes()
            return {name: found["test"] for name in found}

        def one_class():
            return {name: (x, np.ones_like(y)) for name, (x, y) in classes().items()}

        def in_order():
            x, y = three(pair, validation=900)["validation"]
            order = np.argsort(y, kind="stable")
            return classes() | {"validation": (x[order], y[order])}

        def other_in_one_row():
            found = three(pair, train=1000)
            found["train"][0][501] = np.random.default_rng().standard_normal(8)
            return found

        def own():
            return pair(np.random.default_rng(5), 40)

        def own_one_large():
            x, y = pair(np.random.default_rng(5), 200)
            x[190] = 3e38
            return x, y

        def own_other_in_one_row():
            x, y = pair(np.random.default_rng(5), 400)
            x[201] = np.random.default_rng().standard_normal(8)
            return x, y
        """,
    "course.yaml": """
        name: trial
        rounds: 1
        models: {torch: "nets.py:classes"}
        input: ["1,8"]
        data: {source: "data.py:classes"}
        participants: {torch: 3}
        training: {batch_size: 16}
        """,
}
KERAS = ("models={tensorflow: 'keras_nets.py:classes'}", "participants={tensorflow: 2}")
VALUES = ("models.torch=nets.py:values", "training.loss=mean_squared_error")

INDICES = ("models.torch=nets.py:Shifted", "input=['int64:1,8']", "data.source=data.py:one_large_index")

Check = Callable[..., str]


def data(name: str) -> str:
    return f"data.source=data.py:{name}"


def own(*names: str) -> str:
    listed = (f'{{name: p{i}, backend: torch, data: "data.py:{name}"}}' for i, name in enumerate(names))
    return f"participants=[{', '.join(listed)}]"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    for name, text in FILES.items():
        (folder / name).write_text(dedent(text))
    return folder


@pytest.fixture
def check(room: Path) -> Check:
    """What ``check`` notes; it raises what it refuses."""

    def run(*settings: str) -> str:
        events: list[Event] = []
        course = load_course(room / "course.yaml", settings)
        with closing(SimulationEngine(course, in_process=True, thorough=True)) as engine:
            engine.prepare(events.append)
        return "\n".join(event.note for event in events if isinstance(event, Noted))

    return run


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "inputs so large that a step is": ((data("large"),), "in 0.weight, which no mean takes"),
    "inputs so large that answers after a step are": ((data("larger_after_a_step"),), "answers with NaN or infinity after one step"),
    "targets so large that a step is": ((*VALUES, data("large_values")), "which no mean takes"),
    "one target in a later batch": ((*VALUES, data("one_in_train")), "train: targets: row 40: the target 9.999999562023526e+24 at [1]"),
    "one target to validate": ((*VALUES, data("one_in_validation")), "validation: targets: row 11"),
    "one target to test": ((*VALUES, data("one_in_test")), "test: targets: row 11"),
    "one input in a later batch": ((own("own", "own_one_large"),), "participant 'p1': data.py:own_one_large"),
    "one zero for a logarithm": (("models.torch=nets.py:Log", data("one_zero")), "train: the torch model, given"),
    "one index in a later batch": (INDICES, "train: the torch model, given its smallest and largest values (rows"),
    "a rate": (("training.optimizer.lr=1e30",), "which no mean takes"),
    "a rate of Adam's": (("training.optimizer={name: adam, lr: 1e30}",), "which no mean takes"),
    "a rate in Keras": ((*KERAS, "training.optimizer.lr=1e30"), "the tensorflow model, trained on 16 examples"),
    "a decay": (("training.optimizer.weight_decay=1e30",), "which no mean takes"),
    "a decay apart": (("training.optimizer={name: adamw, weight_decay: 1e30}",), "which no mean takes"),
    "a rate of the server's": (("federate.server.lr=1e30",), "and one of the server,"),
    "a rate of the server's Adam": (("federate.server={name: fedadam, lr: 1e30}",), "and one of the server,"),
    "weights": (("models.torch=nets.py:large",), "which no mean takes"),
    "a size of batches": (("models.torch=nets.py:NotFive", "training.batch_size=11"), "trained on 5 examples, raised ValueError"),
    "nothing to train": (("models.torch=nets.py:frozen",), "nothing trains in the torch model, the reference"),
    "nothing to train in Keras": ((*KERAS, "models={tensorflow: 'keras_nets.py:frozen'}"), "nothing trains in the tensorflow model"),
    "other layers each time": (("models.torch=nets.py:one_then_another", "federate.share_local_model=false"), "two different models"),
}  # fmt: skip


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", BAD)
def test_what_would_end_the_run_is_refused_before(
    check: Check, room: Path, tmp_path: Path, name: str
) -> None:
    settings, words = BAD[name]
    with pytest.raises(RefusedInput) as caught:
        check(*settings)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    # It is no false alarm.
    if "validate" not in name and "test" not in name and "Keras" not in name:
        with pytest.raises((XbflError, ValueError, KeyError, RuntimeWarning)):
            run_course(load_course(room / "course.yaml", settings), tmp_path / "run", in_process=True)


def test_a_metric_that_one_example_does_not_define(check: Check) -> None:
    settings = (*VALUES, data("one_to_validate"))
    with pytest.raises(
        RefusedInput, match="r2, which chooses the best weights, is not defined for 1 example"
    ):
        check(*settings, "evaluation.best=r2")
    assert check(*settings) == ""


def test_a_metric_is_looked_for_in_all_examples(check: Check) -> None:
    """The first 256 and the last have one class each, and few rows are extreme."""
    assert check(data("in_order"), "evaluation.best=auc") == ""
    with pytest.raises(RefusedInput, match="auc, which chooses the best weights, is not defined for 12 exam"):
        check(data("one_class"), "evaluation.best=auc")


def test_a_metric_that_says_nothing_of_these_classes(check: Check) -> None:
    with pytest.raises(RefusedInput, match="classes: train: top_3 is always 1 with 3 classes"):
        check("evaluation.metrics=[{name: top_k, k: 3}]")


@pytest.mark.parametrize("size", [1, 5, 16, 1000])
def test_a_metric_is_of_all_examples_and_not_of_a_batch(check: Check, size: int) -> None:
    assert (
        check(
            *VALUES, data("values"), "evaluation.best=r2", f"training.batch_size={size}", "training.steps=1"
        )
        == ""
    )


@pytest.mark.parametrize("settings", [(data("other_in_one_row"),), (own("own_other_in_one_row", "own"),)])
def test_one_row_that_is_drawn_at_random(check: Check, settings: tuple[str, ...]) -> None:
    """Of a thousand, and of four hundred."""
    with pytest.raises(RefusedInput, match="returned other data when it was called again"):
        check(*settings)


NOTES = {
    "validation has the same inputs as train": (data("same_everywhere"),),
    "train: targets: every target is 1 (likewise: validation, test)": (data("one_class"),),
    "train: targets: values up to 2.0e+12, from which training may end in NaN: scale them": (
        *VALUES,
        data("values_of_1e12"),
    ),
    "participant 'p1' has the same inputs as participant 'p0'": (own("own", "own"),),
    "training.optimizer.lr, or the scale of the data, is too large": ("training.optimizer.lr=1e10",),
}


@pytest.mark.parametrize("note", NOTES)
def test_what_is_odd_and_no_mistake_is_noted(check: Check, note: str) -> None:
    assert note in check(*NOTES[note])


@pytest.mark.parametrize(
    "setting", ["training.optimizer={name: adam, eps: 1e-45}", "training.optimizer.lr=1e-38"]
)
def test_numbers_that_some_frameworks_flush_to_zero(room: Path, setting: str) -> None:
    with pytest.raises(RefusedInput, match="is 0, got"):
        load_course(room / "course.yaml", [setting])
