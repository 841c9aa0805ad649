"""Images through convolutions: KerasHub and keras.applications against timm and torchvision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras.src.applications import convnext, densenet
from torch import Tensor, nn

from tests.networks.network import torchvision_models
from tests.networks.packages.build import keras_hub
from tests.networks.packages.sources import converter, package
from tests.networks.packages.truth import by_converter, in_order
from tests.networks.textbook.pair import IMAGE, Pair, draws, floats, uniform

SMALL = draws(floats(2, 3, 32, 32))
LARGE = draws(floats(2, 3, 64, 64))
RESNET = {"layers": (1, 1, 1, 1), "channels": (64, 12, 16, 20)}
STAGES = {
    "input_conv_filters": [64], "input_conv_kernel_sizes": [7], "stackwise_num_filters": [64, 12, 16, 20],
    "stackwise_num_blocks": [1, 1, 1, 1], "stackwise_num_strides": [1, 2, 2, 2],
}  # fmt: skip


def timm(name: str, **settings: Any) -> nn.Module:
    """``timm.create_model`` with random weights."""
    model: nn.Module = package("timm").create_model(name, pretrained=False, **settings)
    return model


class Features(nn.Module):
    """What a model of timm has in front of its head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.model.forward_features(x)
        return found


class Scaled(nn.Module):
    """A model behind a division by 255."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.model(x / 255)
        return found


def features(
    name: str,
    kind: str,
    architecture: str,
    backbone: str,
    torch_settings: dict[str, Any],
    keras_settings: dict[str, Any],
    **more: Any,
) -> Pair:
    """What the last stage returns, the weights by KerasHub's converter of timm's models."""
    return Pair(
        name, "convolutional", lambda: Features(timm(architecture, **torch_settings)),
        lambda: keras_hub(backbone, **keras_settings), LARGE,
        by_converter(f"timm/{kind}", settings={"architecture": architecture}), inputs={0: IMAGE}, outputs={0: IMAGE}, **more,
    )  # fmt: skip


def known(name: str, kind: str, backbone: str, **torch_settings: Any) -> Pair:
    """The backbone that KerasHub's converter makes of timm's architecture of the name."""
    return Pair(
        name, "convolutional", lambda: Features(timm(name, **torch_settings)),
        lambda: keras_hub(backbone, **converter(f"timm/{kind}").convert_backbone_config({"architecture": name})), LARGE,
        by_converter(f"timm/{kind}", settings={"architecture": name}), inputs={0: IMAGE}, outputs={0: IMAGE},
    )  # fmt: skip


def ordered(
    name: str,
    torch: Callable[[], nn.Module],
    keras_side: Callable[[], Any],
    example: Any = LARGE,
    **more: Any,
) -> Pair:
    """Layers in the order in which they compute."""
    return Pair(name, "convolutional", torch, keras_side, example, in_order(), inputs={0: IMAGE}, **more)


def applications(name: str, **settings: Any) -> Callable[[], Any]:
    """``keras.applications.NAME`` with random weights and logits of ten classes."""
    shared = {"weights": None, "classes": 10, "classifier_activation": None, "input_shape": (64, 64, 3)}
    return lambda: getattr(keras.applications, name)(**shared | settings)


def timm_same(name: str, **settings: Any) -> nn.Module:
    """As TensorFlow pads and normalises."""
    return timm(name, num_classes=10, pad_type="same", bn_eps=1e-3, **settings)


def small_convnext(*, preprocessing: bool = False) -> Any:
    return convnext.ConvNeXt(
        depths=[1, 1, 2, 1], projection_dims=[8, 12, 16, 20], include_preprocessing=preprocessing, weights=None, classes=10,
        classifier_activation=None, input_shape=(64, 64, 3), name="convnext", weights_name="convnext",
    )  # fmt: skip


def torchvision_convnext() -> nn.Module:
    kind = torchvision_models().convnext
    widths = [8, 12, 16, 20, None]
    settings = [kind.CNBlockConfig(widths[i], widths[i + 1], depth) for i, depth in enumerate((1, 1, 2, 1))]
    return kind.ConvNeXt(settings, num_classes=10)


def torchvision(name: str, **settings: Any) -> nn.Module:
    model: nn.Module = getattr(torchvision_models(), name)(num_classes=10, **settings)
    return model


def torchvision_densenet() -> nn.Module:
    return torchvision_models().DenseNet(
        growth_rate=32, block_config=(1, 2, 2, 1), num_init_features=64, num_classes=10
    )


def with_eps(model: nn.Module, epsilon: float) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = epsilon
    return model


def small_densenet() -> Any:
    return densenet.DenseNet(
        [1, 2, 2, 1],
        weights=None,
        classes=10,
        classifier_activation=None,
        input_shape=(64, 64, 3),
        name="densenet",
    )


PAIRS = (
    features("ResNet, basic blocks", "resnet", "resnet18", "ResNetBackbone", RESNET, STAGES | {"block_type": "basic_block"}),
    features("ResNet, bottlenecks", "resnet", "resnet50", "ResNetBackbone", RESNET, STAGES | {"block_type": "bottleneck_block"}),
    features("ResNet V2", "resnet", "resnetv2_50", "ResNetBackbone", {"layers": (1, 1, 1, 1), "channels": (256, 64, 96, 128)},
             STAGES | {"stackwise_num_filters": [64, 16, 24, 32], "block_type": "bottleneck_block", "use_pre_activation": True}),
    known("mobilenetv3_small_050", "mobilenet", "MobileNetBackbone"),
    known("efficientnet_lite0", "efficientnet", "EfficientNetBackbone"),
    known("efficientnet_b0", "efficientnet", "EfficientNetBackbone"),
    ordered("VGG", lambda: torchvision("vgg16").features, lambda: keras.applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3)),
            outputs={0: IMAGE}),
    ordered("MobileNet V2", functools.partial(timm_same, "mobilenetv2_035"), applications("MobileNetV2", alpha=0.35)),
    ordered("MobileNet V3 small", functools.partial(timm, "tf_mobilenetv3_small_100", num_classes=10),
            applications("MobileNetV3Small", include_preprocessing=False)),
    ordered("EfficientNet B0", lambda: Scaled(timm("tf_efficientnet_b0", num_classes=10)), applications("EfficientNetB0"),
            draws(uniform(0, 255, 2, 3, 64, 64))),
    ordered("EfficientNet V2 B0", functools.partial(timm, "tf_efficientnetv2_b0", num_classes=10),
            applications("EfficientNetV2B0", include_preprocessing=False)),
    ordered("ConvNeXt", torchvision_convnext, small_convnext),
    ordered("DenseNet", lambda: with_eps(torchvision_densenet(), 1.001e-5), small_densenet),
    features("DenseNet of KerasHub: padding of stride 2", "densenet", "densenet121", "DenseNetBackbone", {"block_config": (2, 2, 1, 2)},
             {"stackwise_num_repeats": [2, 2, 1, 2], "compression_ratio": 0.5, "growth_rate": 32}, cause=frozenset({"pad"})),
    ordered("MobileNet V2: padding of stride 2", functools.partial(timm, "mobilenetv2_035", num_classes=10, bn_eps=1e-3),
            applications("MobileNetV2", alpha=0.35), cause=frozenset({"pad"})),
    ordered("ConvNeXt: preprocessing", torchvision_convnext, functools.partial(small_convnext, preprocessing=True),
            cause=frozenset({"preprocess", "normalization"})),
)  # fmt: skip
