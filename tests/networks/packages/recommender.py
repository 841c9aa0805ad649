"""Clicks, ratings and several tasks at once: deepctr and keras-rs against deepctr-torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import keras
import numpy as np
import torch
from torch import Tensor, nn

from tests.networks.packages.sources import package
from tests.networks.packages.truth import Rule, by_names
from tests.networks.textbook.pair import Pair, draws, floats, ids, padded
from tests.networks.textbook.truth import Array

TABLES = {"user": 7, "item": 8, "shop": 9}
WIDTH, RATES, LENGTH = 4, 2, 5
EXAMPLE = draws(*(ids(rows, 5, 1, kind="int32") for rows in TABLES.values()), floats(5, RATES))
HIDDEN = {"dnn_hidden_units": (6, 5)}
QUIET = {"l2_reg_embedding": 0, "l2_reg_linear": 0}
EXPERTS = {"expert_dnn_hidden_units": (6,), "tower_dnn_hidden_units": (5,), "gate_dnn_hidden_units": (4,)}


class Columns(nn.Module):
    """A model of deepctr-torch, which takes all features as columns of one table of numbers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, user: Tensor, item: Tensor, shop: Tensor, rates: Tensor) -> Tensor:
        found: Tensor = self.model(torch.cat([user, item, shop, rates], 1))
        return found


class Apart(nn.Module):
    """The columns of a model's output as outputs of their own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, user: Tensor, item: Tensor, shop: Tensor, rates: Tensor) -> tuple[Tensor, ...]:
        return torch.split(self.model(user, item, shop, rates), 1, 1)


class Clicks(nn.Module):
    """One that takes what the user clicked on as well, zeros behind the last."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, user: Tensor, item: Tensor, clicks: Tensor, rates: Tensor) -> Tensor:
        found: Tensor = self.model(torch.cat([user, item, clicks, rates], 1))
        return found


class Dots(nn.Module):
    """Products of all pairs of embeddings, and a network behind them: the parts of deepctr-torch."""

    def __init__(self) -> None:
        super().__init__()
        parts = package("deepctr_torch.layers")
        self.tables = nn.ModuleDict({name: nn.Embedding(rows, WIDTH) for name, rows in TABLES.items()})
        self.dots = parts.InnerProductLayer()
        self.top = parts.DNN(3 + WIDTH, (6,), init_std=1.0)
        self.rate = nn.Linear(RATES, WIDTH)
        self.out = nn.Linear(6, 1)

    def forward(self, user: Tensor, item: Tensor, shop: Tensor, rates: Tensor) -> Tensor:
        ids = {"user": user, "item": item, "shop": shop}
        dots = self.dots([self.tables[name](value) for name, value in ids.items()])
        found: Tensor = self.out(self.top(torch.cat([dots.flatten(1), self.rate(rates)], 1)))
        return found


def keras_dots() -> Any:
    """The same with the layer of keras-rs."""
    given = {name: keras.Input((1,), name=name, dtype="int32") for name in TABLES}
    rates = keras.Input((RATES,), name="rates")
    rows = [
        keras.layers.Embedding(size, WIDTH, name=f"tables.{name}")(given[name])
        for name, size in TABLES.items()
    ]
    dots = package("keras_rs").layers.DotInteraction()([keras.layers.Reshape((WIDTH,))(row) for row in rows])
    joined = keras.layers.Concatenate()([dots, keras.layers.Dense(WIDTH, name="rate")(rates)])
    hidden = keras.layers.Dense(6, activation="relu", name="top.linears.0")(joined)
    return keras.Model([*given.values(), rates], keras.layers.Dense(1, name="out")(hidden))


class Crossed(nn.Module):
    """Features crossed twice by matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = package("deepctr_torch.layers").CrossNet(6, layer_num=2, parameterization="matrix")
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(self.cross(x))
        return found


def keras_crossed() -> Any:
    first = keras.Input((6,))
    one, two = (package("keras_rs").layers.FeatureCross(name=f"cross{i}") for i in range(2))
    return keras.Model(first, keras.layers.Dense(2, name="out")(two(first, one(first, first))))


@contextmanager
def names_in_front() -> Iterator[None]:
    """Lets a layer name its weight by position, which deepctr does and Keras takes by keyword alone."""
    usual = keras.Layer.add_weight

    def add_weight(layer: Any, *given: Any, **named: Any) -> Any:
        return (
            usual(layer, **named, name=given[0])
            if given and isinstance(given[0], str)
            else usual(layer, *given, **named)
        )

    with mock.patch.object(keras.Layer, "add_weight", add_weight):
        yield


def columns(source: str, *, history: bool = False) -> list[Any]:
    """The same features in the words of either package."""
    kinds = package(source)
    given = [kinds.SparseFeat(name, rows, WIDTH) for name, rows in TABLES.items()]
    if history:
        given[-1] = kinds.VarLenSparseFeat(kinds.SparseFeat("clicks", TABLES["shop"], WIDTH), LENGTH, "mean")
    return [*given, kinds.DenseFeat("rates", RATES)]


Makes = Callable[[Any, list[Any]], Any]
"""Makes the model of a module ``models`` and the features."""


def wide(name: str, *, deep: bool = True, **settings: Any) -> Makes:
    """A model with a linear part and another, which takes ``deep`` numbers or none."""
    return lambda models, given: getattr(models, name)(
        given, given if deep else given[: len(TABLES)], **settings
    )


def single(name: str, **settings: Any) -> Makes:
    """A model that has no linear part."""
    return lambda models, given: getattr(models, name)(given, **settings)


def there(makes: Makes, *, history: bool = False) -> Any:
    """The model of deepctr."""
    with names_in_front():
        return makes(package("deepctr.models"), columns("deepctr.feature_column", history=history))


def pair(name: str, here: Makes, other: Makes | None = None, *rules: Rule, **more: Any) -> Pair:
    """A model of deepctr-torch and its namesake of deepctr."""
    return Pair(
        name, "recommender", lambda: Columns(here(package("deepctr_torch.models"), columns("deepctr_torch.inputs"))),
        lambda: there(other or here), EXAMPLE, by_names(*rules, *NAMES), **more,
    )  # fmt: skip


def tasks(name: str, makes: Makes, *rules: Rule) -> Pair:
    """One with an output for each of two tasks."""
    usual = pair(name, makes, None, *rules)
    return dataclasses.replace(usual, torch=lambda: Apart(usual.torch()))


NAMES: tuple[Rule, ...] = (
    (r"^sparse(?:_seq)?_emb_", "embedding_dict."), (r"^linear0sparse_emb_", "linear_model.embedding_dict."),
    (r"^linear/linear_kernel", "linear_model/weight"), (r"^dnn/(kernel|bias)(\d)", r"dnn.linears.\2/\1"),
    (r"^(?:dense|dense_final)/", "dnn_linear/"), (r"^prediction_layer/global_bias", "out/bias"),
)  # fmt: skip
"""Of deepctr to deepctr-torch; what a model has besides stands before them."""


def stacked(there: str, here: str) -> tuple[Rule, ...]:
    """One tensor of deepctr-torch that deepctr holds in two."""

    def one(place: int) -> Rule:
        return rf"{there}{place}$", here, lambda value: value[place]

    return one(0), one(1)


def second_order(one: str, other: str) -> str:
    """The table of a feature for its products with another."""
    names = list(TABLES)
    place = 1 + (names.index(one) > names.index(other))
    return (
        f"second_order_embedding_dict.{'+'.join(sorted((one, other), key=names.index))}.emb{place}/embeddings"
    )


CROSSED = (*stacked("cross_net/kernel", "crossnet/kernels"), *stacked("cross_net/bias", "crossnet/bias"))


def fields_first(weight: Array) -> Array:
    """Both multiply all features with all hidden ones, and count them in the other order."""
    return weight.reshape(5, 3, 3, 1).swapaxes(1, 2).reshape(5, 9, 1)


def channels_behind(weight: Array) -> Array:
    """Of 4 channels of one row of 4."""
    return weight.reshape(6, 4, 4).swapaxes(1, 2).reshape(6, 16)


MIXED: tuple[Rule, ...] = (
    *stacked("cross_net_mix/U_list", "crossnet/U_list"), *stacked("cross_net_mix/V_list", "crossnet/V_list"),
    *stacked("cross_net_mix/C_list", "crossnet/C_list"), *stacked("cross_net_mix/bias", "crossnet/bias"),
    (r"^(?:cross_net_mix/)?dense(?:_1)?/kernel", lambda found: f"crossnet.gating.{int('_1' in found[0])}/kernel"),
    (r"^dense_2/", "dnn_linear/"),
)  # fmt: skip
INTERACTING: tuple[Rule, ...] = (
    (r"^interacting_layer(?:_(\d))?/(\w+)", lambda found: f"int_layers.{found[1] or 0}/W_{ROLES[found[2]]}"),
)
ROLES = {"query": "Query", "key": "key", "value": "Value", "res": "Res"}
TASKS: tuple[Rule, ...] = (
    (r"^expert_(\d)/(kernel|bias)(\d)", r"expert_dnn.\1.linears.\3/\2"),
    (r"^(gate|tower)_(ctr|ctcvr)/(kernel|bias)(\d)", lambda found: f"{found[1]}_dnn.{TASK[found[2]]}.linears.{found[4]}/{found[3]}"),
    (r"^gate_softmax_(ctr|ctcvr)", lambda found: f"gate_dnn_final_layer.{TASK[found[1]]}"),
    (r"^dense(_1)?/", lambda found: f"tower_dnn_final_layer.{int(bool(found[1]))}/"),
    (r"^(ctr|ctcvr)/global_bias", lambda found: f"out.{TASK[found[1]]}/bias"),
    (r"^dnn/(kernel|bias)(\d)", r"bottom_dnn.linears.\2/\1"),
)  # fmt: skip
TASK = {"ctr": 0, "ctcvr": 1}
LEVELS: tuple[Rule, ...] = (
    (r"^level_(\d)_task_(ctr|ctcvr)_expert_specific_(\d)/(kernel|bias)(\d)",
     lambda found: f"specific_experts.{found[1]}.{TASK[found[2]]}.{found[3]}.linears.{found[5]}/{found[4]}"),
    (r"^level_(\d)_expert_shared_(\d)/(kernel|bias)(\d)", r"shared_experts.\1.0.\2.linears.\4/\3"),
    (r"^level_(\d)_gate_specific_(ctr|ctcvr)/(kernel|bias)(\d)",
     lambda found: f"specific_gate_dnn.{found[1]}.{TASK[found[2]]}.0.linears.{found[4]}/{found[3]}"),
    (r"^level_(\d)_gate_softmax_specific_(ctr|ctcvr)/", lambda found: f"specific_gate_dnn_final_layer.{found[1]}.{TASK[found[2]]}/"),
    (r"^level_(\d)_gate_shared/(kernel|bias)(\d)", r"shared_gate_dnn.\1.linears.\3/\2"),
    (r"^level_(\d)_gate_softmax_shared/", r"shared_gate_dnn_final_layer.\1/"), *TASKS,
)  # fmt: skip
PAIRS = (
    pair("DeepFM", wide("DeepFM", **HIDDEN, **QUIET)),
    pair("Wide and deep", wide("WDL", **HIDDEN, **QUIET)),
    pair("DCN", wide("DCN", **HIDDEN, **QUIET, l2_reg_cross=0), None, *CROSSED),
    pair("DCN, matrices", wide("DCN", **HIDDEN, **QUIET, l2_reg_cross=0, cross_parameterization="matrix"), None, *CROSSED),
    pair("DCN, mixed", wide("DCNMix", **HIDDEN, **QUIET, l2_reg_cross=0, low_rank=3, num_experts=2), None, *MIXED),
    pair("xDeepFM", wide("xDeepFM", **HIDDEN, **QUIET, cin_layer_size=(6, 5)), None,
         (r"^cin/filter0", "cin.conv1ds.0/kernel"), (r"^cin/filter1", "cin.conv1ds.1/kernel", fields_first), (r"^cin/bias(\d)", r"cin.conv1ds.\1/bias"),
         (r"^dense_1/", "cin_linear/"), symmetric=True),
    pair("AutoInt", wide("AutoInt", **HIDDEN, l2_reg_embedding=0, att_layer_num=2),
         wide("AutoInt", **HIDDEN, **QUIET, att_layer_num=2, att_embedding_size=2), *INTERACTING),
    pair("AFM", wide("AFM", deep=False, attention_factor=3, **QUIET, l2_reg_att=0), None, (r"^afm_layer/", "fm/")),
    pair("NFM", wide("NFM", **HIDDEN, **QUIET)),
    pair("PNN, inner products", single("PNN", **HIDDEN, l2_reg_embedding=0)),
    pair("PNN, outer products", single("PNN", **HIDDEN, l2_reg_embedding=0, use_outter=True), None,
         (r"^outter_product_layer/", "outterproduct/")),
    pair("IFM", wide("IFM", **HIDDEN, **QUIET), None, (r"^dnn/(\w+)(\d)", r"factor_estimating_net.linears.\2/\1"),
         (r"^dense/", "transform_weight_matrix_P/")),
    pair("DIFM", wide("DIFM", **HIDDEN, **QUIET, att_head_num=2), wide("DIFM", **HIDDEN, **QUIET, att_head_num=2, att_embedding_size=2),
         (r"^interacting_layer/(\w+)", lambda found: f"vector_wise_net/W_{ROLES[found[1]]}"), (r"^dnn/(\w+)(\d)", r"bit_wise_net.linears.\2/\1"),
         (r"^dense/", "transform_matrix_P_vec/"), (r"^dense_1/", "transform_matrix_P_bit/")),
    pair("CCPM", wide("CCPM", deep=False, **HIDDEN, **QUIET), None,
         (r"^conv2d(_1)?/", lambda found: f"conv_layer.conv_layer.{3 if found[1] else 0}/"),
         (r"^dnn/kernel0", "dnn.linears.0/kernel", channels_behind)),
    pair("ONN", wide("ONN", **HIDDEN, **QUIET), wide("ONN", **HIDDEN, **QUIET, use_bn=False),
         (r"^sparse_emb_(user|item|shop)_(user|item|shop)/embeddings", lambda found: second_order(found[1], found[2]))),
    tasks("Shared bottom", single("SharedBottom", bottom_dnn_hidden_units=(6,), tower_dnn_hidden_units=(5,), l2_reg_embedding=0), *TASKS),
    tasks("MMoE", single("MMOE", num_experts=2, **EXPERTS, l2_reg_embedding=0), *TASKS),
    tasks("PLE", single("PLE", **EXPERTS, l2_reg_embedding=0), *LEVELS),
    Pair("DeepFM, clicks", "recommender",
         lambda: Clicks(wide("DeepFM", **HIDDEN, **QUIET)(package("deepctr_torch.models"), columns("deepctr_torch.inputs", history=True))),
         lambda: there(wide("DeepFM", **HIDDEN, **QUIET), history=True),
         draws(ids(7, 5, 1, kind="int32"), ids(8, 5, 1, kind="int32"), padded(9, 5, LENGTH, kind="int32"), floats(5, RATES)),
         by_names((r"^linear0sparse_seq_emb_", "linear_model.embedding_dict."), *NAMES)),
    Pair("Dots of features", "recommender", Dots, keras_dots, EXAMPLE, by_names()),
    Pair("Crossed features", "recommender", Crossed, keras_crossed, draws(floats(5, 6)),
         by_names(*((rf"^cross{i}/dense(?:_1)?/{role}$", f"cross/{there}", lambda value, i=i: value[i].T if value.ndim == 3 and value.shape[-1] > 1 else value[i])
                    for i in range(2) for role, there in (("kernel", "kernels"), ("bias", "bias"))))),
    pair("Wide and deep: no sigmoid", wide("WDL", **HIDDEN, **QUIET, task="regression"), wide("WDL", **HIDDEN, **QUIET), cause=frozenset({"sigmoid"})),
    pair("DeepFM: tanh", wide("DeepFM", **HIDDEN, **QUIET), wide("DeepFM", **HIDDEN, **QUIET, dnn_activation="tanh"), cause=frozenset({"tanh"})),
    pair("AutoInt: one head", wide("AutoInt", **HIDDEN, l2_reg_embedding=0, att_layer_num=2),
         wide("AutoInt", **HIDDEN, **QUIET, att_layer_num=2, att_embedding_size=4, att_head_num=1), *INTERACTING, cause=frozenset({"head"})),
    dataclasses.replace(    tasks("ESMM: a bias for each task", single("ESMM", tower_dnn_hidden_units=(6, 5), l2_reg_embedding=0),
         (r"^dnn(_1)?/(kernel|bias)(\d)", lambda found: f"c{'v' if found[1] else 't'}r_dnn.linears.{found[3]}/{found[2]}"),
         (r"^dense(_1)?/", lambda found: f"c{'v' if found[1] else 't'}r_dnn_final_layer/"), (r"^ctr/global_bias", "out/bias"), (r"^prediction_layer/global_bias", "out/bias", np.zeros_like)), cause=frozenset({"shared"})),
)  # fmt: skip
