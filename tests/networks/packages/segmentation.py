"""A class, a depth or a mask for every pixel: KerasHub and segmentation-models against transformers, timm, torchvision and smp."""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable
from typing import Any

import keras
import torch
from torch import Tensor, nn

from tests.networks.network import torchvision_models
from tests.networks.packages.build import Image, keras_hub, transformers
from tests.networks.packages.sources import package, part, segmentation_models
from tests.networks.packages.truth import in_order
from tests.networks.textbook.pair import IMAGE, Pair, draws, floats

SIZE = 32
PICTURE = draws(floats(2, 3, SIZE, SIZE))
LARGE = draws(floats(2, 3, 2 * SIZE, 2 * SIZE))
MIT = {
    "hidden_sizes": [8, 12, 16, 20], "depths": [1, 2, 1, 1], "num_attention_heads": [1, 2, 2, 4], "sr_ratios": [4, 2, 1, 1],
    "decoder_hidden_size": 12, "num_labels": 3, "hidden_act": "gelu_pytorch_tanh",
}  # fmt: skip
WIDTHS = (8, 12, 16, 20, 24)
"""Of the encoder of the U-nets, from the whole picture to a sixteenth."""
DECODER = (20, 16, 12, 8)


class Segments(nn.Module):
    """Logits as large as the picture, as users resize them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits = self.model(pixel_values).logits
        return nn.functional.interpolate(
            logits, size=pixel_values.shape[2:], mode="bilinear", align_corners=False
        )


class Decoded(nn.Module):
    """An encoder of plain convolutions, a decoder of smp and its head."""

    def __init__(self, decoder: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in itertools.pairwise((3, *WIDTHS))
        )
        self.decoder, self.head = decoder((3, *WIDTHS)), nn.Conv2d(DECODER[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for place, stage in enumerate(self.stages):
            x = torch.relu(stage(x if place == 0 else nn.functional.max_pool2d(x, 2)))
            found.append(x)
        logits: Tensor = self.head(self.decoder(found))
        return logits


def encoder() -> Any:
    """The same encoder with Keras; the decoders take its layers by name."""
    x = first = keras.Input((SIZE, SIZE, 3))
    for place, width in enumerate(WIDTHS):
        x = x if place == 0 else keras.layers.MaxPooling2D()(x)
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name=f"stage{place}")(x)
    return keras.Model(first, x)


SKIPS = [f"stage{place}" for place in (3, 2, 1, 0)]


def keras_unet(**settings: Any) -> Any:
    """``segmentation_models`` over that encoder."""
    unet = segmentation_models("unet")
    return unet.build_unet(
        encoder(), unet.DecoderUpsamplingX2Block, SKIPS, decoder_filters=DECODER, n_upsample_blocks=4, classes=3,
        activation="linear", **settings,
    )  # fmt: skip


def unet(channels: tuple[int, ...], **settings: Any) -> nn.Module:
    decoder: nn.Module = package("segmentation_models_pytorch").decoders.unet.decoder.UnetDecoder(
        channels, DECODER, n_blocks=4, **settings
    )
    return with_eps(decoder)


def with_eps(model: nn.Module, epsilon: float = 1e-3, kind: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """The epsilon that Keras takes."""
    for module in model.modules():
        if isinstance(module, kind):
            setattr(module, "eps", epsilon)  # noqa: B010 -- every kind that is passed has one
    return model


def segformer() -> Any:
    return keras_hub(
        "SegFormerImageSegmenter",
        num_classes=3,
        backbone=keras_hub("SegFormerBackbone", image_encoder=mit(), projection_filters=12),
    )


def mit() -> Any:
    return keras_hub(
        "MiTBackbone", layerwise_depths=MIT["depths"], num_layers=4, layerwise_num_heads=MIT["num_attention_heads"],
        layerwise_sr_ratios=MIT["sr_ratios"], layerwise_patch_sizes=[7, 3, 3, 3], layerwise_strides=[4, 2, 2, 2],
        max_drop_path_rate=0.1, image_shape=(2 * SIZE, 2 * SIZE, 3), hidden_dims=MIT["hidden_sizes"],
    )  # fmt: skip


def with_epsilon(model: nn.Module) -> nn.Module:
    """KerasHub's blocks have another epsilon than its stages."""
    for name, module in model.named_modules():
        if name.endswith(("layernorm_before", "layernorm_after")):
            module.eps = 1e-6
    return model


def linknet(channels: tuple[int, ...]) -> nn.Module:
    decoder: nn.Module = package("segmentation_models_pytorch").decoders.linknet.decoder.LinknetDecoder(
        channels, DECODER[-1], n_blocks=5, use_norm=False
    )
    return decoder


def keras_linknet() -> Any:
    """With transposed convolutions, as smp has them."""
    found = segmentation_models("linknet")
    return found.build_linknet(
        encoder(), found.DecoderTransposeX2Block, SKIPS, decoder_filters=(*DECODER, DECODER[-1]), n_upsample_blocks=5, classes=3,
        activation="linear", use_batchnorm=False,
    )  # fmt: skip


class Standardised(nn.Module):
    """The image encoder of SAM behind what its processor does."""

    def __init__(self) -> None:
        super().__init__()
        self.model = transformers("SamVisionModel", **SAM)
        for name, value in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(value).reshape(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.model((x - self.mean) / self.std).last_hidden_state
        return found


SAM = {
    "image_size": SIZE, "patch_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8, "mlp_dim": 12,
    "window_size": 3, "global_attn_indexes": [1], "output_channels": 12,
}  # fmt: skip
VIT_DET = {
    "image_shape": (SIZE, SIZE, 3), "patch_size": 4, "num_layers": 2, "num_heads": 2, "hidden_size": 8, "intermediate_dim": 12,
    "window_size": 3, "global_attention_layer_indices": [1], "num_output_channels": 12,
}  # fmt: skip


class Atrous(nn.Module):
    """torchvision's pyramid behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        torchvision_models()
        kind = importlib.import_module("torchvision.models.segmentation.deeplabv3").ASPP
        self.stem, self.pyramid = nn.Conv2d(3, 8, 3, padding=1), kind(8, [2, 3, 4], 12)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.pyramid(self.stem(x))
        return found


def keras_atrous() -> Any:
    first = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(8, 3, padding="same")(first)
    layer = part("SpatialPyramidPooling", "deeplab_v3.deeplab_v3_layers")
    return keras.Model(first, layer(dilation_rates=[2, 3, 4], num_channels=12, dropout=0.5)(x))


def ordered(
    name: str, here: Callable[[], nn.Module], there: Callable[[], Any], example: Any = PICTURE, **more: Any
) -> Pair:
    """Layers in the order in which they compute."""
    return Pair(
        name, "segmentation", here, there, example, in_order(), inputs={0: IMAGE}, outputs={0: IMAGE}, **more
    )


PAIRS = (
    ordered("MiT", lambda: Image(with_epsilon(transformers("SegformerModel", **MIT))), mit, LARGE),
    ordered("SegFormer", lambda: Segments(with_epsilon(transformers("SegformerForSemanticSegmentation", **MIT))), segformer, LARGE),
    ordered("Atrous pyramid", lambda: with_eps(Atrous()), keras_atrous),
    ordered("U-Net", lambda: Decoded(unet), keras_unet),
    ordered("U-Net, no normalisation", lambda: Decoded(functools.partial(unet, use_norm=False)), functools.partial(keras_unet, use_batchnorm=False)),
    ordered("LinkNet, no normalisation", lambda: Decoded(linknet), keras_linknet),
    ordered("SAM, images", Standardised, lambda: keras_hub("ViTDetBackbone", **VIT_DET)),
)  # fmt: skip
