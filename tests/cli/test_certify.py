"""``xbfl certify`` and ``xbfl verify``, as a person types them."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

import xbackend_fl
from xbackend_fl.certificate import certificate_in, sign, write
from xbackend_fl.cli.main import app
from xbackend_fl.errors import RefusedInput, UnprovenError
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.signing import new_pair, read_private
from xbackend_fl.weights import save

NET = """
import torch

def build(epsilon=1e-5):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.LayerNorm(6, eps=epsilon), torch.nn.Linear(6, 2))

def wrong():
    return build(1e-3)

class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)
    def forward(self, x, y):
        return torch.tanh(self.a(x)) * self.b(y)

def two():
    torch.manual_seed(0)
    return Two()

def deep():
    torch.manual_seed(0)
    return torch.nn.Sequential(*[m for _ in range(150) for m in (torch.nn.Linear(8, 8), torch.nn.ReLU())])

def normed(momentum=0.1):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6, momentum=momentum), torch.nn.Linear(6, 2))

def slower():
    return normed(0.01)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "certified.py").write_text(NET, encoding="utf-8")
    for name, content in zip(("me.ed25519", "me.ed25519.pem"), new_pair(), strict=True):
        (tmp_path / name).write_bytes(content)
    return tmp_path


def certified(name: str, *inputs: str, more: tuple[str, ...] = ()) -> Result:
    specs = [part for spec in inputs for part in ("--input", spec)]
    return CliRunner().invoke(
        app, ["certify", f"torch:certified.py:{name}", *specs, "--key", "me.ed25519", "-o", "c.json", *more]
    )


def test_data_of_a_file_travel_beside_a_shape(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32))
    made = certified("two", "x.npy", "2,5")
    assert made.exit_code == 0, made.output
    (folder / "else").mkdir()
    monkeypatch.chdir(folder / "else")
    again = CliRunner().invoke(app, ["verify", "../c.json", "--trust", "../me.ed25519.pem"])
    assert again.exit_code == 0, (again.output, again.exception)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("name", "inputs"), [("build", ["2,4"]), ("two", ["2,4", "2,5"])])
@pytest.mark.parametrize("given", [["2,4", "2,5"], ["2,4"], ["2,4", "2,5", "1"]])
def test_other_inputs_than_the_certificate_has_are_refused(
    name: str, inputs: list[str], given: list[str]
) -> None:
    assert certified(name, *inputs).exit_code == 0
    specs = [part for spec in given for part in ("--input", spec)]
    found = CliRunner().invoke(app, ["verify", "c.json", "--trust", "me.ed25519.pem", *specs])
    if len(given) == len(inputs):
        assert found.exit_code == 0, found.output
        return
    assert isinstance(found.exception, RefusedInput)
    assert found.exception.exit_code == 2
    assert (
        found.exception.message
        == f"{len(given)} inputs are given, expected {len(inputs)}, as the certificate has"
    )


def test_what_nobody_can_repeat_is_not_signed(folder: Path) -> None:
    made = certified("deep", "2,8")
    assert isinstance(made.exception, UnprovenError)
    assert "nobody could repeat a certificate of torch:certified.py:deep" in made.exception.message
    assert not (folder / "c.json").exists()


@pytest.mark.usefixtures("folder")
def test_another_momentum_is_noted() -> None:
    made = certified("normed", "2,4")
    assert "not proven: what training alone sees, as momentum" in made.output
    assert "note: " not in made.output
    verify, note = (
        ["verify", "c.json", "--trust", "me.ed25519.pem"],
        "1: momentum is 0.9 in the schema, 0.99 in '1'; training uses the schema's",
    )
    again = CliRunner().invoke(app, [*verify, "--model", "torch:certified.py:slower"])
    assert again.exit_code == 0, again.output
    assert f"note: {note}" in again.output
    Path("c.json").unlink()
    of_two = certified("normed", "2,4", more=("torch:certified.py:slower",))
    assert f"note: {note}" in of_two.output
    assert f"note: torch:certified.py:slower: {note}" in CliRunner().invoke(app, verify).output


@pytest.mark.parametrize("target", ["none.onnx", "c.pt", "other.safetensors"])
def test_where_it_cannot_be_embedded_nothing_is_left(folder: Path, target: str) -> None:
    if target.startswith("other"):
        save(folder / target, {"a": np.zeros(3, np.float32)}, {"fingerprint": "f" * 64})
    if target == "c.pt":
        save(folder / target, {"a": np.zeros(3, np.float32)})
    made = certified("build", "1,4", more=("--embed", target))
    assert isinstance(made.exception, RefusedInput)
    assert not (folder / "c.json").exists()


def test_where_embedding_fails_the_same_command_can_be_given_again(folder: Path) -> None:
    """Beside a file with so long a name nothing can be written, as on a full disk."""
    net = runpy.run_path("certified.py")["build"]()
    schema = xbackend_fl.describe(net, (np.zeros((1, 4), np.float32),))
    arrays = draw_weights(schema, 1)
    names = ["first.safetensors", f"{'n' * 240}.safetensors"]
    save(folder / names[0], arrays, {"fingerprint": schema.fingerprint})
    (folder / names[1]).write_bytes((folder / names[0]).read_bytes())
    made = certified("build", "1,4", more=("--embed", names[0], "--embed", names[1]))
    assert isinstance(made.exception, RefusedInput | OSError), made.output
    assert not (folder / "c.json").exists()
    made = certified("build", "1,4", more=("--embed", names[0]))
    assert made.exit_code == 0, made.output


def test_what_a_signer_writes_breaks_no_line(folder: Path) -> None:
    certified("build", "1,4")
    held = certificate_in(folder / "c.json")
    forged = replace(held.statement, not_proven=("\x1b[31ma\nok      all: fine",))
    write(folder / "d.json", sign(forged, read_private(folder / "me.ed25519")))
    found = CliRunner().invoke(app, ["verify", "d.json", "--trust", "me.ed25519.pem"])
    assert found.output.splitlines()[-1] == "not proven: \\x1b[31ma ok      all: fine"


@pytest.mark.usefixtures("folder")
def test_a_certificate_is_made_and_repeated() -> None:
    run = CliRunner().invoke
    made = run(
        app, ["certify", "torch:certified.py:build", "--input", "1,4", "--key", "me.ed25519", "-o", "c.json"]
    )
    assert made.exit_code == 0, made.output
    assert "not proven: more than one step of training" in made.output
    again = run(app, ["verify", "c.json", "--trust", "me.ed25519.pem", "--model", "torch:certified.py:build"])
    assert (again.exit_code, again.output.count("FAILED")) == (0, 0), again.output
    other = run(
        app,
        ["verify", "c.json", "--trust", "me.ed25519.pem", "--model", "torch:certified.py:wrong", "--json"],
    )
    assert other.exit_code == 1
    last = json.loads(other.output)["data"]["lines"][-1]
    assert not last["passed"]
    assert "epsilon is 1e-05" in last["said"]
    unknown = run(app, ["verify", "c.json"])
    assert isinstance(unknown.exception, RefusedInput)
