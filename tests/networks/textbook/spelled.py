"""Arithmetic on raw parameters: cells, norms and convolutions spelled out, densities, sorted and pooled values."""

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

from tests.networks.textbook.pair import IMAGE, SERIES, Pair, draws, floats, ids, uniform
from tests.networks.textbook.truth import conv, dense, kernel, moved, same, several


class Cell(nn.Module):
    """PyTorch's LSTM; TensorFlow has its four gates as matrices of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(x)[1][0].squeeze(0))


class RawCell(tf.Module):
    def __init__(self, *, forget: float = 0.0) -> None:
        super().__init__()
        self.forget = forget
        self.w = {g: tf.Variable(tf.zeros((7, 4)), name=f"w_{g}") for g in "ifgo"}
        self.b = {g: tf.Variable(tf.zeros((4,)), name=f"b_{g}") for g in "ifgo"}
        self.v, self.c = tf.Variable(tf.zeros((4, 2)), name="v"), tf.Variable(tf.zeros((2,)), name="c")

    def __call__(self, x: Any) -> Any:
        h = c = tf.zeros((tf.shape(x)[0], 4))
        for step in tf.unstack(x, axis=1):
            z = tf.concat([step, h], 1)
            i, f, g, o = (z @ self.w[gate] + self.b[gate] for gate in "ifgo")
            c = tf.sigmoid(f + self.forget) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
        return tf.nn.bias_add(h @ self.v, self.c)


def gate_matrix(which: int) -> Any:
    return lambda a, b: np.concatenate([np.split(one, 4)[which].T for one in (a, b)])


def gate_bias(which: int) -> Any:
    return lambda a, b: np.split(a + b, 4)[which]


CELL = Pair(
    "LSTM as matrices, tf.Module", "spelled", Cell, RawCell, draws(floats(3, 5, 3)),
    {end: step for i, g in enumerate("ifgo") for end, step in (
        moved("lstm.weight_ih_l0 lstm.weight_hh_l0", f"w_{g}", gate_matrix(i))
        | moved("lstm.bias_ih_l0 lstm.bias_hh_l0", f"b_{g}", gate_bias(i))).items()}
    | moved("fc.weight", "v", np.transpose) | same("fc.bias", "c"),
)  # fmt: skip


class Gates(nn.Module):
    """A GRU from six linear layers; Keras has its own, reset before the matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.wz, self.wr, self.wh = (nn.Linear(3, 4) for _ in range(3))
        self.uz, self.ur, self.uh = (nn.Linear(4, 4, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h, found = torch.zeros(x.size(0), 4), []
        for t in range(x.size(1)):
            z = torch.sigmoid(self.wz(x[:, t]) + self.uz(h))
            r = torch.sigmoid(self.wr(x[:, t]) + self.ur(h))
            new = torch.tanh(self.wh(x[:, t]) + self.uh(r * h))
            h = z * h + (1 - z) * new
            found.append(h)
        return torch.stack(found, dim=1)


def gates_keras() -> Any:
    return keras.Sequential([keras.Input((5, 3)), K.GRU(4, return_sequences=True, reset_after=False)])


def beside(*each: Any) -> Any:
    return np.concatenate([one.T for one in each], -1)


GATES = Pair(
    "GRU from linear layers", "spelled", Gates, gates_keras, draws(floats(3, 5, 3)),
    moved("wz.weight wr.weight wh.weight", "gru/gru_cell/kernel", beside)
    | moved("uz.weight ur.weight uh.weight", "gru/gru_cell/recurrent_kernel", beside)
    | moved("wz.bias wr.bias wh.bias", "gru/gru_cell/bias", beside),
)  # fmt: skip


class Frozen(nn.Module):
    """Batch normalisation from four buffers and parameters, group normalisation by view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gamma, self.beta = (
            nn.Conv2d(2, 6, 3),
            nn.Parameter(torch.ones(6)),
            nn.Parameter(torch.zeros(6)),
        )
        self.register_buffer("running_mean", torch.zeros(6))
        self.register_buffer("running_var", torch.ones(6))
        self.weight, self.bias = nn.Parameter(torch.ones(1, 6, 1, 1)), nn.Parameter(torch.zeros(1, 6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.gamma * (self.running_var + 1e-3).rsqrt()
        x = self.conv(x) * scale.reshape(1, -1, 1, 1) + (self.beta - self.running_mean * scale).reshape(
            1, -1, 1, 1
        )
        x = F.gelu(x, approximate="tanh")
        parts = x.view(x.size(0), 3, -1)
        parts = (parts - parts.mean(-1, keepdim=True)) / (
            parts.var(-1, keepdim=True, correction=0) + 1e-3
        ).sqrt()
        return parts.view_as(x) * self.weight + self.bias


def frozen_keras(*, groups: int = 3) -> Any:
    image = keras.Input((6, 5, 2))
    x = K.Conv2D(6, 3, name="conv")(image)
    x = K.BatchNormalization(trainable=False, name="bn")(x)
    x = ops.gelu(x, approximate=True)
    return keras.Model(image, K.GroupNormalization(groups, epsilon=1e-3, name="gn")(x))


FROZEN = Pair(
    "norms from parameters", "spelled", Frozen, frozen_keras, draws(floats(2, 2, 6, 5)),
    conv("conv", "conv") | same("gamma", "bn/gamma") | same("beta", "bn/beta") | same("running_mean", "bn/moving_mean")
    | same("running_var", "bn/moving_variance") | moved("weight", "gn/gamma", np.ravel) | moved("bias", "gn/beta", np.ravel),
    inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


class Unfolded(nn.Module):
    """A convolution as patches times a matrix, a kernel for each place as einsum, one-hot letters times a table."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.local, self.table = (
            nn.Linear(2 * 9, 4),
            nn.Parameter(torch.zeros(4, 3, 12, 4)),
            nn.Parameter(torch.zeros(7, 3)),
        )

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        x = torch.relu(self.fc(F.unfold(x, 3).transpose(1, 2))).transpose(1, 2)
        x = torch.einsum("bip,ojpi->bojp", x, self.local)
        return x.sum(-1) * (F.one_hot(kind, 7).float() @ self.table).unsqueeze(1)


class KerasUnfolded(keras.Model):
    def __init__(self, *, squash: Any = tf.nn.relu) -> None:
        super().__init__()
        self.squash = squash
        self.conv, self.table = K.Conv2D(4, 3, name="conv"), K.Embedding(7, 3, name="table")
        self.local = self.add_weight(shape=(4, 3, 4, 4, 3), name="local")

    def call(self, image: Any, kind: Any) -> Any:
        x = self.squash(self.conv(image))
        return tf.einsum("bhwi,hwioj->boj", x, self.local) * tf.expand_dims(self.table(kind), 1)


UNFOLDED = Pair(
    "convolution as a matrix", "spelled", Unfolded, KerasUnfolded, draws(floats(2, 2, 6, 5), ids(7, 2)),
    moved("fc.weight", "conv/kernel", lambda value: value.reshape(4, 2, 3, 3).transpose(2, 3, 1, 0)) | same("fc.bias", "conv/bias")
    | same("table", "table/embeddings")
    | moved("local", "local", lambda value: value.reshape(4, 3, 4, 3, 4).transpose(2, 3, 4, 0, 1)), inputs={0: IMAGE},
)  # fmt: skip


class Margin(nn.Module):
    """Cosines between unit features and unit classes, times a fixed scale; a slope that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.weight, self.beta = (
            nn.Linear(5, 4),
            nn.Parameter(torch.zeros(6, 4)),
            nn.Parameter(torch.ones(1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        x = x * torch.sigmoid(self.beta * x)
        return 16.0 * F.linear(F.normalize(x), F.normalize(self.weight))


class KerasMargin(keras.Model):
    def __init__(self, *, scale: float = 16.0, unit: bool = True) -> None:
        super().__init__()
        self.scale, self.unit = scale, unit
        self.fc, self.beta = K.Dense(4, name="fc"), self.add_weight(shape=(), name="beta")
        self.kinds = self.add_weight(shape=(4, 6), name="kinds")

    def call(self, inputs: Any) -> Any:
        x = self.fc(inputs)
        x = tf.math.divide(x, 1.0 + tf.exp(-self.beta * x))
        kinds = tf.math.l2_normalize(self.kinds, axis=0) if self.unit else self.kinds
        return tf.matmul(tf.math.l2_normalize(x, axis=1), kinds) * self.scale


MARGIN = Pair(
    "cosines to classes", "spelled", Margin, KerasMargin, draws(floats(4, 5)),
    dense("fc", "fc") | moved("beta", "beta", lambda value: value[0]) | moved("weight", "kinds", np.transpose),
)  # fmt: skip


class Mixture(nn.Module):
    """A density of three bells, and quantiles that do not cross; a dict comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.heads = nn.Sequential(nn.Linear(4, 8), nn.Hardtanh()), nn.Linear(8, 9)
        self.steps = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.body(x)
        pi, mu, sigma = torch.split(self.heads(h), 3, dim=-1)
        first, rest = self.steps(h).split([1, 3], dim=1)
        quantiles = torch.cat([first, first + torch.cumsum(F.softplus(rest), dim=1)], 1)
        return {"pi": pi.softmax(-1), "mu": mu, "sigma": F.elu(sigma) + 1.0001, "quantiles": quantiles}


def mixture_keras(*, grow: Any = ops.softplus, floor: float = 1.0001) -> Any:
    x = keras.Input((4,))
    h = ops.clip(K.Dense(8, name="body")(x), -1.0, 1.0)
    pi, mu = K.Dense(3, "softmax", name="pi")(h), K.Dense(3, name="mu")(h)
    sigma = K.Dense(3, "elu", name="sigma")(h) + floor
    first, rest = K.Dense(1, name="low")(h), grow(K.Dense(3, name="rise")(h))
    lower = np.triu(np.ones((3, 3), np.float32))
    quantiles = K.Concatenate()([first, first + ops.matmul(rest, lower)])
    return keras.Model(x, {"mu": mu, "pi": pi, "quantiles": quantiles, "sigma": sigma})


def rows(low: int, high: int) -> Any:
    return lambda value: value[low:high].T


MIXTURE = Pair(
    "mixture density, quantiles", "spelled", Mixture, mixture_keras, draws(floats(4, 4)),
    dense("body.0", "body") | {end: step for i, name in enumerate(("pi", "mu", "sigma")) for end, step in (
        moved("heads.weight", f"{name}/kernel", rows(3 * i, 3 * i + 3)) | moved("heads.bias", f"{name}/bias", rows(3 * i, 3 * i + 3))).items()}
    | moved("steps.weight", "low/kernel", rows(0, 1)) | moved("steps.bias", "low/bias", rows(0, 1))
    | moved("steps.weight", "rise/kernel", rows(1, 4)) | moved("steps.bias", "rise/bias", rows(1, 4)),
)  # fmt: skip


class Pooled(nn.Module):
    """The best three over time in order, pyramids of pools, roots of mean squares, a fixed blur."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4 * (1 + 4) + 4 * 3 + 4, 3)
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("blur", (row[:, None] * row / 16).expand(4, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        pyramid = [F.adaptive_max_pool2d(x, n).flatten(1) for n in (1, 2)]
        soft = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.blur, stride=2, groups=4)
        best = soft.flatten(2).topk(3, dim=-1).values.flatten(1)
        power = x.pow(2).mean((2, 3)).add(1e-6).sqrt()
        return self.fc(torch.cat([*pyramid, best, power], dim=1))


class KerasPooled(keras.Model):
    def __init__(self, *, mode: str = "REFLECT", best: int = 3) -> None:
        super().__init__()
        self.mode, self.best = mode, best
        self.conv, self.fc = (
            K.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
            K.Dense(3, name="fc"),
        )
        row = np.array([1, 2, 1], np.float32) / 4
        self.blur = np.tile(np.outer(row, row)[:, :, None, None], (1, 1, 4, 1))

    def call(self, inputs: Any) -> Any:
        x = self.conv(inputs)
        whole, quarters = tf.reduce_max(x, [1, 2]), tf.nn.max_pool2d(x, (3, 2), (3, 2), "VALID")
        wide = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], self.mode)
        soft = tf.nn.depthwise_conv2d(wide, self.blur, [1, 2, 2, 1], "VALID")
        soft = tf.transpose(tf.reshape(soft, (-1, 6, 4)), (0, 2, 1))
        best = tf.sort(soft, axis=-1, direction="DESCENDING")[..., self.best - 3 : self.best]
        power = tf.sqrt(tf.reduce_mean(tf.square(x), [1, 2]) + 1e-6)
        parts = [
            whole,
            tf.reshape(tf.transpose(quarters, (0, 3, 1, 2)), (-1, 16)),
            tf.reshape(best, (-1, 12)),
            power,
        ]
        return self.fc(tf.concat(parts, -1))


POOLED = Pair(
    "pools of all kinds", "spelled", Pooled, KerasPooled, draws(floats(2, 2, 6, 4)),
    conv("conv", "conv") | dense("fc", "fc"), inputs={0: IMAGE},
)  # fmt: skip


class Vlad(nn.Module):
    """Residuals to centres, weighed softly, unit twice; and products of features with signed roots."""

    def __init__(self) -> None:
        super().__init__()
        self.assign, self.centres, self.out = (
            nn.Conv1d(4, 3, 1),
            nn.Parameter(torch.zeros(3, 4)),
            nn.Linear(12 + 16, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = F.softmax(self.assign(x), dim=1)
        residual = x.unsqueeze(1) - self.centres[None, :, :, None]
        vlad = F.normalize((residual * weight.unsqueeze(2)).sum(-1), dim=2).flatten(1)
        gram = torch.bmm(x, x.transpose(1, 2)).flatten(1) / x.size(2)
        root = torch.sign(gram) * torch.sqrt(gram.abs() + 1e-8)
        return self.out(torch.cat([F.normalize(vlad, dim=1), root], dim=1))


class KerasVlad(keras.Model):
    def __init__(self, *, intra: bool = True) -> None:
        super().__init__()
        self.intra = intra
        self.assign, self.out = K.Dense(3, activation="softmax", name="assign"), K.Dense(2, name="out")
        self.centres = self.add_weight(shape=(4, 3), name="centres")

    def call(self, inputs: Any) -> Any:
        weight = self.assign(inputs)
        vlad = tf.einsum("bnc,bnk->bkc", inputs, weight) - tf.einsum("bnk,ck->bkc", weight, self.centres)
        vlad = tf.nn.l2_normalize(vlad, -1) if self.intra else vlad
        gram = tf.einsum("bni,bnj->bij", inputs, inputs) / 6.0
        root = tf.math.sign(gram) * tf.sqrt(tf.abs(gram) + 1e-8)
        parts = [tf.nn.l2_normalize(tf.reshape(vlad, (-1, 12)), 1), tf.reshape(root, (-1, 16))]
        return self.out(tf.concat(parts, axis=1))


VLAD = Pair(
    "residuals to centres, signed roots", "spelled", Vlad, KerasVlad, draws(floats(2, 4, 6)),
    moved("assign.weight", "assign/kernel", lambda value: value[:, :, 0].T) | same("assign.bias", "assign/bias")
    | moved("centres", "centres", np.transpose) | dense("out", "out"), inputs={0: SERIES},
)  # fmt: skip


class Dynamic(nn.Module):
    """Three kernels mixed by an attention on the image; the batch becomes groups."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels, self.route = nn.Parameter(torch.zeros(3, 4, 2, 3, 3)), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.softmax(self.route(x.mean((2, 3))) / 4.0, -1)
        mixed = (weight @ self.kernels.view(3, -1)).view(-1, 2, 3, 3)
        b, _, h, w = x.shape
        y = F.conv2d(x.reshape(1, -1, h, w), mixed, padding=1, groups=b)
        return y.view(b, 4, h, w)


class KerasDynamic(keras.Model):
    """Each kernel is applied; the images are mixed."""

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature, self.route = temperature, K.Dense(3, name="route")
        self.convs = [K.Conv2D(4, 3, padding="same", use_bias=False, name=f"kernel_{i}") for i in range(3)]

    def call(self, inputs: Any) -> Any:
        weight = tf.nn.softmax(self.route(tf.reduce_mean(inputs, (1, 2))) / self.temperature)
        each = tf.stack([one(inputs) for one in self.convs], axis=-1)
        return tf.einsum("bhwck,bk->bhwc", each, weight)


DYNAMIC = Pair(
    "kernels mixed", "spelled", Dynamic, KerasDynamic, draws(floats(2, 2, 5, 4)),
    dense("route", "route") | {end: step for i in range(3) for end, step in moved(
        "kernels", f"kernel_{i}/kernel", lambda value, i=i: kernel(value[i])).items()},
    inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip

RESERVOIR = np.random.default_rng(5)
INTO, INSIDE = (RESERVOIR.uniform(-0.5, 0.5, shape).astype("float32") for shape in ((2, 7), (7, 7)))


class Echo(nn.Module):
    """A fixed reservoir, of which only the end is learned; dueling values of actions."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("into", torch.from_numpy(INTO))
        self.register_buffer("inside", torch.from_numpy(INSIDE))
        self.value, self.advantage = nn.Linear(7, 1), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 7)
        for step in x.unbind(dim=1):
            h = 0.7 * h + 0.3 * torch.tanh(step @ self.into + h @ self.inside)
        a = self.advantage(h)
        return self.value(h) + a - a.mean(dim=1, keepdim=True)


def echo_keras(*, leak: float = 0.3, best: bool = False) -> Any:
    series = keras.Input((5, 2))
    h = ops.tanh(ops.matmul(series[:, 0], INTO)) * leak
    for t in range(1, 5):
        h = h + (ops.tanh(ops.matmul(series[:, t], INTO) + ops.matmul(h, INSIDE)) - h) * leak
    value, a = K.Dense(1, name="value")(h), K.Dense(4, name="advantage")(h)
    centre = ops.max(a, axis=1, keepdims=True) if best else ops.mean(a, axis=1, keepdims=True)
    return keras.Model(series, K.Add()([value, K.Subtract()([a, centre])]))


ECHO = Pair(
    "reservoir, dueling values", "spelled", Echo, echo_keras, draws(floats(3, 5, 2)),
    several(dense, "value value", "advantage advantage"),
)  # fmt: skip


class Policy(nn.Module):
    """An actor and a critic on one body: bounded actions, the spread as a parameter; angles as inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.Linear(4, 6), nn.LayerNorm(6, elementwise_affine=False)
        self.actor, self.critic, self.log_std = (
            nn.Linear(6, 2),
            nn.Linear(6 + 2, 1),
            nn.Parameter(torch.zeros(2)),
        )

    def forward(self, angle: Tensor, speed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.stack([torch.cos(angle), torch.sin(angle), speed, torch.atan2(speed, angle)], 1)
        h = self.norm(F.relu(self.body(x)))
        action = 2.0 * torch.tanh(self.actor(h))
        return (
            action,
            self.critic(torch.cat([h, action], -1)).flatten(),
            self.log_std.clamp(-1, 1).exp().expand_as(action),
        )


class KerasPolicy(keras.Model):
    def __init__(self, *, bound: float = 2.0, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.bound = bound
        self.body, self.norm = (
            K.Dense(6, activation="relu", name="body"),
            K.LayerNormalization(epsilon=epsilon, center=False, scale=False),
        )
        self.actor, self.critic = K.Dense(2, activation="tanh", name="actor"), K.Dense(1, name="critic")
        self.spread = self.add_weight(shape=(1, 2), name="spread")

    def call(self, angle: Any, speed: Any) -> Any:
        x = tf.concat(
            [one[:, None] for one in (tf.cos(angle), tf.sin(angle), speed, tf.atan2(speed, angle))], axis=1
        )
        h = self.norm(self.body(x))
        action = self.actor(h) * self.bound
        spread = tf.exp(tf.clip_by_value(self.spread, -1.0, 1.0)) * tf.ones_like(action)
        return action, tf.squeeze(self.critic(tf.concat([h, action], 1)), 1), spread


POLICY = Pair(
    "actor and critic", "spelled", Policy, KerasPolicy, draws(uniform(-3, 3, 4), floats(4)),
    several(dense, "body body", "actor actor", "critic critic") | moved("log_std", "spread", lambda value: value[None]),
)  # fmt: skip

PAIRS = (
    CELL, GATES, FROZEN, UNFOLDED, MARGIN, MIXTURE, POOLED, VLAD, DYNAMIC, ECHO, POLICY,
    CELL.alike("one more to forget", {"constant", "Add", "bias"}, keras=lambda: RawCell(forget=1.0)),
    FROZEN.alike("groups", {"group", "shape", "axis"}, keras=lambda: frozen_keras(groups=2)),
    UNFOLDED.alike("tanh", {"Relu", "Tanh", "activation"}, keras=lambda: KerasUnfolded(squash=tf.tanh)),
    MARGIN.alike("scale", {"constant", "Mul"}, keras=lambda: KerasMargin(scale=30.0)),
    MARGIN.alike("classes of any length", {"norm", "missing"}, keras=lambda: KerasMargin(unit=False)),
    MIXTURE.alike("exponential steps", {"Exp", "Softplus"}, keras=lambda: mixture_keras(grow=ops.exp)),
    POOLED.alike("edge repeated", {"pad", "mode", "reflect"}, keras=lambda: KerasPooled(mode="SYMMETRIC")),
    POOLED.alike("second to fourth", {"Slice", "TopK", "start", "index"}, keras=lambda: KerasPooled(best=4)),
    VLAD.alike("not unit in each", {"norm", "missing"}, keras=lambda: KerasVlad(intra=False)),
    DYNAMIC.alike("temperature", {"constant", "Div", "Mul"}, keras=lambda: KerasDynamic(temperature=1.0)),
    ECHO.alike("leak", {"constant", "Mul"}, keras=lambda: echo_keras(leak=0.5)),
    ECHO.alike("less the best", {"Max", "Mean"}, keras=lambda: echo_keras(best=True)),
    POLICY.alike("bound", {"constant", "Mul"}, keras=lambda: KerasPolicy(bound=1.0)),
)  # fmt: skip
