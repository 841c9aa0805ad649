"""Text decoders: KerasHub against transformers."""

from __future__ import annotations

from typing import Any

from tests.networks.packages.build import (
    Text,
    Tokens,
    causal,
    converted,
    keras_hub,
    tokens_alone,
    transformers,
)
from tests.networks.packages.truth import Change, Rule, by_converter, by_names
from tests.networks.textbook.pair import Pair, draws, ids, mask

SIZE = {
    "vocab_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 32,
    "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TIED, UNTIED = SIZE | {"tie_word_embeddings": True}, SIZE | {"tie_word_embeddings": False}
HUB = {"vocabulary_size": 20, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 24}
HEADS = {"num_query_heads": 4, "num_key_value_heads": 2}
IDS = draws(ids(20, 3, 7))
TEXT = draws(ids(20, 3, 7), mask(3, 7, kind="int64"))
KEYS = ("token_ids", "padding_mask")
GPT2 = {
    "vocab_size": 20, "n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
NEOX = {
    "vocab_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24,
    "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "gelu_pytorch_tanh",
}  # fmt: skip
BLOOM = {"vocab_size": 20, "n_layer": 2, "n_head": 2, "hidden_size": 16, "bos_token_id": 1, "eos_token_id": 2}
FALCON = {
    "vocab_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "alibi": True, "bias": True,
    "multi_query": False, "parallel_attn": False, "new_decoder_architecture": False, "bos_token_id": 1,
    "eos_token_id": 2, "ffn_hidden_size": 24,
}  # fmt: skip
OPT = {
    "vocab_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8, "ffn_dim": 12,
    "max_position_embeddings": 16, "word_embed_proj_dim": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}  # fmt: skip
GEMMA2 = TIED | {
    "head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 32, "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": None,
}  # fmt: skip
GEMMA3 = TIED | {
    "head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 32, "layer_types": ["full_attention", "full_attention"],
}  # fmt: skip
QWEN3 = {"head_dim": 4, "rms_norm_eps": 1e-5}
MISTRAL = UNTIED | {"sliding_window": 32, "rms_norm_eps": 1e-5, "head_dim": 4}
MIXTRAL = UNTIED | {
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": None,
    "rms_norm_eps": 1e-5,
}
EXPERTS = UNTIED | {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip
QWEN_MOE = EXPERTS | {"shared_expert_intermediate_size": 20, "use_sliding_window": False}
QWEN3_MOE = EXPERTS | {"head_dim": 4, "norm_topk_prob": True, "rms_norm_eps": 1e-6}
SMOL = TIED | {"no_rope_layers": [1, 0], "use_sliding_window": False}


def part(number: int) -> Change:
    """Query, key or value of rows that hold the three for each of two heads."""

    def change(value: Any) -> Any:
        apart = value.reshape(2, 3, 8, *value.shape[1:])
        return apart[:, number].reshape(16, *value.shape[1:])

    return change


def fused(where: str, becomes: str) -> tuple[Rule, ...]:
    return tuple(
        (f"{where}/{name}_dense", becomes, part(i)) for i, name in enumerate(("query", "key", "value"))
    )


def backbone(name: str, kind: str, model: str, settings: dict[str, Any], **more: Any) -> Pair:
    """The states behind the last layer."""
    return Pair(
        name, "decoders", lambda: Text(transformers(model, **settings)),
        lambda: converted(f"transformers/{kind}", model, settings, **more), TEXT, by_converter(f"transformers/{kind}"),
        keys=KEYS,
    )  # fmt: skip


def language_model(
    name: str, kind: str, model: str, task: str, settings: dict[str, Any], **more: Any
) -> Pair:
    """The logits of the next token."""
    return Pair(
        name, "decoders", lambda: Text(transformers(model, **settings), "logits"),
        lambda: causal(task, converted(f"transformers/{kind}", model, settings, **more)), TEXT,
        by_converter(f"transformers/{kind}"), keys=KEYS,
    )  # fmt: skip


def renamed(name: str, kind: str, model: str, task: str, settings: dict[str, Any], *rules: Rule) -> Pair:
    """The logits of the next token, where the converter knows older names of tensors than the model has."""
    return Pair(
        name, "decoders", lambda: Text(transformers(model, **settings), "logits"),
        lambda: causal(task, converted(f"transformers/{kind}", model, settings)), TEXT, by_names(*rules, *MODERN_NAMES),
        keys=KEYS,
    )  # fmt: skip


LAYERS = (r"transformer_layer_(\d+)", r"layers.\1")
OPT_NAMES: tuple[Rule, ...] = (
    LAYERS, ("^layers", "decoder.layers"), ("embeddings/token_embedding", "decoder.embed_tokens"),
    ("embeddings/position_embedding", "decoder.embed_positions", lambda value: value[2:]),
    (r"self_attention/(query|key|value)", lambda found: f"self_attn.{found[1][0]}_proj"),
    ("self_attention/attention_output", "self_attn.out_proj"), ("self_attention_layer_norm", "self_attn_layer_norm"),
    ("feedforward_intermediate_dense", "fc1"), ("feedforward_output_dense", "fc2"),
    ("feedforward_layer_norm", "final_layer_norm"), ("^layer_norm", "decoder.final_layer_norm"),
)  # fmt: skip
NEOX_NAMES: tuple[Rule, ...] = (
    LAYERS, ("token_embedding", "embed_in"), ("self_attention_layer_norm", "input_layernorm"),
    ("feedforward_layer_norm", "post_attention_layernorm"), ("attention_output", "dense"),
    ("self_attention", "attention"), ("feedforward_intermediate_dense", "mlp.dense_h_to_4h"),
    ("feedforward_output_dense", "mlp.dense_4h_to_h"), ("^layer_norm", "final_layer_norm"),
)  # fmt: skip
BLOOM_NAMES: tuple[Rule, ...] = (
    (r"transformer_layer_(\d+)", r"h.\1"), ("token_embedding", "word_embeddings"),
    ("^embedding_layernorm", "word_embeddings_layernorm"), ("pre_attention_layernorm", "input_layernorm"),
    *fused("self_attention", "self_attention.query_key_value"), ("output_dense", "dense"), ("mlp_intermediate_dense", "mlp.dense_h_to_4h"),
    ("mlp_dense", "mlp.dense_4h_to_h"), ("final_layernorm", "ln_f"),
)  # fmt: skip
FALCON_NAMES: tuple[Rule, ...] = (
    (r"transformer_layer_(\d+)", r"h.\1"), ("token_embedding", "word_embeddings"),
    ("/attention/", "/self_attention/"), *fused("self_attention", "self_attention.query_key_value"),
    ("output_dense", "dense"), ("/dense_(h|4h)_to", r"/mlp.dense_\1_to"), ("final_layernorm", "ln_f"),
)  # fmt: skip
PHI3_NAMES: tuple[Rule, ...] = (
    (r"transformer_layer_(\d+)", r"model.layers.\1"), ("token_embedding/reverse_embeddings", "lm_head/reverse_embeddings"),
    ("token_embedding", "model.embed_tokens"), ("pre_attention_layernorm", "input_layernorm"),
    ("attention/query", "self_attn.qkv_proj", lambda value: value[:16]),
    ("attention/key", "self_attn.qkv_proj", lambda value: value[16:24]),
    ("attention/value", "self_attn.qkv_proj", lambda value: value[24:]), ("attention/attention_output", "self_attn.o_proj"),
    ("feedforward_gate_dense", "mlp.gate_up_proj", lambda value: value[:24]),
    ("feedforward_intermediate_dense", "mlp.gate_up_proj", lambda value: value[24:]),
    ("feedforward_output_dense", "mlp.down_proj"), ("sequence_output_layernorm", "model.norm"),
)  # fmt: skip
MODERN_NAMES: tuple[Rule, ...] = (
    (r"transformer_layer_(\d+)", r"model.layers.\1"), ("token_embedding/reverse_embeddings", "lm_head/reverse_embeddings"),
    ("^token_embedding", "model.embed_tokens"),
    (r"self_attention/(query|key|value)_dense_layernorm", lambda found: f"self_attn.{found[1][0]}_norm"),
    (r"self_attention/(query|key|value)", lambda found: f"self_attn.{found[1][0]}_proj"),
    ("self_attention/attention_output", "self_attn.o_proj"), ("self_attention_layernorm", "input_layernorm"),
    ("feedforward_layernorm", "post_attention_layernorm"), (r"\w+_sparse_moe_block(_\d+)?", "mlp"),
    ("sparse_feedforward_gate_dense", "gate"), ("expert_feedforward_output_dense", "down_proj", lambda value: value.swapaxes(1, 2)),
    ("shared_expert_dense/feedforward_gate_dense", "shared_expert.gate_proj"),
    ("shared_expert_dense/feedforward_intermediate_dense", "shared_expert.up_proj"),
    ("shared_expert_dense/feedforward_output_dense", "shared_expert.down_proj"), ("shared_expert_gate_dense", "shared_expert_gate"),
    ("/feedforward_gate_dense", "/mlp.gate_proj"), ("/feedforward_intermediate_dense", "/mlp.up_proj"),
    ("/feedforward_output_dense", "/mlp.down_proj"), ("sequence_output_layernorm", "model.norm"),
)  # fmt: skip
JOINED: Rule = ("expert_feedforward_gate_dense", "gate_up_proj", lambda value: value.swapaxes(1, 2))
APART: tuple[Rule, ...] = (
    ("expert_feedforward_gate_dense", "gate_up_proj", lambda value: value[:, :24].swapaxes(1, 2)),
    ("expert_feedforward_intermediate_dense", "gate_up_proj", lambda value: value[:, 24:].swapaxes(1, 2)),
)  # fmt: skip

PAIRS = (
    backbone("GPT-2", "gpt2", "GPT2Model", GPT2),
    language_model("GPT-2 with logits", "gpt2", "GPT2LMHeadModel", "GPT2CausalLM", GPT2),
    Pair("OPT", "decoders", lambda: Tokens(transformers("OPTModel", **OPT)),
         lambda: tokens_alone(keras_hub("OPTBackbone", vocabulary_size=20, num_layers=2, num_heads=2, hidden_dim=8,
                                        intermediate_dim=12, max_sequence_length=16)), IDS, by_names(*OPT_NAMES)),
    backbone("Llama, tied", "llama3", "LlamaModel", TIED),
    language_model("Llama", "llama3", "LlamaForCausalLM", "Llama3CausalLM", UNTIED),
    language_model("Llama, tied, with logits", "llama3", "LlamaForCausalLM", "Llama3CausalLM", TIED),
    backbone("Llama, one head of keys", "llama3", "LlamaModel", TIED | {"num_key_value_heads": 1}),
    backbone("Llama, as many heads of keys", "llama3", "LlamaModel", TIED | {"num_key_value_heads": 4}),
    backbone("Gemma", "gemma", "GemmaModel", TIED | {"head_dim": 4}),
    language_model("Gemma with logits", "gemma", "GemmaForCausalLM", "GemmaCausalLM", TIED | {"head_dim": 4}),
    backbone("Gemma 2", "gemma", "Gemma2Model", GEMMA2),
    language_model("Gemma 2 with capped logits", "gemma", "Gemma2ForCausalLM", "GemmaCausalLM",
                   GEMMA2 | {"final_logit_softcapping": 3.0}),
    backbone("Gemma 3", "gemma3", "Gemma3TextModel", GEMMA3),
    backbone("Qwen 2", "qwen", "Qwen2Model", TIED),
    language_model("Qwen 2 with logits", "qwen", "Qwen2ForCausalLM", "QwenCausalLM", UNTIED),
    backbone("Qwen 3", "qwen3", "Qwen3Model", TIED | QWEN3),
    language_model("Qwen 3 with logits", "qwen3", "Qwen3ForCausalLM", "Qwen3CausalLM", UNTIED | QWEN3),
    language_model("Qwen 3, tied, with logits", "qwen3", "Qwen3ForCausalLM", "Qwen3CausalLM", TIED | QWEN3),
    backbone("SmolLM 3", "smollm3", "SmolLM3Model", SMOL),
    language_model("SmolLM 3 with logits", "smollm3", "SmolLM3ForCausalLM", "SmolLM3CausalLM", SMOL),
    renamed("Mistral", "mistral", "MistralForCausalLM", "MistralCausalLM", MISTRAL),
    renamed("Mixtral", "mixtral", "MixtralForCausalLM", "MixtralCausalLM", MIXTRAL, *APART),
    renamed("Qwen MoE", "qwen_moe", "Qwen2MoeForCausalLM", "QwenMoeCausalLM", QWEN_MOE, JOINED),
    renamed("Qwen 3 MoE", "qwen3_moe", "Qwen3MoeForCausalLM", "Qwen3MoeCausalLM", QWEN3_MOE, JOINED),
    Pair("Phi-3", "decoders", lambda: Text(transformers("Phi3ForCausalLM", **UNTIED), "logits"),
         lambda: causal("Phi3CausalLM", keras_hub("Phi3Backbone", **HUB, **HEADS, layer_norm_epsilon=1e-5)), TEXT, by_names(*PHI3_NAMES), keys=KEYS),
    Pair("GPT-NeoX", "decoders", lambda: Text(transformers("GPTNeoXModel", **NEOX)),
         lambda: keras_hub("GPTNeoXBackbone", **HUB, num_heads=2, max_sequence_length=32), TEXT, by_names(*NEOX_NAMES), keys=KEYS),
    Pair("Bloom", "decoders", lambda: Text(transformers("BloomModel", **BLOOM)),
         lambda: keras_hub("BloomBackbone", **HUB | {"intermediate_dim": 64}, num_heads=2), TEXT, by_names(*BLOOM_NAMES), keys=KEYS),
    Pair("Falcon", "decoders", lambda: Text(transformers("FalconModel", **FALCON)),
         lambda: keras_hub("FalconBackbone", **HUB, num_attention_heads=2), TEXT, by_names(*FALCON_NAMES), keys=KEYS),
)  # fmt: skip
