"""A participant that trains its own way gives what its loop did, or is refused by name; the course can always go on without it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from tests.participant import own_loops, own_terms
from xbackend_fl import load_course
from xbackend_fl.errors import ConfigError, Diverged, UpdateRefused
from xbackend_fl.participant import Contribution, Worker
from xbackend_fl.participant.local_training import PartialSum

LOOPS = "tests.participant.own_loops"
TERMS = "tests.participant.own_terms"
FILES = {
    "torch_net.py": """
        import torch
        from torch import nn

        def build():
            torch.manual_seed(1)
            return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))

        def frozen():
            model = build()
            model[0].requires_grad_(False)
            return model

        def normalised():
            return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        """,
    "keras_net.py": """
        import keras

        def build():
            dense = keras.layers.Dense
            keras.utils.set_random_seed(1)
            return keras.Sequential([keras.Input((4,)), dense(8, name="first"), dense(1, name="second")])

        def normalised():
            layers = keras.layers
            norm = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
            return keras.Sequential([keras.Input((4,)), layers.Dense(8), norm, layers.Dropout(0.3), layers.Dense(1)])
        """,
    "data.py": """
        import numpy as np

        class Scanner:
            def __iter__(self):
                yield from range(3)

        def load():
            x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
            return {split: (x, x[:, :1] * 2) for split in ("train", "validation", "test")}

        def scanner():
            return Scanner()
        """,
    "course.yaml": """
        name: own
        rounds: 1
        models: {torch: torch_net.py:build, tensorflow: keras_net.py:build}
        input: ["1,4"]
        data: {source: data.py:load}
        participants:
          - {name: osaka, backend: torch}
        training: {optimizer: {name: sgd, lr: 0.1}, batch_size: 8, loss: mean_squared_error}
        """,
}
Open = Callable[..., Worker]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        (folder / name).write_text(dedent(text))
    return folder


@pytest.fixture
def opened(room: Path) -> Open:
    def make(loop: str | None = None, *settings: str, backend: str = "torch") -> Worker:
        where = TERMS if hasattr(own_terms, str(loop)) else LOOPS
        named = [] if loop is None else [f"participants.0.train={where}:{loop}"]
        course = load_course(room / "course.yaml", [f"participants.0.backend={backend}", *named, *settings])
        return Worker(course, backend, 1)

    return make


def trained(worker: Worker, kept: Any = None, vectors: Any = None, number: int = 1) -> Contribution:
    return worker.train_alone(number, worker.initial(), "osaka", vectors or {}, kept or {})


def furthest(one: Contribution, other: Contribution, vector: str = "model") -> float:
    first, second = one.update.vectors[vector], other.update.vectors[vector]
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


SCHEDULE = (
    "training.schedule=[{name: step, every: 2, gamma: 0.5}, {name: warmup, per: step, length: 4, start: 0.2}]"
)


def test_a_loop_may_follow_the_schedule_within_a_round(opened: Open) -> None:
    one, other = (trained(opened(name, SCHEDULE), number=3) for name in (None, "follows_the_schedule"))
    assert furthest(one, other) < 1e-7
    assert furthest(one, trained(opened(None), number=3)) > 1e-3
    assert other.figures == pytest.approx({"first": 0.1 * 0.5 * 0.2, "second": 0.1 * 0.5 * 0.4})
    with pytest.raises(
        UpdateRefused, match=r"in round 1: task.lr_at\(-1\): steps of a round are counted from 0"
    ):
        trained(opened("counts_from_one"))
    with pytest.raises(UpdateRefused, match=r"in round 1: task.lr_at\(1.5\): a step is a whole number"):
        trained(opened("counts_halves"))


def test_a_loop_s_steps_are_equally_long_to_scaffold(opened: Open) -> None:
    worker = opened("follows_the_schedule", SCHEDULE, "federate.algorithm=scaffold")
    with pytest.raises(UpdateRefused, match="takes the steps of a loop of your own as equally long"):
        trained(worker, vectors={"control": worker.initial()})


@pytest.mark.parametrize(
    ("loop", "backend"),
    [("train", "torch"), ("keras_train", "tensorflow"), ("keras_fit", "tensorflow")],
)
def test_a_loop_that_does_what_the_built_in_one_does_gives_the_same(
    opened: Open, loop: str, backend: str
) -> None:
    # One batch of all: the order in which Keras goes through the data is its own.
    whole = ["training.batch_size=64"] if loop == "keras_fit" else []
    one, other = (trained(opened(name, *whole, backend=backend)) for name in (None, loop))
    assert furthest(one, other) < 1e-6
    assert other.update.num_examples == one.update.num_examples == 64
    assert other.loss == pytest.approx(one.loss, rel=1e-6)


def test_layers_that_train_otherwise_do_so_in_a_lent_model_too(opened: Open) -> None:
    """Batch normalisation averages the biased variance, and dropout draws what it would draw; evaluating on the way changes nothing."""
    build = "models={torch: torch_net.py:normalised}"
    built_in = trained(opened(None, build))
    own = trained(opened("train", build))
    assert furthest(built_in, own) < 1e-6
    assert furthest(own, trained(opened("evaluates_between", build))) == 0.0


def test_a_loop_has_the_settings_of_the_course(opened: Open) -> None:
    done = trained(opened("settled", "training.settings={patience: 3, words: [a, b]}"))
    assert done.figures["patience"] == 3
    assert 0 <= done.figures["seed"] < 1 << 31


def test_what_is_put_into_the_state_is_there_in_the_next_round(opened: Open) -> None:
    worker = opened("counts")
    first = trained(worker)
    second = trained(worker, first.kept, number=2)
    assert [done.figures["rounds"] for done in (first, second)] == [1, 2]
    assert [done.figures["adam_steps"] for done in (first, second)] == [8, 16]
    # An update that did not count leaves no trace.
    assert trained(worker, number=2).figures["adam_steps"] == 8


@pytest.mark.parametrize(
    ("loop", "said"),
    [
        ("nothing", r"returned nothing \(None\), expected the number of examples"),
        ("a_text", "returned 'trained osaka', expected a mapping with num_examples"),
        ("no_examples", "num_examples 0, expected a whole number from 1"),
        ("too_many", "num_examples 65, and the participant has 64 examples"),
        ("endless_figure", "'recall' of nan, expected a finite number"),
        ("raises", r"raised ValueError \(at .*own_loops.py:\d+\): no scanner today, osaka"),
        ("exits", r"raised SystemExit \(at .*own_loops.py:\d+\): 3"),
        ("another_layer", r"changed the model: 1.bias was \[1\] of torch.float32, and is \[2\]"),
        ("another_activation", "changed the model: 2 was not there, and is torch.nn.modules.activation.ReLU"),
        ("keeps_an_object", r"left task.state\['model'\]\['best'\]\[0\] as an object of Sequential, which"),
    ],
)
def test_a_wrong_loop_is_refused_with_its_name_and_the_model_is_as_it_was(
    opened: Open, loop: str, said: str
) -> None:
    worker = opened(loop)
    with pytest.raises(UpdateRefused, match=said) as caught:
        trained(worker)
    assert caught.value.message.startswith(f"the training of osaka (torch, {LOOPS}:{loop}) in round 1 ")
    (answer,) = worker.answers(worker.initial(), (np.ones((2, 4), np.float32),))
    (expected,) = opened().answers(worker.initial(), (np.ones((2, 4), np.float32),))
    np.testing.assert_array_equal(answer, expected)


def test_a_model_of_keras_gets_its_layers_back(opened: Open) -> None:
    worker = opened("a_pop", backend="tensorflow")
    start = worker.initial()
    with pytest.raises(
        UpdateRefused, match=r"changed the model: layer . .* was a Dense, and is not there any"
    ):
        worker.train_alone(1, start, "osaka", {}, {})
    (answer,) = worker.answers(start, (np.ones((2, 4), np.float32),))
    assert answer.shape == (2, 1)


def test_nan_is_refused_by_the_name_of_the_parameter(opened: Open) -> None:
    with pytest.raises(Diverged, match=r"parameter '0.weight' holds NaN"):
        trained(opened("leaves_nan"))


@pytest.mark.parametrize(
    ("loop", "backend", "said"),
    [
        ("leaves_a_negative_variance", "torch", "holds -0.5.*, and no variance is negative"),
        ("leaves_a_statistic_without_value", "torch", "holds NaN or infinity"),
        ("keras_leaves_a_negative_variance", "tensorflow", "holds -0.5.*, and no variance is negative"),
    ],
)
@pytest.mark.parametrize("how", ["federate={}", "federate={local: [norm]}", "federate={aggregator: median}"])
def test_an_impossible_statistic_is_refused_in_its_round(
    opened: Open, loop: str, backend: str, said: str, how: str
) -> None:
    build = "models={torch: torch_net.py:normalised, tensorflow: keras_net.py:normalised}"
    people = f"participants=[{{name: osaka, backend: {backend}, train: '{LOOPS}:{loop}'}}"
    people += f", {{name: lyon, backend: {backend}}}, {{name: turin, backend: {backend}}}]"
    worker = opened(None, build, people, how, backend=backend)
    # What others keep has no place without a folder.
    others = [] if "local" in how else ["lyon"]
    found = worker.train_round(1, worker.initial(), ["osaka", *others], {})
    assert list(found.failed) == ["osaka"]
    assert re.search(said, found.failed["osaka"])
    with pytest.raises(UpdateRefused, match=said):
        worker.train_alone(1, worker.initial(), "osaka", {}, {})


def test_weights_that_are_as_they_were_are_said(opened: Open) -> None:
    (note,) = trained(opened("forgets")).notes
    assert note == (
        f"osaka, trained by {LOOPS}:forgets: every weight is as it was before: a loop trains task.model itself, in place, "
        "and not a copy or another model"
    )
    assert not trained(opened("train")).notes


def test_frozen_parameters_stay_frozen_and_that_is_said(opened: Open) -> None:
    worker = opened("unfreezes", "models={torch: torch_net.py:frozen}")
    before = worker.initial()
    done = trained(worker)
    np.testing.assert_array_equal(done.update.model["0.weight"], before["0.weight"])
    assert "it changed '0.weight', which the course keeps frozen" in done.notes[0]


@pytest.mark.parametrize(("loop", "backend"), [("train", "torch"), ("keras_train", "tensorflow")])
def test_what_a_course_freezes_has_no_gradient_in_a_loop(opened: Open, loop: str, backend: str) -> None:
    frozen = "federate.frozen=['*.bias']"
    one, other = (trained(opened(name, frozen, backend=backend)) for name in (None, loop))
    assert furthest(one, other) < 1e-6
    assert not other.notes


def test_flags_that_a_loop_leaves_are_not_the_next_ones(opened: Open) -> None:
    worker = opened("leaves_flags")
    before = worker.initial()
    first = trained(worker)
    np.testing.assert_array_equal(first.update.model["0.weight"], before["0.weight"])
    assert all(parameter.requires_grad for parameter in worker._trainer._model.parameters())


def test_layers_of_keras_that_a_loop_freezes_train_for_the_next_one(opened: Open) -> None:
    worker = opened("keras_freezes", backend="tensorflow")
    before = worker.initial()
    done = trained(worker)
    np.testing.assert_array_equal(done.update.model["first.weight"], before["first.weight"])
    assert np.any(done.update.model["second.weight"] != before["second.weight"])
    model = worker._trainer._model
    assert len(model.trainable_variables) == len(model.variables) == 4


@pytest.mark.parametrize(
    ("loop", "said"),
    [
        ("doubles", "0.bias was .* of torch.float32, and is .* of torch.float64"),
        ("halves", "0.bias was .* of torch.float32, and is .* of torch.float16"),
        (
            "moves",
            "has changed the model: 0.bias was .* of torch.float32, and is .* of torch.float32 without values",
        ),
        ("swaps_memory", "in the middle"),
        ("sets_everything", "after all settings"),
        ("keras_sets_everything", "after all settings"),
    ],
)
def test_the_next_one_trains_as_if_the_one_before_had_raised(opened: Open, loop: str, said: str) -> None:
    backend = "tensorflow" if loop.startswith("keras") else "torch"
    batches = (trained(opened(backend=backend)),)

    def both(name: str) -> PartialSum:
        people = f"participants=[{{name: osaka, backend: {backend}, train: '{LOOPS}:{name}'}}, {{name: lyon, backend: {backend}}}]"
        worker = opened(None, people, backend=backend)
        return worker.train_round(1, worker.initial(), ["osaka", "lyon"], {})

    expected, found = both("raises"), both(loop)
    assert re.search(f"the training of osaka .*{said}", found.failed["osaka"])
    for name, array in expected.partial.sums["model"].arrays.items():
        np.testing.assert_array_equal(found.partial.sums["model"].arrays[name], array)
    assert furthest(*batches, trained(opened(backend=backend))) == 0.0


def test_keras_has_the_settings_that_it_had_before_a_loop(opened: Open) -> None:
    import keras
    import tensorflow as tf

    def settings() -> list[Any]:
        config = keras.config
        named = [config.floatx(), config.epsilon(), config.image_data_format(), config.dtype_policy().name]
        return [*named, tf.config.functions_run_eagerly()]

    before = settings()
    with pytest.raises(UpdateRefused, match="after all settings"):
        trained(opened("keras_sets_everything", backend="tensorflow"))
    assert settings() == before


@pytest.mark.parametrize("loop", ["waits", "hurries_not"])
def test_a_loop_that_does_not_return_is_interrupted(opened: Open, loop: str) -> None:
    with pytest.raises(
        UpdateRefused, match=r"did not return within 0.1 s \(training.timeout_s\) and was at .*py:\d+"
    ):
        trained(opened(loop, "training.timeout_s=0.1"))


@pytest.mark.parametrize("loop", ["penalised", "corrected"])
def test_fedprox_in_a_loop_is_the_built_in_fedprox(opened: Open, loop: str) -> None:
    prox = "federate.algorithm={name: fedprox, mu: 0.5}"
    one, other = trained(opened(None, prox)), trained(opened(loop, prox))
    assert furthest(one, other) < 1e-7
    assert furthest(one, trained(opened("train"))) > 1e-3, "the term does something here"


def test_fedprox_in_a_loop_of_keras_is_the_built_in_fedprox(opened: Open) -> None:
    prox = "federate.algorithm={name: fedprox, mu: 0.5}"
    one, other = (trained(opened(loop, prox, backend="tensorflow")) for loop in (None, "keras_train"))
    assert furthest(one, other) < 1e-6


def test_a_rule_that_nobody_asked_for_is_refused_at_the_first_step(opened: Open) -> None:
    worker = opened("train", "federate.algorithm=fedprox")
    with pytest.raises(
        UpdateRefused,
        match=r"called neither task.penalty.* nor task.correct_gradients.*, and fedprox adds a term",
    ) as caught:
        trained(worker)
    # Before the first step: in the optimizer, which the loop called.
    cause = caught.value.__cause__
    assert cause is not None
    files = [frame.filename for frame in traceback.extract_tb(cause.__traceback__)]
    assert any(file.endswith("torch/optim/optimizer.py") for file in files)


@pytest.mark.parametrize(
    ("loop", "said"),
    [
        ("penalised_once", "called neither task.penalty.* for step 2, and fedprox adds a term to every step"),
        ("corrected_once", "called neither task.penalty.* for step 2, and fedprox adds a term to every step"),
        ("penalised_in_vain", "called task.penalty.* for step 1, and no gradient went through what it"),
        ("penalised_by_a_number", "called task.penalty.* for step 1, and no gradient went through what it"),
        ("both", "called both task.penalty.* and task.correct_gradients.* for step 1"),
        ("corrected_twice", "for gradients that have its term already"),
        ("corrects_scaled", "for gradients that a GradScaler has scaled"),
        ("corrects_scaled_fused", "for gradients that a GradScaler has scaled"),
        ("corrects_before_it_unscales", "for gradients that a GradScaler has scaled"),
        ("corrects_one_scaled_part", "for gradients that a GradScaler has scaled"),
        ("corrected_too_early", "where no parameter has a gradient: before backward"),
        ("keras_penalised_once", "called neither task.penalty.* for step 2, and fedprox adds a term"),
        ("keras_penalised_in_vain", "called task.penalty.* for step 1, and no gradient went through what it"),
        ("keras_both", "called both task.penalty.* and task.correct_gradients.* for step 1"),
        ("keras_corrects_nothing", "with no gradient at all: None for every variable"),
        ("keras_corrects_scaled", "for gradients that a LossScaleOptimizer divides afterwards"),
        ("keras_corrects_in_vain", "was given those gradients and not what it returned"),
        ("keras_corrects_a_copy_in_vain", "was given those gradients and not what it returned"),
        ("keras_corrects_in_vain_in_a_graph", "was given those gradients and not what it returned"),
    ],
)
def test_a_term_that_a_step_has_not_or_has_twice_is_refused(opened: Open, loop: str, said: str) -> None:
    backend = "tensorflow" if loop.startswith("keras") else "torch"
    with pytest.raises(UpdateRefused, match=said) as caught:
        trained(opened(loop, "federate.algorithm={name: fedprox, mu: 0.5}", backend=backend))
    assert caught.value.hint


@pytest.mark.parametrize(
    "loop",
    [
        *("accumulates", "accumulates_and_corrects", "closes", "two_optimizers", "compiled"),
        *(
            "scales_and_penalises",
            "scales_and_corrects",
            "scales_fused_and_corrects",
            "scales_not_and_corrects",
        ),
        "skips_a_scaled_step",
        *("keras_penalised", "keras_graph", "keras_corrected", "keras_corrects_in_place"),
        *("keras_clips_what_it_corrected", "keras_corrects_parts", "keras_corrects_in_a_graph"),
        "keras_scales_and_penalises",
    ],
)
def test_steps_of_any_kind_have_the_term_once(opened: Open, loop: str) -> None:
    backend = "tensorflow" if loop.startswith("keras") else "torch"
    prox = ["federate.algorithm={name: fedprox, mu: 0.5}"]
    if loop.startswith("accumulates"):
        prox.append("training.batch_size=16")
    built_in = trained(opened(None, *prox, backend=backend))
    own = trained(opened(loop, prox[0], backend=backend))
    assert furthest(built_in, own) < 1e-6


@pytest.mark.parametrize("loop", ["penalised", "corrected"])
def test_scaffold_counts_the_steps_of_a_loop(opened: Open, loop: str) -> None:
    scaffold = "federate.algorithm=scaffold"
    worker = opened(None, scaffold)
    names = [name for name in worker.initial() if worker.initial().kinds[name] == "trainable"]
    control = {
        "control": worker.initial().subset(names) if hasattr(worker.initial(), "subset") else worker.initial()
    }
    one, other = trained(worker, vectors=control), trained(opened(loop, scaffold), vectors=control)
    assert furthest(one, other) < 1e-6
    assert furthest(one, other, "control") < 1e-5


def test_scaffold_refuses_steps_that_are_not_plain(opened: Open) -> None:
    worker = opened("adam_swapped", "federate.algorithm=scaffold")
    with pytest.raises(UpdateRefused, match="of which scaffold makes its vectors: Adam instead of SGD"):
        trained(worker, vectors={"control": worker.initial()})


def test_data_of_any_kind_are_handed_on_as_they_are(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def train(task: Any) -> int:
        seen.append(task.data)
        with pytest.raises(ConfigError, match="are a Scanner, of which no batches can be made"):
            next(task.batches())
        return 3

    monkeypatch.setattr(own_loops, "train", train)
    worker = opened("train", "participants.0.data=data.py:scanner")
    done = [trained(worker, number=number) for number in (1, 2)]
    assert [type(data).__name__ for data in seen] == ["Scanner", "Scanner"]
    assert seen[0] is seen[1], "called once in a process"
    assert done[0].update.num_examples == 3
    assert worker.num_examples() == {"osaka": None}


def test_a_loop_that_takes_no_task_is_refused_before_the_course(opened: Open) -> None:
    with pytest.raises(ConfigError, match=re.escape("takes_two cannot be called with a task alone")):
        opened("takes_two")
