"""Text encoders: KerasHub against transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.networks.packages.build import (
    Picked,
    Segments,
    Text,
    Tokens,
    converted,
    keras_hub,
    output,
    tokens_alone,
    transformers,
)
from tests.networks.packages.truth import Rule, by_converter, by_names
from tests.networks.textbook.pair import Pair, draws, ids, mask

LENGTH = 7
SIZE = {
    "vocab_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8,
    "intermediate_size": 12, "max_position_embeddings": 16,
}  # fmt: skip
HUB = {
    "vocabulary_size": 20, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12,
    "max_sequence_length": 16,
}  # fmt: skip
ELECTRA = {name: value for name, value in HUB.items() if name != "vocabulary_size"}
TANH = {"hidden_act": "gelu_pytorch_tanh"}
TEXT = draws(ids(20, 3, LENGTH, low=2), mask(3, LENGTH, kind="int64"))
SEGMENTS = draws(ids(20, 3, LENGTH, low=2), mask(3, LENGTH, kind="int64"), ids(2, 3, LENGTH))
KEYS = ("token_ids", "padding_mask")
BOTH = {"sequence_output": "last_hidden_state", "pooled_output": "pooler_output"}


class Placed(Picked):
    """RoBERTa with positions that do not look at the padding."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        places = torch.arange(2, 2 + input_ids.shape[1])[None]
        return self.picked(input_ids=input_ids, attention_mask=attention_mask, position_ids=places)


def encoder(name: str, kind: str, model: str, settings: dict[str, Any], **changed: Any) -> Pair:
    """Both sides by the settings of transformers, the weights by KerasHub's converter, one output."""
    wrapper, more = changed.pop("wrapper", Text), changed.pop("more", {})
    made: dict[str, Any] = {
        "torch": lambda: wrapper(transformers(model, **settings)),
        "keras": lambda: converted(f"transformers/{kind}", model, settings, **more),
        "example": TEXT,
        "truth": by_converter(f"transformers/{kind}"),
        "keys": KEYS,
    }
    return Pair(name, "encoders", **made | changed)


def segmented(name: str, kind: str, model: str, settings: dict[str, Any], **more: Any) -> Pair:
    """With segments, and both outputs by KerasHub's names."""
    return encoder(
        name, kind, model, settings, torch=lambda: Segments(transformers(model, **settings), BOTH),
        example=SEGMENTS, keys=(*KEYS, "segment_ids"), more=more,
    )  # fmt: skip


BERT = segmented("BERT", "bert", "BertModel", SIZE | TANH)
ALBERT = segmented("ALBERT", "albert", "AlbertModel", SIZE | TANH | {"embedding_size": 6})
GROUPS = (
    SIZE | TANH | {"embedding_size": 6, "num_hidden_groups": 2, "inner_group_num": 2, "num_hidden_layers": 4}
)
DISTIL = {
    "vocab_size": 20, "n_layers": 2, "n_heads": 2, "dim": 8, "hidden_dim": 12, "max_position_embeddings": 16,
}  # fmt: skip
ROBERTA = SIZE | {"max_position_embeddings": 18, "layer_norm_eps": 1e-5, "type_vocab_size": 1}
ESM = SIZE | {
    "pad_token_id": 1,
    "mask_token_id": 3,
    "position_embedding_type": "rotary",
    "token_dropout": False,
}

ELECTRA_NAMES: tuple[Rule, ...] = (
    (r"^(token|position|segment)_embedding/", r"embeddings.\1_embeddings."), ("token_emb", "word_emb"),
    ("segment_emb", "token_type_emb"), ("^embeddings_layer_norm", "embeddings.LayerNorm"),
    ("embeddings_projection", "embeddings_project"), (r"transformer_layer_(\d+)", r"encoder.layer.\1"),
    ("self_attention_layer/(query|key|value)", r"attention.self.\1"),
    ("self_attention_layer/attention_output", "attention.output.dense"),
    ("self_attention_layer_norm", "attention.output.LayerNorm"), ("feedforward_layer_norm", "output.LayerNorm"),
    ("feedforward_intermediate_dense", "intermediate.dense"), ("feedforward_output_dense", "output.dense"),
    ("pooled_dense", "pooler.dense"),
)  # fmt: skip
FNET = {
    "vocab_size": 20, "num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 12, "max_position_embeddings": 16,
    "type_vocab_size": 4, "use_tpu_fourier_optimizations": False,
}  # fmt: skip
DEBERTA = SIZE | {
    "relative_attention": True, "position_buckets": 4, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0, "layer_norm_eps": 1e-7,
}  # fmt: skip
FNET_NAMES: tuple[Rule, ...] = (
    (r"f_net_layer_(\d+)", r"encoder.layer.\1"), (r"^(token|position|segment)_embedding/", r"embeddings.\1_embeddings."),
    ("token_emb", "word_emb"), ("segment_emb", "token_type_emb"), ("^embeddings_layer_norm", "embeddings.LayerNorm"),
    ("^embedding_projection", "embeddings.projection"), ("mixing_layer_norm", "fourier.output.LayerNorm"),
    ("intermediate_dense", "intermediate.dense"), ("output_dense", "output.dense"), ("output_layer_norm", "output.LayerNorm"),
)  # fmt: skip
DEBERTA_NAMES: tuple[Rule, ...] = (
    (r"disentangled_attention_encoder_layer_(\d+)", r"encoder.layer.\1"), ("^token_embedding/", "embeddings.word_embeddings/"),
    ("^embeddings_layer_norm", "embeddings.LayerNorm"), ("^rel_embedding/rel_embeddings_layer_norm", "encoder.LayerNorm"),
    ("^rel_embedding/rel_embedding$", "encoder.rel_embeddings/embeddings"),
    ("self_attention_layer/(query|key|value)", r"attention.self.\1_proj"), ("self_attention_layer/attention_output", "attention.output.dense"),
    ("self_attention_layer_norm", "attention.output.LayerNorm"), ("feedforward_layer_norm", "output.LayerNorm"),
    ("feedforward_intermediate_dense", "intermediate.dense"), ("feedforward_output_dense", "output.dense"),
)  # fmt: skip


class Kinds(Picked):
    """Token ids and the segment of each."""

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Any:
        return self.picked(input_ids=input_ids, token_type_ids=token_type_ids)


CLASSES = {"num_labels": 3}

PAIRS = (
    BERT,
    ALBERT,
    segmented("ALBERT, groups", "albert", "AlbertModel", GROUPS),
    encoder("DistilBERT", "distilbert", "DistilBertModel", DISTIL),
    encoder("RoBERTa", "roberta", "RobertaModel", ROBERTA | {"without_pooler": True}, wrapper=Placed,
            truth=by_converter("transformers/xlm_roberta")),
    encoder("XLM-RoBERTa", "xlm_roberta", "XLMRobertaModel", ROBERTA | {"without_pooler": True}, wrapper=Placed),
    Pair("ELECTRA", "encoders", lambda: Segments(transformers("ElectraModel", **SIZE | TANH | {"embedding_size": 6})),
         lambda: output(keras_hub("ElectraBackbone", vocab_size=20, embedding_dim=6, **ELECTRA), "sequence_output"), SEGMENTS, by_names(*ELECTRA_NAMES),
         keys=(*KEYS, "segment_ids")),
    encoder("BERT classifier", "bert", "BertForSequenceClassification", SIZE | TANH | CLASSES,
            torch=lambda: Segments(transformers("BertForSequenceClassification", **SIZE | TANH | CLASSES), "logits"),
            keras=lambda: keras_hub("BertTextClassifier", backbone=converted("transformers/bert", "BertModel", SIZE | TANH), num_classes=3),
            example=SEGMENTS, keys=(*KEYS, "segment_ids"), truth=by_converter("transformers/bert", ("^logits", "classifier"))),
    encoder("DistilBERT classifier", "distilbert", "DistilBertForSequenceClassification", DISTIL | CLASSES,
            torch=lambda: Text(transformers("DistilBertForSequenceClassification", **DISTIL | CLASSES), "logits"),
            keras=lambda: keras_hub("DistilBertTextClassifier", hidden_dim=8, backbone=converted("transformers/distilbert", "DistilBertModel", DISTIL), num_classes=3),
            truth=by_converter("transformers/distilbert", ("^logits", "classifier"), ("^pooled_dense", "pre_classifier"))),
    Pair("FNet", "encoders", lambda: Kinds(transformers("FNetModel", **FNET)),
         lambda: output(keras_hub("FNetBackbone", vocabulary_size=20, num_layers=2, hidden_dim=8, intermediate_dim=12,
                                  max_sequence_length=16, num_segments=4), "sequence_output"),
         draws(ids(20, 3, 16), ids(4, 3, 16)), by_names(*FNET_NAMES), keys=("token_ids", "segment_ids")),
    # With a mask that hides something their outputs are others.
    Pair("DeBERTa v3, nothing padded", "encoders", lambda: Tokens(transformers("DebertaV2Model", **DEBERTA)),
         lambda: tokens_alone(keras_hub("DebertaV3Backbone", **HUB, bucket_size=4)), draws(ids(20, 3, LENGTH)), by_names(*DEBERTA_NAMES)),
    encoder("BERT with the exact gelu", "bert", "BertModel", SIZE, torch=lambda: Segments(transformers("BertModel", **SIZE), BOTH),
            example=SEGMENTS, keys=(*KEYS, "segment_ids"), cause=frozenset({"approximate", "gelu"})),
    # KerasHub finds padding by its id, and transformers by a mask that is given; where no text is padded both are one.
    encoder("ESM with padding", "esm", "EsmModel", ESM | {"without_pooler": True}, wrapper=Tokens, example=draws(ids(20, 3, LENGTH)),
            keys=KEYS[:1], cause=frozenset({"notequal"})),
)  # fmt: skip
