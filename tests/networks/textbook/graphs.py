"""Graphs, sets and points: adjacency as an input, attention on edges, pooling that does not see an order."""

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

from tests.networks.textbook.pair import SERIES, Pair, adjacency, draws, floats, ids, mask
from tests.networks.textbook.truth import batch_norm, conv, dense, embedding, moved, same, several

N, D = 5, 6


class Gcn(nn.Module):
    """Kipf and Welling: adjacency normalised by degrees on both sides; mean over nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2, self.out = nn.Linear(D, 8, bias=False), nn.Linear(8, 8, bias=False), nn.Linear(8, 3)
        self.b1, self.b2 = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        degree = adj.sum(-1).pow(-0.5)
        a = degree.unsqueeze(-1) * adj * degree.unsqueeze(1)
        x = F.relu(a @ self.w1(x) + self.b1)
        x = F.relu(a @ self.w2(x) + self.b2)
        return self.out(x.mean(1))


class GraphConvolution(K.Layer):
    def __init__(self, units: int, *, sides: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.units, self.sides = units, sides

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, x: Any, a: Any) -> Any:
        degree = tf.reduce_sum(a, -1)
        if self.sides == 2:
            half = tf.linalg.diag(tf.math.rsqrt(degree))
            a = half @ a @ half
        else:
            a = tf.linalg.diag(1.0 / degree) @ a
        return tf.nn.relu(tf.matmul(a, x) @ self.kernel + self.bias)


def gcn_keras(*, pool: Any = K.GlobalAveragePooling1D, **options: Any) -> Any:
    x, a = keras.Input((N, D)), keras.Input((N, N))
    y = GraphConvolution(8, name="first", **options)(x, a)
    y = GraphConvolution(8, name="second", **options)(y, a)
    return keras.Model([x, a], K.Dense(3, name="label")(pool()(y)))


GCN = Pair(
    "graph convolution", "graphs", Gcn, gcn_keras, draws(floats(3, N, D), adjacency(3, N)),
    moved("w1.weight", "first/kernel", np.transpose) | moved("w2.weight", "second/kernel", np.transpose)
    | same("b1", "first/bias") | same("b2", "second/bias") | dense("out", "label"),
)  # fmt: skip


class Gat(nn.Module):
    """Attention on edges: a score from both ends, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.W, self.a, self.bias = (
            nn.Linear(D, 8, bias=False),
            nn.Parameter(torch.zeros(2, 8)),
            nn.Parameter(torch.zeros(8)),
        )

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        b, n, _ = x.shape
        h = self.W(x).view(b, n, 2, 4)
        ends = torch.cat(
            [h.unsqueeze(2).expand(-1, -1, n, -1, -1), h.unsqueeze(1).expand(-1, n, -1, -1, -1)], dim=-1
        )
        score = F.leaky_relu((ends * self.a).sum(-1), negative_slope=0.2)
        weight = score.masked_fill(adj.unsqueeze(-1) == 0, -9e15).softmax(dim=2)
        return F.elu(torch.einsum("bijh,bjhd->bihd", weight, h).flatten(2) + self.bias)


class KerasGat(K.Layer):
    """The score as a sum of two, one for each end."""

    def __init__(self, *, slope: float = 0.2, axis: int = -1) -> None:
        super().__init__(name="gat")
        self.slope, self.axis = slope, axis

    def build(self, _: Any) -> None:
        self.kernel = self.add_weight(shape=(D, 2, 4), name="kernel")
        self.own, self.other = (self.add_weight(shape=(4, 2), name=name) for name in ("own", "other"))
        self.bias = self.add_weight(shape=(8,), initializer="zeros", name="bias")

    def call(self, x: Any, a: Any) -> Any:
        h = tf.einsum("bni,ihd->bhnd", x, self.kernel)
        score = (
            tf.einsum("bhid,dh->bhi", h, self.own)[..., None]
            + tf.einsum("bhjd,dh->bhj", h, self.other)[:, :, None]
        )
        score = tf.nn.leaky_relu(score, self.slope) - 1e10 * (1.0 - a[:, None])
        y = tf.transpose(tf.matmul(tf.nn.softmax(score, self.axis), h), (0, 2, 1, 3))
        return tf.nn.elu(tf.reshape(y, (-1, N, 8)) + self.bias)


def gat_keras(**options: Any) -> Any:
    x, a = keras.Input((N, D)), keras.Input((N, N))
    return keras.Model([x, a], KerasGat(**options)(x, a))


GAT = Pair(
    "graph attention", "graphs", Gat, gat_keras, draws(floats(3, N, D), adjacency(3, N)),
    moved("W.weight", "gat/kernel", lambda value: value.T.reshape(D, 2, 4)) | same("bias", "gat/bias")
    | moved("a", "gat/own", lambda value: value[:, :4].T) | moved("a", "gat/other", lambda value: value[:, 4:].T),
)  # fmt: skip


class Sage(nn.Module):
    """The mean of neighbours beside the node itself; unit length; integers as adjacency."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(2 * D, 8)

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        adj = adj.to(x.dtype)
        near = torch.bmm(adj, x) / adj.sum(dim=2, keepdim=True).clamp(min=1)
        return F.normalize(F.relu(self.lin(torch.cat((x, near), dim=2))), p=2.0, dim=-1)


def sage_keras(*, aggregate: str = "mean", unit: bool = True) -> Any:
    x, a = keras.Input((N, D)), keras.Input((N, N), dtype="int32")
    edges = ops.cast(a, "float32")
    near = ops.matmul(edges, x)
    if aggregate == "mean":
        near = near / ops.maximum(ops.sum(edges, -1, keepdims=True), 1)
    y = K.ReLU()(K.Add()([K.Dense(8, name="own")(x), K.Dense(8, use_bias=False, name="near")(near)]))
    return keras.Model([x, a], K.UnitNormalization(axis=-1)(y) if unit else y)


SAGE = Pair(
    "GraphSAGE", "graphs", Sage, sage_keras, draws(floats(3, N, D), adjacency(3, N, kind="int64")),
    moved("lin.weight", "own/kernel", lambda value: value[:, :D].T) | same("lin.bias", "own/bias")
    | moved("lin.weight", "near/kernel", lambda value: value[:, D:].T),
)  # fmt: skip


class Gin(nn.Module):
    """Isomorphism network: a sum of neighbours, a scalar for the node, kinds of atoms; nodes that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.atoms, self.eps = nn.Embedding(9, D), nn.Parameter(torch.zeros(1))
        self.mlp, self.readout = (
            nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8)),
            nn.Linear(8, 2),
        )

    def forward(self, atom: Tensor, adj: Tensor, keep: Tensor) -> Tensor:
        x = self.atoms(atom) * keep.unsqueeze(2)
        x = (1 + self.eps) * x + torch.einsum("bij,bjd->bid", adj, x)
        b, n, d = x.shape
        x = self.mlp(x.reshape(b * n, d)).reshape(b, n, -1)
        return self.readout((x * keep[..., None]).sum(dim=1))


class KerasGin(keras.Model):
    def __init__(self, *, one: float = 1.0, masked: bool = True, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.one, self.masked = one, masked
        self.table, self.eps = (
            K.Embedding(9, D, name="table"),
            self.add_weight(shape=(), initializer="zeros", name="eps"),
        )
        self.wide, self.norm = K.Dense(8, name="wide"), K.BatchNormalization(epsilon=epsilon, name="bn")
        self.narrow, self.read = K.Dense(8, name="narrow"), K.Dense(2, name="read")

    def call(self, atom: Any, adj: Any, keep: Any) -> Any:
        x = tf.einsum("bnd,bn->bnd", self.table(atom), keep)
        x = tf.matmul(adj, x) + x * (self.one + self.eps)
        x = self.narrow(tf.nn.relu(self.norm(self.wide(x))))
        return self.read(tf.einsum("bnd,bn->bd", x, keep) if self.masked else tf.reduce_sum(x, 1))


GIN = Pair(
    "isomorphism network", "graphs", Gin, KerasGin, draws(ids(9, 3, N), adjacency(3, N), mask(3, N)),
    embedding("atoms", "table") | moved("eps", "eps", lambda value: value[0]) | batch_norm("mlp.1", "bn")
    | several(dense, "mlp.0 wide", "mlp.3 narrow", "readout read"),
)  # fmt: skip


class Relational(nn.Module):
    """A matrix for each kind of edge, from two bases; kinds come as a stack of adjacencies."""

    def __init__(self) -> None:
        super().__init__()
        self.basis, self.coefficient, self.root = (
            nn.Parameter(torch.zeros(2, D, 7)),
            nn.Parameter(torch.zeros(3, 2)),
            nn.Linear(D, 7),
        )

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        weight = torch.einsum("rk,kio->rio", self.coefficient, self.basis)
        return torch.tanh(self.root(x) + torch.einsum("brij,bjd,rdo->bio", adj, x, weight))


class KerasRelational(K.Layer):
    def __init__(self, *, activation: str = "tanh") -> None:
        super().__init__(name="rgcn")
        self.activation, self.own = keras.activations.get(activation), K.Dense(7, name="own")

    def build(self, _: Any) -> None:
        self.share, self.base = (
            self.add_weight(shape=(2, 3), name="share"),
            self.add_weight(shape=(2, D, 7), name="base"),
        )

    def call(self, x: Any, a: Any) -> Any:
        y = self.own(x)
        for r in range(3):
            kernel = tf.tensordot(self.share[:, r], self.base, 1)
            y += tf.matmul(a[:, r], tf.matmul(x, kernel))
        return self.activation(y)


def relational_keras(**options: Any) -> Any:
    x, a = keras.Input((N, D)), keras.Input((3, N, N))
    return keras.Model([x, a], KerasRelational(**options)(x, a))


def kinds_of_edges(rng: np.random.Generator) -> Any:
    return np.stack([adjacency(2, N)(rng) for _ in range(3)], axis=1)


RELATIONAL = Pair(
    "kinds of edges", "graphs", Relational, relational_keras, draws(floats(2, N, D), kinds_of_edges),
    same("basis", "rgcn/base") | moved("coefficient", "rgcn/share", np.transpose) | dense("root", "own"), declared=True,
)  # fmt: skip


class Messages(nn.Module):
    """Messages between all pairs of nodes, weighted by edges; a GRU cell updates, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update, self.out = nn.Linear(2 * D + 1, 8), nn.GRUCell(8, D), nn.Linear(D, 1)

    def forward(self, x: Tensor, edge: Tensor) -> Tensor:
        b, n, d = x.shape
        for _ in range(2):
            to, source = x[:, :, None].expand(b, n, n, d), x[:, None].expand(b, n, n, d)
            m = F.softplus(self.message(torch.cat([to, source, edge[..., None]], -1))).sum(2)
            x = self.update(m.reshape(b * n, -1), x.reshape(b * n, d)).view(b, n, d)
        return self.out(x.amax(1)).squeeze(1)


class KerasMessages(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.note = K.Dense(8, activation="softplus", name="note")
        self.cell, self.out = K.GRUCell(D, name="cell"), K.Dense(1, name="out")

    def call(self, x: Any, edge: Any) -> Any:
        for _ in range(2):
            ends = [tf.repeat(x[:, :, None], N, axis=2), tf.repeat(x[:, None], N, axis=1)]
            m = self.note(tf.concat([*ends, edge[..., None]], axis=-1))
            y, _ = self.cell(tf.reshape(tf.reduce_sum(m, 2), (-1, 8)), [tf.reshape(x, (-1, D))])
            x = tf.reshape(y, (-1, N, D))
        return self.out(tf.reduce_max(x, 1))[:, 0]


def cell_bias(a: Any, b: Any) -> Any:
    return np.stack([one.reshape(3, D)[[1, 0, 2]].ravel() for one in (a, b)])


def cell_kernel(value: Any) -> Any:
    return value.reshape(3, D, -1)[[1, 0, 2]].reshape(3 * D, -1).T


MESSAGES = Pair(
    "message passing", "graphs", Messages, KerasMessages, draws(floats(2, N, D), floats(2, N, N)),
    several(dense, "message note", "out out") | moved("update.weight_ih", "cell/kernel", cell_kernel)
    | moved("update.weight_hh", "cell/recurrent_kernel", cell_kernel)
    | moved("update.bias_ih update.bias_hh", "cell/bias", cell_bias),
)  # fmt: skip


class DeepSet(nn.Module):
    """A sum and a maximum over a set whose size is given."""

    def __init__(self) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.rho = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x: Tensor, size: Tensor) -> Tensor:
        inside = torch.arange(x.shape[1]) < size[:, None]
        y = self.phi(x)
        most = y.masked_fill(~inside[..., None], -torch.inf).max(1)[0]
        return self.rho(torch.cat([(y * inside[..., None]).sum(1), most], 1))


def deep_set_keras(*, activation: str = "tanh", order: str = "less") -> Any:
    x, size = keras.Input((7, 4)), keras.Input((1,), dtype="int32")
    phi = keras.Sequential([K.Dense(8, activation, name="a"), K.Dense(8, activation, name="b")], name="phi")
    compare = ops.less if order == "less" else ops.less_equal
    inside = ops.cast(compare(np.arange(7)[None], size), "float32")[..., None]
    y = phi(x)
    both = [ops.sum(y * inside, axis=1), ops.max(y + (inside - 1.0) * 1e9, axis=1)]
    return keras.Model([x, size], K.Dense(1, name="d")(K.Dense(8, "relu", name="c")(K.Concatenate()(both))))


DEEP_SET = Pair(
    "deep set", "graphs", DeepSet, deep_set_keras, draws(floats(3, 7, 4), ids(8, 3, low=2)),
    several(dense, "phi.0 phi/a", "phi.2 phi/b", "rho.0 c", "rho.2 d"),
)  # fmt: skip


class PointNet(nn.Module):
    """Points turned by a matrix that a small network makes; convolutions of one point."""

    def __init__(self) -> None:
        super().__init__()
        self.t1, self.t2 = nn.Conv1d(3, 8, 1), nn.Linear(8, 9)
        self.c1, self.bn, self.c2 = nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.Conv1d(8, 12, 1)
        self.fc = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        turn = self.t2(F.relu(self.t1(x)).max(2)[0]).view(-1, 3, 3) + torch.eye(3)
        x = torch.bmm(x.transpose(2, 1), turn).transpose(2, 1)
        local = F.relu(self.bn(self.c1(x)))
        whole = torch.max(self.c2(local), 2, keepdim=True)[0].expand(-1, -1, x.size(2))
        return self.fc(torch.cat([local, whole], 1).transpose(1, 2)), turn


def point_net_keras(*, eye: bool = True, pool: Any = K.GlobalMaxPooling1D) -> Any:
    cloud = keras.Input((10, 3))
    turn = K.Dense(9, name="matrix")(pool()(K.Dense(8, "relu", name="look")(cloud)))
    turn = K.Reshape((3, 3))(turn)
    turn = turn + np.eye(3, dtype="float32") if eye else turn
    x = K.Dot(axes=(2, 1))([cloud, turn])
    local = K.ReLU()(K.BatchNormalization(epsilon=1e-5, name="bn")(K.Conv1D(8, 1, name="local")(x)))
    whole = K.RepeatVector(10)(pool()(K.Conv1D(12, 1, name="whole")(local)))
    return keras.Model(cloud, [K.Conv1D(4, 1, name="parts")(K.Concatenate()([local, whole])), turn])


def one_step(value: Any) -> Any:
    return value.T[None]


POINT_NET = Pair(
    "points with a turn", "graphs", PointNet, point_net_keras, draws(floats(2, 3, 10)),
    moved("t1.weight", "look/kernel", lambda value: value[:, :, 0].T) | same("t1.bias", "look/bias") | dense("t2", "matrix")
    | several(conv, "c1 local", "c2 whole") | batch_norm("bn", "bn")
    | moved("fc.weight", "parts/kernel", one_step) | same("fc.bias", "parts/bias"),
    inputs={0: SERIES},
)  # fmt: skip

PAIRS = (
    GCN, GAT, SAGE, GIN, RELATIONAL, MESSAGES, DEEP_SET, POINT_NET,
    GCN.alike("normalised on one side", {"Div", "Rsqrt", "Pow", "norm"}, keras=lambda: gcn_keras(sides=1)),
    GCN.alike("maximum over nodes", {"Max", "Mean"}, keras=lambda: gcn_keras(pool=K.GlobalMaxPooling1D)),
    GAT.alike("slope", {"slope", "alpha"}, keras=lambda: gat_keras(slope=0.01)),
    GAT.alike("softmax over the other end", {"axis"}, keras=lambda: gat_keras(axis=-2)),
    SAGE.alike("sum of neighbours", {"Div", "sum", "mean", "missing"}, keras=lambda: sage_keras(aggregate="sum")),
    SAGE.alike("any length", {"norm", "missing", "Div"}, keras=lambda: sage_keras(unit=False)),
    GIN.alike("node not added", {"constant", "Add"}, keras=lambda: KerasGin(one=0.0)),
    GIN.alike("all nodes read", {"mask", "Mul", "missing"}, keras=lambda: KerasGin(masked=False)),
    DEEP_SET.alike("one more in the set", {"Less", "LessOrEqual", "mask", "compar"}, keras=lambda: deep_set_keras(order="less_equal")),
    POINT_NET.alike("no unit matrix", {"Add", "constant", "missing"}, keras=lambda: point_net_keras(eye=False)),
)  # fmt: skip
