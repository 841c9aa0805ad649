"""Gates and experts: GLU of all kinds, highways, mixtures, towers of several tasks, generated weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks.textbook.pair import Pair, draws, floats, ids
from tests.networks.textbook.truth import batch_norm, dense, embedding, moved, norm, same, several

D = 12


class RMSNorm(nn.Module):
    def __init__(self, width: int = D) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Llama(nn.Module):
    """RMS normalisation and SwiGLU, three matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens, self.norm = nn.Embedding(30, D), RMSNorm()
        self.gate_proj, self.up_proj = (nn.Linear(D, 20, bias=False) for _ in range(2))
        self.down_proj, self.last = nn.Linear(20, D, bias=False), RMSNorm()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed_tokens(x)
        y = self.norm(x)
        x = x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))
        return self.last(x) @ self.embed_tokens.weight.t()


class Scaled(K.Layer):
    """``x / sqrt(mean(x²) + epsilon)``, with a scale."""

    def __init__(self, epsilon: float, *, centred: bool, **options: Any) -> None:
        super().__init__(**options)
        self.epsilon, self.centred = epsilon, centred

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x: Any) -> Any:
        if self.centred:
            x = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        return x / tf.sqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + self.epsilon) * self.scale


class KerasLlama(keras.Model):
    """Gate and value from one matrix, value first; the embedding is called in reverse."""

    def __init__(self, *, epsilon: float = 1e-6, centred: bool = False, gate: Any = ops.silu) -> None:
        super().__init__()
        self.gate = gate
        self.tokens = K.Embedding(30, D, name="tokens")
        self.first = Scaled(epsilon, centred=centred, name="first")
        self.second = Scaled(epsilon, centred=centred, name="second")
        self.wide, self.narrow = (
            K.Dense(40, use_bias=False, name="wide"),
            K.Dense(D, use_bias=False, name="narrow"),
        )

    def call(self, inputs: Any) -> Any:
        x = self.tokens(inputs)
        value, gate = ops.split(self.wide(self.first(x)), 2, axis=-1)
        x = x + self.narrow(value * self.gate(gate))
        return ops.einsum("btd,vd->btv", self.second(x), self.tokens.embeddings)


LLAMA = Pair(
    "RMS norm, SwiGLU, tied ends", "gates", Llama, KerasLlama, draws(ids(30, 2, 5)),
    embedding("embed_tokens", "tokens") | same("norm.weight", "first/scale") | same("last.weight", "second/scale")
    | moved("up_proj.weight gate_proj.weight", "wide/kernel", lambda up, gate: np.concatenate([up, gate]).T)
    | dense("down_proj", "narrow", bias=False),
)  # fmt: skip


class GeGlu(nn.Module):
    """A gate from one matrix, with GELU; RMS normalisation of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.proj, self.out = nn.RMSNorm(D, eps=1e-5), nn.Linear(D, 32), nn.Linear(16, D)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(self.norm(x)).chunk(2, dim=-1)
        return self.out(x * F.gelu(gate))


def geglu_keras(*, approximate: bool = False) -> Any:
    x = keras.Input((5, D))
    y = K.RMSNormalization(epsilon=1e-5, name="rms")(x)
    value, gate = K.Dense(16, name="value")(y), K.Dense(16, name="gate")(y)
    return keras.Model(
        x, K.Dense(D, name="back")(K.Multiply()([ops.gelu(gate, approximate=approximate), value]))
    )


def half(which: int) -> Any:
    return lambda value: np.split(value, 2)[which].T


GEGLU = Pair(
    "GeGLU", "gates", GeGlu, geglu_keras, draws(floats(2, 5, D)),
    same("norm.weight", "rms/scale") | dense("out", "back")
    | moved("proj.weight", "value/kernel", half(0)) | moved("proj.bias", "value/bias", half(0))
    | moved("proj.weight", "gate/kernel", half(1)) | moved("proj.bias", "gate/bias", half(1)),
)  # fmt: skip


class Highway(nn.Module):
    """Two layers that carry or change."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.plain = (nn.ModuleList(nn.Linear(D, D) for _ in range(2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for gate, plain in zip(self.gates, self.plain, strict=True):
            t = torch.sigmoid(gate(x))
            x = t * torch.relu(plain(x)) + (1 - t) * x
        return x


class KerasHighway(K.Layer):
    def __init__(self, *, carry: str = "rest", **options: Any) -> None:
        super().__init__(**options)
        self.carry = carry
        self.change = K.Dense(D, activation="relu", name="change")
        self.gate = K.Dense(D, activation="sigmoid", name="gate")

    def call(self, x: Any) -> Any:
        gate = self.gate(x)
        return x + gate * (self.change(x) - x) if self.carry == "rest" else gate * self.change(x) + x


def highway_keras(**options: Any) -> Any:
    return keras.Sequential(
        [keras.Input((D,)), KerasHighway(name="one", **options), KerasHighway(name="two", **options)]
    )


HIGHWAY = Pair(
    "highway", "gates", Highway, highway_keras, draws(floats(4, D)),
    several(dense, "gates.0 one/gate", "gates.1 two/gate", "plain.0 one/change", "plain.1 two/change"),
)  # fmt: skip


class GatedResidual(nn.Module):
    """The gated residual network of the temporal fusion transformer, with a context."""

    def __init__(self) -> None:
        super().__init__()
        self.lin_a, self.lin_c = nn.Linear(8, D), nn.Linear(3, D, bias=False)
        self.lin_i, self.gate, self.skip = nn.Linear(D, D), nn.Linear(D, 2 * D), nn.Linear(8, D)
        self.norm = nn.LayerNorm(D)

    def forward(self, a: Tensor, c: Tensor) -> Tensor:
        h = F.elu(self.lin_a(a) + self.lin_c(c))
        return self.norm(self.skip(a) + F.glu(self.gate(self.lin_i(h)), dim=-1))


def gated_residual_keras(*, activation: str = "elu", gated: str = "sigmoid") -> Any:
    a, c = keras.Input((8,)), keras.Input((3,))
    h = K.Activation(activation)(
        K.Add()([K.Dense(D, use_bias=False, name="context")(c), K.Dense(D, name="first")(a)])
    )
    h = K.Dense(D, name="second")(h)
    h = K.Multiply()([K.Dense(D, gated, name="open")(h), K.Dense(D, name="through")(h)])
    return keras.Model(
        [a, c], K.LayerNormalization(epsilon=1e-5, name="ln")(K.Add()([h, K.Dense(D, name="skip")(a)]))
    )


RESIDUAL = Pair(
    "gated residual network", "gates", GatedResidual, gated_residual_keras, draws(floats(3, 8), floats(3, 3)),
    several(dense, "lin_a first", "lin_i second", "skip skip") | dense("lin_c", "context", bias=False) | norm("norm", "ln")
    | moved("gate.weight", "through/kernel", half(0)) | moved("gate.bias", "through/bias", half(0))
    | moved("gate.weight", "open/kernel", half(1)) | moved("gate.bias", "open/bias", half(1)),
)  # fmt: skip


class MMoE(nn.Module):
    """Experts for all tasks, a gate for each task."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, D), nn.ReLU()) for _ in range(3))
        self.gates = nn.ModuleList(nn.Linear(8, 3, bias=False) for _ in range(2))
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(D, 5), nn.ReLU(), nn.Linear(5, 1)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        experts = torch.stack([expert(x) for expert in self.experts], dim=1)
        mixed = [torch.bmm(gate(x).softmax(1).unsqueeze(1), experts).squeeze(1) for gate in self.gates]
        return [tower(one) for tower, one in zip(self.towers, mixed, strict=True)]


class KerasMMoE(K.Layer):
    """All experts in one tensor, as the first implementations for Keras have it."""

    def __init__(self, *, axis: int = -1, activation: str = "relu") -> None:
        super().__init__(name="mmoe")
        self.axis, self.activate = axis, keras.activations.get(activation)

    def build(self, shape: Any) -> None:
        self.experts = self.add_weight(shape=(shape[-1], D, 3), name="experts")
        self.bias = self.add_weight(shape=(D, 3), name="bias")
        self.gates = [self.add_weight(shape=(shape[-1], 3), name=f"gate_{i}") for i in range(2)]

    def call(self, x: Any) -> Any:
        all_of_them = self.activate(tf.tensordot(x, self.experts, axes=1) + self.bias)
        return [
            tf.reduce_sum(all_of_them * tf.nn.softmax(x @ gate, self.axis)[:, None], -1)
            for gate in self.gates
        ]


def mmoe_keras(**options: Any) -> Any:
    x = keras.Input((8,))
    tasks = KerasMMoE(**options)(x)
    return keras.Model(x, [
        K.Dense(1, name=f"score_{i}")(K.Dense(5, "relu", name=f"tower_{i}")(task)) for i, task in enumerate(tasks)
    ])  # fmt: skip


MMOE = Pair(
    "multi-gate mixture of experts", "gates", MMoE, mmoe_keras, draws(floats(4, 8)),
    moved("experts.0.0.weight experts.1.0.weight experts.2.0.weight", "mmoe/experts",
          lambda *each: np.stack(each, -1).transpose(1, 0, 2))
    | moved("experts.0.0.bias experts.1.0.bias experts.2.0.bias", "mmoe/bias", lambda *each: np.stack(each, -1))
    | moved("gates.0.weight", "mmoe/gate_0", np.transpose) | moved("gates.1.weight", "mmoe/gate_1", np.transpose)
    | several(dense, "towers.0.0 tower_0", "towers.0.2 score_0", "towers.1.0 tower_1", "towers.1.2 score_1"),
)  # fmt: skip


class PLE(nn.Module):
    """Experts of a task and shared experts; outputs have names."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.click, self.buy = (
            nn.ModuleList(nn.Linear(8, D) for _ in range(2)) for _ in range(3)
        )
        self.gate_click, self.gate_buy = nn.Linear(8, 4), nn.Linear(8, 4)
        self.out_click, self.out_buy = nn.Linear(D, 1), nn.Linear(D, 1)

    def mix(self, x: Tensor, own: nn.ModuleList, gate: nn.Linear) -> Tensor:
        experts = torch.stack([F.relu(expert(x)) for expert in (*own, *self.shared)], dim=-1)
        return (experts * F.softmax(gate(x), dim=-1).unsqueeze(1)).sum(-1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        click = self.out_click(self.mix(x, self.click, self.gate_click))
        buy = self.out_buy(self.mix(x, self.buy, self.gate_buy))
        return {"ctr": click.sigmoid(), "cvr": buy.sigmoid() * click.sigmoid()}


def ple_keras(*, product: bool = True) -> Any:
    x = keras.Input((8,), name="features")
    layers = {
        name: [K.Dense(D, "relu", name=f"{name}_{i}") for i in range(2)] for name in ("common", "a", "b")
    }
    common = [layer(x) for layer in layers["common"]]
    scores = {}
    for task in "ab":
        weight = K.Dense(4, "softmax", name=f"gate_{task}")(x)
        experts = common + [layer(x) for layer in layers[task]]
        mixed = K.Add()([K.Multiply()([one, weight[:, i : i + 1]]) for i, one in enumerate(experts)])
        scores[task] = K.Dense(1, "sigmoid", name=f"score_{task}")(mixed)
    buy = K.Multiply()([scores["a"], scores["b"]]) if product else scores["b"]
    return keras.Model(x, {"ctr": scores["a"], "cvr": buy})


def common_first(value: Any) -> Any:
    """The gate's columns: shared experts come first there, behind here."""
    return np.roll(value, 2, axis=0).T


PLE_PAIR = Pair(
    "shared experts and own", "gates", PLE, ple_keras, draws(floats(4, 8)),
    several(dense, *(f"{a}.{i} {b}_{i}" for a, b in (("shared", "common"), ("click", "a"), ("buy", "b")) for i in range(2)))
    | several(dense, "out_click score_a", "out_buy score_b")
    | moved("gate_click.weight", "gate_a/kernel", common_first) | moved("gate_click.bias", "gate_a/bias", common_first)
    | moved("gate_buy.weight", "gate_b/kernel", common_first) | moved("gate_buy.bias", "gate_b/bias", common_first),
)  # fmt: skip


class TopTwo(nn.Module):
    """A mixture of experts that runs all and keeps two: the others' weights are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(D, 4, bias=False)
        self.w1, self.w2 = nn.Parameter(torch.zeros(4, 10, D)), nn.Parameter(torch.zeros(4, D, 10))

    def forward(self, x: Tensor) -> Tensor:
        score = self.router(x)
        least = score.topk(2, dim=-1).values[..., -1:]
        weight = score.masked_fill(score < least, float("-inf")).softmax(-1)
        hidden = F.gelu(torch.einsum("btd,ehd->bteh", x, self.w1))
        return x + torch.einsum("bteh,edh,bte->btd", hidden, self.w2, weight)


class KerasTopTwo(K.Layer):
    def __init__(self, *, kept: int = 2, renormalised: bool = True) -> None:
        super().__init__(name="moe")
        self.kept, self.renormalised = kept, renormalised
        self.gate = K.Dense(4, use_bias=False, activation="softmax", name="gate")

    def build(self, _: Any) -> None:
        self.into = self.add_weight(shape=(4, D, 10), name="into")
        self.back = self.add_weight(shape=(4, 10, D), name="back")

    def call(self, x: Any) -> Any:
        weight = self.gate(x)
        best = tf.math.top_k(weight, self.kept).values[..., -1:]
        weight = weight * tf.cast(weight >= best, tf.float32)
        if self.renormalised:
            weight = weight / tf.reduce_sum(weight, -1, keepdims=True)
        each = [tf.nn.gelu(x @ self.into[i]) @ self.back[i] * weight[..., i : i + 1] for i in range(4)]
        return x + tf.add_n(each)


def top_two_keras(**options: Any) -> Any:
    x = keras.Input((5, D))
    return keras.Model(x, KerasTopTwo(**options)(x))


def swapped(value: Any) -> Any:
    return value.swapaxes(-1, -2)


TOP_TWO = Pair(
    "experts, two of four", "gates", TopTwo, top_two_keras, draws(floats(3, 5, D)),
    dense("router", "gate", bias=False) | moved("w1", "moe/into", swapped) | moved("w2", "moe/back", swapped),
)  # fmt: skip


class Bilinear(nn.Module):
    """PyTorch's bilinear layer on two vectors, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.bilinear, self.bn, self.fc = nn.Bilinear(6, 5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.bn(self.bilinear(a, b))))


class Tensor3(K.Layer):
    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[0][-1], shape[1][-1], 4), name="kernel")
        self.bias = self.add_weight(shape=(4,), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        a, b = inputs
        return ops.einsum("bi,bj,ijo->bo", a, b, self.kernel) + self.bias


def bilinear_keras(*, epsilon: float = 1e-5, activation: str = "tanh") -> Any:
    a, b = keras.Input((6,)), keras.Input((5,))
    x = K.BatchNormalization(epsilon=epsilon, name="bn")(Tensor3(name="product")([a, b]))
    return keras.Model([a, b], K.Dense(2, name="out")(K.Activation(activation)(x)))


BILINEAR = Pair(
    "bilinear", "gates", Bilinear, bilinear_keras, draws(floats(4, 6), floats(4, 5)),
    moved("bilinear.weight", "product/kernel", lambda value: value.transpose(1, 2, 0)) | same("bilinear.bias", "product/bias")
    | batch_norm("bn", "bn") | dense("fc", "out"),
)  # fmt: skip


class HyperNetwork(nn.Module):
    """A small network makes the weights of the layer that another input goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.make, self.shift = nn.Linear(3, 5 * 6), nn.Linear(3, 5)
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        weight = self.make(z).view(-1, 5, 6)
        return self.last(F.leaky_relu(torch.bmm(weight, x.unsqueeze(-1)).squeeze(-1) + self.shift(z), 0.2))


def hyper_keras(*, slope: float = 0.2) -> Any:
    x, z = keras.Input((6,)), keras.Input((3,))
    weight = K.Reshape((6, 5))(K.Dense(30, name="weights")(z))
    y = K.Flatten()(K.Dot(axes=(2, 1))([K.Reshape((1, 6))(x), weight]))
    y = K.LeakyReLU(negative_slope=slope)(K.Add()([K.Dense(5, name="biases")(z), y]))
    return keras.Model([x, z], K.Dense(2, name="end")(y))


HYPER = Pair(
    "hypernetwork", "gates", HyperNetwork, hyper_keras, draws(floats(4, 6), floats(4, 3)),
    moved("make.weight", "weights/kernel", lambda value: value.reshape(5, 6, 3).transpose(2, 1, 0).reshape(3, 30))
    | moved("make.bias", "weights/bias", lambda value: value.reshape(5, 6).T.ravel())
    | several(dense, "shift biases", "last end"),
)  # fmt: skip


class Film(nn.Module):
    """A class modulates channels: scale and shift from a table."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gamma, self.beta = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Embedding(5, 6),
            nn.Embedding(5, 6),
        )
        self.norm, self.fc = nn.BatchNorm2d(6, affine=False), nn.Linear(6, 2)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.norm(self.conv(x))
        h = (1 + self.gamma(label)[:, :, None, None]) * h + self.beta(label).view(-1, 6, 1, 1)
        return self.fc(F.relu(h).flatten(2).mean(-1))


def film_keras(*, one: float = 1.0) -> Any:
    image, label = keras.Input((6, 6, 3)), keras.Input((), dtype="int32")
    x = K.Conv2D(6, 3, padding="same", name="conv")(image)
    x = K.BatchNormalization(scale=False, center=False, epsilon=1e-5, name="bn")(x)
    scale, shift = ops.split(K.Embedding(5, 12, name="table")(label)[:, None, None, :], 2, axis=-1)
    x = K.ReLU()(K.Add()([x * (scale + one), shift]))
    return keras.Model([image, label], K.Dense(2, name="fc")(K.GlobalAveragePooling2D()(x)))


FILM = Pair(
    "modulated by a class", "gates", Film, film_keras, draws(floats(3, 3, 6, 6), ids(5, 3)),
    moved("conv.weight", "conv/kernel", lambda value: value.transpose(2, 3, 1, 0)) | same("conv.bias", "conv/bias")
    | same("norm.running_mean", "bn/moving_mean") | same("norm.running_var", "bn/moving_variance")
    | moved("gamma.weight beta.weight", "table/embeddings", lambda a, b: np.concatenate([a, b], 1)) | dense("fc", "fc"),
    inputs={0: (0, 2, 3, 1)},
)  # fmt: skip


class Maxout(nn.Module):
    """The best of three linear pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.fc = nn.Linear(8, 5 * 3), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lin(x).view(-1, 5, 3).max(-1)[0])


def maxout_keras(*, best: Any = K.Maximum) -> Any:
    x = keras.Input((8,))
    return keras.Model(x, K.Dense(2, name="fc")(best()([K.Dense(5, name=f"piece_{i}")(x) for i in range(3)])))


def piece(which: int) -> Any:
    return lambda value: value[which::3].T


MAXOUT = Pair(
    "maxout", "gates", Maxout, maxout_keras, draws(floats(4, 8)),
    dense("fc", "fc") | {
        f"piece_{i}/{end}": step for i in range(3) for end, step in (
            ("kernel", moved("lin.weight", "", piece(i))[""]), ("bias", moved("lin.bias", "", piece(i))[""]))
    }, symmetric=True,
)  # fmt: skip

PAIRS = (
    LLAMA, GEGLU, HIGHWAY, RESIDUAL, MMOE, PLE_PAIR, TOP_TWO, BILINEAR, HYPER, FILM, MAXOUT,
    LLAMA.alike("epsilon", {"epsilon", "constant"}, keras=lambda: KerasLlama(epsilon=1e-1)),
    LLAMA.alike("mean taken away", {"mean", "ReduceMean", "Sub"}, keras=lambda: KerasLlama(centred=True)),
    LLAMA.alike("gate's activation", {"Sigmoid", "Swish", "SiLU", "activation"}, keras=lambda: KerasLlama(gate=ops.sigmoid)),
    HIGHWAY.alike("all is carried", {"residual", "Sub", "Mul", "gate"}, keras=lambda: highway_keras(carry="all")),
    RESIDUAL.alike("activation", {"activation", "Elu", "Selu"}, keras=lambda: gated_residual_keras(activation="selu")),
    RESIDUAL.alike("gate by tanh", {"Sigmoid", "Tanh"}, keras=lambda: gated_residual_keras(gated="tanh")),
    MMOE.alike("softmax over the batch", {"axis"}, keras=lambda: mmoe_keras(axis=0)),
    MMOE.alike("experts' activation", {"Relu", "Elu", "activation"}, keras=lambda: mmoe_keras(activation="elu")),
    PLE_PAIR.alike("no product of tasks", {"Mul", "missing"}, keras=lambda: ple_keras(product=False)),
    TOP_TWO.alike("three kept", {"TopK", "k", "constant"}, keras=lambda: top_two_keras(kept=3)),
    TOP_TWO.alike("not normalised again", {"Div", "missing", "sum"}, keras=lambda: top_two_keras(renormalised=False)),
    BILINEAR.alike("epsilon", {"epsilon"}, keras=lambda: bilinear_keras(epsilon=1e-1)),
    HYPER.alike("slope", {"slope", "alpha"}, keras=lambda: hyper_keras(slope=0.01)),
    FILM.alike("no one in the scale", {"constant", "Add", "missing"}, keras=lambda: film_keras(one=0.0)),
    MAXOUT.alike("mean for maximum", {"Max", "Mean", "Average"}, keras=lambda: maxout_keras(best=K.Average)),
)  # fmt: skip
