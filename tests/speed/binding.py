"""How long large models take to be bound, and how much memory: ``python -m tests.speed.binding [resnet] [bert] [decoder]``.

ResNet-50 and a BERT of base size are described, observed, matched and proven, PyTorch's against Keras's, each in a process of its own. A decoder of
nearly a billion parameters is described and matched, both models in memory, when it is asked for by name. Seconds are those of the clock, and of the
processor in brackets.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MODELS = ("resnet", "bert", "decoder")
SECONDS: dict[str, tuple[float, float]] = {}
"""Of the clock and of the processor, by what was done."""


def bert_torch(layers: int = 12, width: int = 768, heads: int = 12, vocabulary: int = 30522) -> Any:
    """BERT's encoder with its pooler, over ids."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-12) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch, steps, _ = x.shape
            q, k, v = (
                dense(x).view(batch, steps, heads, width // heads).transpose(1, 2)
                for dense in (self.query, self.key, self.value)
            )
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, steps, width)
            x = self.norms[0](x + self.out(y))
            return self.norms[1](x + self.down(F.gelu(self.up(x))))

    class Bert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(512, width)
            self.norm = nn.LayerNorm(width, eps=1e-12)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.pooler = nn.Linear(width, width)

        def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.norm(self.words(ids) + self.positions(torch.arange(ids.shape[1])))
            for block in self.blocks:
                x = block(x)
            return x, torch.tanh(self.pooler(x[:, 0]))

    return Bert()


def bert_keras(layers: int = 12, width: int = 768, heads: int = 12, vocabulary: int = 30522) -> Any:
    """The same of Keras's own layers."""
    import keras
    from keras import layers as K

    class Positions(K.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.table = K.Embedding(512, width)

        def call(self, x: Any) -> Any:
            return x + self.table(keras.ops.arange(keras.ops.shape(x)[1]))

    ids = keras.Input((None,), dtype="int32")
    x = K.LayerNormalization(epsilon=1e-12)(Positions()(K.Embedding(vocabulary, width)(ids)))
    for _ in range(layers):
        y = K.MultiHeadAttention(heads, width // heads)(x, x)
        x = K.LayerNormalization(epsilon=1e-12)(x + y)
        y = K.Dense(width)(K.Dense(4 * width, activation="gelu")(x))
        x = K.LayerNormalization(epsilon=1e-12)(x + y)
    return keras.Model(ids, [x, K.Dense(width, activation="tanh")(x[:, 0])])


def decoder_torch(
    layers: int = 16, width: int = 2048, heads: int = 16, inner: int = 5632, vocabulary: int = 32000
) -> Any:
    """A decoder as of Llama: RMS normalisation, gated layers, positions by rotation, no biases."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    size = width // heads

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.RMSNorm(width, eps=1e-5) for _ in range(2))
            self.query, self.key, self.value, self.out = (
                nn.Linear(width, width, bias=False) for _ in range(4)
            )
            self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
            self.down = nn.Linear(inner, width, bias=False)

        def forward(self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            batch, steps, _ = x.shape
            y = self.norms[0](x)
            q, k, v = (
                dense(y).view(batch, steps, heads, size).transpose(1, 2)
                for dense in (self.query, self.key, self.value)
            )
            q, k = (
                z * turn[0] + torch.cat([-z[..., size // 2 :], z[..., : size // 2]], -1) * turn[1]
                for z in (q, k)
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(batch, steps, width))
            y = self.norms[1](x)
            return x + self.down(F.silu(self.gate(y)) * self.up(y))

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.blocks = (
                nn.Embedding(vocabulary, width),
                nn.ModuleList(Block() for _ in range(layers)),
            )
            self.norm, self.head = nn.RMSNorm(width, eps=1e-5), nn.Linear(width, vocabulary, bias=False)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            rates = 10000.0 ** (-torch.arange(0, size, 2, device=ids.device) / size)
            angles = torch.arange(ids.shape[1], device=ids.device)[:, None] * torch.cat([rates, rates])
            x, turn = self.words(ids), (angles.cos(), angles.sin())
            for block in self.blocks:
                x = block(x, turn)
            return self.head(self.norm(x))

    return Decoder()


def decoder_keras(
    layers: int = 16, width: int = 2048, heads: int = 16, inner: int = 5632, vocabulary: int = 32000
) -> Any:
    """The same of Keras's layers."""
    import keras
    import numpy as np
    from keras import layers as K
    from keras import ops

    size = width // heads
    rates = np.tile(10000.0 ** (-np.arange(0, size, 2) / size), 2)

    class Turned(K.Layer):
        def call(self, x: Any) -> Any:
            angles = np.arange(x.shape[1])[:, None, None] * rates
            back = ops.concatenate([-x[..., size // 2 :], x[..., : size // 2]], -1)
            return x * np.cos(angles).astype("float32") + back * np.sin(angles).astype("float32")

    class Attention(K.Layer):
        def call(self, q: Any, k: Any, v: Any) -> Any:
            return ops.dot_product_attention(q, k, v, is_causal=True)

    def dense(x: Any, units: int) -> Any:
        return K.Dense(units, use_bias=False)(x)

    ids = keras.Input((16,), dtype="int32")
    x = K.Embedding(vocabulary, width)(ids)
    for _ in range(layers):
        y = K.RMSNormalization(epsilon=1e-5)(x)
        q, k, v = (K.Reshape((16, heads, size))(dense(y, width)) for _ in range(3))
        y = Attention()(Turned()(q), Turned()(k), v)
        x = x + dense(K.Reshape((16, width))(y), width)
        y = K.RMSNormalization(epsilon=1e-5)(x)
        x = x + dense(ops.silu(dense(y, inner)) * dense(y, inner), width)
    return keras.Model(ids, dense(K.RMSNormalization(epsilon=1e-5)(x), vocabulary))


@contextmanager
def timed(what: str) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.process_time()
    yield
    SECONDS[what] = time.perf_counter() - wall, time.process_time() - processor


def prove(torch_model: Callable[[], Any], keras_model: Callable[[], Any], example: Any) -> str:
    """Both models described, the one observed, the other matched and proven."""
    import xbackend_fl

    with timed("build"):
        reference, candidate = torch_model(), keras_model()
    with timed("describe and observe"):
        schema, evidence = xbackend_fl.describe_reference(reference, example)
    with timed("describe, match, prove"):
        bound = xbackend_fl.bind(candidate, schema, example, evidence)
    return f"{schema.num_values:,} values, largest error {bound.proof.largest_error:.0e}"


def resnet() -> str:
    from tests.networks.network import images
    from tests.networks.residual import resnet50, resnet50_keras

    return prove(resnet50, resnet50_keras, images((1, 3, 64, 64))())


def bert() -> str:
    import numpy as np

    return prove(bert_torch, bert_keras, (np.random.default_rng(0).integers(0, 30522, (1, 16)),))


def decoder() -> str:
    import numpy as np

    from xbackend_fl.adapter import adapter_of
    from xbackend_fl.mapping import find_binding

    example = (np.random.default_rng(0).integers(0, 32000, (1, 16)),)
    with timed("build"):
        models = decoder_torch(), decoder_keras()
    with timed("describe"):
        one, two = (adapter_of(model).load_model(model, example).description for model in models)
    with timed("match"):
        binding, _ = find_binding(one.schema, two)
    return f"{one.schema.num_values:,} values, {len(binding.parameters)} parameters paired"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.speed.binding")
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], help="resnet and bert if left out")
    parser.add_argument("--here", action="store_true", help="in this process")
    arguments = parser.parse_args()
    for model in arguments.models or MODELS[:2]:
        if not arguments.here:
            subprocess.run([sys.executable, "-m", "tests.speed.binding", model, "--here"], check=True)
            continue
        import torch  # noqa: F401

        import xbfl_tensorflow

        xbfl_tensorflow.import_frameworks()
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        said = {"resnet": resnet, "bert": bert, "decoder": decoder}[model]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        figures = "; ".join(f"{what} {wall:.1f} s ({cpu:.1f})" for what, (wall, cpu) in SECONDS.items())
        print(
            f"{model}: {said}; {figures}; {peak:.1f} GiB at most, {base:.1f} of them frameworks", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
