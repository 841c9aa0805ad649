"""A certificate says the same wherever it is made and read, and what is not so is said line by line."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jsonschema import Draft202012Validator
from torch import nn

from xbackend_fl import weights
from xbackend_fl.adapter import load
from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.onnx_export import to_bytes, to_onnx
from xbackend_fl.certificate import (
    Certificate,
    Model,
    Statement,
    certificate_in,
    certify,
    embed,
    lines,
    read,
    sign,
    write,
)
from xbackend_fl.certificate.embedding import line_of
from xbackend_fl.certificate.statement import StoredArray, json_schema
from xbackend_fl.certificate.verifying import example_of
from xbackend_fl.errors import FileError, RefusedInput, SchemaError
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.signing import new_pair, read_private

SPECS = ("2,3,8",)


def build(epsilon: float = 1e-5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4, eps=epsilon), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)
    ).eval()


def model(native: nn.Module, source: str = "torch:net.py:build") -> Model:
    return Model(source, load("torch"), native)


def made(own_loop: str = "") -> Statement:
    example = (np.random.Generator(np.random.Philox(0)).standard_normal((2, 3, 8)).astype(np.float32),)
    return certify([model(build()), model(build(), "torch:twin.py:build")], example, SPECS, own_loop)


@pytest.fixture(scope="module")
def statement() -> Statement:
    return made()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "mallory"):
        private, public = new_pair()
        (folder / f"{name}.ed25519").write_bytes(private)
        (folder / f"{name}.ed25519.pem").write_bytes(public)
    return folder


@pytest.fixture(scope="module")
def certificate(statement: Statement, keys: Path) -> Certificate:
    return sign(statement, read_private(keys / "alice.ed25519"))


def failing(statement: Statement, *models: Model) -> dict[str, str]:
    found = lines(statement, example_of(statement), models)
    return {line.name: line.said for line in found if not line.passed}


def test_the_same_models_make_the_same_bytes(certificate: Certificate, keys: Path) -> None:
    assert sign(made(), read_private(keys / "alice.ed25519")).to_json() == certificate.to_json()


def test_it_is_signed_as_the_page_says(certificate: Certificate) -> None:
    plain = json.loads(certificate.to_json())
    text = json.dumps(plain["statement"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(plain["key"]))
    message = b"xbfl-certificate-v1\0" + hashlib.sha256(text.encode()).digest()
    key.verify(base64.b64decode(plain["signature"]), message)


def test_what_is_written_is_read(certificate: Certificate, keys: Path, tmp_path: Path) -> None:
    write(tmp_path / "c.json", certificate)
    found = certificate_in(tmp_path / "c.json")
    assert found == certificate
    assert (
        found.require_trusted([keys / "mallory.ed25519.pem", keys / "alice.ed25519.pem"]).name
        == "alice.ed25519.pem"
    )


def test_every_line_is_so_here(statement: Statement) -> None:
    assert not failing(statement, model(build()))
    errors = statement.models[1].errors
    assert {"outputs", "gradients", "step", "statistics", "onnx runtime"} <= errors.keys()
    assert max(errors.values()) < statement.tolerance


def test_a_model_that_is_another_function_is_named(statement: Statement) -> None:
    (said,) = failing(statement, model(build(1e-3))).values()
    assert "epsilon is 1e-05 in the reference, 0.001" in said


@pytest.mark.parametrize(
    ("line", "change"),
    [
        ("schema", lambda s: replace(s, fingerprint="0" * 64)),
        ("schema", lambda s: replace(s, schema={**s.schema, "layout_version": 1})),
        ("bindings", lambda s: replace(s, models=(replace(s.models[0], binding={**s.models[0].binding, "fingerprint": "0" * 64}),))),
        ("example", lambda s: replace(s, inputs=(replace(s.inputs[0], spec="2,3,9"),))),
        ("probes", lambda s: replace(s, probes=(replace(s.probes[0], inputs="0" * 64),))),
        ("probes", lambda s: replace(s, probes=())),
        ("probes", lambda s: replace(s, probes=(replace(s.probes[0], seed=9),))),
        ("onnx runtime", lambda s: replace(s, probes=(replace(s.probes[0], outputs=s.probes[1].outputs), *s.probes[1:]))),
    ],
)  # fmt: skip
def test_the_line_that_fails_is_named(
    statement: Statement, line: str, change: Callable[[Statement], Statement]
) -> None:
    assert [*failing(change(statement), model(build()))] == [line]


def test_gradients_and_steps_are_held_to_it(statement: Statement) -> None:
    probes = tuple(replace(p, gradients=_turned(p.gradients)) for p in statement.probes)
    (said,) = failing(replace(statement, probes=probes), model(build())).values()
    assert "gradients" in said


def _turned(sketches: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    return {name: replace(held, data=_negated(held.data)) for name, held in sketches.items()}


def _negated(data: str) -> str:
    return base64.b64encode((-np.frombuffer(base64.b64decode(data), np.float32)).tobytes()).decode()


def test_who_is_unknown_and_what_was_altered_is_refused(certificate: Certificate, keys: Path) -> None:
    alice, mallory = (keys / f"{name}.ed25519.pem" for name in ("alice", "mallory"))
    with pytest.raises(RefusedInput, match=r"none of mallory\.ed25519\.pem"):
        certificate.require_trusted([mallory])
    with pytest.raises(RefusedInput, match="whom to trust"):
        certificate.require_trusted([])
    altered = replace(certificate, statement=replace(certificate.statement, tolerance=1.0))
    with pytest.raises(RefusedInput, match="was altered"):
        altered.require_trusted([alice])
    with pytest.raises(RefusedInput, match="was altered"):
        replace(certificate, signature="AAAA").require_trusted([alice])


def test_what_nobody_signed_stands_in_no_certificate(certificate: Certificate) -> None:
    """The signature is over what was understood, so that a claim beside it would look signed."""
    plain = json.loads(certificate.to_json())
    beside = plain | {"authority": None}
    inside = plain | {"statement": plain["statement"] | {"approved": "for clinics"}}
    probes = [plain["statement"]["probes"][0] | {"trusted": True}, *plain["statement"]["probes"][1:]]
    deep = plain | {"statement": plain["statement"] | {"probes": probes}}
    for changed, place in (
        (beside, "authority"),
        (inside, "statement.approved"),
        (deep, r"statement.probes\[0\].trusted"),
    ):
        with pytest.raises(FileError, match=f"holds {place}, which is no part of a certificate"):
            read(json.dumps(changed), "c.json")
    (item,) = plain["statement"]["inputs"]
    fewer = plain["statement"] | {"inputs": [{"spec": item["spec"], "digest": item["digest"]}]}
    with pytest.raises(FileError, match=r"has no statement.inputs\[0\].values, which is part"):
        read(json.dumps(plain | {"statement": fewer}), "c.json")
    twice = certificate.to_json().replace('"tolerance":', '"tolerance":0.5,"tolerance":', 1)
    with pytest.raises(FileError, match="a key stands in it twice"):
        read(twice, "c.json")


FORGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "of another version": lambda plain: plain.update(version=2),
    "with a claim beside it": lambda plain: plain.update(authority=None),
    "with a claim inside": lambda plain: plain["statement"].update(approved="for clinics"),
    "with a claim in a probe": lambda plain: plain["statement"]["probes"][0].update(trusted=True),
    "with a claim in an array": lambda plain: plain["statement"]["probes"][0]["outputs"][0].update(of=1),
    "with a claim of a model": lambda plain: plain["statement"]["models"][0].update(audited=True),
    "with less of an input": lambda plain: plain["statement"]["inputs"][0].pop("values"),
    "with half an input": lambda plain: plain["statement"]["inputs"][0].pop("spec"),
    "unsigned": lambda plain: plain.update(signature=""),
    "with a short signature": lambda plain: plain.update(signature="AAAA"),
    "with a signature in loose base64": lambda plain: plain.update(signature="A" * 85 + "B=="),
    "of a long key": lambda plain: plain.update(key=plain["key"][:-1] + "A"),
    "of no key": lambda plain: plain.update(key=None),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_the_reader_refuses_the_published_form_refuses(certificate: Certificate, name: str) -> None:
    """Another reader has that form alone; jsonschema reads it."""
    form = Draft202012Validator(json_schema())
    plain = json.loads(certificate.to_json())
    form.validate(plain)
    form.validate(whole(plain))
    FORGED[name](plain)
    with pytest.raises(FileError):
        read(json.dumps(plain), "c.json")
    assert not form.is_valid(plain)


def test_an_array_of_the_published_form_is_one(certificate: Certificate) -> None:
    form = Draft202012Validator(json_schema())
    for change in ({"dtype": "complex64"}, {"data": "AAA"}, {"data": "AA=A"}, {"data": "AAAA AAAA"}):
        plain = json.loads(certificate.to_json())
        plain["statement"]["probes"][0]["outputs"][0] |= change
        assert not form.is_valid(plain)
        with pytest.raises(RefusedInput):
            read(json.dumps(plain), "c.json").statement.probes[0].outputs[0].array()


def test_a_number_is_the_same_however_it_is_written(certificate: Certificate, keys: Path) -> None:
    """What reads JSON and writes it again may make 10 of 10.0."""
    text = json.dumps(whole(json.loads(certificate.to_json())))
    assert '"roundings": 10,' in text
    found = read(text, "c.json")
    assert found.to_json() == certificate.to_json()
    found.require_trusted([keys / "alice.ed25519.pem"])


def whole(plain: Any) -> Any:
    """The same JSON with every whole number written as an integer."""
    if isinstance(plain, dict):
        return {key: whole(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [whole(value) for value in plain]
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


@pytest.mark.parametrize(
    ("change", "said"),
    [({"version": 2, "statement": "of tomorrow"}, "version 2, and this program reads up to 1"), ({"key": None}, "is no certificate"), ({"signature": "ä"}, "is no certificate")],
)  # fmt: skip
def test_what_is_none_or_of_tomorrow_is_refused(
    certificate: Certificate, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(FileError, match=said):
        read(json.dumps(json.loads(certificate.to_json()) | change), "c.json")
    with pytest.raises(FileError, match="is no certificate"):
        read("{", "c.json")


def test_of_an_own_loop_it_says_that_it_is_one(statement: Statement) -> None:
    found = made("loop.py:train")
    *others, said = found.not_proven
    assert others == [*statement.not_proven]
    assert said == "loop.py:train, a training loop of the user's own: that it is one, and nothing else of it"
    assert asdict(replace(found, own_loop="", not_proven=statement.not_proven)) == asdict(statement)


@pytest.mark.parametrize("ending", ["onnx", "safetensors"])
def test_it_travels_in_the_file_of_weights(
    certificate: Certificate, keys: Path, tmp_path: Path, ending: str
) -> None:
    path, schema = tmp_path / f"net.{ending}", Schema.from_json(json.dumps(certificate.statement.schema))
    held = weights.Weights.from_schema(schema, draw_weights(schema, 3))
    if ending == "onnx":
        path.write_bytes(to_bytes(to_onnx(schema, held)))
    else:
        weights.save_weights(path, held)
    embed(path, certificate, read_private(keys / "alice.ed25519"))
    assert certificate_in(path) == certificate
    assert {name: array.tobytes() for name, array in weights.open_weights(path).items()} == {
        name: array.tobytes() for name, array in held.items()
    }
    assert line_of(path, certificate).passed
    if ending == "safetensors":
        assert weights.load_weights(path, schema.fingerprint).digest == held.digest


def test_a_file_of_another_schema_takes_none(certificate: Certificate, keys: Path, tmp_path: Path) -> None:
    weights.save(tmp_path / "a.safetensors", {"a": np.zeros(3, np.float32)}, {"fingerprint": "f" * 64})
    with pytest.raises(SchemaError, match="is of schema ffff"):
        embed(tmp_path / "a.safetensors", certificate, read_private(keys / "alice.ed25519"))
    with pytest.raises(FileError, match="holds no certificate"):
        certificate_in(tmp_path / "a.safetensors")
