"""Whoever signed it: a certificate asks what this version asks, in its bounds, or a line of it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.certificate.test_certificate import build, failing, made, model
from xbackend_fl.adapter import load
from xbackend_fl.canonical.onnx_export import to_bytes, to_onnx
from xbackend_fl.certificate import Model, Statement, certify, read, sign
from xbackend_fl.certificate.statement import Certificate, Probe, StoredArray
from xbackend_fl.certificate.verifying import example_of, lines
from xbackend_fl.errors import FileError
from xbackend_fl.mapping import describe_reference
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.signing import new_pair, read_private
from xbackend_fl.weights import Weights


@pytest.fixture(scope="module")
def statement() -> Statement:
    return made()


@pytest.fixture(scope="module")
def certificate(statement: Statement, tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    key = tmp_path_factory.mktemp("key") / "a.ed25519"
    key.write_bytes(new_pair()[0])
    return sign(statement, read_private(key))


def every(s: Statement, change: Callable[[Probe], Probe]) -> Statement:
    return replace(s, probes=tuple(map(change, s.probes)))


def ones(probe: Probe) -> Probe:
    outputs = tuple(StoredArray.from_array(np.ones_like(held.array())) for held in probe.outputs)
    return replace(probe, outputs=outputs)


def without(s: Statement, label: str) -> Statement:
    kept = tuple(probe for probe in s.probes if not probe.label.endswith(label))
    assert len(kept) < len(s.probes)
    return replace(s, probes=kept)


def emptied(probe: Probe) -> Probe:
    return replace(probe, gradients={}, moved={})


def plain(probe: Probe) -> Probe:
    return replace(probe, fit="", statistics={})


def resized(probe: Probe, part: str, array: np.ndarray[Any, Any]) -> Probe:
    held = dict.fromkeys(getattr(probe, part), StoredArray.from_array(array))
    return replace(probe, **{part: held})


def named(name: str) -> dict[str, StoredArray]:
    return {name: StoredArray.from_array(np.zeros(64, np.float32))}


HOSTILE: dict[str, tuple[Callable[[Statement], Statement], str, str]] = {
    "a tolerance": (lambda s: replace(every(s, ones), tolerance=1e9), "schema", "errors of 1.0e"),
    "no number": (lambda s: replace(s, tolerance=float("nan")), "schema", "errors of nan"),
    "roundings": (lambda s: replace(s, roundings=1e9), "schema", "times measured rounding"),
    "errors of its own": (lambda s: every(s, lambda p: replace(ones(p), runtime=1e9)), "schema", "an error of 1.0e"),
    "nothing compared": (lambda s: every(s, lambda p: replace(ones(p), runtime=None)), "probes", "does not ask 'draw 0"),
    "one probe": (lambda s: replace(s, probes=s.probes[:1]), "probes", "no probe of it has gradients and a step"),
    "not many examples": (lambda s: without(s, "examples"), "probes", "examples'"),
    "not one example": (lambda s: without(s, "one example"), "probes", "one example'"),
    "no large numbers": (lambda s: without(s, "thousands"), "probes", "thousands'"),
    "not the example": (lambda s: without(s, "the example"), "probes", "the example'"),
    "no small weights": (lambda s: without(s, "small weights"), "probes", "small weights'"),
    "no gradients": (lambda s: every(s, emptied), "probes", "no probe of it has gradients and a step"),
    "drawn statistics": (lambda s: every(s, plain), "probes", "no probe of it has gradients and a step"),
    "no model": (lambda s: replace(s, models=()), "schema", "it is of no model"),
    "no inputs": (lambda s: replace(s, inputs=()), "schema", "0 inputs, expected 1"),
    "another kind of data": (lambda s: replace(s, usual=("bogus",)), "schema", "kind of data 'bogus'"),
    "other weights": (lambda s: every(s, lambda p: replace(p, redrawn="bogus")), "schema", "weights 'bogus'"),
    "no outputs": (lambda s: every(s, lambda p: replace(p, outputs=())), "schema", "0 outputs, expected 1"),
    "another question": (lambda s: every(s, lambda p: replace(p, asks=("inputs",))), "schema", "question 'inputs'"),
    "other statistics": (lambda s: every(s, lambda p: replace(p, fit="bogus")), "schema", "statistics of 'bogus'"),
    "gradients of no shape": (lambda s: every(s, lambda p: resized(p, "gradients", np.zeros(0))), "schema", "of shape (0,), expected (36,)"),
    "a gradient of nothing": (lambda s: every(s, lambda p: replace(p, gradients={**p.gradients, **named("zz")})), "schema", "a gradient of 'zz', which"),
    "one number as a step": (lambda s: every(s, lambda p: resized(p, "moved", np.zeros(()))), "schema", "a step of"),
    "statistics of no shape": (lambda s: every(s, lambda p: resized(p, "updated", np.zeros(9))), "schema", "statistics after a step of"),
    "one number as rounding": (lambda s: every(s, lambda p: resized(p, "rounding", np.zeros(()))), "schema", "rounding of"),
    "no number as rounding": (lambda s: every(s, lambda p: resized(p, "rounding", np.zeros(0))), "schema", "of shape (0,), expected (1,)"),
    "held statistics": (lambda s: every(s, lambda p: replace(p, statistics=named("zz"))), "schema", "statistics of 'zz', which"),
    "no statistics": (lambda s: every(s, lambda p: replace(p, updated={})), "schema", "no running statistics '1.mean' after it"),
    "one label twice": (lambda s: replace(s, probes=(*s.probes, s.probes[0])), "schema", "one label"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_signer_can_ask_no_less(statement: Statement, what: str) -> None:
    change, line, said = HOSTILE[what]
    found = [
        item for item in lines(change(statement), example_of(statement), [model(build())]) if not item.passed
    ]
    assert [item.name for item in found] == [line]
    assert said in found[0].said


def test_what_is_asked_is_said(statement: Statement) -> None:
    assert not failing(statement, model(build()))
    (probes,) = [item for item in lines(statement, example_of(statement)) if item.name == "probes"]
    assert "drawn again, 19 of which" in probes.said


def test_an_example_of_other_inputs_fails(statement: Statement) -> None:
    (example,) = example_of(statement)
    for wrong in ((), (example, example)):
        found = [item for item in lines(statement, wrong) if not item.passed]
        assert [(item.name, item.said) for item in found] == [("example", f"{len(wrong)} inputs, expected 1")]


class Louder(nn.Module):
    """ReLU with a gradient of its own, 0.6 % too large."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = torch.relu(x)
        return found + (found - found.detach()) * 0.006


def louder() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), Louder(), nn.Flatten(), nn.Linear(24, 2)]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("size", [1e30, 10.0, float("inf"), -1.0])
@pytest.mark.parametrize("asks", [True, False])
def test_rounding_that_a_signer_claims_excuses_nothing(
    statement: Statement, size: float, *, asks: bool
) -> None:
    """It is the receiver's model that is measured as well, and rounds by nothing like it."""

    def claimed(probe: Probe) -> Probe:
        held = StoredArray.from_array(np.array([size]))
        names = [
            f"{part}/{name}" for part in ("gradients", "moved", "updated") for name in getattr(probe, part)
        ]
        asked = (*probe.asks, "rounding") if asks and names and "rounding" not in probe.asks else probe.asks
        return replace(probe, rounding=dict.fromkeys(names, held), asks=asked)

    found = failing(every(statement, claimed), model(louder()))
    if asks:
        assert [*found] == ["model torch:net.py:build"]
    else:
        assert "has rounding, and does not ask for it" in found["schema"]


class Dropped(nn.Module):
    """Drops in its own way, which no other framework repeats: it is for inference."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.one(x))
        if self.training:
            hidden = hidden * torch.empty(len(hidden), 1).bernoulli_(0.8) / 0.8
        return self.two(hidden)


def test_a_reference_that_only_infers_takes_no_step() -> None:
    torch.manual_seed(0)
    example = (np.random.Generator(np.random.Philox(0)).standard_normal((2, 4)).astype(np.float32),)
    found = certify([model(Dropped().eval())], example, ["2,4"])
    assert not any(probe.moved for probe in found.probes)
    (probes,) = [item for item in lines(found, example) if item.name == "probes"]
    assert probes.passed
    assert "; no step was taken: " in probes.said
    less = replace(found, probes=(replace(found.probes[0], gradients={}), *found.probes[1:]))
    assert [item.name for item in lines(less, example) if not item.passed] == ["probes"]
    none = every(found, lambda probe: replace(probe, gradients={}, rounding={}))
    (probes,) = [item for item in lines(none, example) if item.name == "probes"]
    assert "; no gradients were asked and no step was taken: " in probes.said


def test_a_file_is_certified_by_its_outputs(tmp_path: Path) -> None:
    """It has no gradients: what is certified is what it computes, and the line says so."""
    example, torch_model = np.zeros((2, 4), np.float32), Dropped().eval()
    schema, _ = describe_reference(torch_model, [example])
    (tmp_path / "m.onnx").write_bytes(
        to_bytes(to_onnx(schema, Weights.from_schema(schema, draw_weights(schema, 3))))
    )
    adapter = load("onnx")
    file = Model("onnx:m.onnx", adapter, adapter.load(tmp_path / "m.onnx"))
    found = certify([file, model(torch_model)], (example,), ["2,4"])
    assert "gradients and a step: the reference only infers" in found.not_proven
    *front, said = lines(found, (example,), [file])
    assert all(item.passed for item in (*front, said))
    (probes,) = [item for item in front if item.name == "probes"]
    assert (
        "; no gradients were asked and no step was taken: an ONNX file is an inference graph" in probes.said
    )
    assert "gradients" not in said.said
    other = Dropped().eval()
    other.two = nn.Sequential(nn.Linear(6, 2), nn.ReLU())
    assert [item.name for item in lines(found, (example,), [model(other)]) if not item.passed] == [
        "model torch:net.py:build"
    ]


def placed(certificate: Certificate, *path: str | int, value: Any) -> str:
    plain: Any = json.loads(certificate.to_json())
    *front, last = path
    place = plain
    for key in front:
        place = place[key]
    place[last] = value
    return json.dumps(plain)


def nested(certificate: Certificate) -> str:
    deep = '"schema":{"a":' + "[" * 600 + "1" + "]" * 600 + ","
    return certificate.to_json().replace('"schema":{', deep, 1)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 0),
        (("version",), -7),
        (("version",), True),
        (("version",), 1.0),
        (("statement", "own_loop"), "\ud800"),
        (("statement", "probes", 0, "label"), "\udfff"),
        (("statement", "probes", 0, "seed"), 10**300),
        (("statement", "probes", 0, "seed"), -1),
        (("statement", "probes", 0, "seed"), "3"),
        (("statement", "probes", 0, "sketched"), 1),
        (("statement", "probes", 0, "outputs", 0, "shape"), [-1]),
        (("statement", "probes", 0, "outputs", 0, "shape"), [10**30]),
    ],
)
def test_what_is_of_another_type_is_refused_in_one_line(
    certificate: Certificate, path: tuple[str | int, ...], value: Any
) -> None:
    with pytest.raises(FileError, match=r"is no certificate|part of a certificate"):
        read(placed(certificate, *path, value=value), "c.json")


def test_what_is_nested_deeply_is_refused_in_one_line(certificate: Certificate) -> None:
    with pytest.raises(FileError, match="is no certificate"):
        read(nested(certificate), "c.json")


def test_a_signature_is_written_in_one_way(certificate: Certificate) -> None:
    """The last four bits of base64 of 64 bytes mean nothing."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    place = letters.index(certificate.signature[-3])
    other = certificate.signature[:-3] + letters[place ^ 1] + "=="
    with pytest.raises(FileError, match="64 bytes in base64"):
        read(placed(certificate, "signature", value=other), "c.json")
    with pytest.raises(FileError, match="32 bytes in base64"):
        read(placed(certificate, "key", value="AAAA"), "c.json")
    with pytest.raises(FileError, match="its signature '' is not 64 bytes in base64"):
        read(placed(certificate, "signature", value=""), "c.json")


def test_the_form_that_is_read_is_the_form_that_is_written(certificate: Certificate) -> None:
    assert asdict(read(certificate.to_json(), "c.json")) == asdict(certificate)
