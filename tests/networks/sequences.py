"""Networks of sequences: recurrent classifiers, transformers, a decoder, ViT, a mixer."""

from __future__ import annotations

from typing import Any

import keras
import torch
from keras import layers as K
from torch import nn
from torch.nn import functional as F

from tests.networks.network import Network, images, tokens, torchvision_models


class TextClassifier(nn.Module):
    """Embedding, a recurrent network, a dense layer on its last state."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(50, 12), kind(12, 16, batch_first=True, **options)
        self.two = bool(options.get("bidirectional"))
        self.head = nn.Linear(32 if self.two else 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.rnn(self.embed(x))[1]
        state = state[0] if isinstance(state, tuple) else state
        return self.head(torch.cat([state[-2], state[-1]], 1) if self.two else state[-1])


def text_keras(*recurrent: Any) -> Any:
    words = keras.Input((9,), dtype="int64")
    x = K.Embedding(50, 12)(words)
    for layer in recurrent:
        x = layer(x)
    return keras.Model(words, K.Dense(3)(x))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")
        self.embed, self.head = nn.Embedding(50, 16), nn.Linear(16, 3)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.embed(x)).mean(1))


def encoder_keras() -> Any:
    words = keras.Input((9,), dtype="int64")
    x = K.Embedding(50, 16)(words)
    for _ in range(2):
        mixed = K.MultiHeadAttention(4, 4, dropout=0.1)(x, x)
        x = K.LayerNormalization(epsilon=1e-5)(x + K.Dropout(0.1)(mixed))
        wide = K.Dropout(0.1)(K.Dense(32, activation="gelu")(x))
        x = K.LayerNormalization(epsilon=1e-5)(x + K.Dropout(0.1)(K.Dense(16)(wide)))
    return keras.Model(words, K.Dense(3)(K.GlobalAveragePooling1D()(x)))


class DecoderBlock(nn.Module):
    """One matrix for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.c_attn, self.c_proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, steps, width = x.shape
        parts = self.c_attn(self.ln_1(x)).split(width, dim=2)
        q, k, v = (part.view(batch, steps, 4, width // 4).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(batch, steps, width))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Decoder(nn.Module):
    """GPT: positions are looked up, the last layer is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(50, 16), nn.Embedding(9, 16)
        self.blocks, self.norm = nn.ModuleList(DecoderBlock() for _ in range(2)), nn.LayerNorm(16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class KerasDecoder(keras.Model):
    """Three matrices for queries, keys and values; a subclassed model."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = K.Embedding(50, 16), K.Embedding(9, 16)
        self.norms = [K.LayerNormalization(epsilon=1e-5) for _ in range(5)]
        self.mixers = [K.MultiHeadAttention(4, 4) for _ in range(2)]
        self.ups = [K.Dense(64) for _ in range(2)]
        self.downs = [K.Dense(16) for _ in range(2)]

    def call(self, x: Any) -> Any:
        x = self.words(x) + self.positions(keras.ops.arange(9))
        for i in range(2):
            y = self.norms[2 * i](x)
            x = x + self.mixers[i](y, y, use_causal_mask=True)
            y = keras.ops.gelu(self.ups[i](self.norms[2 * i + 1](x)), approximate=True)
            x = x + self.downs[i](y)
        return keras.ops.matmul(self.norms[4](x), keras.ops.transpose(self.words.embeddings))


def vit() -> nn.Module:
    return torchvision_models().VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10
    )


class Tokens(keras.layers.Layer):
    """A class token in front and a position for each: a layer of the user's own."""

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.position = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="position")

    def call(self, x: Any) -> Any:
        token = keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[-1]))
        return keras.ops.concatenate([token, x], axis=1) + self.position


def vit_keras() -> Any:
    image = keras.Input((32, 32, 3))
    x = K.Reshape((16, 32))(K.Conv2D(32, 8, strides=8)(image))
    x = Tokens()(x)
    for _ in range(2):
        y = K.LayerNormalization(epsilon=1e-6)(x)
        x = K.Add()([K.MultiHeadAttention(4, 8)(y, y), x])
        y = K.Dense(64, activation="gelu")(K.LayerNormalization(epsilon=1e-6)(x))
        x = K.Add()([x, K.Dense(32)(y)])
    x = K.LayerNormalization(epsilon=1e-6)(x)
    return keras.Model(image, K.Dense(10)(x[:, 0]))


class MixerBlock(nn.Module):
    """Square kernels: as many tokens as features."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.tokens = nn.ModuleList(nn.Linear(size, size) for _ in range(2))
        self.features = nn.ModuleList(nn.Linear(size, size) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norms[0](x).transpose(1, 2)
        x = x + self.tokens[1](F.gelu(self.tokens[0](y))).transpose(1, 2)
        return x + self.features[1](F.gelu(self.features[0](self.norms[1](x))))


def mixer() -> nn.Module:
    return nn.Sequential(MixerBlock(16), MixerBlock(16), nn.LayerNorm(16), nn.Linear(16, 16))


def mixer_keras() -> Any:
    series = keras.Input((16, 16))
    x = series
    for _ in range(2):
        y = K.Permute((2, 1))(K.LayerNormalization(epsilon=1e-5)(x))
        y = K.Dense(16)(K.Dense(16, activation="gelu")(y))
        x = K.Add()([x, K.Permute((2, 1))(y)])
        y = K.Dense(16, activation="gelu")(K.LayerNormalization(epsilon=1e-5)(x))
        x = K.Add()([x, K.Dense(16)(y)])
    return keras.Model(series, K.Dense(16)(K.LayerNormalization(epsilon=1e-5)(x)))


class Towers(nn.Module):
    """Two inputs through the same layers."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 8))
        self.head = nn.Linear(24, 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self.tower(a), self.tower(b)
        return self.head(torch.cat([a, b, a * b], 1))


def towers_keras() -> Any:
    a, b = keras.Input((6,)), keras.Input((6,))
    tower = keras.Sequential([keras.Input((6,)), K.Dense(12, activation="tanh"), K.Dense(8)])
    one, two = tower(a), tower(b)
    return keras.Model([a, b], K.Dense(1)(K.Concatenate()([one, two, K.Multiply()([one, two])])))


class Several(nn.Module):
    """An image and a vector in, a class and a number out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense = nn.Conv2d(3, 8, 3), nn.Linear(5, 8)
        self.classes, self.number = nn.Linear(16, 4), nn.Linear(8, 1)

    def forward(self, image: torch.Tensor, vector: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = F.relu(self.conv(image)).mean((2, 3)), torch.tanh(self.dense(vector))
        return self.classes(torch.cat([a, b], 1)), self.number(a + b)


def several_keras() -> Any:
    image, vector = keras.Input((None, None, 3)), keras.Input((5,))
    a = K.GlobalAveragePooling2D()(K.Conv2D(8, 3, activation="relu")(image))
    b = K.Dense(8, activation="tanh")(vector)
    return keras.Model([image, vector], [K.Dense(4)(K.Concatenate()([a, b])), K.Dense(1)(K.Add()([a, b]))])


NETWORKS = (
    Network("LSTM classifier", lambda: TextClassifier(nn.LSTM), lambda: text_keras(K.LSTM(16)), tokens(50, (1, 9))),
    Network("GRU classifier", lambda: TextClassifier(nn.GRU), lambda: text_keras(K.GRU(16)), tokens(50, (1, 9))),
    Network(
        "BiLSTM classifier", lambda: TextClassifier(nn.LSTM, bidirectional=True),
        lambda: text_keras(K.Bidirectional(K.LSTM(16))), tokens(50, (1, 9)),
    ),
    Network(
        "stacked LSTM classifier", lambda: TextClassifier(nn.LSTM, num_layers=2),
        lambda: text_keras(K.LSTM(16, return_sequences=True), K.LSTM(16)), tokens(50, (1, 9)),
    ),
    Network("transformer encoder", Encoder, encoder_keras, tokens(50, (1, 9))),
    Network("GPT decoder, tied", Decoder, KerasDecoder, tokens(50, (1, 9))),
    Network("ViT", vit, vit_keras, images((1, 3, 32, 32))),
    Network("MLP-Mixer", mixer, mixer_keras, images((1, 16, 16))),
    Network("two towers", Towers, towers_keras, images((1, 6), (1, 6))),
    Network("several inputs and outputs", Several, several_keras, images((1, 3, 9, 9), (1, 5))),
)  # fmt: skip
