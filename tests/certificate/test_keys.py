"""What is said of a private key that cannot be read, or by too many."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from xbackend_fl.errors import FileError
from xbackend_fl.signing import new_pair, raw, read_private

pytestmark = pytest.mark.quick


def test_an_encrypted_key_is_refused_with_a_cure(tmp_path: Path) -> None:
    path = tmp_path / "me.pem"
    secret = serialization.BestAvailableEncryption(b"x")
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, secret))
    with pytest.raises(FileError, match="is an encrypted private key") as caught:
        read_private(path)
    assert "openssl pkey -in me.pem -out me.ed25519" in str(caught.value.hint)


@pytest.mark.parametrize(("mode", "said"), [(0o600, 0), (0o640, 1), (0o644, 1)])
def test_a_key_that_others_can_read_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, said: int
) -> None:
    path = tmp_path / "me.ed25519"
    path.write_bytes(new_pair()[0])
    path.chmod(mode)
    assert len(raw(read_private(path).public_key())) == 32
    assert caplog.text.count("is a private key that others can read: chmod 600") == said
