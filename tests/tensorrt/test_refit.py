"""What is refused, said and read where an engine is brought to other weights."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import xbackend_fl
from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.onnx_export import to_bytes, to_onnx
from xbackend_fl.cli.main import app
from xbackend_fl.errors import FileError, SchemaError
from xbackend_fl.federation.silo.served import Served
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.rounds.checkpoint import CourseState, save_state
from xbackend_fl.tensorrt import Engine, build_engine, refit_engine
from xbackend_fl.tensorrt.record import replace_engine
from xbackend_fl.weights import Weights, save_weights
from xbackend_fl.writing import atomic_write

pytest.importorskip("tensorrt_rtx_bindings", reason="the extra tensorrt is not installed")


@pytest.fixture
def schema() -> Schema:
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2))
    return xbackend_fl.describe(model, (np.zeros((1, 3, 8), np.float32),))


def built(schema: Schema, folder: Path) -> Path:
    file, path = folder / "model.onnx", folder / "net.engine"
    file.write_bytes(to_bytes(to_onnx(schema, draw_weights(schema, 0))))
    build_engine(file, path, {})
    return path


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("0.weight", np.nan, "'0.weight' holds NaN or infinity"),
        ("4.bias", np.inf, "'4.bias' holds NaN or infinity"),
        ("1.variance", -0.5, "'1.variance' holds -0.5, and no variance is negative"),
    ],
)
def test_no_engine_takes_weights_that_are_none(
    schema: Schema, tmp_path: Path, name: str, value: float, said: str
) -> None:
    engine = built(schema, tmp_path)
    before, arrays = engine.read_bytes(), draw_weights(schema, 1)
    with pytest.raises(SchemaError, match=said):
        refit_engine(engine, schema.fingerprint, {**arrays, name: np.full_like(arrays[name], value)})
    assert engine.read_bytes() == before


def empty(plan: bytes) -> bytes:
    return plan[:0]


def halved(plan: bytes) -> bytes:
    return plan[: len(plan) // 2]


def flipped(plan: bytes) -> bytes:
    """One bit, of the record one in a digest."""
    place = len(plan) // 4
    return plan[:place] + bytes([plan[place] ^ 1]) + plan[place + 1 :]


@pytest.mark.parametrize("damaged", [empty, halved, flipped])
def test_a_damaged_engine_is_told_without_a_card(
    schema: Schema, tmp_path: Path, damaged: Callable[[bytes], bytes]
) -> None:
    engine, weights = built(schema, tmp_path), draw_weights(schema, 1)
    assert refit_engine(engine, schema.fingerprint, weights) == "built anew"
    right = engine.read_bytes()
    engine.write_bytes(damaged(right))
    with pytest.raises(FileError, match=r"net\.engine is damaged: its SHA-256 is [0-9a-f]{12}") as caught:
        Served(engine).require(schema.fingerprint)
    assert len(caught.value.message.splitlines()) == 1
    assert "xbfl engine refit" in str(caught.value.hint)
    refittable = replace(Engine.load(engine), refittable=True)
    with pytest.raises(FileError, match=r"net\.engine is damaged"):
        refittable.write(weights)
    said = refit_engine(engine, schema.fingerprint, weights)
    assert said.startswith(f"built anew, since {engine} is damaged: its SHA-256 is ")
    assert engine.read_bytes() == right
    Served(engine).require(schema.fingerprint)


@pytest.mark.parametrize("damaged", [empty, halved, flipped])
@pytest.mark.parametrize("name", ["net.engine.graph", "net.engine.sha256"])
def test_what_lies_beside_a_damaged_engine_is_told_as_well(
    schema: Schema, tmp_path: Path, name: str, damaged: Callable[[bytes], bytes]
) -> None:
    """No engine is built of a graph of which a bit is another one, for it may still be a graph."""
    engine = built(schema, tmp_path)
    before, file = engine.read_bytes(), tmp_path / name
    whole = file.read_bytes()
    file.write_bytes(damaged(whole))
    with pytest.raises(FileError, match=r"net\.engine\S* is damaged"):
        Served(engine).require(schema.fingerprint)
    file.unlink()
    with pytest.raises(FileError, match=rf"no such file: .*{name}"):
        Engine.load(engine)
    file.write_bytes(whole)
    assert engine.read_bytes() == before
    Served(engine).require(schema.fingerprint)


def test_coreutils_know_a_whole_engine(schema: Schema, tmp_path: Path) -> None:
    engine = built(schema, tmp_path)
    for seed in (1, 2):
        refit_engine(engine, schema.fingerprint, draw_weights(schema, seed))
        checked = subprocess.run(
            ["sha256sum", "-c", "net.engine.sha256"], cwd=tmp_path, check=True, capture_output=True
        )
        assert checked.stdout == b"net.engine.graph: OK\nnet.engine: OK\n"


def test_an_engine_is_whole_wherever_a_process_was_killed_that_replaced_it(
    schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = built(schema, tmp_path)
    whole, writes = atomic_write, 0

    @contextmanager
    def some(path: Path) -> Iterator[Path]:
        nonlocal writes
        writes += 1
        if writes > kept:
            raise KeyboardInterrupt
        with whole(path) as place:
            yield place

    monkeypatch.setattr("xbackend_fl.tensorrt.record.atomic_write", some)
    for kept in (0, 1, 2, 0, 1, 2):
        writes = 0
        with pytest.raises(KeyboardInterrupt):
            replace_engine(engine, bytes([kept, writes]) * 9)
        assert not Engine.load(engine).damage


def test_a_round_of_a_run_is_read_from_its_checkpoint(schema: Schema, tmp_path: Path) -> None:
    engine = built(schema, tmp_path)
    held = Weights.from_schema(schema, draw_weights(schema, 2))
    save_weights(tmp_path / "best.safetensors", held)
    save_state(
        tmp_path / "round-00001.safetensors", CourseState(1, held, {"m/4.bias": np.ones(2, np.float32)})
    )
    found = []
    for name in ("best.safetensors", "round-00001.safetensors"):
        done = CliRunner().invoke(app, ["engine", "refit", str(engine), str(tmp_path / name)])
        assert done.exit_code == 0, (done.output, done.exception)
        assert "built anew" in done.output
        found.append(engine.read_bytes())
    assert found[0] == found[1]


def test_a_single_number_is_followed(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.scale = nn.Linear(4, 3), nn.Parameter(torch.tensor(0.7))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.dense(x) * self.scale.exp()

    schema = xbackend_fl.describe(Scaled(), (np.zeros((2, 4), np.float32),))
    engine = built(schema, tmp_path)
    assert refit_engine(engine, schema.fingerprint, draw_weights(schema, 1)) == "built anew"


@pytest.mark.parametrize("several", ["an input", "one twice"])
def test_what_is_returned_as_it_came_has_a_name_of_its_own(tmp_path: Path, several: str) -> None:
    class Returned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = self.dense(x)
            return (y, x) if several == "an input" else (y, x, y)

    schema = xbackend_fl.describe(Returned(), (np.zeros((2, 4), np.float32),))
    engine = built(schema, tmp_path)
    assert refit_engine(engine, schema.fingerprint, draw_weights(schema, 1)) == "built anew"
    graph = onnx.load_model_from_string((tmp_path / "net.engine.graph").read_bytes()).graph
    names = [item.name for item in graph.output]
    assert names[1] == "x/returned"
    assert len({*names, "x"}) == len(names) + 1


def test_a_check_of_a_course_looks_at_the_engine_that_it_serves(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[tuple[Path, str]] = []
    monkeypatch.setattr(
        "xbackend_fl.federation.silo.served.Served.require",
        lambda self, fingerprint: asked.append((self._path, fingerprint)),
    )
    course = root / "examples/digits/course.yaml"
    engine = tmp_path / "net.engine"
    more = ["--set", f"deployment.serve.engine={engine}", "--in-process"]
    CliRunner().invoke(app, ["check", str(course), *more])
    assert [path for path, _ in asked] == [engine]
    monkeypatch.undo()
    missing = CliRunner().invoke(app, ["check", str(course), *more])
    assert isinstance(missing.exception, FileError)
    assert "net.engine" in missing.exception.message


def test_the_engine_that_a_link_leads_to_is_refitted(schema: Schema, tmp_path: Path) -> None:
    """Whoever serves the file itself goes on with the new weights; the graph and the record beside it are found."""
    (tmp_path / "served").mkdir()
    engine, link = built(schema, tmp_path / "served"), tmp_path / "link.engine"
    link.symlink_to(engine)
    before = engine.read_bytes()
    refit_engine(link, schema.fingerprint, draw_weights(schema, 1))
    assert link.is_symlink()
    assert engine.read_bytes() != before
    assert not Engine.load(engine).damage
