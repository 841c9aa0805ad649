"""A course over Flower, as its users run it: processes, sockets and files of their own."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.command import xbfl_here
from tests.conftest import Figure
from tests.federation.campaign import FLOWER_KILLS, flower_kills, undisturbed, write_course
from tests.federation.light import Linear
from xbackend_fl import Course, load_course, run_course, weights
from xbackend_fl.course.address import Address
from xbackend_fl.errors import ConfigError
from xbackend_fl.federation import Silo
from xbackend_fl.federation.credentials import Keys
from xbackend_fl.federation.flower import connecting, processes
from xbackend_fl.federation.flower.processes import free_port
from xbackend_fl.federation.flower.rehearsal import data_of
from xbackend_fl.federation.silo.service import serving

XBFL = Path(sys.executable).parent / "xbfl"
TWO = "participants=[{name: amsterdam, backend: torch}, {name: delhi, backend: tensorflow}]"


def xbfl(*arguments: object, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    command = [str(XBFL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)


def processes_of(folder: str) -> list[str]:
    """Command lines that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if folder in line:
            found.append(line)
    return found


@pytest.mark.slow
def test_a_rehearsal_is_the_simulation(
    digits: Path, tmp_path: Path, small: list[str], files_of: Callable[[Course], Path]
) -> None:
    course = load_course(digits / "course.yaml", [*small, TWO])
    data, out = files_of(course), tmp_path / "deployed"
    settings = [part for setting in [*small, TWO] for part in ("--set", setting)]
    done = xbfl("up", digits / "course.yaml", *settings, "--data-path", data, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 participants, 2 rounds" in done.stdout
    assert "tensorflow" in done.stdout
    expected = run_course(course, tmp_path / "simulated")
    found = weights.load_weights(out / "last.safetensors", expected.weights.fingerprint)
    assert found.digest == expected.weights.digest
    assert (tmp_path / "deployed-silos" / "amsterdam" / "model.pt").is_file()
    assert (tmp_path / "deployed-silos" / "delhi" / "model.weights.h5").is_file()
    assert (out / "model.onnx").is_file()
    assert processes_of(str(out)) == []


@pytest.mark.slow
def test_a_port_in_use_is_said(digits: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = xbfl("serve", digits / "course.yaml", "--address", address, "--out", tmp_path / "run")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == f"error[run-failed]: cannot listen at {address}: Address already in use"
    assert "--address" in second
    assert not (tmp_path / "run").exists()


def test_an_address_of_another_machine_is_said(digits: Path, tmp_path: Path) -> None:
    command = ["serve", digits / "course.yaml", "--address", "192.0.2.1:8000", "--insecure"]
    done = xbfl_here(*command, "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot listen at 192.0.2.1:8000: Cannot assign requested address" in done.stderr


@pytest.mark.slow
def test_no_server_is_said_and_given_up_by_policy(digits: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    done = xbfl(
        *("join", digits / "course.yaml", "--as", "berlin", "--server", "127.0.0.1:9", "--out", tmp_path),
        *("--set", "deployment.join_timeout_s=2"),
    )
    assert done.returncode == 1
    assert "no server answered at 127.0.0.1:9 within 2 s: [Errno 111] Connection refused" in done.stderr
    assert time.monotonic() - began < 120


def made(digits: Path, folder: Path, *hosts: str) -> Path:
    options = [part for host in hosts for part in ("--host", host)]
    done = xbfl_here("keys", digits / "course.yaml", "-o", folder, *options, cwd=digits)
    assert done.returncode == 0, done.stderr
    return folder


def test_keys_are_private_and_not_replaced(digits: Path, tmp_path: Path) -> None:
    keys = made(digits, tmp_path / "keys", "fl.example.org", "10.0.0.7")
    private = [keys / "ca.key", keys / "server" / "server.key", keys / "silos" / "berlin" / "berlin.key"]
    assert [path.stat().st_mode & 0o777 for path in private] == [0o600] * 3
    assert Keys(keys / "server").allowed().keys() == {
        p.name for p in load_course(digits / "course.yaml").participants
    }
    assert not (keys / "silos" / "berlin" / "delhi.key").exists()
    again = xbfl_here("keys", digits / "course.yaml", "-o", keys, cwd=digits)
    assert again.returncode == 2
    assert "keys are not replaced" in again.stderr


def handshake(keys: Keys, server: Path, name: str) -> str:
    """TLS between a client that trusts ``keys`` and calls ``name``, and a server with other files, in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server / "server.crt", server / "server.key")
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = keys.context().wrap_bio(one, other, server_hostname=name)
    host = context.wrap_bio(other, one, server_side=True)
    for _ in range(4):
        for side in (client, host):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
    return ""


def test_only_the_named_server_of_this_authority_is_trusted(digits: Path, tmp_path: Path) -> None:
    keys = made(digits, tmp_path / "keys", "fl.example.org", "10.0.0.7")
    others = made(digits, tmp_path / "others", "fl.example.org")
    silo = Keys(keys / "silos" / "berlin")
    for name in ("fl.example.org", "10.0.0.7", "localhost", "127.0.0.1"):
        assert handshake(silo, keys / "server", name) == ""
    assert "Hostname mismatch" in handshake(silo, keys / "server", "fl.example.com")
    assert "certificate" in handshake(silo, others / "server", "fl.example.org")


@pytest.mark.slow
@pytest.mark.parametrize("case", ["another authority", "a silo without its key"])
def test_a_silo_with_the_wrong_keys_is_told(case: str, digits: Path, tmp_path: Path) -> None:
    keys = made(digits, tmp_path / "keys")
    join = ["join", digits / "course.yaml", "--as", "berlin", "--set", "deployment.join_timeout_s=20"]
    if case == "a silo without its key":
        done = xbfl(*join, "--keys", keys / "silos" / "delhi", "--server", "127.0.0.1:9")
        assert done.returncode == 2
        assert f"no such file: {keys / 'silos' / 'delhi' / 'berlin.key'}" in done.stderr
        return
    others = made(digits, tmp_path / "others")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(others / "server" / "server.crt", others / "server" / "server.key")
    with (
        socket.create_server(("127.0.0.1", 0)) as plain,
        context.wrap_socket(plain, server_side=True) as server,
    ):
        thread = threading.Thread(target=_refused, args=(server,), daemon=True)
        thread.start()
        address = f"127.0.0.1:{plain_port(server)}"
        done = xbfl(*join, "--keys", keys / "silos" / "berlin", "--server", address)
    assert done.returncode == 2
    assert f"the certificate of the server at {address} is refused" in done.stderr
    assert "ca.crt" in done.stderr


@pytest.mark.parametrize(("ahead", "said"), [(600, "s behind"), (-30, "s ahead of"), (0, "")])
def test_a_wrong_clock_is_said(ahead: int, said: str) -> None:
    """The server's answers carry its time."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", formatdate(time.time() + ahead, usegmt=True))
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        skew = processes.clock_skew(Address(f"127.0.0.1:{server.server_port}"), None)
        server.shutdown()
    assert skew == pytest.approx(-ahead, abs=2)
    assert said in (note := connecting.clock_note(skew))
    assert bool(note) == bool(said)


@pytest.mark.slow
def test_a_key_that_nobody_registered(digits: Path, tmp_path: Path) -> None:
    """A silo with keys of another federation, whose authority is this one's: Flower itself keeps it out."""
    keys, others = made(digits, tmp_path / "keys"), made(digits, tmp_path / "others")
    silo = keys / "silos" / "berlin"
    (silo / "berlin.key").write_bytes((others / "silos" / "berlin" / "berlin.key").read_bytes())
    place = Address(f"127.0.0.1:{free_port()}")
    with (
        processes.superlink(place, Keys(keys / "server"), tmp_path),
        processes.supernode(place, free_port(), {"name": "berlin"}, Keys(silo), tmp_path) as node,
    ):
        assert node.wait(60) != 0
    assert "Failed to activate SuperNode" in (tmp_path / "supernode.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_kills_over_flower(tmp_path: Path, figure: Figure, *, thorough: bool) -> None:
    """The SuperLink, and then the server itself, end in the middle of rounds; no bit differs at the end."""
    kinds = FLOWER_KILLS if thorough else ("flower-superlink", "xbfl serve")
    figure("killed", flower_kills(tmp_path / "light", 20 if thorough else 2, 1, kinds=kinds))


@pytest.mark.slow
def test_a_superlink_of_ones_own(tmp_path: Path) -> None:
    """xbfl flower-app: the steps of its README, with a SuperLink and SuperNodes that somebody else started."""
    course = write_course(tmp_path / "light", rounds=2, silos=2)
    app, place = tmp_path / "app", Address(f"127.0.0.1:{free_port()}")
    done = xbfl("flower-app", tmp_path / "light" / "course.yaml", "-o", app)
    assert done.returncode == 0, done.stderr
    steps = (app / "README.md").read_text(encoding="utf-8")
    names = [participant.name for participant in course.participants]
    assert f"Silos: {', '.join(names)}." in steps
    assert "flwr run . CONNECTION" in steps
    out = tmp_path / "run"
    text = (app / "pyproject.toml").read_text(encoding="utf-8")
    (app / "pyproject.toml").write_text(text.replace("xbfl-runs/light", str(out)), encoding="utf-8")
    with ExitStack() as stack:
        stack.enter_context(processes.superlink(place, None, tmp_path))
        for name in names:
            silo = Silo(course, name, Linear(name, course), out=tmp_path / name)
            path = stack.enter_context(serving(silo, tmp_path / f"{name}.socket"))
            home = tmp_path / f"{name}-node"
            home.mkdir()
            config = {"socket": str(path), "name": name}
            stack.enter_context(processes.supernode(place, free_port(), config, None, home))
        processes.start_app(place, None, app, tmp_path)
        deadline = time.monotonic() + 240
        while not (out / "summary.md").is_file() and time.monotonic() < deadline:
            time.sleep(0.5)
    found = weights.load_weights(out / "last.safetensors")
    assert found.digest == undisturbed(course, tmp_path / "undisturbed")
    again = xbfl("flower-app", tmp_path / "light" / "course.yaml", "-o", app)
    assert again.returncode == 2
    assert "exists" in again.stderr


def plain_port(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def _refused(server: ssl.SSLSocket) -> None:
    with suppress(OSError):
        while True:
            with suppress(ssl.SSLError):
                server.accept()


@pytest.mark.parametrize("command", ["serve", "join"])
def test_plain_text_to_other_machines_must_be_asked_for(command: str, digits: Path, tmp_path: Path) -> None:
    option = ["--address"] if command == "serve" else ["--as", "berlin", "--server"]
    done = xbfl_here(command, digits / "course.yaml", *option, "0.0.0.0:8123", cwd=tmp_path)
    assert done.returncode == 2
    assert "nothing would be encrypted" in done.stderr
    assert "xbfl keys" in done.stderr


def test_join_says_what_is_missing(digits: Path, tmp_path: Path) -> None:
    assert "which participant is this?" in xbfl_here("join", digits / "course.yaml", cwd=tmp_path).stderr
    join = ["join", digits / "course.yaml", "--out", tmp_path / "silo", "--as"]
    assert "has no participant 'oslo'" in xbfl_here(*join, "oslo", cwd=tmp_path).stderr
    gone = tmp_path / "gone.npz"
    done = xbfl_here(*join, "berlin", "--data-path", gone, cwd=tmp_path)
    assert done.returncode == 2
    assert f"berlin: no such file: {gone}" in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        *(
            "localhost",
            "localhost:",
            ":8000",
            "localhost:0",
            "localhost:70000",
            "host:99999",
            "a:b",
            "",
            ":",
            "a:-1",
        ),
        *(
            "::1:8000",
            "2001:db8::7",
            "[127.0.0.1]:8000",
            "[localhost]:8000",
            "[::1]",
            "[::1:8000",
            "localhost:08000",
        ),
        *("local host:8000", " localhost:8000", "localhost:8000 ", "localhost:8000\n", "localhost:٣"),
        *(
            "http://localhost:8000",
            "a..b:8000",
            "-a:8000",
            "1.2.3:8000",
            "256.1.1.1:8000",
            "[fe80::1%eth0]:8000",
            "\x1b[2J:80",
        ),
    ],
)
def test_what_is_no_address(text: str, digits: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no (address|host)"):
        Address(text)
    setting = f"deployment.address={json.dumps(text)}"
    with pytest.raises(ConfigError, match=r"is no (address|host)"):
        load_course(digits / "course.yaml", [setting])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("quorum=7", "deployment.quorum is 7, but there are 6 participants"),
        *(
            (f"{key}_timeout_s={value}", "31536000")
            for key in ("join", "round")
            for value in ("1e300", "3.2e7")
        ),
        ("over_selection=1e300", "10000"),
        ("max_examples=1000000000000", "549755813888"),
        ("max_restarts=1000001", "1000000"),
    ],
)
def test_what_no_deployment_has_is_a_mistake_of_the_course(setting: str, words: str, digits: Path) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_course(digits / "course.yaml", [f"deployment.{setting}"])
    assert "--set deployment." in str(caught.value)


def test_who_can_reach_an_address() -> None:
    assert Address("127.0.0.1:8000").reached is None
    assert Address("[::1]:8000").reached is None
    assert Address("0.0.0.0:8000").reached == "0.0.0.0:8000"
    assert Address("0.0.0.0:8000").here == "127.0.0.1:8000"


def test_the_course_says_what_a_machine_is(digits: Path, tmp_path: Path) -> None:
    """Adding role, name, data path and address to the course is all that a silo does."""
    course = digits / "course.yaml"
    role = ["--set", "deployment.role=silo"]
    assert "which participant is this?" in xbfl_here("run", course, *role, cwd=tmp_path).stderr
    site = tmp_path / "berlin.yaml"
    site.write_text("name: berlin\ndata_path: own.npz\naddress: 127.0.0.1:9\n", encoding="utf-8")
    done = xbfl_here("join", course, "--site", site, cwd=tmp_path)
    assert done.returncode == 2
    assert f"berlin: no such file: {tmp_path / 'own.npz'}" in done.stderr
    done = xbfl_here(
        "run",
        course,
        "--set",
        "deployment.role=server",
        "--set",
        "deployment.address=0.0.0.0:8123",
        cwd=tmp_path,
    )
    assert "nothing would be encrypted" in done.stderr
    assert (
        "no such site file"
        in xbfl_here("join", course, "--site", tmp_path / "gone.yaml", cwd=tmp_path).stderr
    )


def test_a_rehearsal_hands_every_silo_its_data() -> None:
    assert data_of("osaka", Path("silos")) == "silos/osaka.npz"
    assert data_of("osaka", "images:silos/{name}#resize") == "images:silos/osaka#resize"
