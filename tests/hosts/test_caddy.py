"""The service behind the real Caddy, with the three lines that `packaging/` has for it."""

import contextlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.test_nginx import Front, Node, free_port
from tests.support import local

CONFIGURATION = local.ROOT / "packaging" / "Caddyfile"
CADDY = shutil.which("caddy")
START_WITHIN_S = 20

pytestmark = [
    pytest.mark.skipif(CADDY is None, reason="needs caddy: apt-get install caddy"),
]

HERE = """
{{
	admin off
	http_port {http}
	https_port {https}
	skip_install_trust
	storage file_system {folder}
}}
"""
"""What lets Caddy run beside others, with an authority of its own in place of a public one."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Server]:
    folder = tmp_path_factory.mktemp("data")
    with local.running(folder, "--trusted-proxy=127.0.0.1/32") as running:
        yield running


@pytest.fixture(scope="module")
def front(server: local.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with caddy(tmp_path_factory.mktemp("caddy"), server.port) as running:
        yield running


@contextlib.contextmanager
def caddy(folder: Path, port: int) -> Iterator[Front]:
    """Run Caddy with our configuration, of which only the name and the port are changed."""
    root = folder / "pki" / "authorities" / "local" / "root.crt"
    front = Front(free_port(), free_port(), root)
    text = CONFIGURATION.read_text()
    assert len([line for line in text.splitlines() if line and line[0] != "#"]) == 3
    for pattern, found in (
        (r"^example\.org \{", "localhost {"),
        (r"127\.0\.0\.1:8787$", f"127.0.0.1:{port}"),
    ):
        text, times = re.subn(pattern, found, text, flags=re.MULTILINE)
        assert times == 1, pattern
    here = HERE.format(http=front.http, https=front.https, folder=folder)
    (folder / "Caddyfile").write_text(here + text)
    output = folder / "output"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [str(CADDY), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"],
            env=os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder)},
            stdout=log,
            stderr=log,
        )
    with process:
        try:
            await_certificate(process, front, output)
            yield front
        finally:
            process.terminate()
            process.wait(10)


def await_certificate(process: "subprocess.Popen[bytes]", front: Front, output: Path) -> None:
    """Wait until it shows a certificate; it makes one when it starts."""
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        assert process.poll() is None, output.read_text()
        with contextlib.suppress(OSError, ssl.SSLError):
            front.call("GET", "/v1/health")
            return
        time.sleep(0.05)
    raise TimeoutError(output.read_text())


def test_the_doctor_finds_nothing_wrong_through_caddy_and_tls(front: Front) -> None:
    """Registration, messages, push, relay: over HTTPS and WSS on one port."""
    command = [sys.executable, "-m", "muster.cli", "doctor", front.base, "--json"]
    environment = os.environ | {"SSL_CERT_FILE": str(front.certificate)}
    done = subprocess.run(
        command, cwd=local.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[0])


@pytest.mark.parametrize(
    "forged",
    [
        {},
        {"X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-For": "203.0.113.9, 127.0.0.1"},
        {"X-Real-IP": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9"},
    ],
)
def test_addresses_are_those_of_the_callers_whatever_they_say(
    front: Front, forged: dict[str, str]
) -> None:
    assert Node(front).register(source="127.0.0.2", **forged) == "127.0.0.2"


def test_the_address_of_the_socket_is_the_one_outside(front: Front) -> None:
    node = Node(front)
    node.register()
    assert node.token()["relay_url"] == f"wss://localhost:{front.https}/v1/relay/ws"


def test_a_stranger_is_no_neighbour_behind_it(tmp_path: Path) -> None:
    """Caddy says of itself that it passes calls on, so a service without the option is closed."""
    with local.running(tmp_path / "data", access="") as plain:
        (tmp_path / "caddy").mkdir()
        with caddy(tmp_path / "caddy", plain.port) as front:
            assert front.call("GET", "/v1/info").json()["open"] is False


def test_nothing_is_written_about_callers(front: Front) -> None:
    Node(front).register(source="127.0.0.2")
    folder = front.certificate.parents[3]
    assert "127.0.0.2" not in (folder / "output").read_text()
