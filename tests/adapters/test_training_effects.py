"""What training does beside the graph is named, a map says it, and a course refuses it with a cure that works."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers as K
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import xbackend_fl
from tests.adapters.row import Lambda, chain
from xbackend_fl.adapter import adapter_of
from xbackend_fl.errors import MismatchError, RefusedInput, UnsupportedError
from xbackend_fl.mapping import find_binding
from xbackend_fl.mapping.match.training import require_trainable

VECTOR = (np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32),)
IMAGE = (np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32),)
WORDS = (np.array([[0, 1, 2, 0, 3]]),)

Build = Callable[[], Any]


def dense(*inner: nn.Module, **wrapped: Callable[[nn.Module], Any]) -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 6), *inner, nn.Linear(6, 3))
    for around in wrapped.values():
        around(model[0])
    return model


def keras_dense(*inner: Any, **options: Any) -> Any:
    return chain(K.Dense(6, name="first", **options), *inner, K.Dense(3, name="last"), shape=(8,))


def keras_words(**options: Any) -> Any:
    layers = [K.Embedding(20, 6, name="table", **options), K.Flatten(), K.Dense(3)]
    return chain(*layers, dtype="int64", shape=(5,))


def words(**options: Any) -> nn.Module:
    return nn.Sequential(nn.Embedding(20, 6, **options), nn.Flatten(), nn.Linear(30, 3))


def image(*inner: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), *inner, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def keras_image(*inner: Any, **options: Any) -> Any:
    layers = [K.Conv2D(4, 3, name="first", **options), *inner, K.GlobalAveragePooling2D(), K.Dense(2)]
    return chain(*layers, shape=(8, 8, 3))


def in_training(change: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """A model whose training branches."""
    return Lambda(
        lambda m, x: m.b(change(m.a(x)) if m.training else m.a(x)), a=nn.Linear(8, 6), b=nn.Linear(6, 3)
    )


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.scale = nn.Linear(8, 6), nn.Linear(6, 3), nn.Parameter(torch.ones(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x) * self.scale)


class FunctionalPadding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(20, 6))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(ids, self.table, padding_idx=0).sum(1)


class FunctionalNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("variance", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.batch_norm(
            self.inner(x), self.mean, self.variance, training=self.training, eps=1e-3
        )
        return self.last(x.mean((2, 3)))


class OwnNoise(K.Layer):
    def call(self, x: Any, training: bool = False) -> Any:  # noqa: FBT001, FBT002  as Keras calls it
        return x + tf.random.normal(tf.shape(x)) if training else x


class OwnLoss(K.Layer):
    def call(self, x: Any) -> Any:
        self.add_loss(keras.ops.mean(x**2))
        return x


class OwnWeight(K.Layer):
    def build(self, _: Any) -> None:
        self.scale = self.add_weight(shape=(6,), regularizer="l2", constraint="non_neg", initializer="ones")

    def call(self, x: Any) -> Any:
        return x * self.scale


class Counting(K.Layer):
    def build(self, _: Any) -> None:
        self.seen = self.add_weight(shape=(), trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:  # noqa: FBT001, FBT002
        if training:
            self.seen.assign_add(1.0)
        return x


def shared(**options: Any) -> Any:
    """A regularised layer in a nested model that is called twice."""
    inner = keras.Sequential([keras.Input((8,)), K.Dense(8, name="first", **options)])
    x = keras.Input((8,))
    return keras.Model(x, K.Dense(3)(inner(keras.ops.tanh(inner(x)))))


def shared_torch() -> nn.Module:
    return Lambda(lambda m, x: m.b(m.a(torch.tanh(m.a(x)))), a=nn.Linear(8, 8), b=nn.Linear(8, 3))


def legacy(**options: Any) -> Any:
    import tf_keras

    return tf_keras.Sequential([tf_keras.layers.Dense(6, name="first", **options), tf_keras.layers.Dense(3)])


def series(**options: Any) -> Any:
    return chain(K.Bidirectional(K.LSTM(5, **options), name="both"), K.Dense(2), shape=(None, 4))


def series_torch() -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        state = m.r(x)[1][0]
        return m.o(torch.cat([state[0], state[1]], 1))

    return Lambda(call, r=nn.LSTM(4, 5, batch_first=True, bidirectional=True), o=nn.Linear(10, 2))


def accumulated_gradients() -> nn.Module:
    model = dense()
    model[0].weight.register_post_accumulate_grad_hook(lambda weight: weight.grad.mul_(2))
    return model


SERIES = (np.random.default_rng(0).standard_normal((1, 6, 4)).astype(np.float32),)

NAMED: list[tuple[str, Build, Build, Any, tuple[str, ...]]] = [
    ("kernel L2", dense, lambda: keras_dense(kernel_regularizer=keras.regularizers.L2(0.1)), VECTOR,
     ("'first'", "kernel_regularizer=L2(l2=0.1)", "weight_decay: 0.2")),
    ("bias L1", dense, lambda: keras_dense(bias_regularizer="l1"), VECTOR, ("bias_regularizer=L1(l1=0.01)",)),
    ("activity", dense, lambda: keras_dense(activity_regularizer="l2"), VECTOR, ("activity_regularizer=L2",)),
    ("ActivityRegularization", dense, lambda: keras_dense(K.ActivityRegularization(l1=0.5, name="act")), VECTOR,
     ("'act'", "activity_regularizer")),
    ("orthogonal", dense, lambda: keras_dense(kernel_regularizer="orthogonal_regularizer"), VECTOR, ("OrthogonalRegularizer",)),
    ("a function as penalty", dense, lambda: keras_dense(kernel_regularizer=keras.ops.sum), VECTOR, ("kernel_regularizer=sum",)),
    ("embeddings", words, lambda: keras_words(embeddings_regularizer="l2"), WORDS, ("'table'", "embeddings_regularizer")),
    ("gamma", lambda: image(nn.BatchNorm2d(4, 1e-3)),
     lambda: keras_image(K.BatchNormalization(gamma_regularizer="l2", name="norm")), IMAGE, ("'norm'", "gamma_regularizer")),
    ("depthwise", lambda: nn.Conv2d(3, 3, 3, groups=3),
     lambda: chain(K.DepthwiseConv2D(3, depthwise_regularizer="l2"), shape=(8, 8, 3)), IMAGE, ("depthwise_regularizer",)),
    ("recurrent", series_torch, lambda: series(recurrent_regularizer="l2"), SERIES, ("recurrent_regularizer", "lstm")),
    ("nested and shared", shared_torch, lambda: shared(kernel_regularizer="l1"), VECTOR, ("'first'", "kernel_regularizer")),
    ("legacy", dense, lambda: legacy(kernel_regularizer="l2"), VECTOR, ("'first'", "kernel_regularizer=L2")),
    ("legacy constraint", dense, lambda: legacy(bias_constraint="non_neg"), VECTOR, ("bias_constraint=NonNeg",)),
    ("constraint", dense, lambda: keras_dense(kernel_constraint=keras.constraints.MaxNorm(2)), VECTOR,
     ("'first'", "kernel_constraint=MaxNorm(max_value=2", "after every step")),
    ("weight of a custom layer", Scaled, lambda: keras_dense(OwnWeight()), VECTOR, ("regularizer=L2", "constraint=NonNeg")),
    ("add_loss", dense, lambda: keras_dense(OwnLoss(name="own")), VECTOR, ("'own'", "add_loss")),
    ("GaussianNoise", dense, lambda: keras_dense(K.GaussianNoise(0.1, name="noise")), VECTOR,
     ("'noise' (GaussianNoise)", "draws random numbers")),
    ("GaussianDropout", dense, lambda: keras_dense(K.GaussianDropout(0.1)), VECTOR, ("GaussianDropout", "random")),
    ("AlphaDropout", dense, lambda: keras_dense(K.AlphaDropout(0.1)), VECTOR, ("AlphaDropout", "random")),
    ("RandomFlip", image, lambda: keras_image(K.RandomFlip()), IMAGE, ("RandomFlip", "random")),
    ("noise of a custom layer", dense, lambda: keras_dense(OwnNoise(name="own")), VECTOR, ("'own' (OwnNoise)", "random")),
    ("a counter", dense, lambda: keras_dense(Counting(name="count")), VECTOR, ("'count' (Counting)", "changes variables")),
    ("Keras spectral norm", dense,
     lambda: chain(K.SpectralNormalization(K.Dense(6), name="spectral"), K.Dense(3), shape=(8,)), VECTOR,
     ("'spectral' (SpectralNormalization)", "wraps")),
    ("torch alpha dropout", lambda: dense(nn.AlphaDropout()), keras_dense, VECTOR, ("module '1' (AlphaDropout)", "random")),
    ("torch RReLU", lambda: dense(nn.RReLU()), lambda: keras_dense(K.LeakyReLU((1 / 8 + 1 / 3) / 2)), VECTOR, ("RReLU", "random")),
    ("noise in training", lambda: in_training(lambda x: x + torch.randn_like(x)), keras_dense, VECTOR,
     ("randn_like (test_training_effects.py:", "random")),
    ("stochastic depth", lambda: in_training(lambda x: x * torch.empty(len(x), 1).bernoulli_(0.5)), keras_dense, VECTOR,
     ("bernoulli_", "random")),
    ("python's generator", lambda: in_training(lambda x: x * random.random()), keras_dense, VECTOR, ("random or numpy",)),
    ("numpy's generator", lambda: in_training(lambda x: x * np.random.rand()), keras_dense, VECTOR, ("random or numpy",)),  # noqa: NPY002
    ("dropout in one mode", lambda: in_training(nn.functional.dropout), keras_dense, VECTOR, ("a dropout in one mode only",)),
    ("weight norm", lambda: dense(w=parametrizations.weight_norm), keras_dense, VECTOR,
     ("0.weight", "WeightNorm", "remove_parametrizations")),
    ("spectral norm", lambda: dense(w=parametrizations.spectral_norm), keras_dense, VECTOR, ("SpectralNorm",)),
    ("functional batch norm", FunctionalNorm,
     lambda: keras_image(K.BatchNormalization(scale=False, center=False)), IMAGE, ("functional.batch_norm", "nn.BatchNorm1d")),
    ("an accumulated gradient's hook", accumulated_gradients, keras_dense, VECTOR,
     ("parameter '0.weight'", "register_post_accumulate_grad_hook")),
    ("scale_grad_by_freq", lambda: words(scale_grad_by_freq=True), keras_words, WORDS, ("layer '0'", "scale_grad_by_freq=False")),
]  # fmt: skip

SIDED: list[tuple[str, Build, Build, Any, tuple[str, ...]]] = [
    ("dropout of the reference alone", lambda: dense(nn.Dropout(0.5)), keras_dense, VECTOR,
     ("behind 'first'", "the reference's '1' drops 0.5", "training.dropout: false")),
    ("channels against elements", lambda: image(nn.Dropout2d(0.5)), lambda: keras_image(K.Dropout(0.5, name="d")), IMAGE,
     ("'d'", "shared_axes is (2, 3) at '1'")),
    ("a Keras dropout of rate 0", lambda: dense(nn.Dropout(0.5)), lambda: keras_dense(K.Dropout(0.0)), VECTOR,
     ("nothing drops there",)),
]  # fmt: skip


def obstacles(reference: Any, candidate: Any, example: Any) -> tuple[Any, str]:
    """What a course would refuse, and the refusal; without the proof, which does not look at it."""
    schema = xbackend_fl.describe(reference, example)
    trainer = adapter_of(candidate).load_model(candidate, example)
    binding, notes = find_binding(schema, trainer.description)
    try:
        require_trainable(binding.backend, binding.obstacles, dropout=True)
    except RefusedInput as refusal:
        assert all(any(str(item) in note for note in notes) for item in binding.obstacles)
        return binding, str(refusal)
    return binding, ""


@pytest.mark.one_in(6)
@pytest.mark.filterwarnings("ignore")  # legacy Keras and the older parametrizations warn about themselves
@pytest.mark.parametrize("row", NAMED, ids=[row[0] for row in NAMED])
def test_an_effect_is_named_on_either_side(row: tuple[str, Build, Build, Any, tuple[str, ...]]) -> None:
    _, left, right, example, words = row
    for reference, candidate in ((left, right), (right, left)):
        _, refusal = obstacles(reference(), candidate(), example)
        for word in words:
            assert word in refusal, refusal


@pytest.mark.parametrize("row", SIDED, ids=[row[0] for row in SIDED])
def test_a_dropout_that_the_candidate_cannot_have_is_named(
    row: tuple[str, Build, Build, Any, tuple[str, ...]],
) -> None:
    _, left, right, example, words = row
    binding, refusal = obstacles(left(), right(), example)
    for word in words:
        assert word in refusal, refusal
    require_trainable(binding.backend, binding.obstacles, dropout=False)


@pytest.mark.filterwarnings("ignore")  # legacy Keras warns about itself
def test_what_the_cures_make_has_no_obstacle() -> None:
    normed = dense(w=parametrizations.weight_norm)
    parametrize.remove_parametrizations(normed.get_submodule("0"), "weight")
    for left, right, example in (
        (dense(), keras_dense(), VECTOR),
        (normed, keras_dense(), VECTOR),
        (dense(nn.Identity()), keras_dense(K.Identity()), VECTOR),
        (dense(nn.Dropout(0.5)), keras_dense(K.Dropout(0.3)), VECTOR),
        (image(nn.Dropout2d(0.5)), keras_image(K.SpatialDropout2D(0.3)), IMAGE),
        (words(sparse=True), keras_words(), WORDS),
        (dense(), legacy(), VECTOR),
    ):
        assert obstacles(left, right, example)[1] == ""


class FrozenNorm(nn.Module):
    """As fine-tuning is written: the normalisation stays in evaluation mode whatever happens."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = image(nn.BatchNorm2d(4, 1e-3))

    def train(self, mode: bool = True) -> FrozenNorm:  # noqa: FBT001, FBT002  as PyTorch has it
        super().train(mode)
        self.inner[1].eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def in_evaluation_mode() -> nn.Module:
    model = image(nn.BatchNorm2d(4, 1e-3, momentum=None))
    model[1].eval()
    return model


class KerasFrozenNorm(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.inner = [K.Conv2D(4, 3), K.BatchNormalization(), K.GlobalAveragePooling2D(), K.Dense(2)]

    def call(self, x: Any) -> Any:
        first, norm, *rest = self.inner
        x = norm(first(x), training=False)
        for layer in rest:
            x = layer(x)
        return x


def without_gradients(model: nn.Module, norm: nn.Module) -> nn.Module:
    for parameter in norm.parameters():
        parameter.requires_grad = False
    return model


def frozen_keras() -> Any:
    return keras_image(K.BatchNormalization(name="norm", trainable=False))


@pytest.mark.parametrize("build", [FrozenNorm, in_evaluation_mode], ids=["train()", "eval()"])
def test_a_frozen_normalisation_is_proven_and_stays_frozen(build: Callable[[], nn.Module]) -> None:
    model = build()
    schema, evidence = xbackend_fl.describe_reference(model, IMAGE)
    bound = xbackend_fl.bind(KerasFrozenNorm(), schema, IMAGE, evidence)
    assert "step" in {check.what for check in bound.proof.checks}
    assert any("keeps them" in note for note in bound.notes)
    kinds = {p.role: str(p.kind) for p in schema.parameters if p.operator == "BatchNormalization"}
    assert kinds == {"weight": "trainable", "bias": "trainable", "mean": "frozen", "variance": "frozen"}


def test_a_normalisation_that_one_side_freezes_is_refused_with_both_cures() -> None:
    model = image(nn.BatchNorm2d(4, 1e-3))
    without_gradients(model, model[1])
    with pytest.raises(MismatchError) as caught:
        xbackend_fl.bind(frozen_keras(), xbackend_fl.describe(model, IMAGE), IMAGE)
    (line,) = [line for line in caught.value.message.splitlines() if line.startswith("  ")]
    assert "statistics is averaged in training in the reference, kept in training in the candidate" in line
    model[1].eval()  # the cure
    assert obstacles(model, frozen_keras(), IMAGE)[1] == ""
    with pytest.raises(MismatchError) as caught:
        xbackend_fl.bind(image(nn.BatchNorm2d(4, 1e-3)), xbackend_fl.describe(frozen_keras(), IMAGE), IMAGE)
    assert "eval()" in str(caught.value.hint)
    assert "requires_grad_(False)" in str(caught.value.hint)


def scaled_gradients() -> nn.Module:
    model = dense()
    model[0].weight.register_hook(lambda gradient: 2 * gradient)
    return model


def backward_hook() -> nn.Module:
    model = dense()
    model[0].register_full_backward_hook(
        lambda _, inputs, __: tuple(None if g is None else 2 * g for g in inputs)
    )
    return model


def forward_hook() -> nn.Module:
    model = dense()
    model[0].register_forward_hook(lambda module, _, output: 2 * output if module.training else output)
    return model


def partly_frozen() -> nn.Module:
    model = nn.LSTM(4, 5, batch_first=True)
    model.bias_ih_l0.requires_grad = False
    return Lambda(lambda m, x: m.o(m.r(x)[0][:, -1]), r=model, o=nn.Linear(5, 2))


COMPARED: list[tuple[Build, Build, Any, str]] = [
    (lambda: in_training(lambda x: 2 * x), keras_dense, VECTOR, "computes something else in training mode"),
    (forward_hook, keras_dense, VECTOR, "first at mul in module"),
    (scaled_gradients, keras_dense, VECTOR, "parameter '0.weight': a hook"),
    (
        partly_frozen,
        lambda: chain(K.LSTM(5), K.Dense(2), shape=(None, 4)),
        SERIES,
        "r.bias_ih_l0 does not train",
    ),
]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("left", "right", "example", "words"), COMPARED, ids=["branch", "forward hook", "gradient hook", "part"]
)
def test_what_a_step_shows_is_named_where_it_fails(
    left: Build, right: Build, example: Any, words: str
) -> None:
    reference = left()
    schema, evidence = (
        xbackend_fl.describe(reference, example),
        xbackend_fl.gather_evidence(reference, example),
    )
    with pytest.raises(MismatchError) as caught:
        xbackend_fl.bind(right(), schema, example, evidence)
    assert words in caught.value.message
    assert obstacles(left(), left(), example)[1] == "", "both sides do it, so the step agrees"


@pytest.mark.parametrize(("build", "example", "words"), [
    (lambda: words(max_norm=1.0), WORDS, ("layer '0'", "max_norm", "leave max_norm out")),
    (lambda: Lambda(lambda m, x: m.a(nn.functional.dropout(x)), a=nn.Linear(8, 2)), VECTOR,
     ("dropout (test_training_effects.py:", "evaluation mode too", "training=self.training")),
    (lambda: chain(K.Dense(2), AlwaysDropping(), shape=(8,)), VECTOR, ("evaluation mode too", "without training=True")),
    (FunctionalPadding, WORDS, ("functional.embedding with padding_idx=0", "use nn.Embedding(padding_idx=0)")),
    (lambda: image(nn.BatchNorm2d(4, momentum=None)), IMAGE, ("layer '1'", "momentum=None", "momentum=0.1")),
    (lambda: image(nn.BatchNorm2d(4, track_running_stats=False)), IMAGE, ("layer '1'", "track_running_stats=True")),
], ids=["max_norm", "functional", "keras", "padding", "cumulative", "no statistics"])  # fmt: skip
def test_what_evaluation_cannot_repeat_is_refused_by_name(
    build: Build, example: Any, words: tuple[str, ...]
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        xbackend_fl.describe(build(), example)
    for word in words:
        assert word in str(caught.value)


class AlwaysDropping(K.Layer):
    """Monte Carlo dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = K.Dropout(0.5)

    def call(self, x: Any) -> Any:
        return self.inner(x, training=True)


def test_a_rehearsal_leaves_models_and_generators_as_they_were() -> None:
    model = image(nn.BatchNorm2d(4), nn.Dropout2d(), nn.AlphaDropout())
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    states = torch.random.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()  # noqa: NPY002
    xbackend_fl.describe(model, IMAGE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tobytes(), random.getstate())  # noqa: NPY002
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    other = keras_dense(OwnLoss(), K.GaussianNoise(0.1))
    weights = [variable.numpy().copy() for variable in other.variables]
    xbackend_fl.describe(other, VECTOR)
    assert other.losses == []
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(weights, other.variables, strict=True))


def test_outputs_of_training_alone_are_told() -> None:
    """An auxiliary head that answers in training only: the toolkit trains what the model returns in evaluation."""

    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> Any:
            hidden = self.first(x)
            return (self.last(hidden), hidden) if self.training else self.last(hidden)

    notes = adapter_of(Auxiliary()).load_model(Auxiliary(), VECTOR).description.notes
    assert any("in training mode the model returns 2 outputs, and in evaluation mode 1" in n for n in notes)
    assert adapter_of(dense()).load_model(dense(), VECTOR).description.notes == ()
