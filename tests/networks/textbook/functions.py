"""Functions: waves, splines, arithmetic units, solvers, one block many times."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks.textbook.pair import Pair, draws, floats, uniform
from tests.networks.textbook.truth import dense, moved, norm, same, several


class Siren(nn.Module):
    """Sines of thirty times; coordinates as two scalars."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.out = nn.ModuleList([nn.Linear(2, 8), nn.Linear(8, 8)]), nn.Linear(8, 3)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        x = torch.stack([u, v], dim=-1)
        for layer in self.layers:
            x = torch.sin(3.0 * layer(x))
        return self.out(x)


def siren_keras(*, omega: float = 3.0, wave: Any = ops.sin) -> Any:
    u, v = keras.Input((1,)), keras.Input((1,))
    x = K.Concatenate()([u, v])
    for i in range(2):
        x = wave(K.Dense(8, name=f"wave_{i}")(x) * omega)
    return keras.Model([u, v], K.Dense(3, name="out")(x))


SIREN = Pair(
    "SIREN, scalars", "functions", Siren, siren_keras, draws(uniform(-1, 1, 4), uniform(-1, 1, 4)),
    several(dense, "layers.0 wave_0", "layers.1 wave_1", "out out"),
)  # fmt: skip


FREQUENCIES = np.random.default_rng(3).standard_normal((3, 5)).astype("float32")


class Fourier(nn.Module):
    """Fixed random frequencies, sines and cosines; a density and a colour, as in radiance fields."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("B", torch.from_numpy(FREQUENCIES.T.copy()))
        self.fc1, self.fc2 = nn.Linear(10, 12), nn.Linear(12 + 3, 12)
        self.sigma, self.rgb = nn.Linear(12, 1), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        angle = 2 * math.pi * F.linear(x, self.B)
        h = F.relu(self.fc1(torch.cat([angle.sin(), angle.cos()], -1)))
        h = F.relu(self.fc2(torch.cat([h, x], -1)))
        return F.softplus(self.sigma(h), beta=2.0).squeeze(-1), torch.sigmoid(self.rgb(h))


def fourier_keras(*, beta: float = 2.0, turns: float = 2.0) -> Any:
    x = keras.Input((3,))
    angle = ops.matmul(x, FREQUENCIES) * (turns * np.pi)
    h = K.Dense(12, "relu", name="first")(K.Concatenate()([ops.cos(angle), ops.sin(angle)]))
    h = K.Dense(12, "relu", name="second")(K.Concatenate()([x, h]))
    density = ops.softplus(K.Dense(1, name="density")(h) * beta) / beta
    return keras.Model(x, [density[:, 0], K.Dense(3, "sigmoid", name="colour")(h)])


FOURIER = Pair(
    "Fourier features", "functions", Fourier, fourier_keras, draws(uniform(-0.5, 0.5, 4, 3)),
    moved("fc1.weight", "first/kernel", lambda value: np.roll(value, 5, 1).T) | same("fc1.bias", "first/bias")
    | moved("fc2.weight", "second/kernel", lambda value: np.roll(value, 3, 1).T) | same("fc2.bias", "second/bias")
    | several(dense, "sigma density", "rgb colour"),
)  # fmt: skip


class Kan(nn.Module):
    """Each edge is a spline of hats on a grid and a share of SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.spline = nn.Parameter(torch.zeros(5, 3)), nn.Parameter(torch.zeros(5, 3, 7))
        self.register_buffer("grid", torch.linspace(-1.5, 1.5, 7), persistent=False)
        self.out = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        hats = F.relu(1 - (x.unsqueeze(-1) - self.grid).abs() / 0.5)
        y = F.linear(F.silu(x), self.base) + F.linear(hats.flatten(1), self.spline.flatten(1))
        return self.out(y)


class KerasKan(K.Layer):
    def __init__(self, *, width: float = 0.5, base: str = "silu") -> None:
        super().__init__(name="kan")
        self.width, self.silu = width, keras.activations.get(base)

    def build(self, _: Any) -> None:
        self.smooth = self.add_weight(shape=(3, 5), name="smooth")
        self.knots = self.add_weight(shape=(7, 3, 5), name="knots")

    def call(self, x: Any) -> Any:
        at = np.linspace(-1.5, 1.5, 7, dtype="float32")
        near = tf.maximum(0.0, 1.0 - tf.abs(x[:, None] - at[:, None]) * (1 / self.width))
        return tf.matmul(self.silu(x), self.smooth) + tf.einsum("bki,kio->bo", near, self.knots)


def kan_keras(**options: Any) -> Any:
    return keras.Sequential([keras.Input((3,)), KerasKan(**options), K.Dense(2, name="out")])


KAN = Pair(
    "splines on edges", "functions", Kan, kan_keras, draws(floats(5, 3)),
    moved("base", "kan/smooth", np.transpose) | moved("spline", "kan/knots", np.transpose) | dense("out", "out"),
)  # fmt: skip


class Nalu(nn.Module):
    """Arithmetic units: sums by clipped weights, products in logarithms, a gate between."""

    def __init__(self) -> None:
        super().__init__()
        self.W, self.M, self.G = (nn.Parameter(torch.zeros(4, 3)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        w = torch.tanh(self.W) * torch.sigmoid(self.M)
        a, m = F.linear(x, w), torch.exp(F.linear(torch.log(x.abs() + 1e-7), w))
        g = torch.sigmoid(F.linear(x, self.G))
        return g * a + (1 - g) * m


class KerasNalu(tf.Module):
    def __init__(self, *, epsilon: float = 1e-7, clipped: bool = True) -> None:
        super().__init__()
        self.epsilon, self.clipped = epsilon, clipped
        self.w_hat, self.m_hat, self.gate = (
            tf.Variable(tf.zeros((3, 4)), name=name) for name in ("w_hat", "m_hat", "gate")
        )

    def __call__(self, x: Any) -> Any:
        w = (
            tf.math.tanh(self.w_hat) * tf.sigmoid(self.m_hat)
            if self.clipped
            else self.w_hat * tf.sigmoid(self.m_hat)
        )
        product = tf.exp(tf.matmul(tf.math.log(tf.abs(x) + self.epsilon), w))
        share = tf.sigmoid(x @ self.gate)
        return product + share * (tf.matmul(x, w) - product)


NALU = Pair(
    "arithmetic units", "functions", Nalu, KerasNalu, draws(uniform(0.1, 3, 4, 3)),
    moved("W", "w_hat", np.transpose) | moved("M", "m_hat", np.transpose) | moved("G", "gate", np.transpose),
)  # fmt: skip


class Ode(nn.Module):
    """Four steps of Runge and Kutta; time is an input of the field."""

    def __init__(self) -> None:
        super().__init__()
        self.f1, self.f2, self.out = nn.Linear(5, 8), nn.Linear(8, 4), nn.Linear(4, 2)

    def field(self, t: float, y: Tensor) -> Tensor:
        return self.f2(torch.tanh(self.f1(torch.cat([y, torch.full_like(y[:, :1], t)], 1))))

    def forward(self, y: Tensor) -> Tensor:
        h = 0.25
        for i in range(4):
            t = i * h
            k1 = self.field(t, y)
            k2 = self.field(t + h / 2, y + h / 2 * k1)
            k3 = self.field(t + h / 2, y + h / 2 * k2)
            k4 = self.field(t + h, y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return self.out(y)


class KerasOde(keras.Model):
    """The time has a weight of its own."""

    def __init__(self, *, method: str = "rk4") -> None:
        super().__init__()
        self.method = method
        self.state, self.time = K.Dense(8, name="state"), self.add_weight(shape=(8,), name="time")
        self.back, self.read = K.Dense(4, name="back"), K.Dense(2, name="read")

    def field(self, t: float, y: Any) -> Any:
        return self.back(tf.tanh(self.state(y) + self.time * t))

    def call(self, inputs: Any) -> Any:
        y = inputs
        for t in (0.0, 0.25, 0.5, 0.75):
            k1 = self.field(t, y)
            if self.method == "euler":
                y = y + k1 / 4
                continue
            k2 = self.field(t + 0.125, y + k1 / 8)
            k3 = self.field(t + 0.125, y + k2 / 8)
            k4 = self.field(t + 0.25, y + k3 / 4)
            y = y + (k1 + k4) / 24 + (k2 + k3) / 12
        return self.read(y)


ODE = Pair(
    "neural differential equation", "functions", Ode, KerasOde, draws(floats(3, 4)),
    moved("f1.weight", "state/kernel", lambda value: value[:, :4].T) | same("f1.bias", "state/bias")
    | moved("f1.weight", "time", lambda value: value[:, 4]) | several(dense, "f2 back", "out read"),
)  # fmt: skip


class Looped(nn.Module):
    """One block ten times, as universal transformers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.up, self.down, self.norm = (
            nn.Linear(3, 6),
            nn.Linear(6, 12),
            nn.Linear(12, 6),
            nn.LayerNorm(6),
        )

    def forward(self, x: Tensor) -> Tensor:
        first = h = self.into(x)
        for _ in range(10):
            h = self.norm(first + self.down(F.gelu(self.up(5.0 * h))))
        return h


class KerasLooped(keras.Model):
    def __init__(self, *, approximate: bool = False, times: int = 10) -> None:
        super().__init__()
        self.approximate, self.times = approximate, times
        self.first, self.wide, self.narrow = (
            K.Dense(n, name=name) for n, name in ((6, "first"), (12, "wide"), (6, "narrow"))
        )
        self.norm = K.LayerNormalization(epsilon=1e-5, name="ln")

    def call(self, inputs: Any) -> Any:
        first = h = self.first(inputs)
        for _ in range(self.times):
            y = ops.gelu(self.wide(h * 5.0), approximate=self.approximate)
            h = self.norm(self.narrow(y) + first)
        return h


LOOPED = Pair(
    "one block ten times", "functions", Looped, KerasLooped, draws(floats(4, 3)),
    several(dense, "into first", "up wide", "down narrow") | norm("norm", "ln"),
)  # fmt: skip


PAIRS = (
    SIREN, FOURIER, KAN, NALU, ODE, LOOPED,
    SIREN.alike("frequency", {"constant", "Mul"}, keras=lambda: siren_keras(omega=2.0)),
    SIREN.alike("cosine", {"Sin", "Cos"}, keras=lambda: siren_keras(wave=ops.cos)),
    FOURIER.alike("beta of softplus", {"constant", "beta", "Softplus"}, keras=lambda: fourier_keras(beta=1.0)),
    FOURIER.alike("half the frequencies", {"constant", "Mul"}, keras=lambda: fourier_keras(turns=1.0)),
    KAN.alike("width of the hats", {"constant", "Div", "Mul"}, keras=lambda: kan_keras(width=0.7)),
    NALU.alike("weights not clipped", {"Tanh", "missing"}, keras=lambda: KerasNalu(clipped=False)),
    NALU.alike("epsilon", {"constant", "epsilon"}, keras=lambda: KerasNalu(epsilon=0.3)),
    LOOPED.alike("tanh for erf", {"approximate", "tanh", "Gelu"}, keras=lambda: KerasLooped(approximate=True)),
    LOOPED.alike("nine times", {"missing", "Add", "LayerNorm"}, keras=lambda: KerasLooped(times=9)),
    ODE.alike("Euler's method", {"missing", "Add", "constant", "Mul"}, keras=lambda: KerasOde(method="euler")),
)  # fmt: skip
