"""Sound: causal and dilated convolutions, gates, both directions."""

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
    batch_norm,
    conv,
    dense,
    depthwise,
    embedding,
    from_heads,
    gru,
    heads,
    moved,
    norm,
    same,
    several,
)

T, C = 12, 3


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
    "temporal convolutions", "speech", Temporal, temporal_keras, draws(floats(2, C, T)),
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
    "WaveNet", "speech", WaveNet, KerasWaveNet, draws(ids(16, 2, 10)),
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
    "Conformer", "speech", Conformer, conformer_keras, draws(floats(2, T, 8)),
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
    "Deep Speech", "speech", DeepSpeech, deep_speech_keras, draws(floats(2, 1, T, 5)),
    conv("conv", "conv") | batch_norm("bn", "bn") | dense("fc", "letters")
    | gru("rnn", "both/forward_gru/gru_cell") | gru("rnn", "both/backward_gru/gru_cell", "_l0_reverse")
    | moved("rnn.weight_ih_l0", "both/forward_gru/gru_cell/kernel", pitch_first)
    | moved("rnn.weight_ih_l0_reverse", "both/backward_gru/gru_cell/kernel", pitch_first),
    inputs={0: IMAGE},
)  # fmt: skip


PAIRS = (
    TEMPORAL, WAVE_NET, CONFORMER, SPEECH,
    TEMPORAL.alike("same for causal", {"pad"}, keras=lambda: temporal_keras(padding="same")),
    TEMPORAL.alike("dilation", {"dilation"}, keras=lambda: temporal_keras(rates=(1, 2, 3))),
    WAVE_NET.alike("gate", {"Sigmoid", "HardSigmoid"}, keras=lambda: KerasWaveNet(gate="hard_sigmoid")),
    WAVE_NET.alike("no residual", {"Add", "residual"}, keras=lambda: KerasWaveNet(residual=False)),
    CONFORMER.alike("whole steps", {"constant", "Mul", "missing"}, keras=lambda: conformer_keras(half_step=1.0)),
    CONFORMER.alike("causal in the middle", {"pad"}, keras=lambda: conformer_keras(kernel_side="causal")),
    SPEECH.alike("average of both", {"merge", "Mul", "Div", "constant"}, keras=lambda: deep_speech_keras(merge="ave")),
    SPEECH.alike("ceiling", {"Clip", "Min", "constant", "max"}, keras=lambda: deep_speech_keras(ceiling=0.5)),
)  # fmt: skip
