"""Recurrent networks written by two teams: whole layers, cells in loops, cells by hand; and what only looks alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import nn

from tests.adapters.glue.pair import Forward

T, FEATURES, U = 5, 3, 4
SERIES = np.random.default_rng(0).standard_normal((2, T, FEATURES)).astype(np.float32)
IDS = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]])


@dataclass(frozen=True)
class Pair:
    """Two models; ``cause`` holds a word of the diagnosis of two that are not one function."""

    name: str
    torch: Callable[[], nn.Module]
    keras: Callable[[], Any]
    example: Any = None
    cause: str = ""
    quick: bool = False

    @property
    def input(self) -> np.ndarray[Any, Any]:
        return SERIES if self.example is None else self.example


def head(features: int = U) -> nn.Module:
    return nn.Linear(features, 2)


def zeros(x: torch.Tensor, units: int = U) -> torch.Tensor:
    return torch.zeros(x.size(0), units)


def _lstm_step(parts: dict[str, Any], c: Any, lib: Any) -> tuple[Any, Any]:
    i, f, o = (lib.sigmoid(parts[word]) for word in "ifo")
    c = f * c + i * lib.tanh(parts["g"])
    return o * lib.tanh(c), c


def hand_lstm(order: str = "ifgo", *, projected: bool = False) -> nn.Module:
    """All gates from two dense layers; the one of the input may be applied to the whole series at once."""

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = c = zeros(x)
        every = m.x2h(x) if projected else None
        for t in range(x.size(1)):
            gates = (every[:, t] if projected else m.x2h(x[:, t])) + m.h2h(h)
            h, c = _lstm_step(dict(zip(order, gates.chunk(4, 1), strict=True)), c, torch)
        return m.out(h)

    return Forward(call, x2h=nn.Linear(FEATURES, 4 * U), h2h=nn.Linear(U, 4 * U), out=head())


def gate_by_gate() -> nn.Module:
    """A matrix for each gate, of state and input joined."""

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = c = zeros(x)
        for t in range(x.shape[1]):
            joined = torch.cat([h, x[:, t]], dim=1)
            h, c = _lstm_step({word: m.gates[word](joined) for word in "fiog"}, c, torch)
        return m.out(h)

    gates = nn.ModuleDict({word: nn.Linear(FEATURES + U, U) for word in "fiog"})
    return Forward(call, gates=gates, out=head())


def hand_gru(*, fused: bool) -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = zeros(x)
        for step in x.unbind(1):
            a = m.x(step).chunk(3, -1) if fused else [layer(step) for layer in m.x]
            b = m.h(h).chunk(3, -1) if fused else [layer(h) for layer in m.h]
            reset, update = torch.sigmoid(a[0] + b[0]), torch.sigmoid(a[1] + b[1])
            new = torch.tanh(a[2] + reset * b[2])
            h = new + update * (h - new)
        return m.out(h)

    def dense(features: int) -> nn.Module:
        if fused:
            return nn.Linear(features, 3 * U)
        return nn.ModuleList(nn.Linear(features, U) for _ in range(3))

    return Forward(call, x=dense(FEATURES), h=dense(U), out=head())


def whole(kind: Any, **options: Any) -> nn.Module:
    layer = kind(FEATURES, U, batch_first=True, **options)
    return Forward(lambda m, x: m.out(m.r(x)[0][:, -1]), r=layer, out=head())


def turned() -> nn.Module:
    layer = nn.LSTM(FEATURES, U, batch_first=True)
    return Forward(lambda m, x: m.out(m.r(x.flip(1))[0]), r=layer, out=head())


def all_states(kind: Any) -> nn.Module:
    """The last states of two layers in both directions."""

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        state = m.r(x)[1]
        joined = torch.cat(state, -1) if isinstance(state, tuple) else state
        return m.out(joined.permute(1, 0, 2).flatten(1))

    width = 8 * U if kind is nn.LSTM else 4 * U
    return Forward(call, r=kind(FEATURES, U, 2, batch_first=True, bidirectional=True), out=head(width))


def both_by_hand() -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.out(torch.cat([m.f(x)[0], m.b(x.flip(1))[0].flip(1)], 2))

    layers = {word: nn.LSTM(FEATURES, U, batch_first=True) for word in "fb"}
    return Forward(call, **layers, out=head(2 * U))


def two_cells() -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        h1 = c1 = zeros(x)
        h2 = c2 = zeros(x, U + 1)
        for t in range(x.size(1)):
            h1, c1 = m.a(x[:, t], (h1, c1))
            h2, c2 = m.b(h1, (h2, c2))
        return m.out(h2)

    return Forward(call, a=nn.LSTMCell(FEATURES, U), b=nn.LSTMCell(U, U + 1), out=head(U + 1))


def masked() -> nn.Module:
    """Where the id is 0 the state stays as it is."""

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        words, h = m.words(x), zeros(x)
        for t in range(x.size(1)):
            h = torch.where((x[:, t] != 0)[:, None], m.cell(words[:, t], h), h)
        return m.out(h)

    return Forward(call, words=nn.Embedding(9, FEATURES), cell=nn.GRUCell(FEATURES, U), out=head())


def peephole() -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = c = zeros(x)
        for t in range(x.size(1)):
            i, f, g, o = (m.x(x[:, t]) + m.h(h)).chunk(4, 1)
            c = torch.sigmoid(f + m.p[1] * c) * c + torch.sigmoid(i + m.p[0] * c) * torch.tanh(g)
            h = torch.sigmoid(o + m.p[2] * c) * torch.tanh(c)
        return m.out(h)

    layers = {"x": nn.Linear(FEATURES, 4 * U), "h": nn.Linear(U, 4 * U, bias=False)}
    return Forward(call, **layers, p=torch.randn(3, U), out=head())


def normalised() -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = c = zeros(x)
        for t in range(x.size(1)):
            i, f, g, o = m.gates(m.x(x[:, t]) + m.h(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * m.memory(c).tanh()
        return m.out(h)

    layers = {"x": nn.Linear(FEATURES, 4 * U, bias=False), "h": nn.Linear(U, 4 * U)}
    return Forward(call, **layers, gates=nn.LayerNorm(4 * U), memory=nn.LayerNorm(U), out=head())


def minimal() -> nn.Module:
    """A simple recurrent unit: gates that do not see the state."""

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        c, every = zeros(x), m.w(x)
        for t in range(x.size(1)):
            z, f, r = every[:, t].chunk(3, -1)
            c = torch.sigmoid(f) * c + (1 - torch.sigmoid(f)) * z
        return m.out(torch.sigmoid(r) * torch.tanh(c))

    return Forward(call, w=nn.Linear(FEATURES, 3 * U), out=head())


def translating() -> nn.Module:
    """The state of one layer begins the other, which reads the same series."""

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.out(m.decoder(x, m.encoder(x)[1])[0])

    layers = {word: nn.LSTM(FEATURES, U, batch_first=True) for word in ("encoder", "decoder")}
    return Forward(call, **layers, out=head())


def keras_translating(*, begun: bool = True, order: tuple[int, int] = (0, 1)) -> Any:
    x = keras.Input((T, FEATURES))
    _, *states = K.LSTM(U, return_state=True)(x)
    begin = [states[place] for place in order] if begun else None
    return keras.Model(x, K.Dense(2)(K.LSTM(U, return_sequences=True)(x, initial_state=begin)))


def from_the_end() -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = zeros(x)
        for t in reversed(range(x.size(1))):
            h = m.cell(x[:, t], h)
        return m.out(h)

    return Forward(call, cell=nn.GRUCell(FEATURES, U), out=head())


def attending() -> nn.Module:
    """A decoder of three steps that attends to the states of the encoder."""

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        states, h = m.enc(x)
        h, y, found = h[0], x[:, -1], []
        for _ in range(3):
            scores = torch.softmax(torch.bmm(m.wa(states), h[:, :, None]).squeeze(2), 1)
            context = torch.bmm(scores[:, None], states).squeeze(1)
            h = m.dec(torch.cat([y, context], 1), h)
            y = m.out(torch.cat([h, context], 1))
            found.append(y)
        return torch.stack(found, 1)

    layers = {"enc": nn.GRU(FEATURES, U, batch_first=True), "dec": nn.GRUCell(FEATURES + U, U)}
    return Forward(call, **layers, wa=nn.Linear(U, U, bias=False), out=nn.Linear(2 * U, FEATURES))


def series(*layers: Any) -> Any:
    return keras.Sequential([keras.Input((T, FEATURES)), *layers, K.Dense(2)])


def words(*layers: Any) -> Any:
    return keras.Sequential([keras.Input((T,), dtype="int64"), *layers, K.Dense(2)])


def keras_states(kind: Any) -> Any:
    x = keras.Input((T, FEATURES))
    y, *lower = K.Bidirectional(kind(U, return_sequences=True, return_state=True))(x)
    _, *upper = K.Bidirectional(kind(U, return_sequences=True, return_state=True))(y)
    return keras.Model(x, K.Dense(2)(ops.concatenate([*lower, *upper], -1)))


class Looped(keras.Model):
    """A function over layers and weights, step by step."""

    def __init__(
        self, call: Callable[..., Any], layers: dict[str, Any], weights: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        for name, shape in (weights or {}).items():
            setattr(self, name, self.add_weight(shape=shape, name=name))
        self._function = call

    def call(self, inputs: Any) -> Any:
        return self._function(self, inputs)


def _begin(x: Any) -> Any:
    return tf.zeros((tf.shape(x)[0], U))


def keras_hand_lstm() -> Any:
    def call(m: Any, x: Any) -> Any:
        h = c = _begin(x)
        for t in range(T):
            gates = tf.split(m.d(x[:, t]) + m.r(h), 4, 1)
            h, c = _lstm_step(dict(zip("ofgi", gates, strict=True)), c, tf)
        return m.o(h)

    return Looped(call, {"d": K.Dense(4 * U), "r": K.Dense(4 * U, use_bias=False), "o": K.Dense(2)})


def keras_peephole(*, late: str = "po") -> Any:
    def call(m: Any, x: Any) -> Any:
        h = c = _begin(x)
        for step in tf.unstack(x, axis=1):
            i, f, g, o = tf.split(m.x(step) + m.h(h), 4, -1)
            i, f = tf.sigmoid(i + m.pi * c), tf.sigmoid(f + m.pf * c)
            o = o + m.po * c if late != "po" else o
            c = f * c + i * tf.tanh(g)
            h = tf.sigmoid(o + m.po * c if late == "po" else o) * tf.tanh(c)
        return m.o(h)

    layers = {"x": K.Dense(4 * U), "h": K.Dense(4 * U, use_bias=False), "o": K.Dense(2)}
    return Looped(call, layers, dict.fromkeys(("pi", "pf", "po"), (U,)))


def keras_normalised() -> Any:
    def call(m: Any, x: Any) -> Any:
        h = c = _begin(x)
        for step in tf.unstack(x, axis=1):
            i, f, g, o = tf.split(m.gates(m.x(step) + m.h(h)), 4, -1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(m.memory(c))
        return m.o(h)

    norms = {word: K.LayerNormalization(epsilon=1e-5) for word in ("gates", "memory")}
    return Looped(call, {"x": K.Dense(4 * U, use_bias=False), "h": K.Dense(4 * U), **norms, "o": K.Dense(2)})


def keras_minimal() -> Any:
    def call(m: Any, x: Any) -> Any:
        z, f, r, c = m.z(x), m.f(x), m.r(x), 0.0
        for t in range(T):
            c = z[:, t] + f[:, t] * (c - z[:, t])
        return m.o(r[:, -1] * tf.tanh(c))

    gates = {word: K.Dense(U, activation="sigmoid") for word in "fr"}
    return Looped(call, {"z": K.Dense(U), **gates, "o": K.Dense(2)})


def keras_attending() -> Any:
    def call(m: Any, x: Any) -> Any:
        states, h = m.enc(x)
        y, found = x[:, -1], []
        for _ in range(3):
            scores = tf.nn.softmax(tf.einsum("btu,bu->bt", m.wa(states), h), -1)
            context = tf.einsum("bt,btu->bu", scores, states)
            _, (h,) = m.dec(tf.concat([y, context], -1), [h])
            y = m.out(tf.concat([h, context], -1))
            found.append(y)
        return tf.stack(found, 1)

    layers = {"enc": K.GRU(U, return_sequences=True, return_state=True), "dec": K.GRUCell(U)}
    return Looped(call, {**layers, "wa": K.Dense(U, use_bias=False), "out": K.Dense(FEATURES)})


PAIRS = (
    Pair("LSTM by hand", hand_lstm, lambda: series(K.LSTM(U))),
    Pair("LSTM by hand, other order", lambda: hand_lstm("ogfi"), lambda: series(K.LSTM(U))),
    Pair("LSTM by hand, series projected", lambda: hand_lstm("fiog", projected=True), lambda: series(K.LSTM(U))),
    Pair("LSTM gate by gate", gate_by_gate, lambda: series(K.LSTM(U))),
    Pair("GRU by hand", lambda: hand_gru(fused=True), lambda: series(K.GRU(U)), quick=True),
    Pair("GRU of six layers", lambda: hand_gru(fused=False), lambda: series(K.GRU(U))),
    Pair("LSTM, by hand in Keras", lambda: whole(nn.LSTM), keras_hand_lstm),
    Pair("GRU, RNN of a cell", lambda: whole(nn.GRU), lambda: series(K.RNN(K.GRUCell(U)))),
    Pair("LSTM, RNN of a cell", lambda: whole(nn.LSTM), lambda: series(K.RNN(K.LSTMCell(U)))),
    Pair("RNN, RNN of a cell", lambda: whole(nn.RNN), lambda: series(K.RNN(K.SimpleRNNCell(U)))),
    Pair("two layers, stacked cells", lambda: whole(nn.LSTM, num_layers=2),
         lambda: series(K.RNN([K.LSTMCell(U), K.LSTMCell(U)]))),
    Pair("series turned round, go_backwards", turned,
         lambda: series(K.LSTM(U, return_sequences=True, go_backwards=True)), quick=True),
    Pair("all states of a GRU", lambda: all_states(nn.GRU), lambda: keras_states(K.GRU)),
    Pair("both directions by hand", both_by_hand, lambda: series(K.Bidirectional(K.LSTM(U, return_sequences=True)))),
    Pair("two cells, two layers", two_cells, lambda: series(K.LSTM(U, return_sequences=True), K.LSTM(U + 1))),
    Pair("cell that skips zeros, mask_zero", masked,
         lambda: words(K.Embedding(9, FEATURES, mask_zero=True), K.GRU(U)), IDS),
    Pair("peephole", peephole, keras_peephole),
    Pair("layer normalisation in the cell", normalised, keras_normalised),
    Pair("simple recurrent unit", minimal, keras_minimal),
    Pair("attention over the states", attending, keras_attending),
    Pair("one layer begins the other", translating, keras_translating, quick=True),
    Pair("loop from the end, go_backwards", from_the_end, lambda: series(K.RNN(K.GRUCell(U), go_backwards=True))),
)  # fmt: skip

UNLIKE = (
    Pair("another activation", hand_lstm, lambda: series(K.LSTM(U, activation="relu")), cause="Relu"),
    Pair("hard gates", hand_lstm, lambda: series(K.LSTM(U, recurrent_activation="hard_sigmoid")), cause="HardSigmoid"),
    Pair("reset before", lambda: whole(nn.GRU), lambda: series(K.GRU(U, reset_after=False)), cause="linear_before_reset", quick=True),
    Pair("backwards", lambda: whole(nn.LSTM), lambda: series(K.LSTM(U, go_backwards=True)), cause="direction", quick=True),
    Pair("not turned back", turned, lambda: series(K.LSTM(U, return_sequences=True)), cause="Flip", quick=True),
    Pair("mask ignored", masked, lambda: words(K.Embedding(9, FEATURES), K.GRU(U)), IDS, cause="Equal"),
    Pair("states exchanged", translating, lambda: keras_translating(order=(1, 0)), cause="initial state", quick=True),
    Pair("begins with zeros", translating, lambda: keras_translating(begun=False), cause="initial state is last state", quick=True),
    Pair("loop from the start", from_the_end, lambda: series(K.RNN(K.GRUCell(U))), cause="from the start to the end"),
    Pair("peephole of the memory before", peephole, lambda: keras_peephole(late="early"), cause="reference"),
)  # fmt: skip
