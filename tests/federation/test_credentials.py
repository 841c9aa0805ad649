"""Keys for any host that may be one, whole or not at all; Python's own TLS says which certificates are good."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine import within
from xbackend_fl.course.address import Address, host_name
from xbackend_fl.errors import ConfigError, FileError, RefusedInput
from xbackend_fl.federation import credentials as keys_module
from xbackend_fl.federation.credentials import Keys, make_keys

pytestmark = pytest.mark.quick

HOSTS = {
    "fl.example.org": "fl.example.org",
    "FL.Example.ORG": "fl.example.org",
    "fl.example.org.": "fl.example.org",
    "bücher.example": "xn--bcher-kva.example",
    "例え.テスト": "xn--r8jz45g.xn--zckzah",
    "*.example.org": "*.example.org",
    "my_service": "my_service",
    "192.0.2.7": "192.0.2.7",
    "2001:DB8:0::7": "2001:db8::7",
    "[2001:db8::7]": "2001:db8::7",
    ".".join(["a" * 60] * 4): ".".join(["a" * 60] * 4),
    "a" * 63: "a" * 63,
}  # fmt: skip
NO_HOSTS = [
    "", " ", ".", "..", "a..b", ".a", "-a.org", "a-.org", "*", "*.org", "a.*.org", "a*.org", "a b.org", "a\nb.org", "a\0b.org", "\x1b[2J.org", "a/b.org",
    "https://fl.example.org", "fl.example.org:8000", "1.2.3", "1.2.3.400", "1.2.3.4.5", "fe80::1%eth0", ":::", "[::1", "a" * 64, ".".join(["a" * 60] * 5), "ü" * 100,
    "a" * 60_000, "straße.de", "\udcff.org", "\u202egro.elpmaxe", "a\u200bb.org", "é" * 30 + "." * 3, "x,y.org", "x=y.org", "\u3002",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "keys"
    make_keys(folder, list(HOSTS), ["oslo", "n" * 100])
    return folder


def greeted(server: Keys, silo: Keys, host: str) -> None:
    """A handshake of Python's TLS, in memory."""
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    here.load_cert_chain(server.certificate, server.private)
    ways = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        silo.context().wrap_bio(ways[0], ways[1], server_hostname=host),
        here.wrap_bio(ways[1], ways[0], server_side=True),
    ]
    for _ in range(6):
        for side in list(sides):
            try:
                side.do_handshake()
                sides.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert not sides


@pytest.mark.parametrize("host", [host for host in HOSTS if "*" not in host])
def test_hosts_that_are_served(made: Path, host: str) -> None:
    assert host_name(host) == HOSTS[host]
    greeted(Keys(made / "server"), Keys(made / "silos" / "oslo"), host_name(host))
    bare = host.strip("[]")
    address = Address(f"[{bare}]:8000" if ":" in bare else f"{host}:8000")
    assert address.host == HOSTS[host]


def test_names_below_a_wildcard_and_of_this_machine(made: Path) -> None:
    for host in ("any.example.org", "localhost", "127.0.0.1", "bücher.example"):
        greeted(Keys(made / "server"), Keys(made / "silos" / "oslo"), host)
    with pytest.raises(ssl.SSLCertVerificationError):
        greeted(Keys(made / "server"), Keys(made / "silos" / "oslo"), "example.com")


@pytest.mark.parametrize("host", NO_HOSTS, ids=lambda host: ascii(host)[:30])
def test_what_is_no_host(tmp_path: Path, host: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match="is no host") as caught:
        make_keys(tmp_path / "keys", [host], ["oslo"])
    assert within(time.process_time() - began, 1)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError):
        Address(f"{host}:80x")
    if ":" not in host:
        with pytest.raises(ConfigError):
            Address(f"{host}:8000")


@given(st.text(max_size=40))
@settings(max_examples=300)
def test_any_text_is_a_host_or_refused(text: str) -> None:
    for read in (host_name, Address):
        try:
            found = read(text)
        except ConfigError:
            continue
        host = found if isinstance(found, str) else found.host
        assert host_name(host) == host
        assert host.isascii()


@pytest.mark.parametrize("days", [0, -1, 36_501, 999_999_999, 10**30])
def test_days(tmp_path: Path, days: int) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 36500"):
        make_keys(tmp_path / "keys", (), ["oslo"], days)
    assert not list(tmp_path.iterdir())


def test_certificates_of_a_hundred_years(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", (), ["oslo"], 36_500)
    greeted(Keys(tmp_path / "keys" / "server"), Keys(tmp_path / "keys" / "silos" / "oslo"), "localhost")


@pytest.mark.parametrize(
    "names",
    [
        ["n" * 250],
        ["a/b"],
        [".."],
        [""],
        ["a b"],
        ["a\n"],
        ["NUL"],
        ["\x1b[2J"],
        ["oslo", "OSLO"],
        ["\u043eslo"],
        [],
    ],
)
def test_names(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_keys(tmp_path / "keys", (), names)
    assert caught.value.message.isprintable()
    assert not list(tmp_path.iterdir())


def test_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for place in ("file", "file/below", "there", "link", "k" * 300, "/proc/keys"):
        with pytest.raises(FileError) as caught:
            make_keys(tmp_path / place, (), ["oslo"])
        assert "\n" not in caught.value.message
    make_keys(tmp_path / "new" / "deep" / "keys", (), ["oslo"])


def test_nothing_is_left_of_half_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".keys.0123abcd.xbfl.partial"
    (left / "server" / "silos").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(keys_module, "new_pair", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_keys(tmp_path / "keys", (), ["oslo"])
    assert not list(tmp_path.iterdir())
    (left / "server" / "silos").mkdir(parents=True)
    make_keys(tmp_path / "keys", (), ["oslo"])
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]
    modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "keys").rglob("*.key")}
    assert modes == {"ca.key": 0, "server.key": 0, "oslo.key": 0}
    with pytest.raises(RefusedInput, match="exists"):
        make_keys(tmp_path / "keys", (), ["oslo"])
