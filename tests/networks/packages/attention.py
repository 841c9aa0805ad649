"""Images, sound and translation through attention: KerasHub against transformers."""

from __future__ import annotations

import re
from typing import Any

import keras
from torch import Tensor, nn

from tests.networks.packages.build import (
    Image,
    Picked,
    Tokens,
    Translation,
    converted,
    keras_hub,
    transformers,
)
from tests.networks.packages.sources import part
from tests.networks.packages.truth import Rule, by_converter, by_names
from tests.networks.textbook.pair import IMAGE, SERIES, Pair, draws, floats, ids, mask

PICTURE = draws(floats(2, 3, 16, 16))
VIT = {
    "image_size": 16, "patch_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8,
    "intermediate_size": 12, "layer_norm_eps": 1e-6, "hidden_dropout_prob": 0.1, "without_pooler": True,
}  # fmt: skip
CLASSES = {name: value for name, value in VIT.items() if name != "without_pooler"} | {"num_labels": 3}
DINO = {
    "image_size": 16, "patch_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8,
    "mlp_ratio": 2, "layerscale_value": 0.5, "use_mask_token": False,
}  # fmt: skip
BART = {
    "vocab_size": 20, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "d_model": 8, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "num_hidden_layers": 2, "max_position_embeddings": 16, "bos_token_id": 0,
    "eos_token_id": 2, "pad_token_id": 1, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
T5 = {
    "vocab_size": 20, "num_layers": 2, "num_heads": 2, "d_model": 8, "d_ff": 12, "d_kv": 4, "eos_token_id": 1,
}  # fmt: skip
WHISPER = {
    "vocab_size": 20, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "d_model": 8, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "num_mel_bins": 4, "max_source_positions": 8,
    "max_target_positions": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
LANGUAGE = {"vocabulary_size": 20, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12}
TRANSLATION = draws(ids(20, 2, 7), mask(2, 7, kind="int64"), ids(20, 2, 5), mask(2, 5, kind="int64"))
STATES = {
    "encoder_sequence_output": "encoder_last_hidden_state",
    "decoder_sequence_output": "last_hidden_state",
}
KEYS = ("encoder_token_ids", "encoder_padding_mask", "decoder_token_ids", "decoder_padding_mask")
TOWER = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 12}
PIXELS = TOWER | {"image_size": 16, "patch_size": 4}
WORDS = TOWER | {
    "vocab_size": 20,
    "max_position_embeddings": 10,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {
    "patch_size": 4, "hidden_dim": 8, "num_layers": 2, "num_heads": 2, "intermediate_dim": 12, "image_shape": (16, 16, 3),
}  # fmt: skip
TEXT = LANGUAGE | {"embedding_dim": 8, "max_sequence_length": 10}


class Speech(Picked):
    """Features of a sound, and what was said so far."""

    def forward(
        self, input_features: Tensor, decoder_input_ids: Tensor, decoder_attention_mask: Tensor
    ) -> Any:
        return self.picked(
            input_features=input_features,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
        )


class Paired(Picked):
    """An image and a text."""

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Any:
        return self.picked(pixel_values=pixel_values, input_ids=input_ids)


def image(name: str, kind: str, model: str, settings: dict[str, Any], *renamed: Rule) -> Pair:
    """The tokens behind the last layer."""
    config = {key: value for key, value in settings.items() if key != "without_pooler"}
    return Pair(
        name, "attention", lambda: Image(transformers(model, **settings)),
        lambda: converted(f"transformers/{kind}", model, config), PICTURE, by_converter(f"transformers/{kind}", renamed=renamed),
        inputs={0: IMAGE},
    )  # fmt: skip


def classifier(name: str, kind: str, model: str, task: str, backbone: str, **more: Any) -> Pair:
    """The logits of three classes."""
    config = {key: value for key, value in CLASSES.items() if key != "num_labels"}
    return Pair(
        name, "attention", lambda: Image(transformers(model, **CLASSES), "logits"),
        lambda: keras_hub(task, backbone=converted(f"transformers/{kind}", backbone, config), num_classes=3, preprocessor=None, **more),
        PICTURE, by_converter(f"transformers/{kind}", head=True, renamed=(LAYERS, *AS_SAVED)), inputs={0: IMAGE},
    )  # fmt: skip


AS_SAVED: tuple[Rule, ...] = (
    (r"attention\.attention\.(query|key|value)", lambda found: f"attention.{found[1][0]}_proj"),
    (r"attention\.output\.dense", "attention.o_proj"), (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
)  # fmt: skip
LAYERS: Rule = (r"encoder\.layer\.", "layers.")
PROJECTIONS: tuple[Rule, ...] = (
    (r"(self_attention|self_attention_layer)/(query|key|value)", lambda found: f"self_attn.{found[2][0]}_proj"),
    (r"(self_attention|self_attention_layer)/attention_output", "self_attn.out_proj"),
    (r"cross_attention/(query|key|value)", lambda found: f"encoder_attn.{found[1][0]}_proj"),
    (r"cross_attention/attention_output", "encoder_attn.out_proj"),
)  # fmt: skip
WHISPER_NAMES: tuple[Rule, ...] = (
    (r"encoder_token_embedding_conv_layer_(\d)", r"encoder.conv\1"), ("encoder_position_embedding", "encoder.embed_positions"),
    ("decoder_token_and_position_embedding/token_embedding", "decoder.embed_tokens"),
    ("decoder_token_and_position_embedding/position_embedding", "decoder.embed_positions"),
    (r"transformer_(encoder|decoder)_layer_(\d)", r"\1.layers.\2"), *PROJECTIONS,
    ("self_attention_layer_norm", "self_attn_layer_norm"), ("cross_attention_layer_norm", "encoder_attn_layer_norm"),
    ("feedforward_layer_norm", "final_layer_norm"), ("feedforward_intermediate_dense", "fc1"),
    ("feedforward_output_dense", "fc2"), ("^(encoder|decoder)_layer_norm", r"\1.layer_norm"),
)  # fmt: skip


def _t5_norm(found: re.Match[str]) -> str:
    """Keras numbers them through both stacks of two layers."""
    side, layer, number = found[1], int(found[2]), int(found[3] or 0)
    place = number - 2 * layer if side == "encoder" else number - 4 - 3 * layer
    return f"{side}.block.{layer}.layer.{place}.layer_norm"


T5_NAMES: tuple[Rule, ...] = (
    ("token_embedding", "shared"),
    ("^self_attention/embeddings$", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias/embeddings"),
    ("^self_attention/embeddings@1$", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias/embeddings"),
    (r"transformer_(encoder|decoder)_layer_(\d)/t5_layer_norm(?:_(\d+))?", _t5_norm),
    (r"transformer_(encoder|decoder)_layer_(\d)", r"\1.block.\2"),
    (r"self_attention/(query|key|value|output)_projector", lambda found: f"layer.0.SelfAttention.{found[1][0]}"),
    (r"cross_attention/(query|key|value|output)_projector", lambda found: f"layer.1.EncDecAttention.{found[1][0]}"),
    (r"Attention.o/", "Attention.o/"), (r"(encoder.block.\d)/(input|gate)_projector", r"\1.layer.1.DenseReluDense.\2"),
    (r"(encoder.block.\d)/output_projector", r"\1.layer.1.DenseReluDense.wo"),
    (r"(decoder.block.\d)/(input|gate)_projector", r"\1.layer.2.DenseReluDense.\2"),
    (r"(decoder.block.\d)/output_projector", r"\1.layer.2.DenseReluDense.wo"), ("Dense.input", "Dense.wi_0"),
    ("Dense.gate", "Dense.wi_1"), (r"^(encoder|decoder)_output_layer_norm", r"\1.final_layer_norm"),
)  # fmt: skip
CLIP_BLOCKS: tuple[Rule, ...] = (
    (r"encoder_block_(\d)", r"encoder.layers.\1"), (r"layer_norm_([12])", r"layer_norm\1"),
    (r"(?<!head)/(attention|self_attn)/(query|key|value)", lambda found: f".self_attn.{found[2][0]}_proj"),
    (r"(?<!head)/(attention|self_attn)/attention_output", ".self_attn.out_proj"), (r"/dense_([12])", r"/mlp.fc\1"),
)  # fmt: skip
BOTH_NAMES: tuple[Rule, ...] = (
    (r"^((embedding|encoder_block|layer_norm).*)@1$", r"text_model.\1"), (r"^(embedding/token.*)$", r"text_model.\1"),
    (r"^(embedding|encoder_block|layer_norm|pre_layer)", r"vision_model.\1"), ("model.embedding/", "model.embeddings."),
    *CLIP_BLOCKS, ("vision_model.layer_norm/", "vision_model.post_layernorm/"),
    ("text_model.layer_norm/", "text_model.final_layer_norm/"), ("pre_layer_norm", "pre_layrnorm"),
    ("vision_projection", "visual_projection"), ("clip_head/", ""),
)  # fmt: skip


def with_epsilon(model: nn.Module) -> nn.Module:
    """KerasHub's last normalisation of the text has another epsilon than all the others."""
    next(one for name, one in model.named_modules() if name.endswith("final_layer_norm")).eps = 1e-6
    return model


def clip() -> Any:
    """Both towers; the places of the patches are zeros in KerasHub until a file is read."""
    vision = part("CLIPVisionEncoder", "clip.clip_vision_encoder")(**VISION)
    vision.embedding.position_ids.assign([range(17)])
    return keras_hub(
        "CLIPBackbone", vision_encoder=vision,
        text_encoder=part("CLIPTextEncoder", "clip.clip_text_encoder")(**TEXT), projection_dim=8,
    )  # fmt: skip


PAIRS = (
    image("ViT", "vit", "ViTModel", VIT, LAYERS, *AS_SAVED),
    classifier("ViT classifier", "vit", "ViTForImageClassification", "ViTImageClassifier", "ViTModel", pooling="token"),
    image("DeiT", "deit", "DeiTModel", VIT, LAYERS, *AS_SAVED),
    image("DINOv2", "dinov2", "Dinov2Model", DINO, *AS_SAVED),
    Pair("BART", "attention", lambda: Translation(transformers("BartModel", **BART), STATES),
         lambda: converted("transformers/bart", "BartModel", BART), TRANSLATION, by_converter("transformers/bart"), keys=KEYS),
    Pair("T5", "attention", lambda: Translation(transformers("T5Model", **T5, feed_forward_proj="gated-gelu"), STATES),
         lambda: keras_hub("T5Backbone", activation=lambda x: keras.ops.gelu(x, approximate=True), key_value_dim=4, **LANGUAGE), TRANSLATION, by_names(*T5_NAMES), keys=KEYS),
    Pair("Whisper", "attention", lambda: Speech(transformers("WhisperModel", **WHISPER), STATES),
         lambda: keras_hub("WhisperBackbone", num_mels=4, max_encoder_sequence_length=16, max_decoder_sequence_length=8, **LANGUAGE),
         draws(floats(2, 4, 16), ids(20, 2, 5), mask(2, 5, kind="int64")), by_names(*WHISPER_NAMES), inputs={0: SERIES},
         keys=("encoder_features", "decoder_token_ids", "decoder_padding_mask")),
    Pair("CLIP, text", "attention", lambda: Tokens(with_epsilon(transformers("CLIPTextModel", **WORDS))),
         lambda: part("CLIPTextEncoder", "clip.clip_text_encoder")(**TEXT), draws(ids(20, 3, 9, low=3)),
         by_names(("^embedding/", "embeddings."), *CLIP_BLOCKS, ("^layer_norm/", "final_layer_norm/")), keys=("token_ids",)),
    Pair("CLIP", "attention",
         lambda: Paired(with_epsilon(transformers("CLIPModel", text_config=WORDS, vision_config=PIXELS, projection_dim=8)),
                        {"vision_logits": "logits_per_image", "text_logits": "logits_per_text"}),
         clip, draws(floats(2, 3, 16, 16), ids(20, 3, 9, low=3)), by_names(*BOTH_NAMES), inputs={0: IMAGE}, keys=("images", "token_ids")),
)  # fmt: skip
