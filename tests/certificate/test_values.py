"""The values around a certificate are those that its signer embedded it around, of the round that the file says."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import helper

from tests.certificate.certified import schema_of
from xbackend_fl import weights
from xbackend_fl.canonical.onnx_export import to_bytes, to_onnx
from xbackend_fl.certificate import Certificate, embed
from xbackend_fl.certificate.embedding import lines_of
from xbackend_fl.certificate.values import sign_values
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.signing import new_pair, read_private


@pytest.fixture(params=["onnx", "safetensors"])
def held(
    request: pytest.FixtureRequest, certificate: Certificate, private: Ed25519PrivateKey, tmp_path: Path
) -> Path:
    """Weights of round 7 around the certificate."""
    return written(certificate, private, tmp_path / f"net.{request.param}")


def written(certificate: Certificate, private: Ed25519PrivateKey | None, path: Path, seed: int = 3) -> Path:
    schema, about = schema_of(certificate), {"run": "one", "round": "7"}
    arrays = draw_weights(schema, seed)
    if path.suffix == ".onnx":
        path.write_bytes(to_bytes(to_onnx(schema, arrays, metadata=about)))
    else:
        weights.save(path, arrays, {"fingerprint": schema.fingerprint, **about})
    if private is not None:
        embed(path, certificate, private)
    return path


def with_metadata(path: Path, **other: str | None) -> None:
    archive = weights.open_weights(path)
    metadata = {key: value for key, value in {**archive.metadata, **other}.items() if value is not None}
    # A field of its own.
    metadata.pop("producer", None)
    if path.suffix == ".onnx":
        model = onnx.load(path)
        del model.metadata_props[:]
        helper.set_model_props(model, metadata)
        onnx.save(model, path)
    else:
        weights.save(path, dict(archive), metadata, overwrite=True)


def values(path: Path, certificate: Certificate, *, signed: bool = False) -> tuple[bool, str]:
    *_, found = lines_of(path, certificate, signed=signed)
    assert found.name == "values"
    return found.passed, found.said


def test_the_values_are_those_that_were_signed(held: Path, certificate: Certificate) -> None:
    said = "signed with the certificate's key, round 7 of run one"
    assert values(held, certificate, signed=True) == (True, said)


def test_other_values_under_the_signature_fail(held: Path, certificate: Certificate, tmp_path: Path) -> None:
    """Whole weights of another round, which are right in every other respect."""
    other = written(certificate, None, tmp_path / f"other{held.suffix}", seed=4)
    with_metadata(other, **weights.open_weights(held).metadata)
    passed, said = values(other, certificate)
    assert not passed
    assert "others than those that the signer" in said


@pytest.mark.parametrize(
    "other",
    [{"round": "8"}, {"run": "two"}, {"round": None}, {"course": "added"}, {"certificate_values": "AAAA"}, {"certificate_values": "é"}],
)  # fmt: skip
def test_what_the_file_says_of_its_round_is_signed_too(
    held: Path, certificate: Certificate, other: dict[str, str | None]
) -> None:
    with_metadata(held, **other)
    assert not values(held, certificate)[0]


def test_values_are_signed_as_the_guide_says(
    certificate: Certificate, private: Ed25519PrivateKey, tmp_path: Path
) -> None:
    path = written(certificate, None, tmp_path / "net.safetensors")
    with_metadata(path, course="café ×", run="ü", round="7")
    embed(path, certificate, private)
    archive = weights.open_weights(path)
    held = archive.metadata
    said = {name: held[name] for name in ("fingerprint", "course", "run", "round")}
    said["digest"] = weights.digest(archive)
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    signed = b"xbfl-values-v1\0" + hashlib.sha256(text.encode()).digest()
    private.public_key().verify(base64.b64decode(held["certificate_values"]), signed)


def test_another_key_signs_no_values(held: Path, certificate: Certificate, tmp_path: Path) -> None:
    (tmp_path / "b.ed25519").write_bytes(new_pair()[0])
    signature = sign_values(weights.open_weights(held), read_private(tmp_path / "b.ed25519"))
    with_metadata(held, certificate_values=signature)
    assert not values(held, certificate)[0]


def test_values_that_nobody_signed_are_said_and_fail_where_they_must_be(
    held: Path, certificate: Certificate
) -> None:
    with_metadata(held, certificate_values=None)
    said = "nobody signed them: whoever holds the file can write others into it"
    assert values(held, certificate) == (True, said)
    assert values(held, certificate, signed=True) == (False, said)


@pytest.mark.parametrize("ending", ["onnx", "safetensors"])
def test_a_certificate_goes_where_a_link_leads(
    certificate: Certificate, private: Ed25519PrivateKey, tmp_path: Path, ending: str
) -> None:
    path, link = written(certificate, None, tmp_path / f"net.{ending}"), tmp_path / f"link.{ending}"
    link.symlink_to(path.name)
    embed(link, certificate, private)
    assert (link.is_symlink(), path.is_symlink()) == (True, False)
    assert values(path, certificate, signed=True)[0]


@pytest.mark.parametrize("ending", ["onnx", "safetensors"])
def test_a_file_that_names_no_round_is_said_to_be_of_any(
    certificate: Certificate, private: Ed25519PrivateKey, tmp_path: Path, ending: str
) -> None:
    path = written(certificate, None, tmp_path / f"net.{ending}")
    with_metadata(path, round=None, run=None)
    embed(path, certificate, private)
    said = "signed with the certificate's key; the file does not say of which run and round it is, so that an older one passes just as well"
    assert values(path, certificate, signed=True) == (True, said)
