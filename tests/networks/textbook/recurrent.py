"""Recurrent networks: states that go in and come out, both directions, cells in loops, frames of a film."""

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

from tests.networks.textbook.pair import VIDEO, Pair, draws, floats, ids, uniform
from tests.networks.textbook.truth import (
    Truth,
    conv,
    dense,
    embedding,
    flattened,
    gru,
    lstm,
    moved,
    rnn,
    same,
    several,
)

T, F_IN, U = 6, 5, 8


class Translator(nn.Module):
    """The encoder's state begins the decoder; the decoder's state comes out too."""

    def __init__(self) -> None:
        super().__init__()
        self.src, self.tgt = nn.Embedding(20, 6), nn.Embedding(25, 7)
        self.encoder, self.decoder = nn.LSTM(6, U, batch_first=True), nn.LSTM(7, U, batch_first=True)
        self.out = nn.Linear(U, 25)

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, state = self.encoder(self.src(source))
        y, (h, c) = self.decoder(self.tgt(target), state)
        return self.out(y), h.squeeze(0), c.squeeze(0)


def translator_keras(*, begun: bool = True, swapped: bool = False) -> Any:
    source, target = keras.Input((T,), dtype="int64"), keras.Input((4,), dtype="int64")
    _, h, c = K.LSTM(U, return_state=True, name="reader")(K.Embedding(20, 6, name="source")(source))
    writer = K.LSTM(U, return_sequences=True, return_state=True, name="writer")
    state = ([c, h] if swapped else [h, c]) if begun else None
    y, h, c = writer(K.Embedding(25, 7, name="target")(target), initial_state=state)
    return keras.Model([source, target], [K.Dense(25, name="words")(y), h, c])


TRANSLATOR = Pair(
    "encoder's state begins the decoder", "recurrent", Translator, translator_keras, draws(ids(20, 2, T), ids(25, 2, 4)),
    several(embedding, "src source", "tgt target") | several(lstm, "encoder reader/lstm_cell", "decoder writer/lstm_cell")
    | dense("out", "words"),
)  # fmt: skip


class Given(nn.Module):
    """The state is an input."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.fc = nn.GRU(F_IN, U), nn.Linear(U, 3)

    def forward(self, x: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.cell(x.transpose(0, 1), h0.unsqueeze(0))
        return self.fc(y.transpose(0, 1)), h[0]


def given_keras(*, reset_after: bool = True, used: bool = True) -> Any:
    x, start = keras.Input((T, F_IN)), keras.Input((U,))
    layer = K.GRU(U, return_sequences=True, return_state=True, reset_after=reset_after, name="gru")
    y, h = layer(x, initial_state=start if used else start * 0.0)
    return keras.Model([x, start], [K.TimeDistributed(K.Dense(3, name="fc"), name="each")(y), h])


GIVEN = Pair(
    "state as input", "recurrent", Given, given_keras, draws(floats(2, T, F_IN), floats(2, U)),
    gru("cell", "gru/gru_cell") | dense("fc", "each/fc"),
)  # fmt: skip
BEFORE = GIVEN.truth | moved(
    "cell.bias_ih_l0 cell.bias_hh_l0",
    "gru/gru_cell/bias",
    lambda a, b: np.roll((a + b).reshape(3, U), 1, 0)[[1, 0, 2]].ravel(),
)


class BothWays(nn.Module):
    """Both directions summed by hand, behind stacked layers."""

    def __init__(self, how: str = "sum") -> None:
        super().__init__()
        self.how, self.rnn, self.fc = (
            how,
            nn.LSTM(F_IN, U, bidirectional=True, batch_first=True),
            nn.Linear(U, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        forth, back = self.rnn(x)[0].chunk(2, dim=2)
        both = {"sum": forth + back, "ave": (forth + back) / 2, "mul": forth * back}[self.how]
        return self.fc(both.max(dim=1)[0])


def both_ways_keras(how: str = "sum", *, pool: Any = K.GlobalMaxPooling1D) -> Any:
    return keras.Sequential([
        keras.Input((T, F_IN)), K.Bidirectional(K.LSTM(U, return_sequences=True, name="lstm"), how, name="bi"),
        pool(), K.Dense(2, name="fc"),
    ])  # fmt: skip


def both(name: str, path: str, kind: Any = lstm, cell: str = "lstm", layer: int = 0) -> Truth:
    return kind(name, f"{path}/forward_{cell}/{cell}_cell", f"_l{layer}") | kind(
        name, f"{path}/backward_{cell}/{cell}_cell", f"_l{layer}_reverse"
    )


BOTH = Pair(
    "merge_mode sum", "recurrent", BothWays, both_ways_keras, draws(floats(2, T, F_IN)),
    both("rnn", "bi") | dense("fc", "fc"),
)  # fmt: skip


class Stacked(nn.Module):
    """Two layers in both directions; the last states of the upper one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, F_IN)
        self.gru = nn.GRU(F_IN, U, num_layers=2, bidirectional=True, batch_first=True, dropout=0.3)
        self.drop, self.linear = nn.Dropout(0.2), nn.Linear(2 * U, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, h = self.gru(self.embedding(x))
        return self.linear(self.drop(torch.hstack([h[-2], h[-1]])))


def stacked_keras(*, last: str = "states") -> Any:
    words = keras.Input((T,), dtype="int32")
    x = K.Embedding(30, F_IN)(words)
    x = K.Bidirectional(K.GRU(U, return_sequences=True, name="gru"), name="lower")(x)
    x = K.SpatialDropout1D(0.3)(x)
    if last == "states":
        x = K.Bidirectional(K.GRU(U, name="gru"), name="upper")(x)
    else:
        x = K.Bidirectional(K.GRU(U, return_sequences=True, name="gru"), name="upper")(x)[:, T - 1]
    return keras.Model(words, K.Dense(3, name="label")(K.Dropout(0.2)(x)))


STACKED = Pair(
    "two layers, both ways", "recurrent", Stacked, stacked_keras, draws(ids(30, 2, T)),
    embedding("embedding", "embedding") | both("gru", "lower", gru, "gru") | both("gru", "upper", gru, "gru", 1)
    | dense("linear", "label"),
)  # fmt: skip


class CellLoop(nn.Module):
    """An LSTM cell in a loop: each output is the next input."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.fc = nn.LSTMCell(F_IN, U), nn.Linear(U, F_IN)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.size(0), U)
        found = []
        for _ in range(4):
            h, c = self.cell(x, (h, c))
            x = self.fc(h)
            found.append(x)
        return torch.stack(found, dim=1)


class KerasCellLoop(keras.Model):
    def __init__(self, *, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.cell, self.read = K.LSTMCell(U, name="cell"), K.Dense(F_IN, name="read")

    def call(self, inputs: Any) -> Any:
        state = [tf.zeros((tf.shape(inputs)[0], U)) for _ in range(2)]
        x, found = inputs, []
        for _ in range(4):
            y, state = self.cell(x, state)
            x = x + self.read(y) if self.residual else self.read(y)
            found.append(x[:, None])
        return tf.concat(found, axis=1)


CELLS = Pair(
    "cell in a loop", "recurrent", CellLoop, KerasCellLoop, draws(floats(2, F_IN)),
    lstm("cell", "cell", "") | dense("fc", "read"),
)  # fmt: skip


class ByHand(nn.Module):
    """A GRU cell in a loop over time, from the right to the left."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.fc = nn.GRUCell(F_IN, U), nn.Linear(U, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], U)
        for t in reversed(range(x.shape[1])):
            h = self.cell(x[:, t], h)
        return self.fc(h)


def by_hand_keras(*, backwards: bool = True) -> Any:
    series = keras.Input((T, F_IN))
    x = ops.flip(series, axis=1) if backwards else series
    return keras.Model(series, K.Dense(2, name="fc")(K.RNN(K.GRUCell(U, name="cell"), name="rnn")(x)))


BY_HAND = Pair(
    "loop from the right", "recurrent", ByHand, by_hand_keras, draws(floats(2, T, F_IN)),
    gru("cell", "rnn/cell", "") | dense("fc", "fc"),
)  # fmt: skip


class Elman(nn.Module):
    """A network of Elman written with two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.i2h, self.h2o = nn.Linear(F_IN + U, U), nn.Linear(U, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), U)
        for step in x.unbind(1):
            h = torch.tanh(self.i2h(torch.cat((step, h), 1)))
        return F.log_softmax(self.h2o(h), dim=1)


def elman_keras(*, activation: str = "tanh", log: bool = True) -> Any:
    x = keras.Input((T, F_IN))
    y = K.Dense(3, name="out")(K.SimpleRNN(U, activation=activation, name="rnn")(x))
    return keras.Model(x, K.Activation("log_softmax" if log else "softmax")(y))


ELMAN = Pair(
    "Elman, one matrix", "recurrent", Elman, elman_keras, draws(floats(2, T, F_IN)),
    moved("i2h.weight", "rnn/simple_rnn_cell/kernel", lambda value: value[:, :F_IN].T)
    | moved("i2h.weight", "rnn/simple_rnn_cell/recurrent_kernel", lambda value: value[:, F_IN:].T)
    | same("i2h.bias", "rnn/simple_rnn_cell/bias") | dense("h2o", "out"),
)  # fmt: skip


class Film(nn.Module):
    """A small convolutional network for each frame, an LSTM over them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 3 * 3, 10)
        self.rnn, self.out = nn.LSTM(10, U, batch_first=True), nn.Linear(U, 2)

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        y = F.max_pool2d(F.relu(self.conv(x.flatten(0, 1))), 2)
        y = F.relu(self.fc(y.flatten(1))).view(b, t, -1)
        return self.out(self.rnn(y)[0][:, -1])


def film_keras(*, pool: Any = K.MaxPooling2D) -> Any:
    film = keras.Input((4, 8, 8, 3))
    x = K.TimeDistributed(K.Conv2D(4, 3, activation="relu", name="conv"), name="look")(film)
    x = K.TimeDistributed(K.Flatten())(K.TimeDistributed(pool())(x))
    x = K.TimeDistributed(K.Dense(10, activation="relu", name="dense"), name="note")(x)
    return keras.Model(film, K.Dense(2, name="verdict")(K.LSTM(U, name="lstm")(x)))


FILM = Pair(
    "frames, TimeDistributed", "recurrent", Film, film_keras, draws(floats(2, 4, 3, 8, 8)),
    conv("conv", "look/conv") | flattened("fc", "note/dense", 4, 3, 3) | lstm("rnn", "lstm/lstm_cell") | dense("out", "verdict"),
    inputs={0: VIDEO},
)  # fmt: skip


class Lengths(nn.Module):
    """The state at the end of each text, gathered by its length."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.rnn, self.fc = (
            nn.Embedding(30, F_IN),
            nn.RNN(F_IN, U, batch_first=True),
            nn.Linear(U, 2),
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        y, _ = self.rnn(self.emb(x))
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, y.size(2))
        return self.fc(y.gather(1, last).squeeze(1))


def lengths_keras(*, shift: int = 1) -> Any:
    words, lengths = keras.Input((T,), dtype="int64"), keras.Input((), dtype="int64")
    y = K.SimpleRNN(U, return_sequences=True, name="rnn")(K.Embedding(30, F_IN, name="emb")(words))
    chosen = ops.one_hot(lengths - shift, T)
    return keras.Model([words, lengths], K.Dense(2, name="fc")(ops.einsum("bt,btu->bu", chosen, y)))


LENGTHS = Pair(
    "last state by length", "recurrent", Lengths, lengths_keras, draws(ids(30, 4, T), ids(T + 1, 4, low=2)),
    embedding("emb", "emb") | rnn("rnn", "rnn/simple_rnn_cell") | dense("fc", "fc"),
)  # fmt: skip


class ConvGru(nn.Module):
    """A convolutional GRU for two steps; all gates from one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.can = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x[:, 0, :1]).expand(-1, 4, -1, -1)
        for t in range(x.size(1)):
            reset, update = torch.sigmoid(self.gates(torch.cat([x[:, t], h], 1))).chunk(2, 1)
            new = torch.tanh(self.can(torch.cat([x[:, t], reset * h], dim=1)))
            h = (1 - update) * h + update * new
        return h


class KerasConvGru(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.r, self.z, self.n = (K.Conv2D(4, 3, padding="same", name=name) for name in ("r", "z", "n"))

    def call(self, inputs: Any) -> Any:
        h = tf.zeros_like(tf.tile(inputs[:, 0, :, :, :1], [1, 1, 1, 4]))
        for x in tf.unstack(inputs, axis=1):
            both_of_them = tf.concat([x, h], -1)
            reset, update = tf.sigmoid(self.r(both_of_them)), tf.sigmoid(self.z(both_of_them))
            new = tf.tanh(self.n(tf.concat([x, reset * h], -1)))
            h = h + update * (new - h)
        return h


def gate(low: int) -> Any:
    return lambda value: (
        value[low : low + 4].transpose(2, 3, 1, 0) if value.ndim > 1 else value[low : low + 4]
    )


CONV_GRU = Pair(
    "convolutional GRU", "recurrent", ConvGru, KerasConvGru, draws(floats(2, 3, 2, 5, 5)),
    conv("can", "n") | moved("gates.weight", "r/kernel", gate(0)) | moved("gates.bias", "r/bias", gate(0))
    | moved("gates.weight", "z/kernel", gate(4)) | moved("gates.bias", "z/bias", gate(4)),
    inputs={0: VIDEO}, outputs={0: (0, 2, 3, 1)},
)  # fmt: skip


class Sampler(nn.Module):
    """A volume over time: rates between 0 and 1 go in, the mean of an LSTM with a projection by hand comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.rnn = nn.Parameter(torch.zeros(2, U)), nn.LSTM(F_IN, U, batch_first=True)
        self.proj = nn.Linear(U, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h, c = self.start.unsqueeze(1).repeat(1, x.size(0), 1).split(1)
        return self.proj(self.rnn(torch.logit(x), (h, c))[0]).mean(dim=1)


class KerasSampler(keras.Model):
    """The first state is learned, a weight for each part."""

    def __init__(self, *, log: bool = True) -> None:
        super().__init__()
        self.log = log
        self.h, self.c = (self.add_weight(shape=(1, U), name=name) for name in ("h", "c"))
        self.lstm, self.proj = (
            K.LSTM(U, return_sequences=True, name="lstm"),
            K.Dense(3, use_bias=False, name="proj"),
        )

    def call(self, inputs: Any) -> Any:
        number = tf.shape(inputs)[0]
        state = [tf.tile(self.h, (number, 1)), tf.tile(self.c, (number, 1))]
        x = tf.math.log(inputs / (1 - inputs)) if self.log else inputs
        return self.proj(tf.reduce_mean(self.lstm(x, initial_state=state), 1))


SAMPLER = Pair(
    "learned first state", "recurrent", Sampler, KerasSampler, draws(uniform(0.05, 0.95, 2, T, F_IN)),
    moved("start", "h", lambda value: value[:1]) | moved("start", "c", lambda value: value[1:])
    | lstm("rnn", "lstm/lstm_cell") | dense("proj", "proj", bias=False),
)  # fmt: skip

PAIRS = (
    TRANSLATOR, GIVEN, BOTH, STACKED, CELLS, BY_HAND, ELMAN, FILM, LENGTHS, CONV_GRU, SAMPLER,
    Pair("merge_mode ave", "recurrent", lambda: BothWays("ave"), lambda: both_ways_keras("ave"), BOTH.example, BOTH.truth),
    Pair("merge_mode mul", "recurrent", lambda: BothWays("mul"), lambda: both_ways_keras("mul"), BOTH.example, BOTH.truth),
    TRANSLATOR.alike("decoder begins at zero", {"initial", "state"}, keras=lambda: translator_keras(begun=False)),
    TRANSLATOR.alike("states exchanged", {"initial", "state", "order"}, keras=lambda: translator_keras(swapped=True)),
    GIVEN.alike("reset before", {"reset_after", "linear_before_reset"}, keras=lambda: given_keras(reset_after=False), truth=BEFORE),
    GIVEN.alike("state times zero", {"initial", "state", "constant", "Mul"}, keras=lambda: given_keras(used=False)),
    BOTH.alike("average", {"Div", "Mul", "constant", "merge"}, keras=lambda: both_ways_keras("ave")),
    BOTH.alike("mean over time", {"Max", "Mean", "pool"}, keras=lambda: both_ways_keras(pool=K.GlobalAveragePooling1D)),
    STACKED.alike("last step of both", {"last", "state", "direction", "reverse"}, keras=lambda: stacked_keras(last="step")),
    CELLS.alike("residual", {"Add", "residual"}, keras=lambda: KerasCellLoop(residual=True)),
    BY_HAND.alike("from the left", {"direction", "reverse", "flip"}, keras=lambda: by_hand_keras(backwards=False)),
    ELMAN.alike("activation", {"activation", "Relu", "Tanh"}, keras=lambda: elman_keras(activation="relu")),
    ELMAN.alike("softmax without log", {"log", "LogSoftmax", "Softmax"}, keras=lambda: elman_keras(log=False)),
    FILM.alike("pooling by average", {"Max", "Average"}, keras=lambda: film_keras(pool=lambda: K.AveragePooling2D(2))),
    LENGTHS.alike("one step before the last", {"constant", "Sub", "index"}, keras=lambda: lengths_keras(shift=2)),
    SAMPLER.alike("no logit", {"Log", "logit", "missing"}, keras=lambda: KerasSampler(log=False)),
)  # fmt: skip
