"""Series: forecasts by blocks, mixers, patches; causal and dilated convolutions; speech."""

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

from tests.networks.textbook.pair import IMAGE, SERIES, Pair, draws, floats, ids
from tests.networks.textbook.truth import (
    attention,
    batch_norm,
    conv,
    dense,
    depthwise,
    embedding,
    from_heads,
    gru,
    heads,
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


class Temporal(nn.Module):
    """Residual blocks of causal convolutions: padded on both sides, the end chomped off."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(w, 6, 3, padding=2 * d, dilation=d) for w, d in ((C, 1), (6, 2), (6, 4))
        )
        self.down, self.fc = nn.Conv1d(C, 6, 1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.convs:
            y = F.relu(layer(x)[..., : -layer.padding[0]])
            x = F.relu(y + (x if x.size(1) == 6 else self.down(x)))
        return self.fc(x[:, :, -1])


def temporal_keras(*, padding: str = "causal", rates: tuple[int, ...] = (1, 2, 4)) -> Any:
    series = x = keras.Input((T, C))
    for i, rate in enumerate(rates):
        y = K.Conv1D(6, 3, padding=padding, dilation_rate=rate, activation="relu", name=f"causal_{i}")(x)
        x = K.ReLU()(K.Add()([y, x if i else K.Conv1D(6, 1, name="match")(x)]))
    return keras.Model(series, K.Dense(2, name="fc")(x[:, T - 1]))


TEMPORAL = Pair(
    "temporal convolutions", "forecast", Temporal, temporal_keras, draws(floats(2, C, T)),
    several(conv, *(f"convs.{i} causal_{i}" for i in range(3)), "down match") | dense("fc", "fc"), inputs={0: SERIES},
)  # fmt: skip


class WaveNet(nn.Module):
    """Gated units with two taps, residual and skip; one convolution for filter and gate; ids in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(16, 6)
        self.dilated = nn.ModuleList(nn.Conv1d(6, 12, 2, dilation=2**i) for i in range(3))
        self.res, self.skip = (nn.ModuleList(nn.Conv1d(6, 6, 1) for _ in range(number)) for number in (2, 3))
        self.end1, self.end2 = nn.Conv1d(6, 8, 1), nn.Conv1d(8, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.emb(x).transpose(1, 2), 0
        for i, dilated in enumerate(self.dilated):
            a, b = dilated(F.pad(x, (2**i, 0))).chunk(2, 1)
            z = torch.tanh(a) * torch.sigmoid(b)
            total = total + self.skip[i](z)
            if i < 2:
                x = x + self.res[i](z)
        return self.end2(F.relu(self.end1(F.relu(total))))


class KerasWaveNet(keras.Model):
    def __init__(self, *, gate: str = "sigmoid", residual: bool = True) -> None:
        super().__init__()
        self.residual, self.table = residual, K.Embedding(16, 6, name="table")
        self.filters, self.gates = (
            [
                K.Conv1D(6, 2, padding="causal", dilation_rate=2**i, activation=f, name=f"{n}_{i}")
                for i in range(3)
            ]
            for n, f in (("filter", "tanh"), ("gate", gate))
        )
        self.keep = [K.Dense(6, name=f"keep_{i}") for i in range(2)]
        self.out = [K.Dense(6, name=f"skip_{i}") for i in range(3)]
        self.ends = [K.Dense(8, activation="relu", name="end_0"), K.Dense(16, name="end_1")]

    def call(self, inputs: Any) -> Any:
        x, skips = self.table(inputs), []
        for open_, gate, keep, out in zip(
            self.filters, self.gates, [*self.keep, None], self.out, strict=True
        ):
            z = open_(x) * gate(x)
            skips.append(out(z))
            if keep is not None:
                x = x + keep(z) if self.residual else keep(z)
        return self.ends[1](self.ends[0](tf.nn.relu(tf.add_n(skips))))


def half_kernel(which: int) -> Any:
    return lambda value: (
        np.split(value, 2)[which].transpose(2, 1, 0) if value.ndim > 1 else np.split(value, 2)[which]
    )


def without_time(value: Any) -> Any:
    return value[:, :, 0].T


def pixel_dense(name: str, path: str) -> Any:
    return moved(f"{name}.weight", f"{path}/kernel", without_time) | same(f"{name}.bias", f"{path}/bias")


WAVE_NET = Pair(
    "WaveNet", "forecast", WaveNet, KerasWaveNet, draws(ids(16, 2, 10)),
    embedding("emb", "table") | several(pixel_dense, "end1 end_0", "end2 end_1")
    | several(pixel_dense, "res.0 keep_0", "res.1 keep_1", *(f"skip.{i} skip_{i}" for i in range(3)))
    | {end: step for i in range(3) for which, name in enumerate(("filter", "gate")) for kind in ("kernel", "bias")
       for end, step in moved(f"dilated.{i}.{'weight' if kind == 'kernel' else kind}", f"{name}_{i}/{kind}",
                              half_kernel(which)).items()},
    outputs={0: SERIES},
)  # fmt: skip


class Conformer(nn.Module):
    """Half of a feed forward, attention, the convolution with a gate, half of a feed forward, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.ln = nn.ModuleList(nn.LayerNorm(8) for _ in range(5))
        self.ff1, self.ff2 = (
            nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Dropout(0.1), nn.Linear(16, 8)) for _ in range(2)
        )
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.pw1, self.dw, self.bn, self.pw2 = (
            nn.Conv1d(8, 16, 1),
            nn.Conv1d(8, 8, 5, padding=2, groups=8),
            nn.BatchNorm1d(8),
            nn.Conv1d(8, 8, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.ff1(self.ln[0](x))
        y = self.ln[1](x)
        q, k, v = (f(y).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
        y = F.glu(self.pw1(self.ln[2](x).transpose(1, 2)), dim=1)
        x = x + self.pw2(F.silu(self.bn(self.dw(y)))).transpose(1, 2)
        return self.ln[4](x + 0.5 * self.ff2(self.ln[3](x)))


def conformer_keras(*, half_step: float = 0.5, kernel_side: str = "same") -> Any:
    x = speech = keras.Input((T, 8))
    norms = [K.LayerNormalization(epsilon=1e-5, name=f"ln_{i}") for i in range(5)]

    def feed(y: Any, name: str) -> Any:
        y = K.Dense(16, "swish", name=f"{name}_up")(y)
        return K.Dense(8, name=f"{name}_down")(K.Dropout(0.1)(y)) * half_step

    x = K.Add()([x, feed(norms[0](x), "first")])
    y = norms[1](x)
    x = K.Add()([x, K.MultiHeadAttention(2, 4, name="mha")(y, y)])
    y = K.Conv1D(16, 1, name="wide")(norms[2](x))
    y = K.Multiply()([y[..., :8], K.Activation("sigmoid")(y[..., 8:])])
    if kernel_side == "same":
        y = K.DepthwiseConv1D(5, padding="same", name="deep")(y)
    else:
        y = K.DepthwiseConv1D(5, name="deep")(K.ZeroPadding1D((4, 0))(y))
    y = K.Activation("swish")(K.BatchNormalization(epsilon=1e-5, name="bn")(y))
    x = K.Add()([x, K.Conv1D(8, 1, name="narrow")(y)])
    return keras.Model(speech, norms[4](K.Add()([x, feed(norms[3](x), "second")])))


CONFORMER = Pair(
    "Conformer", "forecast", Conformer, conformer_keras, draws(floats(2, T, 8)),
    several(norm, *(f"ln.{i} ln_{i}" for i in range(5))) | several(conv, "pw1 wide", "pw2 narrow") | depthwise("dw", "deep")
    | several(dense, "ff1.0 first_up", "ff1.3 first_down", "ff2.0 second_up", "ff2.3 second_down") | batch_norm("bn", "bn")
    | several(heads, "q mha/query", "k mha/key", "v mha/value", number=2) | from_heads("o", "mha/attention_output", 2),
)  # fmt: skip


class DeepSpeech(nn.Module):
    """A convolution over time and pitch, a GRU both ways whose sum is kept, a clipped rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, (5, 3), (2, 1), (2, 1)), nn.BatchNorm2d(4)
        self.rnn, self.fc = nn.GRU(4 * 5, 6, batch_first=True, bidirectional=True), nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh(self.bn(self.conv(x)), 0, 20)
        b, c, t, f = x.size()
        x = x.transpose(1, 2).contiguous().view(b, t, c * f)
        x, _ = self.rnn(x)
        x = x.view(b, t, 2, -1).sum(2)
        return F.log_softmax(self.fc(x), dim=-1)


def deep_speech_keras(*, merge: str = "sum", ceiling: float = 20.0) -> Any:
    sound = keras.Input((T, 5, 1))
    x = K.Conv2D(4, (5, 3), (2, 1), name="conv")(K.ZeroPadding2D((2, 1))(sound))
    x = ops.minimum(ops.relu(K.BatchNormalization(epsilon=1e-5, name="bn")(x)), ceiling)
    x = K.TimeDistributed(K.Flatten())(x)
    x = K.Bidirectional(K.GRU(6, return_sequences=True, name="gru"), merge_mode=merge, name="both")(x)
    return keras.Model(sound, ops.log_softmax(K.Dense(7, name="letters")(x)))


def pitch_first(value: Any) -> Any:
    """Features ``[4, 5]`` there, ``[5, 4]`` here; the gates in the other order."""
    gates = value.reshape(3, 6, -1)[[1, 0, 2]].reshape(18, -1)
    return gates.reshape(18, 4, 5).swapaxes(1, 2).reshape(18, 20).T


SPEECH = Pair(
    "Deep Speech", "forecast", DeepSpeech, deep_speech_keras, draws(floats(2, 1, T, 5)),
    conv("conv", "conv") | batch_norm("bn", "bn") | dense("fc", "letters")
    | gru("rnn", "both/forward_gru/gru_cell") | gru("rnn", "both/backward_gru/gru_cell", "_l0_reverse")
    | moved("rnn.weight_ih_l0", "both/forward_gru/gru_cell/kernel", pitch_first)
    | moved("rnn.weight_ih_l0_reverse", "both/backward_gru/gru_cell/kernel", pitch_first),
    inputs={0: IMAGE},
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
        return self.mu(h).squeeze(-1), F.softplus(self.sigma(h)).squeeze(-1) + 1e-3


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
    N_BEATS, DLINEAR, MIXER, PATCH, DISTILLED, TEMPORAL, WAVE_NET, CONFORMER, SPEECH, LST, SPREAD,
    N_BEATS.alike("nothing taken away", {"Sub", "residual", "missing"}, keras=lambda: n_beats_keras(subtracted=False)),
    N_BEATS.alike("a cubic trend", {"constant", "powers"}, keras=lambda: n_beats_keras(degree=3)),
    DLINEAR.alike("ends reflected", {"pad", "reflect", "Gather", "constant"}, keras=lambda: KerasDLinear(edges="reflect")),
    DLINEAR.alike("unbiased variance", {"unbiased", "variance", "constant", "correction"}, keras=lambda: KerasDLinear(unbiased=True)),
    MIXER.alike("epsilon", {"epsilon"}, keras=lambda: ts_mixer_keras(epsilon=1e-1)),
    PATCH.alike("epsilon", {"epsilon"}, keras=lambda: KerasPatchTst(epsilon=1e-1)),
    DISTILLED.alike("zeros for a circle", {"pad", "circular", "Concat", "Slice"}, keras=lambda: distilled_keras(circular=False)),
    DISTILLED.alike("ELU's alpha", {"alpha"}, keras=lambda: distilled_keras(alpha=0.3)),
    TEMPORAL.alike("same for causal", {"pad"}, keras=lambda: temporal_keras(padding="same")),
    TEMPORAL.alike("dilation", {"dilation"}, keras=lambda: temporal_keras(rates=(1, 2, 3))),
    WAVE_NET.alike("gate", {"Sigmoid", "HardSigmoid"}, keras=lambda: KerasWaveNet(gate="hard_sigmoid")),
    WAVE_NET.alike("no residual", {"Add", "residual"}, keras=lambda: KerasWaveNet(residual=False)),
    CONFORMER.alike("whole steps", {"constant", "Mul", "missing"}, keras=lambda: conformer_keras(half_step=1.0)),
    CONFORMER.alike("causal in the middle", {"pad"}, keras=lambda: conformer_keras(kernel_side="causal")),
    SPEECH.alike("average of both", {"merge", "Mul", "Div", "constant"}, keras=lambda: deep_speech_keras(merge="ave")),
    SPEECH.alike("ceiling", {"Clip", "Min", "constant", "max"}, keras=lambda: deep_speech_keras(ceiling=0.5)),
    LST.alike("one step earlier", {"Slice", "start", "index"}, keras=lambda: KerasLstNet(last=6)),
    SPREAD.alike("exponential for softplus", {"Exp", "Softplus"}, keras=lambda: parameters_keras(positive=ops.exp)),
)  # fmt: skip
