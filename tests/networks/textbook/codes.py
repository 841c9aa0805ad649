"""Codes: flows, capsules, autoencoders, the nearest code, distances to prototypes; arithmetic on raw parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks.textbook.pair import IMAGE, SERIES, Pair, draws, floats, uniform
from tests.networks.textbook.truth import batch_norm, conv, dense, flattened, lstm, moved, same, several


class Coupling(nn.Module):
    """Two affine couplings with a turn between; the logarithm of the determinant comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.size(0))
        for net in self.nets:
            a, b = x.chunk(2, dim=1)
            s, t = net(a).chunk(2, dim=1)
            s = torch.tanh(s)
            total = total + s.sum(dim=1)
            x = torch.cat([a, b * s.exp() + t], dim=1).flip(1)
        return x, total


class KerasCoupling(keras.Model):
    def __init__(self, *, clipped: bool = True, turned: bool = True) -> None:
        super().__init__()
        self.clipped, self.turned = clipped, turned
        self.wide = [K.Dense(8, activation="relu", name=f"wide_{i}") for i in range(2)]
        self.scale = [K.Dense(3, activation="tanh" if clipped else None, name=f"scale_{i}") for i in range(2)]
        self.shift = [K.Dense(3, name=f"shift_{i}") for i in range(2)]

    def call(self, inputs: Any) -> Any:
        x, total = inputs, 0.0
        for i in range(2):
            a, b = x[:, :3], x[:, 3:]
            h = self.wide[i](a)
            s = self.scale[i](h)
            x = tf.concat([a, b * tf.exp(s) + self.shift[i](h)], -1)
            x = tf.reverse(x, [-1]) if self.turned else tf.concat([x[:, 3:], x[:, :3]], -1)
            total += tf.reduce_sum(s, -1)
        return x, total


def first_rows(value: Any) -> Any:
    return value[:3].T


def last_rows(value: Any) -> Any:
    return value[3:].T


COUPLING = Pair(
    "couplings", "codes", Coupling, KerasCoupling, draws(floats(4, 6)),
    several(dense, "nets.0.0 wide_0", "nets.1.0 wide_1") | {end: step for i in range(2) for kind in ("weight kernel", "bias bias")
    for name, change in (("scale", first_rows), ("shift", last_rows)) for end, step in moved(
        f"nets.{i}.2.{kind.split()[0]}", f"{name}_{i}/{kind.split()[1]}", change).items()},
)  # fmt: skip


class Glow(nn.Module):
    """Squeeze, a scale and shift for each channel, an invertible matrix of one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale, self.shift = (
            nn.Parameter(torch.zeros(1, 8, 1, 1)),
            nn.Parameter(torch.zeros(1, 8, 1, 1)),
        )
        self.matrix = nn.Parameter(torch.zeros(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 8, h // 2, w // 2)
        x = (x + self.shift) * torch.exp(self.log_scale)
        return F.conv2d(x, self.matrix.unsqueeze(-1).unsqueeze(-1))


class KerasGlow(keras.Model):
    def __init__(self, *, first: bool = True) -> None:
        super().__init__()
        self.first = first
        self.bias, self.logs = (self.add_weight(shape=(8,), name=name) for name in ("bias", "logs"))
        self.mix = self.add_weight(shape=(8, 8), name="mix")

    def call(self, inputs: Any) -> Any:
        x = tf.nn.space_to_depth(inputs, 2)
        x = (x + self.bias) * tf.exp(self.logs) if self.first else x * tf.exp(self.logs) + self.bias
        return tf.tensordot(x, self.mix, [[-1], [0]])


def squeezed(value: Any) -> Any:
    """Channels are counted ``[2, 2, 2]``: old channels first there, last here."""
    return value.reshape(2, 4, -1).swapaxes(0, 1).reshape(8, -1)


GLOW = Pair(
    "invertible matrix", "codes", Glow, KerasGlow, draws(floats(2, 2, 4, 6)),
    moved("log_scale", "logs", lambda value: squeezed(value).ravel()) | moved("shift", "bias", lambda value: squeezed(value).ravel())
    | moved("matrix", "mix", lambda value: squeezed(value.T)), inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


class Capsules(nn.Module):
    """Primary capsules from a convolution, three rounds of routing; lengths come out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.W = nn.Conv2d(1, 8, 3, stride=2), nn.Parameter(torch.zeros(3, 18, 5, 4))

    @staticmethod
    def squash(x: Tensor) -> Tensor:
        norm = (x**2).sum(dim=-1, keepdim=True)
        return norm / (1 + norm) * x / (torch.sqrt(norm) + 1e-8)

    def forward(self, x: Tensor) -> Tensor:
        u = self.conv(x)
        u = self.squash(u.view(u.size(0), 2, 4, 9).permute(0, 1, 3, 2).reshape(-1, 18, 4))
        hat = torch.matmul(self.W, u[:, None, :, :, None]).squeeze(-1)
        b = torch.zeros(*hat.shape[:3], 1)
        for i in range(3):
            v = self.squash((b.softmax(dim=1) * hat).sum(dim=2, keepdim=True))
            if i < 2:
                b = b + (hat * v).sum(-1, keepdim=True)
        return v.squeeze(2).norm(dim=-1)


class KerasCapsules(keras.Model):
    def __init__(self, *, rounds: int = 3, axis: int = -1) -> None:
        super().__init__()
        self.rounds, self.axis = rounds, axis
        self.conv = K.Conv2D(8, 3, 2, name="primary")
        self.w = self.add_weight(shape=(18, 3, 4, 5), name="routes")

    @staticmethod
    def squash(x: Any) -> Any:
        square = tf.reduce_sum(tf.square(x), -1, keepdims=True)
        return x * (square / (1 + square) / tf.sqrt(square + 1e-12))

    def call(self, inputs: Any) -> Any:
        u = self.squash(tf.reshape(self.conv(inputs), (-1, 18, 4)))
        hat = tf.einsum("bni,njio->bnjo", u, self.w)
        b = tf.zeros_like(hat[..., 0])
        for i in range(self.rounds):
            v = self.squash(tf.einsum("bnj,bnjo->bjo", tf.nn.softmax(b, self.axis), hat))
            if i < self.rounds - 1:
                b += tf.einsum("bnjo,bjo->bnj", hat, v)
        return tf.norm(v, axis=-1)


def routes(value: Any) -> Any:
    """Capsules are counted ``[2, 9 places]`` there, ``[9 places, 2]`` here."""
    return value.reshape(3, 2, 9, 5, 4).transpose(2, 1, 0, 4, 3).reshape(18, 3, 4, 5)


CAPSULES = Pair(
    "capsules", "codes", Capsules, KerasCapsules, draws(floats(2, 1, 8, 8)),
    conv("conv", "primary") | moved("W", "routes", routes), inputs={0: IMAGE},
)  # fmt: skip


class Codes(NamedTuple):
    mean: Tensor
    log_variance: Tensor
    image: Tensor


class Vae(nn.Module):
    """In evaluation the mean is decoded; a named tuple comes out; the variance is clamped in two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten())
        self.mu, self.lv, self.dec = nn.Linear(4 * 4 * 3, 3), nn.Linear(4 * 4 * 3, 3), nn.Linear(3, 4 * 4 * 3)
        self.out = nn.ConvTranspose2d(4, 1, 3, 2, 1, output_padding=1)

    def forward(self, x: Tensor) -> Codes:
        h = self.enc(x)
        mean, log_variance = self.mu(h), self.lv(h).clamp(min=-2.0).clamp(max=0.5)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        return Codes(mean, log_variance, torch.sigmoid(self.out(F.relu(self.dec(z)).unflatten(1, (4, 4, 3)))))


class KerasVae(keras.Model):
    def __init__(self, *, low: float = -2.0, activation: str = "relu") -> None:
        super().__init__()
        self.low = low
        self.conv, self.flat = K.Conv2D(4, 3, 2, activation="relu", name="conv"), K.Flatten()
        self.pad, self.cut = K.ZeroPadding2D(1), K.Cropping2D(((1, 0), (1, 0)))
        self.heads = [K.Dense(3, name=name) for name in ("mean", "log_variance")]
        self.dec, self.shape_ = K.Dense(48, activation=activation, name="dec"), K.Reshape((4, 3, 4))
        self.out = K.Conv2DTranspose(1, 3, 2, name="out")

    def call(self, inputs: Any, *, training: bool = False) -> Any:
        h = self.flat(self.conv(self.pad(inputs)))
        mean, log_variance = self.heads[0](h), tf.clip_by_value(self.heads[1](h), self.low, 0.5)
        z = mean + tf.random.normal(tf.shape(mean)) * tf.exp(log_variance / 2) if training else mean
        return mean, log_variance, tf.sigmoid(self.cut(self.out(self.shape_(self.dec(z)))))


def places_first(value: Any) -> Any:
    """Rows ``[4, 4, 3]`` as ``[4, 3, 4]``."""
    apart = value.reshape(4, 4, 3, -1).transpose(1, 2, 0, 3).reshape(48, -1)
    return apart.T if value.ndim > 1 else apart.ravel()


VAE = Pair(
    "variational, the mean", "codes", Vae, KerasVae, draws(uniform(0, 1, 2, 1, 8, 6)),
    several(conv, "enc.0 conv", "out out") | flattened("mu", "mean", 4, 4, 3) | flattened("lv", "log_variance", 4, 4, 3)
    | moved("dec.weight", "dec/kernel", places_first) | moved("dec.bias", "dec/bias", places_first),
    inputs={0: IMAGE}, outputs={2: IMAGE},
)  # fmt: skip


class Tied(nn.Module):
    """The decoder's weights are the encoder's, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.zeros(6, 9)), nn.Parameter(torch.zeros(3, 6))
        self.b = nn.ParameterList(nn.Parameter(torch.zeros(n)) for n in (6, 3, 6, 9))

    def forward(self, x: Tensor) -> Tensor:
        z = F.selu(F.linear(F.selu(F.linear(x, self.w1, self.b[0])), self.w2, self.b[1]))
        return F.linear(F.selu(F.linear(z, self.w2.t(), self.b[2])), self.w1.t(), self.b[3])


class Backwards(K.Layer):
    def __init__(self, of: Any, activation: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.of, self.activate = of, keras.activations.get(activation)

    def build(self, _: Any) -> None:
        self.bias = self.add_weight(shape=(self.of.kernel.shape[0],), initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        return self.activate(tf.matmul(x, self.of.kernel, transpose_b=True) + self.bias)


def tied_keras(*, activation: str = "selu") -> Any:
    one, two = K.Dense(6, activation, name="one"), K.Dense(3, activation, name="two")
    return keras.Sequential(
        [keras.Input((9,)), one, two, Backwards(two, activation, name="three"), Backwards(one, name="four")]
    )


TIED = Pair(
    "tied autoencoder", "codes", Tied, tied_keras, draws(floats(4, 9)),
    moved("w1", "one/kernel", np.transpose) | moved("w2", "two/kernel", np.transpose) | same("b.0", "one/bias")
    | same("b.1", "two/bias") | same("b.2", "three/bias") | same("b.3", "four/bias"),
)  # fmt: skip


class Radial(nn.Module):
    """Distances to centres, a width for each; positive weights by softplus; classes by distance to prototypes."""

    def __init__(self) -> None:
        super().__init__()
        self.centres, self.log_width = nn.Parameter(torch.zeros(6, 4)), nn.Parameter(torch.zeros(6))
        self.raw, self.prototypes = nn.Parameter(torch.zeros(3, 6)), nn.Parameter(torch.zeros(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        phi = torch.exp(-torch.cdist(x, self.centres).square() * self.log_width.exp())
        y = F.linear(phi, F.softplus(self.raw))
        return -(y.unsqueeze(1) - self.prototypes).pow(2).sum(-1)


class KerasRadial(keras.Model):
    """The square of a difference is spelled out."""

    def __init__(self, *, power: float = 2.0) -> None:
        super().__init__()
        self.power = power
        self.mu, self.beta = (
            self.add_weight(shape=(4, 6), name="mu"),
            self.add_weight(shape=(6,), name="beta"),
        )
        self.positive, self.ideal = (
            self.add_weight(shape=(6, 3), name="positive"),
            self.add_weight(shape=(3, 2), name="ideal"),
        )

    def call(self, x: Any) -> Any:
        square = (
            tf.reduce_sum(x**2, 1, keepdims=True) - 2 * tf.matmul(x, self.mu) + tf.reduce_sum(self.mu**2, 0)
        )
        y = tf.exp(-tf.exp(self.beta) * square) @ tf.math.log1p(tf.exp(self.positive))
        return -tf.reduce_sum(tf.abs(y[..., None] - self.ideal) ** self.power, axis=1)


RADIAL = Pair(
    "radial basis, prototypes", "codes", Radial, KerasRadial, draws(floats(4, 4)),
    moved("centres", "mu", np.transpose) | same("log_width", "beta") | moved("raw", "positive", np.transpose)
    | moved("prototypes", "ideal", np.transpose),
)  # fmt: skip


class Siamese(nn.Module):
    """Two texts of numbers through one network; the exponential of the negative distance."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.bn, self.fc = (
            nn.LSTM(3, 5, batch_first=True),
            nn.BatchNorm1d(5, affine=True),
            nn.Linear(5, 4),
        )

    def encode(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.rnn(x)[0][:, -1]))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.exp(-torch.norm(self.encode(left) - self.encode(right), p=1, dim=1))


def siamese_keras(*, shared: bool = True, power: int = 1) -> Any:
    left, right = keras.Input((6, 3)), keras.Input((6, 3))

    def encoder() -> list[Any]:
        return [K.LSTM(5), K.BatchNormalization(epsilon=1e-5), K.Dense(4)]

    one = encoder()
    two = one if shared else encoder()
    x, y = left, right
    for a, b in zip(one, two, strict=True):
        x, y = a(x), b(y)
    distance = ops.sum(ops.abs(x - y) ** power, axis=1)
    return keras.Model([left, right], ops.exp(ops.negative(distance)))


SIAMESE = Pair(
    "siamese, one network", "codes", Siamese, siamese_keras, draws(floats(3, 6, 3), floats(3, 6, 3)),
    lstm("rnn", "lstm/lstm_cell") | batch_norm("bn", "batch_normalization") | dense("fc", "dense"),
)  # fmt: skip


class Quantised(nn.Module):
    """The nearest of eight codes takes the place of each vector."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.codes, self.dec = (
            nn.Conv1d(2, 3, 3, padding=1),
            nn.Embedding(8, 3),
            nn.Conv1d(3, 2, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        z = self.enc(x).permute(0, 2, 1)
        near = torch.cdist(z, self.codes.weight.expand(z.size(0), -1, -1)).argmin(-1)
        q = z + (self.codes(near) - z).detach()
        return self.dec(q.permute(0, 2, 1))


class KerasQuantised(keras.Model):
    def __init__(self, *, best: Any = tf.argmax) -> None:
        super().__init__()
        self.best = best
        self.enc, self.dec = (
            K.Conv1D(3, 3, padding="same", name="enc"),
            K.Conv1D(2, 3, padding="same", name="dec"),
        )
        self.codes = self.add_weight(shape=(3, 8), name="codes")

    def call(self, inputs: Any) -> Any:
        z = self.enc(inputs)
        near = 2 * tf.matmul(z, self.codes) - tf.reduce_sum(self.codes**2, 0)
        return self.dec(tf.matmul(tf.one_hot(self.best(near, -1), 8), self.codes, transpose_b=True))


QUANTISED = Pair(
    "nearest code", "codes", Quantised, KerasQuantised, draws(floats(2, 2, 6)),
    several(conv, "enc enc", "dec dec") | moved("codes.weight", "codes", np.transpose), inputs={0: SERIES}, outputs={0: SERIES},
)  # fmt: skip


PAIRS = (
    COUPLING, GLOW, CAPSULES, VAE, TIED, RADIAL, SIAMESE, QUANTISED,
    COUPLING.alike("scale not clipped", {"Tanh", "missing", "activation"}, keras=lambda: KerasCoupling(clipped=False)),
    COUPLING.alike("halves exchanged, not turned", {"flip", "reverse", "Concat", "Slice", "order"}, keras=lambda: KerasCoupling(turned=False)),
    GLOW.alike("scale first", {"order", "Mul", "Add"}, keras=lambda: KerasGlow(first=False)),
    CAPSULES.alike("two rounds", {"missing", "Softmax"}, keras=lambda: KerasCapsules(rounds=2)),
    CAPSULES.alike("routing over capsules below", {"axis"}, keras=lambda: KerasCapsules(axis=1)),
    VAE.alike("lower end of the clamp", {"Clip", "min", "constant"}, keras=lambda: KerasVae(low=-0.2)),
    TIED.alike("activation", {"Selu", "Elu", "activation"}, keras=lambda: tied_keras(activation="elu")),
    RADIAL.alike("power", {"Pow", "Abs", "Mul", "constant"}, keras=lambda: KerasRadial(power=1.0)),
    SIAMESE.alike("two networks", {"shared", "tied", "twice"}, keras=lambda: siamese_keras(shared=False)),
    SIAMESE.alike("square of the difference", {"Pow", "Abs", "Mul", "constant"}, keras=lambda: siamese_keras(power=2)),
    QUANTISED.alike("farthest code", {"ArgMin", "ArgMax", "argm"}, keras=lambda: KerasQuantised(best=tf.argmin)),
)  # fmt: skip
