"""A refusal names one cause in one line, as the user's own framework would, with a cure that is carried out here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import nn
from torch.nn import functional

from tests.adapters.row import Lambda, chain
from xbackend_fl import bind, describe_reference
from xbackend_fl.adapter import adapter_of
from xbackend_fl.adapter.words import Words, code
from xbackend_fl.canonical.ops import OPERATORS
from xbackend_fl.canonical.row import OPAQUE, Effect
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping import bind_trainer, evidence_of
from xbackend_fl.mapping.match.sizes import at_this_size
from xbfl_tensorflow import words as keras_words
from xbfl_torch import words as torch_words

TOKENS = np.random.default_rng(0).integers(0, 9, (1, 6))


def image(*sizes: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((1, *sizes)).astype(np.float32)


def bound(reference: Any, candidate: Any, array: np.ndarray[Any, Any]) -> Any:
    one, two = adapter_of(reference), adapter_of(candidate)
    trainer = one.load_model(reference, (array,))
    described = trainer.description
    evidence = evidence_of(trainer, (array,))
    opened = two.load_model(candidate, (array,))
    return bind_trainer(two, opened, described.schema, (array,), evidence, (one, described.binding))


def refusal(reference: Any, candidate: Any, array: np.ndarray[Any, Any]) -> tuple[list[str], str]:
    """The lines of a refusal without its head, and the help."""
    with pytest.raises(MismatchError) as caught:
        bound(reference, candidate, array)
    return caught.value.message.splitlines()[1:], str(caught.value.hint)


def reader(vocabulary: int = 9, size: int = 8, hidden: int = 16) -> nn.Module:
    return Lambda(
        lambda m, x: m.o(m.r(m.e(x))[0][:, -1]),
        e=nn.Embedding(vocabulary, size), r=nn.LSTM(size, hidden, batch_first=True), o=nn.Linear(hidden, 2),
    )  # fmt: skip


def keras_reader(vocabulary: int = 9, size: int = 8, hidden: int = 16) -> Any:
    return chain(K.Embedding(vocabulary, size), K.LSTM(hidden), K.Dense(2), shape=(6,), dtype="int64")


def positioned(size: int) -> nn.Module:
    class Positioned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l, self.n, self.o = nn.Linear(4, size), nn.LayerNorm(size), nn.Linear(size, 2)
            self.p = nn.Parameter(torch.randn(5, size))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.o(self.n(self.l(x) + self.p))

    return Positioned()


WIDTHS: list[tuple[str, Callable[[], Any], Callable[[], Any], np.ndarray[Any, Any], list[str], list[str]]] = [
    ("units", lambda: nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3)),
     lambda: chain(K.Dense(128, "relu"), K.Dense(32, "relu"), K.Dense(3), shape=(20,)), image(20)[:, :20],
     ["width is 64 in the reference, 128 in the candidate", "0.weight [64, 20] in torch", "kernel [20, 128] in tensorflow"],
     ["units=64", "out_features=128"]),
    ("filters, and what follows", lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3),
                                                       nn.Flatten(), nn.Linear(96, 2)),
     lambda: chain(K.Conv2D(12, 3), K.BatchNormalization(epsilon=1e-5), K.Conv2D(6, 3), K.Flatten(), K.Dense(2),
                   shape=(8, 8, 3)), image(3, 8, 8),
     ["width is 8", "0.weight [8, 3, 3, 3] in torch", "kernel [3, 3, 3, 12] in tensorflow"], ["filters=8", "out_channels=12"]),
    ("a depthwise layer follows", lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)),
     lambda: chain(K.Conv2D(10, 1), K.DepthwiseConv2D(3), K.Conv2D(4, 1), shape=(9, 9, 3)), image(3, 9, 9),
     ["width is 8 in the reference, 10"], ["filters=8", "out_channels=10"]),
    ("strides, and the dense layer behind", lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.Flatten(), nn.Linear(72, 2)),
     lambda: chain(K.Conv2D(8, 3), K.Flatten(), K.Dense(2), shape=(8, 8, 3)), image(3, 8, 8),
     ["strides is (2, 2) in the reference, (1, 1)"], ["strides=(2, 2)", "stride=(1, 1)"]),
    ("a kernel", lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 2)),
     lambda: chain(K.Conv2D(8, 5), K.Flatten(), K.Dense(2), shape=(8, 8, 3)), image(3, 8, 8),
     ["kernel_shape is (3, 3) in the reference, (5, 5)"], ["kernel_size=(3, 3)", "kernel_size=(5, 5)"]),
    ("hidden units", reader, lambda: keras_reader(hidden=20), TOKENS, ["width is 16", "[8, 80] in tensorflow"],
     ["units=16", "hidden_size=20"]),
    ("features of an embedding", reader, lambda: keras_reader(size=9), TOKENS, ["width is 8"],
     ["output_dim=8", "embedding_dim=9"]),
    ("a vocabulary", reader, lambda: keras_reader(vocabulary=12), TOKENS, ["vocabulary is 9"],
     ["input_dim=9", "num_embeddings=12"]),
    ("a position table follows", lambda: positioned(8), lambda: positioned(10), image(5, 4), ["width is 8"],
     ["out_features=8", "out_features=10"]),
    ("another form of the cell", lambda: Lambda(lambda m, x: m.r(x)[0], r=nn.GRU(4, 5, batch_first=True)),
     lambda: chain(K.GRU(5, reset_after=False, return_sequences=True), shape=(None, 4)), image(6, 4),
     ["linear_before_reset"], ["reset_after"]),
    ("one argument in many layers", lambda: nn.Sequential(*[nn.BatchNorm1d(6) for _ in range(5)]),
     lambda: chain(*[K.BatchNormalization() for _ in range(5)], shape=(6,)), image(6),
     ["epsilon is 1e-05 in the reference, 0.001", "4 more of these"], ["epsilon=1e-05", "eps=0.001", "and 2 more"]),
    ("a frozen layer", lambda: nn.Sequential(nn.Linear(4, 3).requires_grad_(requires_grad=False), nn.Linear(3, 2)),
     lambda: chain(K.Dense(3), K.Dense(2), shape=(4,)), image(4), ["frozen in the reference"], []),
]  # fmt: skip


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("name", "reference", "candidate", "array", "words", "cures"), WIDTHS, ids=[row[0] for row in WIDTHS]
)
def test_one_cause_is_one_line(
    name: str, reference: Any, candidate: Any, array: np.ndarray[Any, Any], words: list[str], cures: list[str]
) -> None:
    del name
    lines, cure = refusal(reference(), candidate(), array)
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0]
    for word in cures:
        assert word in cure
    assert len(re.findall(r"(?:^|; )(?:or )?(?:keras|torch|tensorflow): ", cure)) == 2


def test_two_causes_are_two_lines() -> None:
    lines, cure = refusal(reader(), keras_reader(vocabulary=12, hidden=20), TOKENS)
    assert len(lines) == 2
    assert "input_dim=9" in cure
    assert "units=16" in cure


def up(*, cropped: bool = False, **options: Any) -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.o(m.up(x)[..., 0:-1, 0:-1] if cropped else m.up(x))

    return Lambda(call, up=nn.ConvTranspose2d(4, 6, 3, stride=2, **options), o=nn.Conv2d(6, 2, 1))


def keras_up(padding: str, *behind: Any) -> Any:
    return chain(K.Conv2DTranspose(6, 3, 2, padding), *behind, K.Conv2D(2, 1), shape=(None, None, 4))


def padded(amount: tuple[int, ...], value: float, layer: nn.Module) -> nn.Module:
    return Lambda(
        lambda m, x: m.l(functional.pad(m.c(x), amount, value=value)), c=nn.Conv2d(3, 4, 1), l=layer
    )


class Padded(K.Layer):
    def call(self, x: Any) -> Any:
        return keras.ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-math.inf)


def small(*layers: Any) -> Any:
    return chain(K.Conv2D(4, 1), *layers, shape=(8, 8, 3))


CURES: list[tuple[str, Callable[[], Any], Callable[[], Any], np.ndarray[Any, Any], list[str], Any, Any]] = [
    ("transposed convolution", lambda: up(padding=1, output_padding=1), lambda: keras_up("same"), image(4, 5, 6),
     ["padding='valid' and Cropping2D(((1, 0), (1, 0))) behind it", "padding=0, output_padding=0 and y[..., 0:-1, 0:-1] behind it"],
     lambda: keras_up("valid", K.Cropping2D(((1, 0), (1, 0)))), lambda: up(cropped=True)),
    ("convolution", lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1)),
     lambda: small(K.Conv2D(4, 3, 2, padding="same")), image(3, 8, 8),
     ["padding='valid' behind ZeroPadding2D(((1, 1), (1, 1)))", "padding=0 behind F.pad(x, (0, 1, 0, 1))"],
     lambda: small(K.ZeroPadding2D(((1, 1), (1, 1))), K.Conv2D(4, 3, 2)),
     lambda: padded((0, 1, 0, 1), 0.0, nn.Conv2d(4, 4, 3, 2))),
    ("max pooling", lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(3, 2, 1)),
     lambda: small(K.MaxPooling2D(3, 2, padding="same")), image(3, 8, 8),
     ["keras.ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-math.inf)", "F.pad(x, (0, 1, 0, 1), value=-math.inf)"],
     lambda: small(Padded(), K.MaxPooling2D(3, 2)), lambda: padded((0, 1, 0, 1), -math.inf, nn.MaxPool2d(3, 2))),
]  # fmt: skip


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("name", "reference", "candidate", "array", "words", "cured", "other"),
    CURES,
    ids=[row[0] for row in CURES],
)
def test_a_padding_and_its_cures(
    name: str, reference: Any, candidate: Any, array: Any, words: list[str], cured: Any, other: Any
) -> None:
    del name
    lines, cure = refusal(reference(), candidate(), array)
    assert len(lines) == 1
    for word in words:
        assert word in cure
    assert bound(reference(), cured(), array).proof.proven
    assert bound(other(), candidate(), array).proof.proven


def pooling(kernel: int, stride: int, sizes: tuple[int | None, int | None]) -> tuple[Any, Any]:
    pool = nn.MaxPool2d(kernel, stride, ceil_mode=True)
    return (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), pool, nn.Conv2d(4, 2, 1)),
        chain(K.Conv2D(4, 1, activation="relu"), K.MaxPooling2D(kernel, stride, "same"), K.Conv2D(2, 1), shape=(*sizes, 3)),
    )  # fmt: skip


def test_paddings_that_are_one_at_the_only_size() -> None:
    found = bound(*pooling(3, 2, (14, 14)), image(3, 14, 14))
    assert found.proof.proven
    assert any(
        "ceil_mode is 1 in the reference" in note and "at the example's size" in note for note in found.notes
    )


def test_paddings_that_are_one_at_the_example_only() -> None:
    lines, cure = refusal(*pooling(3, 2, (None, None)), image(3, 14, 14))
    assert all("moves outputs by 0" not in line for line in lines)
    assert "not at draw 5, 3×15×15" in cure


@pytest.mark.one_in(2)
@pytest.mark.parametrize("up", [0, 1])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 3, 1), (2, 3, 0), (5, 2, 2)]
)
@pytest.mark.parametrize("size", [9, 10, 11, 12])
def test_windows_at_a_size_have_the_frameworks_own_outputs(
    kernel: int, stride: int, padding: int, size: int, up: int
) -> None:
    """PyTorch's own output size is the oracle for how far a window reaches."""
    model, array = nn.MaxPool2d(kernel, stride, padding, ceil_mode=bool(up)), image(2, size, size)
    node = at_this_size(adapter_of(model).load_model(model, (array,)).description.schema).nodes[0]
    before, _, after, _ = node.attributes["pads"]
    assert node.attributes["ceil_mode"] == 0
    made = (size + before + after - kernel) / stride + 1
    wanted = model(torch.from_numpy(array)).shape[-1]
    assert math.floor(made) == wanted
    assert after == 0 or made == wanted


@pytest.mark.slow
def test_a_model_that_runs_along_the_batch_is_told_so() -> None:
    one = Lambda(lambda m, x: m.r(x)[0], r=nn.GRU(4, 5))
    _, cure = refusal(one, chain(K.GRU(5, return_sequences=True), shape=(None, 4)), image(6, 4))
    assert "in the reference, 'r' runs along axis 0 of the example, the batch" in cure
    assert "with_axes(model, inputs=[(1, 0, 2)])" in cure
    assert "padding" not in cure


def test_outputs_of_other_shapes_are_told_with_their_shapes() -> None:
    one = Lambda(lambda m, x: m.c(x).flatten(2), c=nn.Conv2d(3, 4, 1))
    other = Lambda(lambda m, x: m.c(x).flatten(1), c=nn.Conv2d(3, 4, 1))
    with pytest.raises(MismatchError) as caught:
        bound(one, other, image(3, 5, 6))
    assert (
        "output 0 has the shape [2, 4, 30] in the reference, and the candidate returns [2, 120]"
        in caught.value.message
    )
    assert "inf" not in caught.value.message


def test_another_form_is_not_called_another_function() -> None:
    """Max pooling over everything is the global one; which of the two was written does not make another function."""
    left = nn.Sequential(nn.Conv1d(3, 4, 1), nn.MaxPool1d(6), nn.Flatten(), nn.Linear(4, 2))
    right = keras.Sequential([keras.Input((6, 3)), K.Conv1D(4, 1), K.GlobalMaxPooling1D(), K.Dense(2)])
    example = (np.ones((1, 3, 6), np.float32),)
    schema, evidence = describe_reference(left, example)
    assert bind(right, schema, example, evidence).proof.proven


VALUES: dict[str, Any] = {
    "pads": (1, 1, 1, 1), "direction": "bidirectional", "activation": "Relu", "approximate": "tanh", "mode": "nearest",
    "kernel_shape": (3, 3), "strides": (2, 2), "dilations": (2, 2), "output_padding": (1, 1), "axes": (1,), "scales": (2.0, 2.0),
    "shape": (1, 4), "dtype": "float32", "shared_axes": (2, 3),
}  # fmt: skip


@pytest.mark.parametrize("words", [torch_words.WORDS, keras_words.WORDS], ids=["torch", "keras"])
def test_every_attribute_has_a_users_word(words: Words) -> None:
    missing, raw = [], []
    # What has no canonical form has no argument that could be changed.
    for operator in (row for row in OPERATORS.values() if row.name != OPAQUE):
        rows = [
            name
            for name, effect in operator.attributes.items()
            if effect in {Effect.FUNCTION, Effect.TRAINING}
        ]
        rows += [slot.role for slot in operator.slots if slot.role in {"bias", "weight"}]
        for attribute in rows:
            if (operator.name, attribute) not in words and attribute not in words:
                missing.append(f"{operator.name}.{attribute}")
                continue
            said = code(words, operator.name, attribute, VALUES.get(attribute, 1))
            if "{" in said or f"of {operator.name}" in said or "(1,)" in said:
                raw.append(said)
    assert not missing
    assert not raw


def reduced(call: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    return Lambda(lambda m, x: call(m.l(x)), l=nn.Conv2d(3, 4, 1))


def keras_reduced(call: Callable[[Any], Any]) -> Any:
    x = keras.Input((8, 8, 3))
    return keras.Model(x, call(K.Conv2D(4, 1)(x)))


ARGUMENTS: list[tuple[str, Callable[[], Any], Callable[[], Any], list[str]]] = [
    ("a mean", lambda: reduced(lambda y: y.mean(1)), lambda: keras_reduced(lambda y: keras.ops.mean(y, 1)),
     ["axis=1  (counted with channels second", "dim=2"]),
    ("padding that counts", lambda: reduced(nn.AvgPool2d(3, 1, 1)), lambda: keras_reduced(K.AveragePooling2D(3, 1, "same")),
     ["ZeroPadding2D in front", "count_include_pad=False"]),
    ("a softmax", lambda: reduced(lambda y: y.softmax(1)), lambda: keras_reduced(K.Softmax(1)), ["axis=-3  (counted with channels second", "dim=-2"]),
    ("a slope", lambda: reduced(nn.LeakyReLU(0.1)), lambda: keras_reduced(K.LeakyReLU(negative_slope=0.2)),
     ["negative_slope=0.1", "negative_slope=0.2"]),
    ("a bound", lambda: reduced(lambda y: y.clamp(0, 6)), lambda: keras_reduced(K.ReLU(max_value=5)),
     ["keras.ops.minimum(x, 6.0)", "torch.clamp(x, max=5.0)"]),
    ("a factor", lambda: reduced(lambda y: y * 2), lambda: keras_reduced(lambda y: y * 3), ["x * 2.0", "x * 3.0"]),
    ("a power", lambda: reduced(lambda y: y**2), lambda: keras_reduced(lambda y: y**3), ["x ** 2.0", "x ** 3.0"]),
    ("a form of GELU", lambda: reduced(nn.GELU()), lambda: keras_reduced(lambda y: keras.ops.gelu(y, approximate=True)),
     ["approximate=False", "approximate='tanh'"]),
    ("corners", lambda: reduced(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
     lambda: keras_reduced(K.UpSampling2D(2, interpolation="bilinear")), ["never align corners", "align_corners=False"]),
    ("a scale", lambda: reduced(nn.Upsample(scale_factor=2)), lambda: keras_reduced(K.UpSampling2D(3)),
     ["size=(2, 2)", "scale_factor=(3, 3)"]),
    ("groups", lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=2)), lambda: keras_reduced(K.Conv2D(4, 1)), ["groups=2", "groups=1"]),
]  # fmt: skip


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("name", "reference", "candidate", "words"), ARGUMENTS, ids=[row[0] for row in ARGUMENTS]
)
def test_a_cure_is_the_frameworks_own_argument(
    name: str, reference: Callable[[], Any], candidate: Callable[[], Any], words: list[str]
) -> None:
    del name
    _, cure = refusal(reference(), candidate(), image(3, 8, 8))
    for word in words:
        assert word in cure
    assert not re.search(r" of [A-Z]|@\d|= '", cure)


def test_a_cure_names_the_layer_and_its_line() -> None:
    class Twice(nn.Module):
        def __init__(self, slope: float) -> None:
            super().__init__()
            self.l, self.slope = nn.Linear(4, 4), slope

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = functional.leaky_relu(self.l(x))
            return functional.leaky_relu(self.l(y), self.slope)

    _, cure = refusal(Twice(0.1), Twice(0.2), image(4))
    assert re.search(r"torch: leaky_relu \(tests/mapping/test_words\.py:\d+\): negative_slope=0\.1", cure)


@pytest.mark.parametrize("side", [0, 1])
def test_a_bound_that_one_model_has_is_none_in_the_other(side: int) -> None:
    """No number of the other model, such as one over its epsilon, is called its bound."""

    def model(act: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
        return Lambda(lambda m, x: m.b(act(m.n(m.a(x)))), a=nn.Linear(4, 8), n=nn.BatchNorm1d(8), b=nn.Linear(8, 2))  # fmt: skip

    plain, bounded = model(functional.relu), model(lambda x: torch.clamp(x, 0, 30))
    (line, *_), _ = refusal(*(plain, bounded)[:: 1 - 2 * side], image(4))
    assert line.startswith("  bound (Clip from 0 to 30)")
    told = ("none", "30")[:: 1 - 2 * side]
    assert line.endswith(f"upper bound is {told[0]} in the reference, {told[1]} in the candidate")
    assert "100000" not in line
