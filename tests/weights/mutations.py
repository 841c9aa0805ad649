"""Mutations of valid files: each is refused, or read as the format's own library reads it.

python -m tests.weights.mutations --count 10000
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import safetensors.numpy
import torch
from blake3 import blake3
from onnx import numpy_helper

from tests.weights.corpus import proto_attacks
from xbackend_fl import weights
from xbackend_fl.errors import FileError
from xbackend_fl.formats.kinds import wire
from xbackend_fl.weights.store import same_bits

Arrays = Mapping[str, Any]
SECONDS = 2.0
NUMBERS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)


def bases() -> dict[str, bytes]:
    """A small valid file of every format, by file name."""
    generator = np.random.default_rng(0)
    arrays = {
        "conv.weight": generator.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "conv.bias": np.zeros(4, np.float32),
        "count": np.array(7),
        "mask": np.array([True, False, True]),
    }
    result: dict[str, bytes] = {}
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, buffer)
    result["x.pt"] = buffer.getvalue()
    result["x.safetensors"] = safetensors.numpy.save(arrays, {"format": "np"})
    for name, save in (("x.npz", np.savez), ("packed.npz", np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, **arrays)
        result[name] = buffer.getvalue()
    result["x.onnx"] = proto_attacks.valid_model(arrays, raw=True)
    result["typed.onnx"] = proto_attacks.valid_model(arrays, raw=False)
    result["x.xbf"] = b"".join(wire.encode(arrays, {"fingerprint": "f" * 64}))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[f"layers/{name.replace('.', '/')}"] = array
        file.create_dataset(
            "packed", data=np.arange(200.0).reshape(20, 10), chunks=(7, 4), compression="gzip"
        )
    result["x.weights.h5"] = buffer.getvalue()
    about = {"metadata.json": b'{"keras_version": "3.15.1"}', "config.json": b'{"class_name": "Sequential"}'}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for name, content in {**about, "model.weights.h5": result["x.weights.h5"]}.items():
            out.writestr(name, content)
    result["x.keras"] = buffer.getvalue()
    entries = {
        b"": proto_attacks.HEADER,
        b"a": proto_attacks.bundle_entry(),
        b"b": proto_attacks.bundle_entry(),
    }
    result["x.index"] = proto_attacks.table(proto_attacks.block(entries))
    return result


def mutate(content: bytes, generator: np.random.Generator) -> bytes:
    """One to four random changes."""
    data = bytearray(content)
    for _ in range(int(generator.integers(1, 5))):
        if not data:
            break
        at = int(generator.integers(0, len(data)))
        # Headers and tables are at the ends; changes in the middle mostly hit values.
        if generator.random() < 0.6:
            at = (
                at % min(300, len(data))
                if generator.random() < 0.5
                else len(data) - 1 - at % min(300, len(data))
            )
        size = int(generator.integers(1, 9))
        match int(generator.integers(0, 8)):
            case 0:
                data[at] ^= 1 << int(generator.integers(0, 8))
            case 1:
                data[at : at + size] = bytes([int(generator.choice([0, 1, 127, 128, 255]))]) * len(
                    data[at : at + size]
                )
            case 2:
                data[at : at + size] = b""
            case 3:
                data[at:at] = generator.integers(0, 256, size, dtype=np.uint8).tobytes()
            case 4:
                del data[at:]
            case 5:
                other = int(generator.integers(0, len(data)))
                data[at : at + size] = data[other : other + size]
            case 6:
                number = NUMBERS[int(generator.integers(0, len(NUMBERS)))]
                data[at : at + 8] = number.to_bytes(8, "little")[: len(data[at : at + 8])]
            case _:
                data += data[at : at + 64]
    return bytes(data)


def resealed(name: str, content: bytes) -> bytes:
    """The same with a right checksum, where one would hide what lies behind it."""
    if name.endswith(".xbf") and len(content) > 96:
        return content[:-32] + blake3(content[:-32]).digest()
    return content


def own_loader(path: Path) -> Arrays | None:
    """What the format's own library reads; ``None`` where it refuses, or would endanger this process."""
    loaders: dict[str, Callable[[], Arrays]] = {
        ".safetensors": lambda: safetensors.numpy.load(path.read_bytes()),
        ".npz": lambda: dict(np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)),
        ".onnx": lambda: {
            item.name: numpy_helper.to_array(item)
            for item in onnx.load_from_string(path.read_bytes()).graph.initializer
        },
        ".pt": lambda: {name: tensor.numpy() for name, tensor in torch.load(path, weights_only=True).items()},
    }
    loader = loaders.get(path.suffix)
    if loader is None:
        return None
    try:
        return loader()
    except Exception:  # noqa: BLE001  every library has its own
        return None


def run(count: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Try ``count`` mutations; returns what became of them, and what should not have."""
    found: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, content) in enumerate(_mutants(count, seed)):
            path = Path(folder) / name
            path.write_bytes(content)
            (Path(folder) / "x.data-00000-of-00001").write_bytes(bytes(64))
            began = time.process_time()
            outcome, problem = _try(path)
            if time.process_time() - began > SECONDS:
                problem = "took too long"
            found[outcome] += 1
            if problem:
                wrong.append(f"{name}, mutation {index} of seed {seed}: {problem}")
        if len(list(Path(folder).iterdir())) > len(bases()) + 1:
            wrong.append("something was written")
    return found, wrong


def _mutants(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    files = list(bases().items())
    for index in range(count):
        generator = np.random.default_rng([seed, index])
        name, content = files[index % len(files)]
        changed = mutate(content, generator)
        yield name, resealed(name, changed) if generator.random() < 0.7 else changed


def _try(path: Path) -> tuple[str, str]:
    try:
        archive = weights.open_weights(path)
        arrays = {name: np.array(archive[name]) for name in archive}
    except FileError as error:
        problem = "" if error.message.isprintable() else f"unprintable message {error.message!r}"
        return f"refused: {error.code}", problem
    except Exception as error:  # noqa: BLE001  that is what is looked for
        return "crashed", f"{type(error).__name__}: {error}"
    expected = own_loader(path)
    if expected is None:
        return "read", ""
    different = [
        name
        for name, array in arrays.items()
        if name not in expected or not same_bits(array, _native(np.asarray(expected[name])))
    ]
    return "read", f"read otherwise than by its own library: {different}" if different else ""


def _native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(array.dtype.newbyteorder("="))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, wrong = run(options.count, options.seed)
    print(json.dumps(dict(found.most_common()), indent=1))
    print(f"{options.count} mutations, {len(wrong)} wrong")
    for line in wrong[:20]:
        print(line)
    os._exit(bool(wrong))  # PyTorch's threads need no farewell


if __name__ == "__main__":
    main()
