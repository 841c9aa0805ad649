"""Texts: pairs of sentences, spans, pointers, characters, memories."""

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

from tests.networks.textbook.pair import Pair, draws, floats, ids, padded
from tests.networks.textbook.truth import Truth, conv, dense, embedding, gru, lstm, moved, same, several

P, H, D = 5, 6, 8


def ends_of(name: str, path: str) -> Truth:
    """An LSTM in both directions."""
    return lstm(name, f"{path}/forward_lstm/lstm_cell") | lstm(
        name, f"{path}/backward_lstm/lstm_cell", "_l0_reverse"
    )


class Decomposable(nn.Module):
    """Attend, compare, aggregate; padding has no part."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.attend, self.compare, self.label = (
            nn.Embedding(30, D),
            nn.Linear(D, 7),
            nn.Linear(2 * D, 9),
            nn.Linear(18, 3),
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        here, there = (a > 0).float(), (b > 0).float()
        a, b = self.emb(a), self.emb(b)
        e = F.relu(self.attend(a)) @ F.relu(self.attend(b)).transpose(1, 2)
        e = e + (here.unsqueeze(2) * there.unsqueeze(1)).clamp(min=1e-9).log()
        beta, alpha = e.softmax(2) @ b, e.softmax(1).transpose(1, 2) @ a
        v1 = (F.relu(self.compare(torch.cat([a, beta], 2))) * here.unsqueeze(2)).sum(1)
        v2 = (F.relu(self.compare(torch.cat([b, alpha], 2))) * there.unsqueeze(2)).sum(1)
        return self.label(torch.cat([v1, v2], 1))


def decomposable_keras(*, axes: tuple[int, int] = (2, 1), pool: Any = ops.sum) -> Any:
    a, b = keras.Input((P,), dtype="int32", name="premise"), keras.Input((H,), dtype="int32", name="claim")
    here, there = (ops.cast(ops.not_equal(x, 0), "float32") for x in (a, b))
    table, attend = K.Embedding(30, D, name="table"), K.Dense(7, "relu", name="attend")
    compare = K.Dense(9, "relu", name="compare")
    x, y = table(a), table(b)
    score = K.Dot(axes=2)([attend(x), attend(y)])
    score = ops.where(ops.einsum("bi,bj->bij", here, there) > 0, score, -1e9 + score * 0.0)
    beta = ops.einsum("bij,bjd->bid", ops.softmax(score, axes[0]), y)
    alpha = ops.einsum("bij,bid->bjd", ops.softmax(score, axes[1]), x)
    one = pool(compare(K.Concatenate()([x, beta])) * here[:, :, None], axis=1)
    two = pool(compare(K.Concatenate()([y, alpha])) * there[:, :, None], axis=1)
    return keras.Model([a, b], K.Dense(3, name="label")(K.Concatenate()([one, two])))


DECOMPOSABLE = Pair(
    "decomposable attention", "text", Decomposable, decomposable_keras, draws(padded(30, 3, P), padded(30, 3, H)),
    embedding("emb", "table") | several(dense, "attend attend", "compare compare", "label label"),
)  # fmt: skip


class Esim(nn.Module):
    """Both sentences read, aligned, enhanced by difference and product, read again, pooled twice."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.LSTM(D, 4, batch_first=True, bidirectional=True)
        self.proj, self.compose = nn.Linear(32, 6), nn.LSTM(6, 4, batch_first=True, bidirectional=True)
        self.out = nn.Sequential(nn.Linear(32, 6), nn.Tanh(), nn.Linear(6, 3))

    def enhance(self, x: Tensor, y: Tensor) -> Tensor:
        return self.compose(F.relu(self.proj(torch.cat([x, y, x - y, x * y], -1))))[0]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = self.read(a)[0], self.read(b)[0]
        e = torch.bmm(a, b.permute(0, 2, 1))
        a_, b_ = F.softmax(e, -1).bmm(b), F.softmax(e.transpose(1, 2), -1).bmm(a)
        a, b = self.enhance(a, a_), self.enhance(b, b_)
        return self.out(torch.cat([a.mean(1), a.max(1)[0], b.mean(1), b.max(1)[0]], -1))


def esim_keras(
    *, pools: tuple[Any, Any] = (K.GlobalAveragePooling1D, K.GlobalMaxPooling1D), sign: int = 1
) -> Any:
    a, b = keras.Input((P, D)), keras.Input((H, D))
    read, again = (
        K.Bidirectional(K.LSTM(4, return_sequences=True, name="lstm"), name=n) for n in ("read", "again")
    )
    proj = K.TimeDistributed(K.Dense(6, "relu", name="dense"), name="proj")
    x, y = read(a), read(b)
    e = K.Dot(axes=-1)([x, y])
    x_ = K.Dot(axes=(2, 1))([K.Softmax(axis=2)(e), y])
    y_ = K.Dot(axes=(1, 1))([K.Softmax(axis=1)(e), x])
    found = []
    for one, other in ((x, x_), (y, y_)):
        less = K.Subtract()([one, other] if sign > 0 else [other, one])
        z = again(proj(K.Concatenate()([one, other, less, K.Multiply()([one, other])])))
        found += [pool()(z) for pool in pools]
    return keras.Model(
        [a, b], K.Dense(3, name="label")(K.Dense(6, "tanh", name="wide")(K.Concatenate()(found)))
    )


ESIM = Pair(
    "ESIM", "text", Esim, esim_keras, draws(floats(2, P, D), floats(2, H, D)),
    ends_of("read", "read") | ends_of("compose", "again") | several(dense, "proj proj/dense", "out.0 wide", "out.2 label"),
)  # fmt: skip


class BiDaf(nn.Module):
    """Attention both ways between context and question; where the answer begins and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.q, self.cq = nn.Linear(D, 1), nn.Linear(D, 1, bias=False), nn.Linear(D, 1, bias=False)
        self.start, self.end = nn.Linear(4 * D, 1), nn.Linear(4 * D, 1)

    def forward(self, context: Tensor, question: Tensor) -> tuple[Tensor, Tensor]:
        columns = [self.cq(context * question[:, j : j + 1]) for j in range(question.size(1))]
        s = self.c(context).expand(-1, -1, P) + self.q(question).permute(0, 2, 1) + torch.cat(columns, dim=-1)
        c2q = torch.bmm(F.softmax(s, dim=2), question)
        b = F.softmax(torch.max(s, dim=2)[0], dim=1).unsqueeze(1)
        q2c = torch.bmm(b, context).squeeze(1).unsqueeze(1).expand(-1, H, -1)
        g = torch.cat([context, c2q, context * c2q, context * q2c], dim=-1)
        return self.start(g).squeeze(2), self.end(g).squeeze(2)


class Trilinear(K.Layer):
    def build(self, _: Any) -> None:
        self.w = self.add_weight(shape=(3 * D,), name="w")
        self.b = self.add_weight(shape=(), initializer="zeros", name="b")

    def call(self, c: Any, q: Any) -> Any:
        one, two, three = tf.split(self.w, 3)
        return (
            tf.einsum("bid,bjd,d->bij", c, q, three)
            + (c @ one[:, None])
            + tf.linalg.matvec(q, two)[:, None]
            + self.b
        )


def bidaf_keras(*, best: Any = tf.reduce_max, axis: int = -1) -> Any:
    c, q = keras.Input((H, D)), keras.Input((P, D))
    score = Trilinear(name="similar")(c, q)
    asked = ops.matmul(ops.softmax(score, axis=axis), q)
    weight = K.Lambda(lambda s: tf.nn.softmax(best(s, axis=2), axis=-1), output_shape=(H,))(score)
    told = K.RepeatVector(H)(K.Dot(axes=1)([weight, c]))
    g = K.Concatenate()([c, asked, K.Multiply()([c, asked]), K.Multiply()([c, told])])
    return keras.Model([c, q], [K.Flatten()(K.Dense(1, name=name)(g)) for name in ("begin", "finish")])


BIDAF = Pair(
    "BiDAF", "text", BiDaf, bidaf_keras, draws(floats(2, H, D), floats(2, P, D)),
    moved("c.weight q.weight cq.weight", "similar/w", lambda *each: np.concatenate(each, 1)[0])
    | moved("c.bias", "similar/b", lambda value: value[0]) | several(dense, "start begin", "end finish"),
)  # fmt: skip


class Pointer(nn.Module):
    """A decoder whose words are places of the encoder; the place last pointed at is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.cell = nn.LSTM(2, 6, batch_first=True), nn.LSTMCell(6, 6)
        self.w1, self.w2, self.v = (
            nn.Linear(6, 6, bias=False),
            nn.Linear(6, 6, bias=False),
            nn.Linear(6, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        memory, (h, c) = self.enc(x)
        h, c = h[0], c[0]
        keys, read, found, used = self.w1(memory), memory.mean(1), [], None
        for _ in range(3):
            h, c = self.cell(read, (h, c))
            score = self.v(torch.tanh(keys + self.w2(h)[:, None])).squeeze(-1)
            if used is not None:
                score = score - 4.0 * used
            used = score.softmax(-1)
            read = torch.einsum("bt,btd->bd", used, memory)
            found.append(used)
        return torch.stack(found, 1)


class KerasPointer(keras.Model):
    def __init__(self, *, penalty: float = 4.0, activation: str = "tanh") -> None:
        super().__init__()
        self.penalty, self.squash = penalty, keras.activations.get(activation)
        self.reader, self.writer = (
            K.LSTM(6, return_sequences=True, return_state=True, name="reader"),
            K.LSTMCell(6, name="writer"),
        )
        self.key, self.ask, self.rate = (
            K.Dense(n, use_bias=False, name=name) for n, name in ((6, "key"), (6, "ask"), (1, "rate"))
        )

    def call(self, inputs: Any) -> Any:
        memory, *state = self.reader(inputs)
        weight, found, read = None, [], tf.reduce_mean(memory, 1)
        for _ in range(3):
            y, state = self.writer(read, state)
            score = self.rate(self.squash(self.ask(y)[:, None] + self.key(memory)))[..., 0]
            weight = tf.nn.softmax(score if weight is None else score - self.penalty * weight)
            read = tf.linalg.matvec(memory, weight, transpose_a=True)
            found.append(weight)
        return tf.stack(found, axis=1)


POINTER = Pair(
    "pointer network", "text", Pointer, KerasPointer, draws(floats(2, 5, 2)),
    lstm("enc", "reader/lstm_cell") | lstm("cell", "writer", "") | several(dense, "w1 key", "w2 ask", "v rate", bias=False),
)  # fmt: skip


class Characters(nn.Module):
    """Words from their letters by convolutions of several widths, a highway, an LSTM over words; a tag for each."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(20, 4, padding_idx=0)
        self.convs = nn.ModuleList(nn.Conv1d(4, n, k) for k, n in ((2, 3), (3, 5)))
        self.t, self.h = nn.Linear(8, 8), nn.Linear(8, 8)
        self.rnn, self.tag = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        b, words, letters = x.shape
        e = self.letters(x.view(-1, letters)).transpose(1, 2)
        y = torch.cat([torch.tanh(conv(e)).max(dim=2).values for conv in self.convs], dim=1)
        t = torch.sigmoid(self.t(y))
        y = t * F.relu(self.h(y)) + (1.0 - t) * y
        return self.tag(self.rnn(y.view(b, words, -1))[0])


def characters_keras(*, activation: str = "tanh") -> Any:
    text = keras.Input((5, 7), dtype="int32")
    e = K.Embedding(20, 4, name="letters")(text)
    each = [
        ops.max(
            K.TimeDistributed(K.Conv1D(n, k, activation=activation, name=f"conv_{k}"), name=f"words_{k}")(e),
            axis=2,
        )
        for k, n in ((2, 3), (3, 5))
    ]
    y = K.Concatenate()(each)
    gate = K.Dense(8, "sigmoid", name="gate")(y)
    y = gate * K.Dense(8, "relu", name="change")(y) + (1 - gate) * y
    return keras.Model(text, K.Dense(4, name="tag")(K.LSTM(6, return_sequences=True, name="lstm")(y)))


CHARACTERS = Pair(
    "letters, words, tags", "text", Characters, characters_keras, draws(padded(20, 2, 5, 7)),
    embedding("letters", "letters") | several(conv, "convs.0 words_2/conv_2", "convs.1 words_3/conv_3")
    | several(dense, "t gate", "h change", "tag tag") | lstm("rnn", "lstm/lstm_cell"),
)  # fmt: skip


class Hierarchical(nn.Module):
    """Words to sentences to a document, a context vector at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(25, 5)
        self.word, self.sentence = (
            nn.GRU(5, 3, batch_first=True, bidirectional=True),
            nn.GRU(6, 3, batch_first=True, bidirectional=True),
        )
        self.w, self.s = nn.Linear(6, 6), nn.Linear(6, 6)
        self.uw, self.us, self.fc = (
            nn.Parameter(torch.zeros(6)),
            nn.Parameter(torch.zeros(6)),
            nn.Linear(6, 4),
        )

    def pool(self, x: Tensor, layer: nn.Module, context: Tensor) -> Tensor:
        weight = torch.softmax(torch.tanh(layer(x)).matmul(context), dim=1)
        return (x * weight.unsqueeze(-1)).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        b, s, w = x.size()
        x = self.pool(self.word(self.emb(x.view(b * s, w)))[0], self.w, self.uw).view(b, s, 6)
        return self.fc(self.pool(self.sentence(x)[0], self.s, self.us))


class Context(K.Layer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.dense = K.Dense(6, activation="tanh", name="dense")

    def build(self, _: Any) -> None:
        self.context = self.add_weight(shape=(6, 1), name="context")

    def call(self, x: Any) -> Any:
        weight = tf.nn.softmax(tf.squeeze(self.dense(x) @ self.context, -1))
        return tf.einsum("bt,btd->bd", weight, x)


def hierarchical_keras() -> Any:
    """A model of a sentence is called for each sentence of the document."""
    words, text = keras.Input((4,), dtype="int32"), keras.Input((3, 4), dtype="int32")
    x = K.Bidirectional(K.GRU(3, return_sequences=True, name="gru"), name="words")(
        K.Embedding(25, 5, name="table")(words)
    )
    sentence = keras.Model(words, Context(name="attend_words")(x), name="sentence")
    y = ops.stack([sentence(text[:, i]) for i in range(3)], axis=1)
    y = K.Bidirectional(K.GRU(3, return_sequences=True, name="gru"), name="sentences")(y)
    return keras.Model(text, K.Dense(4, name="label")(Context(name="attend_sentences")(y)))


def both_gru(name: str, path: str) -> Truth:
    return gru(name, f"{path}/forward_gru/gru_cell") | gru(
        name, f"{path}/backward_gru/gru_cell", "_l0_reverse"
    )


HIERARCHICAL = Pair(
    "hierarchical attention", "text", Hierarchical, hierarchical_keras, draws(ids(25, 2, 3, 4)),
    embedding("emb", "table") | both_gru("word", "words") | both_gru("sentence", "sentences")
    | several(dense, "w attend_words/dense", "s attend_sentences/dense", "fc label")
    | moved("uw", "attend_words/context", lambda value: value[:, None])
    | moved("us", "attend_sentences/context", lambda value: value[:, None]),
)  # fmt: skip


class Memory(nn.Module):
    """End to end memory, two hops, tables shared from hop to hop; words of a fact are weighed by position."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(20, D) for _ in range(3))
        self.H = nn.Linear(D, D, bias=False)
        j, k = torch.arange(1, 5)[:, None] / 4, torch.arange(1, D + 1)[None] / D
        self.register_buffer("weight", 1 - j - k * (1 - 2 * j), persistent=False)

    def forward(self, story: Tensor, question: Tensor) -> Tensor:
        u = (self.tables[0](question) * self.weight).sum(1)
        for hop in range(2):
            m = (self.tables[hop](story) * self.weight).sum(2)
            c = (self.tables[hop + 1](story) * self.weight).sum(2)
            p = torch.softmax(torch.einsum("bsd,bd->bs", m, u), -1)
            u = self.H(u) + (c * p[..., None]).sum(1)
        return u @ self.tables[-1].weight.T


class KerasMemory(keras.Model):
    def __init__(self, *, hops: int = 2, weighed: bool = True) -> None:
        super().__init__()
        self.hops = hops
        self.a, self.b, self.c = (self.add_weight(shape=(20, D), name=name) for name in "abc")
        self.keep = K.Dense(D, use_bias=False, name="keep")
        j, k = np.mgrid[1:5, 1 : D + 1] / np.array([4, D])[:, None, None]
        self.order = (1 - j - k * (1 - 2 * j) if weighed else np.ones((4, D))).astype("float32")

    def call(self, story: Any, question: Any) -> Any:
        tables = [self.a, self.b, self.c]
        read = [tf.einsum("bswd,wd->bsd", tf.gather(table, story), self.order) for table in tables]
        u = tf.einsum("bwd,wd->bd", tf.nn.embedding_lookup(self.a, question), self.order)
        for i in range(self.hops):
            p = tf.nn.softmax(tf.squeeze(tf.matmul(read[i], u[..., None]), -1))
            u = tf.squeeze(p[:, None] @ read[i + 1], 1) + self.keep(u)
        return tf.matmul(u, self.c, transpose_b=True)


MEMORY = Pair(
    "memory network", "text", Memory, KerasMemory, draws(ids(20, 2, 3, 4), ids(20, 2, 4)),
    same("tables.0.weight", "a") | same("tables.1.weight", "b") | same("tables.2.weight", "c") | dense("H", "keep", bias=False),
)  # fmt: skip


class Kim(nn.Module):
    """Convolutions of several widths as images of one channel; two tables, one of which stays."""

    def __init__(self) -> None:
        super().__init__()
        self.static, self.tuned = nn.Embedding(25, 5), nn.Embedding(25, 5)
        self.static.weight.requires_grad_(requires_grad=False)
        self.convs = nn.ModuleList(nn.Conv2d(2, 3, (k, 5)) for k in (2, 3))
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([self.static(x), self.tuned(x)], dim=1)
        x = [F.relu(conv(x)).squeeze(3) for conv in self.convs]
        return self.fc(torch.cat([F.max_pool1d(one, one.size(2)).squeeze(2) for one in x], 1))


def kim_keras(*, pool: Any = K.GlobalMaxPooling1D) -> Any:
    text = keras.Input((6,), dtype="int32")
    fixed, free = K.Embedding(25, 5, trainable=False, name="fixed"), K.Embedding(25, 5, name="free")
    x = K.Concatenate()([fixed(text), free(text)])
    each = [pool()(K.Conv1D(3, k, activation="relu", name=f"conv_{k}")(x)) for k in (2, 3)]
    return keras.Model(text, K.Dense(2, name="label")(K.Dropout(0.5)(K.Concatenate()(each))))


def beside(value: Any) -> Any:
    """``[out, 2, width, 5]`` as ``[width, 2 * 5, out]``."""
    return value.transpose(2, 1, 3, 0).reshape(value.shape[2], 10, -1)


KIM = Pair(
    "two tables, several widths", "text", Kim, kim_keras, draws(ids(25, 3, 6)),
    several(embedding, "static fixed", "tuned free") | dense("fc", "label")
    | moved("convs.0.weight", "conv_2/kernel", beside) | same("convs.0.bias", "conv_2/bias")
    | moved("convs.1.weight", "conv_3/kernel", beside) | same("convs.1.bias", "conv_3/bias"),
)  # fmt: skip

PAIRS = (
    DECOMPOSABLE, ESIM, BIDAF, POINTER, CHARACTERS, HIERARCHICAL, MEMORY, KIM,
    DECOMPOSABLE.alike("softmax over one side", {"axis"}, keras=lambda: decomposable_keras(axes=(2, 2))),
    DECOMPOSABLE.alike("mean for sum", {"Mean", "Sum"}, keras=lambda: decomposable_keras(pool=ops.mean)),
    ESIM.alike("maximum for mean", {"Max", "Mean"}, keras=lambda: esim_keras(pools=(K.GlobalMaxPooling1D, K.GlobalMaxPooling1D))),
    ESIM.alike("difference turned round", {"Sub", "order"}, keras=lambda: esim_keras(sign=-1)),
    BIDAF.alike("mean for maximum", {"Max", "Mean"}, keras=lambda: bidaf_keras(best=tf.reduce_mean)),
    BIDAF.alike("softmax over the context", {"axis"}, keras=lambda: bidaf_keras(axis=1)),
    POINTER.alike("penalty", {"constant", "Mul"}, keras=lambda: KerasPointer(penalty=1.0)),
    POINTER.alike("activation", {"Tanh", "Relu", "activation"}, keras=lambda: KerasPointer(activation="relu")),
    CHARACTERS.alike("activation", {"Tanh", "Relu", "activation"}, keras=lambda: characters_keras(activation="relu")),
    MEMORY.alike("one hop", {"missing", "Softmax", "unused"}, keras=lambda: KerasMemory(hops=1)),
    MEMORY.alike("words of one weight", {"constant", "Mul", "position"}, keras=lambda: KerasMemory(weighed=False)),
    KIM.alike("mean over time", {"Max", "Mean", "pool"}, keras=lambda: kim_keras(pool=K.GlobalAveragePooling1D)),
)  # fmt: skip
