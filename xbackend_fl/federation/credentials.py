"""Who may talk to whom: a certificate for the server, and a key for every silo.

``make_keys`` is for rehearsals and small federations; an organisation with a certificate authority puts its own files in the same places.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xbackend_fl.course import Course, checked_name
from xbackend_fl.course.address import host_name
from xbackend_fl.errors import ConfigError, FileError, RefusedInput
from xbackend_fl.federation.protocol.signatures import SERVER, Signatures
from xbackend_fl.signing import new_pair, read_private, read_public
from xbackend_fl.writing import atomic_write, check_new, explain_unwritable

_MAX_DAYS = 36_500
_PUBLIC = ".ed25519.pem"
_LOCAL = ("localhost", "127.0.0.1")
"""Names that every server's certificate needs: Flower's own processes call it by them."""


@dataclass(frozen=True)
class Keys:
    """The files of one party.

    Attributes:
        folder: The server's holds ``ca.crt``, ``server.crt``, ``server.key`` and ``silos/NAME.pub`` of every silo that may
            join; a silo's holds ``ca.crt`` and ``NAME.key``. With ``server.ed25519`` and ``silos/NAME.ed25519.pem`` at the server,
            ``NAME.ed25519`` and ``server.ed25519.pem`` at the silos, every frame is signed.
    """

    folder: Path

    @property
    def authority(self) -> Path:
        """Certificate of whoever signed the server's."""
        return self._file("ca.crt")

    @property
    def certificate(self) -> Path:
        """The server's certificate."""
        return self._file("server.crt")

    @property
    def private(self) -> Path:
        """The server's private key."""
        return self._file("server.key")

    def silo(self, name: str) -> Path:
        """A silo's private key."""
        return self._file(f"{name}.key")

    def allowed(self) -> dict[str, Path]:
        """Public keys of the silos that may join, by name.

        Raises:
            FileError: There is none.
        """
        found = {path.stem: path for path in sorted((self.folder / "silos").glob("*.pub"))}
        if not found:
            raise FileError(
                f"{self.folder} has no silos/NAME.pub", hint="put the public key of every silo there"
            )
        return found

    def server_signatures(self) -> Signatures:
        """The server's signing key and every silo's, where the folder has them."""
        own = self.folder / "server.ed25519"
        if not own.is_file():
            return Signatures()
        others = {p.name.removesuffix(_PUBLIC): read_public(p) for p in self.folder.glob(f"silos/*{_PUBLIC}")}
        return Signatures(read_private(own), others)

    def silo_signatures(self, name: str) -> Signatures:
        """A silo's signing key and the server's, where the folder has them."""
        own, server = self.folder / f"{name}.ed25519", self.folder / f"server{_PUBLIC}"
        if not own.is_file():
            return Signatures()
        return Signatures(read_private(own), {SERVER: read_public(server)} if server.is_file() else {})

    def context(self) -> ssl.SSLContext:
        """How to check the server's certificate.

        Raises:
            FileError: ``ca.crt`` is no certificate.
        """
        try:
            return ssl.create_default_context(cafile=str(self.authority))
        except ssl.SSLError as error:
            raise FileError(f"{self.authority} is no certificate: {error}") from error

    def _file(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise FileError(f"no such file: {path}", hint="xbfl keys makes a set of keys for a rehearsal")
        return path.resolve()


def keys_for(course: Course, reached: str | None, folder: Path | None, *, insecure: bool) -> Keys | None:
    """This machine's keys: a folder, or the one that the course names.

    Args:
        course: The course.
        reached: Address that other machines reach, or nothing.
        folder: The keys; ``deployment.keys`` if left out.
        insecure: Whether to do without.

    Raises:
        RefusedInput: There are none, and other machines reach the address.
    """
    named = course.deployment.keys
    found = folder or (course.base / named if named else None)
    if insecure:
        return None
    if found is not None:
        return Keys(found)
    if reached is not None:
        raise RefusedInput(
            f"{reached} is reached by other machines, and nothing would be encrypted",
            hint="--keys DIR (xbfl keys makes a set); --insecure only in a network that is trusted, such as a VPN",
        )
    return None


def make_keys(folder: Path, hosts: Sequence[str], names: Sequence[str], days: int = 365) -> None:
    """Make a certificate authority, a server's certificate and keys for silos.

    ``folder/server`` is for the server, ``folder/silos/NAME`` for a silo; ``folder/ca.key`` stays with whoever runs the federation.

    Args:
        folder: A new folder.
        hosts: Names and addresses by which silos call the server, ``*.example.org`` too; this machine's own are added.
        names: The silos.
        days: How long certificates are valid, up to 36,500.

    Raises:
        FileError: The folder exists, or cannot be made.
        ConfigError: There is no silo, or a host, a name or the number of days is none.
    """
    check_new(folder, "choose a new folder: keys are not replaced")
    if not names:
        raise ConfigError("keys for whom?", hint="name the silos, or the course")
    if not 1 <= days <= _MAX_DAYS:
        raise ConfigError(f"certificates of {days} days: expected 1 to {_MAX_DAYS}", hint="--days 365")
    called = tuple(dict.fromkeys((*(host_name(host, wildcard=True) for host in hosts), *_LOCAL)))
    checked = [checked_name(name) for name in names]
    if len({name.lower() for name in checked}) < len(checked):
        raise ConfigError("two silos have one name, but for capitals")
    with explain_unwritable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: half a set of keys would be in the way of the next try.
        with atomic_write(folder) as made:
            _make_keys(made, called, checked, timedelta(days=days))


def _make_keys(folder: Path, hosts: Sequence[str], names: Sequence[str], valid: timedelta) -> None:
    server = folder / "server"
    (server / "silos").mkdir(parents=True)
    authority_key = ec.generate_private_key(ec.SECP384R1())
    issuer = _common_name("xbackend-fl certificate authority")
    authority = _sign(issuer, issuer, authority_key, authority_key, valid, hosts=None)
    server_key = ec.generate_private_key(ec.SECP384R1())
    # Whoever checks looks at the names below it, which may be longer than this one.
    subject = _common_name("xbackend-fl server")
    certificate = _sign(subject, issuer, server_key, authority_key, valid, hosts=hosts)
    pem = authority.public_bytes(serialization.Encoding.PEM)
    _write(folder / "ca.key", _private(authority_key))
    _write(server / "ca.crt", pem)
    _write(server / "server.crt", certificate.public_bytes(serialization.Encoding.PEM))
    _write(server / "server.key", _private(server_key))
    signing, verifying = new_pair()
    _write(server / "server.ed25519", signing)
    for name in names:
        own = folder / "silos" / name
        own.mkdir(parents=True)
        key = ec.generate_private_key(ec.SECP384R1())
        _write(own / "ca.crt", pem)
        _write(own / f"server{_PUBLIC}", verifying)
        silo_signing, silo_verifying = new_pair()
        _write(own / f"{name}.ed25519", silo_signing)
        _write(server / "silos" / f"{name}{_PUBLIC}", silo_verifying)
        _write(own / f"{name}.key", _private(key, serialization.PrivateFormat.OpenSSH))
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        _write(server / "silos" / f"{name}.pub", public + b"\n")


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    valid: timedelta,
    hosts: Sequence[str] | None,
) -> x509.Certificate:
    """A certificate for ``hosts``, or an authority's if there are none."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + valid)
        .add_extension(x509.BasicConstraints(ca=hosts is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if hosts is None:
        usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    else:
        names = x509.SubjectAlternativeName([_name(host) for host in hosts])
        server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(names, critical=False).add_extension(server, critical=False)
    return builder.sign(signer, hashes.SHA384())


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(
    key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8
) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(path: Path, content: bytes) -> None:
    """A private key is readable by its owner only, from the first byte."""
    public = path.suffix in {".crt", ".pub"} or path.name.endswith(_PUBLIC)
    path.touch(mode=0o644 if public else 0o600)
    path.write_bytes(content)
