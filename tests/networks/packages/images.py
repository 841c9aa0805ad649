"""Images through windows, registers and towers of attention, and through less usual convolutions: KerasHub against transformers and timm."""

from __future__ import annotations

from typing import Any

from tests.networks.packages.attention import CLIP_BLOCKS, PIXELS, TEXT, VISION, WORDS
from tests.networks.packages.build import Image, Tokens, converted, keras_hub, output, transformers
from tests.networks.packages.convolutional import Features, timm
from tests.networks.packages.sources import converter, part
from tests.networks.packages.truth import Change, Rule, by_converter, by_names, in_order
from tests.networks.textbook.pair import IMAGE, Pair, draws, floats, ids

PICTURE = draws(floats(2, 3, 16, 16))
LARGE = draws(floats(2, 3, 32, 32))
SWIN = {
    "image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, "mlp_ratio": 2.0,
}  # fmt: skip
DINO = {
    "image_size": 16, "patch_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24,
    "layerscale_value": 0.5, "num_register_tokens": 2,
}  # fmt: skip
SIGLIP = {"hidden_act": "gelu_pytorch_tanh"}


def backbone(
    name: str, kind: str, model: str, settings: dict[str, Any], example: Any, *renamed: Rule, **more: Any
) -> Pair:
    """The tokens behind the last layer."""
    return Pair(
        name, "images", lambda: Image(transformers(model, **settings)), lambda: converted(f"transformers/{kind}", model, settings, **more),
        example, by_converter(f"transformers/{kind}", renamed=renamed), inputs={0: IMAGE},
    )  # fmt: skip


def plain(name: str, here: Any, there: Any) -> Pair:
    """What is in front of the head of a model of timm, its layers in the order in which they compute."""
    return Pair(
        name,
        "images",
        lambda: Features(here()),
        there,
        LARGE,
        in_order(),
        inputs={0: IMAGE},
        outputs={0: IMAGE},
    )


def hgnet() -> Any:
    """The last of its stages."""
    settings = converter("timm/hgnetv2").convert_backbone_config({"architecture": "hgnetv2_b0"})
    return output(keras_hub("HGNetV2Backbone", **settings), "stage4")


SWIN_NAMES: tuple[Rule, ...] = (
    (r"attention\.self\.(query|key|value)", lambda found: f"attention.{found[1][0]}_proj"),
    (r"attention\.self\.relative", "attention.relative_position_bias.relative"), (r"attention\.output\.dense", "attention.o_proj"),
    (r"intermediate\.dense", "mlp.fc1"), (r"output\.dense", "mlp.fc2"),
)  # fmt: skip


def third(place: int) -> Change:
    """Of three projections in one."""
    return lambda value: value[place * 8 : place * 8 + 8].T


HEAD: tuple[Rule, ...] = (
    *((rf"^head/attention/{part}/(?:kernel)$", "head/attention/in_proj_weight", third(i)) for i, part in enumerate(("query", "key", "value"))),
    *((rf"^head/attention/{part}/(?:bias)$", "head/attention/in_proj_bias", third(i)) for i, part in enumerate(("query", "key", "value"))),
    ("^head/attention/attention_output", "head/attention/out_proj"), ("^head/variable", "head/probe"),
)  # fmt: skip
TOWER_NAMES: tuple[Rule, ...] = (
    ("^embedding/", "embeddings."), (r"encoder_layer_(\d)", r"encoder.layers.\1"), *CLIP_BLOCKS,
    ("post_layer_norm", "post_layernorm"),
)  # fmt: skip
PAIRS = (
    backbone("Swin", "swin_transformer", "SwinModel", SWIN, LARGE, *SWIN_NAMES),
    backbone("DINOv3", "dinov3", "DINOv3ViTModel", DINO, PICTURE, use_mask_token=False),
    Pair("SigLIP, images", "images", lambda: Image(transformers("SiglipVisionModel", **PIXELS, **SIGLIP), "pooler_output"),
         lambda: part("SigLIPVisionEncoder", "siglip.siglip_vision_encoder")(**VISION), PICTURE, by_names(*HEAD, *TOWER_NAMES), inputs={0: IMAGE}),
    Pair("SigLIP, text", "images", lambda: Tokens(transformers("SiglipTextModel", **WORDS, **SIGLIP), "pooler_output"),
         lambda: part("SigLIPTextEncoder", "siglip.siglip_text_encoder")(**TEXT), draws(ids(20, 3, 10, low=3)), in_order(), keys=("token_ids",)),
    plain("HGNetV2", lambda: timm("hgnetv2_b0"), hgnet),
)  # fmt: skip
