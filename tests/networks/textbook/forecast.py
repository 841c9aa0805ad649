"""Series: forecasts by blocks, mixers, patches, moving averages."""

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
from tests.networks.textbook.truth import (
    attention,
    batch_norm,
    conv,
    dense,
    embedding,
    gru,
    lstm,
    moved,
    norm,
    same,
    several,
)

T, C = 12, 3


class NBeats(nn.Module):
    """Two blocks, each takes away what it explains; one learns its basis, one has a trend."""

    def __init__(self) -> None:
        super().__init__()
        self.f1, self.b1, self.p1 = (
            nn.Linear(T, 10),
            nn.Linear(10, T, bias=False),
            nn.Linear(10, 4, bias=False),
        )
        self.f2, self.theta = nn.Linear(T, 10), nn.Linear(10, 6)
        grid = torch.linspace(0, 1, T + 4)
        self.register_buffer("powers", torch.stack([grid**i for i in range(3)]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.f1(x))
        x, forecast = x - self.b1(h), self.p1(h)
        back, ahead = self.theta(F.relu(self.f2(x))).split(3, dim=-1)
        residual = x - back @ self.powers[:, :T]
        return torch.cat([residual, forecast + ahead @ self.powers[:, T:]], dim=1)


def n_beats_keras(*, subtracted: bool = True, degree: int = 2) -> Any:
    series = keras.Input((T,))
    powers = np.vander(np.linspace(0, 1, T + 4), 3, increasing=True).T.astype("float32")
    powers[2] = powers[1] ** degree
    h = K.Dense(10, "relu", name="one")(series)
    ahead = K.Dense(4, use_bias=False, name="ahead")(h)
    rest = K.Subtract()([series, K.Dense(T, use_bias=False, name="behind")(h)]) if subtracted else series
    theta = K.Dense(6, name="theta")(K.Dense(10, "relu", name="two")(rest))
    trend_back, trend = ops.matmul(theta[:, :3], powers[:, :T]), ops.matmul(theta[:, 3:], powers[:, T:])
    return keras.Model(series, K.Concatenate()([K.Subtract()([rest, trend_back]), K.Add()([trend, ahead])]))


N_BEATS = Pair(
    "N-BEATS", "forecast", NBeats, n_beats_keras, draws(floats(3, T)),
    several(dense, "f1 one", "f2 two", "theta theta") | several(dense, "b1 behind", "p1 ahead", bias=False),
)  # fmt: skip


class DLinear(nn.Module):
    """A moving average with its ends repeated, a linear layer for each part; normalised by instance and back."""

    def __init__(self) -> None:
        super().__init__()
        self.trend, self.season = nn.Linear(T, 4), nn.Linear(T, 4)
        self.scale, self.shift = nn.Parameter(torch.ones(C)), nn.Parameter(torch.zeros(C))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True).detach()
        std = torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5).detach()
        x = (x - mean) / std * self.scale + self.shift
        wide = torch.cat([x[:, :1].repeat(1, 2, 1), x, x[:, -1:].repeat(1, 2, 1)], dim=1)
        smooth = F.avg_pool1d(wide.permute(0, 2, 1), kernel_size=5, stride=1)
        y = self.trend(smooth) + self.season(x.permute(0, 2, 1) - smooth)
        return (y.permute(0, 2, 1) - self.shift) / self.scale * std + mean


class KerasDLinear(keras.Model):
    def __init__(self, *, edges: str = "repeat", unbiased: bool = False) -> None:
        super().__init__()
        self.edges, self.unbiased = edges, unbiased
        self.gain, self.offset = (
            self.add_weight(shape=(C,), initializer=i, name=i) for i in ("ones", "zeros")
        )
        self.slow, self.fast = K.Dense(4, name="slow"), K.Dense(4, name="fast")
        self.pool = K.AveragePooling1D(5, 1)

    def call(self, x: Any) -> Any:
        mean, variance = tf.nn.moments(x, [1], keepdims=True)
        std = tf.sqrt(variance * (T / (T - 1) if self.unbiased else 1.0) + 1e-5)
        x = (x - mean) / std * self.gain + self.offset
        if self.edges == "repeat":
            wide = tf.gather(x, np.clip(np.arange(-2, T + 2), 0, T - 1), axis=1)
        else:
            wide = tf.pad(x, [[0, 0], [2, 2], [0, 0]], "REFLECT")
        smooth = self.pool(wide)
        y = self.slow(tf.transpose(smooth, (0, 2, 1))) + self.fast(tf.transpose(x - smooth, (0, 2, 1)))
        return (tf.transpose(y, (0, 2, 1)) - self.offset) / self.gain * std + mean


DLINEAR = Pair(
    "moving average, instance norm", "forecast", DLinear, KerasDLinear, draws(floats(3, T, C)),
    same("scale", "ones") | same("shift", "zeros") | several(dense, "trend slow", "season fast"),
)  # fmt: skip


class TsMixer(nn.Module):
    """Mixes times, then features; norms over both axes; the last layer along time."""

    def __init__(self) -> None:
        super().__init__()
        self.n1, self.time = nn.LayerNorm([T, C]), nn.Linear(T, T)
        self.n2, self.up, self.down, self.last = (
            nn.LayerNorm([T, C]),
            nn.Linear(C, 8),
            nn.Linear(8, C),
            nn.Linear(T, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + F.relu(self.time(self.n1(x).transpose(1, 2))).transpose(1, 2)
        x = x + self.down(F.relu(self.up(self.n2(x))))
        return self.last(x.mT).mT


def ts_mixer_keras(*, epsilon: float = 1e-5) -> Any:
    series = x = keras.Input((T, C))
    y = K.LayerNormalization(axis=(1, 2), epsilon=epsilon, name="n1")(x)
    x = x + K.EinsumDense("btc,ts->bsc", (T, C), bias_axes="s", activation="relu", name="time")(y)
    y = K.Dense(8, "relu", name="up")(K.LayerNormalization(axis=(1, 2), epsilon=epsilon, name="n2")(x))
    x = K.Add()([K.Dense(C, name="down")(y), x])
    return keras.Model(series, K.Permute((2, 1))(K.Dense(5, name="last")(K.Permute((2, 1))(x))))


def as_column(value: Any) -> Any:
    return value[:, None]


MIXER = Pair(
    "TSMixer", "forecast", TsMixer, ts_mixer_keras, draws(floats(3, T, C)),
    several(norm, "n1 n1", "n2 n2") | moved("time.weight", "time/kernel", np.transpose)
    | moved("time.bias", "time/bias", as_column) | several(dense, "up up", "down down", "last last"),
)  # fmt: skip


class PatchTst(nn.Module):
    """Patches that overlap, each channel for itself, batch norm in place of layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(4, 8), nn.Parameter(torch.zeros(5, 8))
        self.attn, self.bn = nn.MultiheadAttention(8, 2, batch_first=True), nn.BatchNorm1d(8)
        self.head = nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Tensor:
        b = x.size(0)
        x = x.permute(0, 2, 1).unfold(-1, 4, 2).reshape(b * C, 5, 4)
        x = self.embed(x) + self.place
        x = x + self.attn(x, x, x)[0]
        x = self.bn(x.transpose(1, 2))
        return self.head(x.reshape(b, C, -1)).permute(0, 2, 1)


class KerasPatchTst(keras.Model):
    def __init__(self, *, stride: int = 2, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.stride = stride
        self.embed, self.place = K.Dense(8, name="embed"), self.add_weight(shape=(1, 5, 8), name="place")
        self.attend, self.bn = (
            K.MultiHeadAttention(2, 4, name="attend"),
            K.BatchNormalization(epsilon=epsilon, name="bn"),
        )
        self.head = K.Dense(3, name="head")

    def call(self, inputs: Any) -> Any:
        index = np.arange(5)[:, None] * self.stride + np.arange(4)
        x = tf.gather(tf.transpose(inputs, (0, 2, 1)), index, axis=2)
        x = self.embed(tf.reshape(x, (-1, 5, 4))) + self.place
        x = self.bn(self.attend(x, x) + x)
        return tf.transpose(self.head(tf.reshape(x, (-1, C, 40))), (0, 2, 1))


def patches_first(value: Any) -> Any:
    """Features of the head: ``[8, 5]`` there, ``[5, 8]`` here."""
    return value.reshape(-1, 8, 5).swapaxes(1, 2).reshape(-1, 40).T


PATCH = Pair(
    "PatchTST", "forecast", PatchTst, KerasPatchTst, draws(floats(2, T, C)),
    dense("embed", "embed") | moved("place", "place", lambda value: value[None]) | attention("attn", "attend", 2)
    | batch_norm("bn", "bn") | moved("head.weight", "head/kernel", patches_first) | same("head.bias", "head/bias"),
)  # fmt: skip


class Distilled(nn.Module):
    """Informer: tokens by a circular convolution, time stamps by tables; halved between blocks of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Conv1d(C, 8, 3, padding=1, padding_mode="circular", bias=False)
        self.hour, self.day = nn.Embedding(24, 8), nn.Embedding(7, 8)
        self.attn, self.ln = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.conv, self.bn, self.out = nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x: Tensor, stamp: Tensor) -> Tensor:
        x = (
            self.token(x.permute(0, 2, 1)).transpose(1, 2)
            + self.hour(stamp[..., 0])
            + self.day(stamp[:, :, 1])
        )
        x = self.ln(x + self.attn(x, x, x, need_weights=False)[0])
        x = F.max_pool1d(F.elu(self.bn(self.conv(x.transpose(1, 2)))), 3, 2, 1)
        return self.out(x.transpose(1, 2))


def distilled_keras(*, circular: bool = True, alpha: float = 1.0) -> Any:
    series, stamp = keras.Input((T, C)), keras.Input((T, 2), dtype="int64")
    wide = (
        ops.concatenate([series[:, T - 1 :], series, series[:, :1]], axis=1)
        if circular
        else ops.pad(series, ((0, 0), (1, 1), (0, 0)))
    )
    x = K.Conv1D(8, 3, use_bias=False, name="token")(wide)
    x = K.Add()(
        [x, K.Embedding(7, 8, name="day")(stamp[..., 1]), K.Embedding(24, 8, name="hour")(stamp[..., 0])]
    )
    x = K.LayerNormalization(epsilon=1e-5, name="ln")(K.MultiHeadAttention(2, 4, name="mix")(x, x) + x)
    x = K.ELU(alpha=alpha)(
        K.BatchNormalization(epsilon=1e-5, name="bn")(K.Conv1D(8, 3, padding="same", name="conv")(x))
    )
    x = K.MaxPooling1D(3, 2)(ops.pad(x, ((0, 0), (1, 1), (0, 0)), constant_values=-1e9))
    return keras.Model([series, stamp], K.Dense(2, name="out")(x))


def stamps(rng: np.random.Generator) -> Any:
    return np.stack([ids(24, 2, T)(rng), ids(7, 2, T)(rng)], axis=-1)


DISTILLED = Pair(
    "Informer", "forecast", Distilled, distilled_keras, draws(floats(2, T, C), stamps),
    conv("token", "token", bias=False) | conv("conv", "conv") | several(embedding, "hour hour", "day day") | norm("ln", "ln")
    | batch_norm("bn", "bn") | attention("attn", "mix", 2) | dense("out", "out"),
)  # fmt: skip


class LstNet(nn.Module):
    """A convolution over all series, a GRU, every third state by a second GRU, a highway of the last values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru, self.skip = (
            nn.Conv2d(1, 6, (4, C)),
            nn.GRU(6, 5, batch_first=True),
            nn.GRU(6, 4, batch_first=True),
        )
        self.out, self.highway = nn.Linear(5 + 3 * 4, C), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        b = x.size(0)
        c = F.relu(self.conv(x.unsqueeze(1))).squeeze(3).transpose(1, 2)
        r = self.gru(c)[1].squeeze(0)
        s = c.view(b, 3, 3, 6).permute(0, 2, 1, 3).reshape(b * 3, 3, 6)
        s = self.skip(s)[1].view(b, 12)
        return self.out(torch.cat([r, s], 1)) + self.highway(x[:, -5:].permute(0, 2, 1)).squeeze(-1)


class KerasLstNet(keras.Model):
    def __init__(self, *, last: int = 5) -> None:
        super().__init__()
        self.low = T - last
        self.conv = K.Conv1D(6, 4, activation="relu", name="conv")
        self.gru, self.skip = K.GRU(5, name="gru"), K.GRU(4, name="skip")
        self.out, self.highway = K.Dense(C, name="out"), K.Dense(1, name="highway")

    def call(self, x: Any) -> Any:
        c = self.conv(x)
        each = [self.skip(c[:, i::3]) for i in range(3)]
        past = self.highway(tf.transpose(x[:, self.low : self.low + 5], (0, 2, 1)))
        return self.out(tf.concat([self.gru(c), *each], axis=-1)) + past[:, :, 0]


LST = Pair(
    "LSTNet", "forecast", LstNet, KerasLstNet, draws(floats(2, T, C)),
    moved("conv.weight", "conv/kernel", lambda value: value[:, 0].transpose(1, 2, 0)) | same("conv.bias", "conv/bias")
    | several(gru, "gru gru/gru_cell", "skip skip/gru_cell") | several(dense, "out out", "highway highway"),
)  # fmt: skip


class Parameters(nn.Module):
    """Three stacked LSTM layers give the parameters of a distribution: a mean and a positive spread."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.mu, self.sigma = (
            nn.LSTM(C + 2, 5, 3, batch_first=True),
            nn.Linear(15, 1),
            nn.Linear(15, 1),
        )
        self.series = nn.Embedding(6, 2)

    def forward(self, x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        who = self.series(which)[:, None].expand(-1, x.size(1), -1)
        _, (h, _) = self.rnn(torch.cat([x, who], -1))
        h = h.permute(1, 0, 2).flatten(1)
        return self.mu(h), F.softplus(self.sigma(h)) + 1e-3


def parameters_keras(*, positive: Any = ops.softplus) -> Any:
    series, which = keras.Input((T, C)), keras.Input((1,), dtype="int32")
    who = ops.repeat(K.Embedding(6, 2, name="who")(which), T, axis=1)
    x, found = K.Concatenate()([series, who]), []
    for i in range(3):
        x, h, _ = K.LSTM(5, return_sequences=True, return_state=True, name=f"lstm_{i}")(x)
        found.append(h)
    h = K.Concatenate()(found)
    return keras.Model(
        [series, which], [K.Dense(1, name="mean")(h), positive(K.Dense(1, name="spread")(h)) + 0.001]
    )


SPREAD = Pair(
    "mean and spread", "forecast", Parameters, parameters_keras, draws(floats(3, T, C), ids(6, 3)),
    {end: step for i in range(3) for end, step in lstm("rnn", f"lstm_{i}/lstm_cell", f"_l{i}").items()}
    | embedding("series", "who") | several(dense, "mu mean", "sigma spread"),
)  # fmt: skip

PAIRS = (
    N_BEATS, DLINEAR, MIXER, PATCH, DISTILLED, LST, SPREAD,
    N_BEATS.alike("nothing taken away", {"Sub", "residual", "missing"}, keras=lambda: n_beats_keras(subtracted=False)),
    N_BEATS.alike("a cubic trend", {"constant", "powers"}, keras=lambda: n_beats_keras(degree=3)),
    DLINEAR.alike("ends reflected", {"pad", "reflect", "Gather", "constant"}, keras=lambda: KerasDLinear(edges="reflect")),
    DLINEAR.alike("unbiased variance", {"unbiased", "variance", "constant", "correction"}, keras=lambda: KerasDLinear(unbiased=True)),
    MIXER.alike("epsilon", {"epsilon"}, keras=lambda: ts_mixer_keras(epsilon=1e-1)),
    PATCH.alike("epsilon", {"epsilon"}, keras=lambda: KerasPatchTst(epsilon=1e-1)),
    DISTILLED.alike("zeros for a circle", {"pad", "circular", "Concat", "Slice"}, keras=lambda: distilled_keras(circular=False)),
    DISTILLED.alike("ELU's alpha", {"alpha"}, keras=lambda: distilled_keras(alpha=0.3)),
    LST.alike("one step earlier", {"Slice", "start", "index"}, keras=lambda: KerasLstNet(last=6)),
    SPREAD.alike("exponential for softplus", {"Exp", "Softplus"}, keras=lambda: parameters_keras(positive=ops.exp)),
)  # fmt: skip
