"""``xbfl certify`` and ``xbfl verify``, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from xbackend_fl.cli.main import app
from xbackend_fl.errors import RefusedInput
from xbackend_fl.signing import new_pair

NET = """
import torch

def build(epsilon=1e-5):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.LayerNorm(6, eps=epsilon), torch.nn.Linear(6, 2))

def wrong():
    return build(1e-3)
"""


def test_a_certificate_is_made_and_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "certified.py").write_text(NET, encoding="utf-8")
    for name, content in zip(("me.ed25519", "me.ed25519.pem"), new_pair(), strict=True):
        (tmp_path / name).write_bytes(content)
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
