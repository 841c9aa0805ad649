"""Damaged HDF5 files: each is refused, or read as the HDF5 library reads it.

python -m tests.weights.hdf5_mutations --count 2000

The library reads in a child process of its own: damaged files crash it now and then.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from xbackend_fl import weights
from xbackend_fl.errors import FileError
from xbackend_fl.weights.store import same_bits

Arrays = dict[str, Any]
OPTIONS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": (7, 4)},
    "gzip": {"chunks": (7, 4), "compression": "gzip"},
    "fletcher32": {"chunks": (7, 4), "fletcher32": True},
    "one chunk": {"chunks": (20, 10), "fletcher32": True},
    "all filters": {"chunks": (7, 4), "fletcher32": True, "shuffle": True, "compression": "gzip"},
    "growing": {"chunks": (7, 4), "maxshape": (None, None), "compression": "gzip"},
}


def bases() -> dict[str, bytes]:
    """Small valid files: every layout, in the oldest and the newest form, and several dtypes."""
    values = np.random.default_rng(0).standard_normal((20, 10)).astype(np.float32)
    result = {}
    form: Literal["earliest", "latest"]
    for form in ("earliest", "latest"):
        for name, options in OPTIONS.items():
            buffer = io.BytesIO()
            with h5py.File(buffer, "w", libver=form) as file:
                file.create_dataset("group/w", data=values, **options)
                file.create_dataset("five", data=np.arange(5.0), fletcher32=True)
                file["one"] = np.float64(3)
            result[f"{name}, {form}"] = buffer.getvalue()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["big"], file["half"], file["short"] = (
            values.astype(">f4"),
            values.astype("f2"),
            np.arange(9, dtype="i2"),
        )
        file["flags"], file["complex"] = np.array([True, False, True]), values.astype("c8")
        file.create_dataset("filled", (4, 4), "f4", chunks=(2, 2), fillvalue=2.5)[:2, :2] = 1
        file.create_dataset("late", (3,), "f8")
    return result | {"dtypes": buffer.getvalue()}


def mutate(content: bytes, generator: random.Random) -> bytes:
    """Mostly one flipped bit; else two, a cut, or another byte."""
    data, chance = bytearray(content), generator.random()
    if chance < 0.1:
        return bytes(data[: generator.randrange(1, len(data))])
    for _ in range(2 if chance < 0.3 else 1):
        at = generator.randrange(len(data))
        data[at] = (
            generator.choice([0, 1, 127, 255]) if chance > 0.8 else data[at] ^ 1 << generator.randrange(8)
        )
    return bytes(data)


def library(content: bytes) -> Arrays | str:
    """What the HDF5 library reads, or what it says."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        answer: Arrays | str
        try:
            answer = {}
            with h5py.File(io.BytesIO(content)) as file:
                file.visititems(
                    lambda n, o: answer.update({n: o[()]}) if isinstance(o, h5py.Dataset) else None
                )
        except Exception as error:  # noqa: BLE001  it has many
            answer = str(error)[:200]
        with os.fdopen(writing, "wb") as out:
            pickle.dump(answer, out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        received = pipe.read()
    os.waitpid(child, 0)
    found: Arrays | str = pickle.loads(received) if received else "it crashed"
    return found


def attempt(path: Path) -> tuple[str, str]:
    """What becomes of a file, and what should not have."""
    try:
        ours = {name: np.array(array) for name, array in weights.open_weights(path).items()}
    except FileError as error:
        return f"refused: {error.code}", "" if error.message.isprintable() else "unprintable message"
    except Exception as error:  # noqa: BLE001  that is what is looked for
        return "crashed", f"{type(error).__name__}: {error}"
    theirs = library(path.read_bytes())
    if isinstance(theirs, str):
        return "read", f"read, and the library says: {theirs}"
    plain = {name: np.asarray(array) for name, array in theirs.items()}
    plain = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in plain.items()}
    same = plain.keys() == ours.keys() and all(same_bits(ours[name], plain[name]) for name in ours)
    return "read", "" if same else "read otherwise than by the library"


def run(count: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Try every base and ``count`` mutations; returns what became of them, and what should not have."""
    found: Counter[str] = Counter()
    wrong: list[str] = []
    files = list(bases().items())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        for index in range(-len(files), count):
            name, content = files[index % len(files)]
            path.write_bytes(mutate(content, random.Random(f"{seed} {index}")) if index >= 0 else content)
            outcome, problem = attempt(path)
            if index < 0 and outcome != "read":
                problem = outcome
            found[outcome] += 1
            if problem:
                wrong.append(f"{name}, mutation {index} of seed {seed}: {problem}")
    return found, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    outcomes, problems = run(given.count, given.seed)
    print(dict(outcomes.most_common()))
    print("\n".join([f"{given.count} mutations, {len(problems)} wrong", *problems[:20]]))
    raise SystemExit(bool(problems))
