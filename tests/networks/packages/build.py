"""Models of the packages as their users take them: some outputs by name, settings that both sides share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from torch import Tensor, nn

from tests.networks.packages.sources import converter, package

Outputs = str | Mapping[str, str]


class Picked(nn.Module):
    """A model of ``transformers`` and its outputs that are wanted: one attribute, or several under new names."""

    def __init__(self, model: nn.Module, outputs: Outputs = "last_hidden_state") -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def picked(self, **inputs: Tensor) -> Any:
        found = self.model(**inputs)
        if isinstance(self.outputs, str):
            return getattr(found, self.outputs)
        return {name: getattr(found, attribute) for name, attribute in self.outputs.items()}


class Text(Picked):
    """Token ids and their mask."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return self.picked(input_ids=input_ids, attention_mask=attention_mask)


class Segments(Picked):
    """Token ids, their mask and the segment of each."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Any:
        return self.picked(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)


class Tokens(Picked):
    """Token ids alone."""

    def forward(self, input_ids: Tensor) -> Any:
        return self.picked(input_ids=input_ids)


class Translation(Picked):
    """Token ids and masks of an encoder and a decoder."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoder_input_ids: Tensor,
        decoder_attention_mask: Tensor,
    ) -> Any:
        return self.picked(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
        )


class Image(Picked):
    """Pixels."""

    def forward(self, pixel_values: Tensor) -> Any:
        return self.picked(pixel_values=pixel_values)


def transformers(name: str, *, without_pooler: bool = False, **settings: Any) -> nn.Module:
    """``transformers.NAME`` with random weights, by its configuration's settings."""
    kind = getattr(package("transformers"), name)
    return kind(kind.config_class(**settings), **({"add_pooling_layer": False} if without_pooler else {}))


def keras_hub(name: str, **settings: Any) -> Any:
    """``keras_hub.models.NAME``."""
    return getattr(package("keras_hub").models, name)(**settings)


def converted(kind: str, name: str, settings: Mapping[str, Any], **more: Any) -> Any:
    """The backbone that KerasHub's converter of the kind makes of the settings of ``transformers.NAME``."""
    package("transformers")
    config = getattr(package("transformers"), name).config_class(**settings).to_dict()
    config |= settings
    source = converter(kind)
    return source.backbone_cls(**source.convert_backbone_config(config) | more)


def output(model: Any, *names: str) -> Any:
    """The model with one of its outputs, or several under the names that it has."""
    found = model.output
    return keras.Model(
        model.input, found[names[0]] if len(names) == 1 else {name: found[name] for name in names}
    )


def tokens_alone(model: Any) -> Any:
    """A KerasHub model of text in which nothing is padding."""
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    return keras.Model(ids, model({"token_ids": ids, "padding_mask": keras.ops.ones_like(ids)}))


def causal(name: str, backbone: Any) -> Any:
    """``keras_hub.models.NAME`` over a backbone; returns logits."""
    return keras_hub(name, backbone=backbone, preprocessor=None)
