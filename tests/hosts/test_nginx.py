"""The service behind the real nginx, with the configuration that `packaging/` has for it."""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from muster.felund import signing
from tests.support import local

CONFIGURATION = local.ROOT / "packaging" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
START_WITHIN_S = 10

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light"),
]

MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
{user}
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/muster.conf;
}}
"""


@dataclass
class Front:
    """Where nginx listens, and what certificate it shows."""

    http: int
    https: int
    certificate: Path

    @property
    def base(self) -> str:
        return f"https://localhost:{self.https}"

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificate)

    def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        source: str = "127.0.0.1",
    ) -> local.Answer:
        """Make a call from an address of this machine."""
        connection = http.client.HTTPSConnection(
            "localhost", self.https, context=self.trust(), source_address=(source, 0), timeout=10
        )
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return local.Answer(answer.status, found, answer.read())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Server]:
    folder = tmp_path_factory.mktemp("data")
    with local.running(folder, "--trusted-proxy=127.0.0.1/32") as running:
        yield running


@pytest.fixture(scope="module")
def front(server: local.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with nginx(tmp_path_factory.mktemp("nginx"), server.port) as running:
        yield running


@contextlib.contextmanager
def nginx(folder: Path, port: int) -> Iterator[Front]:
    """Run nginx with our configuration, of which only places and ports are changed."""
    front = Front(free_port(), free_port(), folder / "certificate.pem")
    make_certificate(front.certificate, folder / "key.pem")
    text = CONFIGURATION.read_text()
    for pattern, found in (
        (r"server 127\.0\.0\.1:8787;", f"server 127.0.0.1:{port};"),
        (r"listen 80;", f"listen 127.0.0.1:{front.http};"),
        (r"listen 443 ssl http2;", f"listen 127.0.0.1:{front.https} ssl http2;"),
        (r"listen \[::\]:(80|443 ssl http2);", ""),
        (r"server_name example\.org;", "server_name localhost;"),
        (r"/etc/letsencrypt/live/example\.org/fullchain\.pem", str(front.certificate)),
        (r"/etc/letsencrypt/live/example\.org/privkey\.pem", str(folder / "key.pem")),
        (r"/var/log/nginx/muster\.log", str(folder / "muster.log")),
    ):
        text, times = re.subn(pattern, found, text)
        assert times, pattern
    (folder / "muster.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))
    command = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
    assert "warn" not in tried.stderr
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with process:
        try:
            await_port(process, front.https)
            yield front
        finally:
            process.terminate()
            process.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "nginx ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    raise TimeoutError("nginx did not listen")


def make_certificate(certificate: Path, key: Path) -> None:
    """Sign a certificate for this machine with its own key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


class Node:
    """A member of a circle that signs its calls."""

    def __init__(self, front: Front, node_id: str = "ann-000001") -> None:
        self.front, self.node_id = front, node_id
        secret = os.urandom(32)
        self.key, self.hint = signing.request_key(secret), secret.hex()[:16]

    def call(self, method: str, path: str, body: Any, *, source: str, **more: str) -> local.Answer:
        raw = json.dumps(body).encode()
        headers = signing.headers(
            self.key,
            method,
            path.removeprefix("/v1"),
            raw,
            node_id=self.node_id,
            now=int(time.time()),
            nonce=os.urandom(16),
        )
        return self.front.call(method, path, raw, headers | more, source=source)

    def register(self, *, source: str = "127.0.0.1", **more: str) -> str:
        """Register; return where the service has seen it."""
        body = {"node_id": self.node_id, "circle_hint": self.hint, "signing_key": self.key.hex()}
        answer = self.call("POST", "/v1/register", body, source=source, **more)
        assert answer.status == 200, answer
        return str(answer.json()["observed_endpoint"]["host"])

    def token(self) -> Any:
        body = {"node_id": self.node_id, "circle_hint": self.hint}
        return self.call("POST", "/v1/relay/subscription", body, source="127.0.0.1").json()


def test_the_doctor_finds_nothing_wrong_through_nginx_and_tls(front: Front) -> None:
    """Registration, messages, push, relay: over HTTPS and WSS on one port."""
    command = [sys.executable, "-m", "muster.cli", "doctor", front.base, "--json"]
    environment = os.environ | {"SSL_CERT_FILE": str(front.certificate)}
    done = subprocess.run(
        command, cwd=local.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    steps = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.returncode == 0, done.stdout + done.stderr
    assert steps


def test_addresses_are_those_of_the_callers(front: Front) -> None:
    assert Node(front).register(source="127.0.0.2") == "127.0.0.2"
    assert Node(front).register(source="127.0.0.3") == "127.0.0.3"


@pytest.mark.parametrize(
    "forged",
    [
        {"X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-For": "203.0.113.9, 127.0.0.1"},
        {"X-Real-IP": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9"},
    ],
)
def test_what_a_caller_says_of_its_address_counts_for_nothing(
    front: Front, forged: dict[str, str]
) -> None:
    assert Node(front).register(source="127.0.0.2", **forged) == "127.0.0.2"


def test_who_comes_past_the_proxy_is_believed_nothing(server: local.Server) -> None:
    """Directly, from an address that is no proxy's."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.port, source_address=("127.0.0.5", 0), timeout=10
    )
    node = Node(Front(0, 0, Path()))
    body = {"node_id": node.node_id, "circle_hint": node.hint, "signing_key": node.key.hex()}
    raw = json.dumps(body).encode()
    headers = signing.headers(
        node.key,
        "POST",
        "/register",
        raw,
        node_id=node.node_id,
        now=int(time.time()),
        nonce=os.urandom(16),
    )
    with contextlib.closing(connection):
        connection.request(
            "POST", "/v1/register", raw, headers | {"X-Forwarded-For": "203.0.113.9"}
        )
        answer = json.loads(connection.getresponse().read())

    assert answer["observed_endpoint"]["host"] == "127.0.0.5"


def test_without_the_option_everybody_is_the_proxy(tmp_path: Path) -> None:
    with local.running(tmp_path / "data") as plain:
        (tmp_path / "nginx").mkdir()
        with nginx(tmp_path / "nginx", plain.port) as front:
            assert Node(front).register(source="127.0.0.2") == "127.0.0.1"


def test_a_websocket_is_opened_at_the_address_that_the_service_tells(front: Front) -> None:
    node = Node(front)
    node.register()
    told = node.token()

    assert told["relay_url"] == f"wss://localhost:{front.https}/v1/relay/ws"
    headers = {"Authorization": f"Bearer {told['token']}"}
    with connect(
        told["relay_url"], ssl=front.trust(), additional_headers=headers, compression=None
    ) as opened:
        assert local.barrier(opened) is not None


def test_a_websocket_without_a_token_is_refused_in_our_words(front: Front) -> None:
    with pytest.raises(InvalidStatus) as caught:
        connect(f"wss://localhost:{front.https}/v1/relay/ws", ssl=front.trust())
    answer = caught.value.response

    assert answer.status_code == 401
    assert json.loads(answer.body or b"")["code"] == "INVALID_TOKEN"


def test_too_much_is_refused_by_the_service(front: Front) -> None:
    """Not by nginx, whose page no client understands."""
    signed = {
        signing.NODE: "some-node",
        signing.TIME: str(int(time.time())),
        signing.NONCE: "0" * 32,
        signing.SIGNATURE: "0" * 64,
    }
    answer = front.call("POST", "/v1/messages", b"x" * (2 * 1024 * 1024), headers=signed)

    assert (answer.status, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


def test_unknown_paths_and_preflights_are_answered_by_the_service(front: Front) -> None:
    unknown = front.call("GET", "/v1/nothing")
    preflight = front.call("OPTIONS", "/v1/register", headers={"Origin": "https://example.org"})

    assert (unknown.status, unknown.json()["code"]) == (404, "NOT_FOUND")
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == "*"


def test_plain_http_leads_to_https_with_its_method(front: Front) -> None:
    connection = http.client.HTTPConnection("localhost", front.http, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/register?a=b", b"{}")
        answer = connection.getresponse()

    assert answer.status == 308
    assert answer.headers["Location"] == "https://localhost/v1/register?a=b"


def test_nothing_is_written_about_callers(front: Front) -> None:
    Node(front).register(source="127.0.0.2")
    written = [path.read_text() for path in front.certificate.parent.glob("*.log")]

    assert not [text for text in written if "127.0.0.2" in text]


def test_a_service_that_is_not_there_is_told_in_our_words(tmp_path: Path) -> None:
    with nginx(tmp_path, free_port()) as front:
        answer = front.call("GET", "/v1/health")

    assert answer.status == 503
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["retry-after"] == "5"
    assert list(answer.json()) == ["ok", "code", "message", "retryable", "detail"]
    assert answer.json()["code"] == "UNAVAILABLE"
