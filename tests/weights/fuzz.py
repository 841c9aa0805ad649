"""Coverage-guided fuzzing of one reader with atheris. Anything but a refusal is a finding.

python -m tests.weights.fuzz pytorch -max_total_time=600 corpus/
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["xbackend_fl.weights"]):
    from xbackend_fl import weights
    from xbackend_fl.errors import FileError

TARGETS = {
    "pytorch": "x.pt",
    "pickle": "data.pkl",
    "safetensors": "x.safetensors",
    "npz": "packed.npz",
    "onnx": "x.onnx",
    "checkpoint": "x.index",
    "hdf5": "x.weights.h5",
    "keras": "x.keras",
    "wire": "x.xbf",
}


def seeds(target: str) -> bytes:
    """A valid file to start from."""
    from tests.weights.corpus.pickle_attacks import state, tensor
    from tests.weights.mutations import bases

    return state(tensor()) if target == "pickle" else bases()[TARGETS[target]]


def read(target: str, content: bytes) -> None:
    """Read ``content`` as a file of the target's format; refusals are fine."""
    if target == "pickle":
        from tests.weights.corpus.pickle_attacks import torch_file

        content, target = torch_file(content), "pytorch"
    descriptor = os.memfd_create("fuzz")
    try:
        os.write(descriptor, content)
        # A format that has sharded data finds none, which is a refusal too.
        archive = weights.open_weights(
            f"/proc/self/fd/{descriptor}", "keras-weights" if target == "hdf5" else target
        )
        for name in archive:
            archive[name]
    except FileError:
        return
    finally:
        os.close(descriptor)


def main() -> None:
    """The command: a target, then libFuzzer's own options."""
    target, options = sys.argv[1], sys.argv[2:]
    folder = Path(tempfile.mkdtemp(prefix="xbfl-fuzz-"))
    try:
        (folder / "seed").write_bytes(seeds(target))

        def one(content: bytes) -> None:
            read(target, content)

        atheris.Setup([sys.argv[0], *options, str(folder)], one)
        atheris.Fuzz()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
