"""The client's environment: proxies and authorities, decided alike for HTTP and WebSocket."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from muster import network
from muster.backoff import Backoff
from muster.bootstrap import bootstrap, fetch
from muster.cli import hints
from muster.errors import BadValue
from muster.felund import sockets
from muster.felund.circle import Circle
from muster.felund.client import Client, Unreachable
from tests.support import certificate, proxy

OTHER = "service.invalid"
"""A host that only a proxy finds."""

HEALTH = json.dumps({"ok": True, "version": "0", "time": 1}).encode()
KEY = "A" * 43
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
VARIABLES = (*PROXIES, *map(str.upper, PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUEST_METHOD")


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    return certificate.self_signed(path, OTHER, "localhost", "127.0.0.1")


def serving(client: Callable[[int], Awaitable[None]], pem: Path | None = None) -> None:
    """Run a client against a server that answers HTTP and opens WebSockets."""
    tls = None
    if pem:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(pem)

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        if "Upgrade" in request.headers:
            return None
        headers = Headers({"Content-Length": str(len(HEALTH)), "Connection": "close"})
        return Response(200, "OK", headers, HEALTH)

    async def hold(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def main() -> None:
        async with serve(hold, "127.0.0.1", 0, ssl=tls, process_request=answer) as running:
            async with asyncio.timeout(20):
                await client(running.sockets[0].getsockname()[1])

    asyncio.run(main())


async def ask(scheme: str, host: str, port: int) -> None:
    """Go to the server as the client does."""
    if scheme.startswith("ws"):
        opened = await sockets.connect(f"{scheme}://{host}:{port}/v1/relay/ws", "token")
        await opened.close()
        return
    base, once = f"{scheme}://{host}:{port}", Backoff(attempts=1)
    async with Client(base, Circle.new(), "node-0001", backoff=once) as client:
        assert (await client.health()).version == "0"
    async with fetch.client(None, "test") as http:
        assert await fetch.fetch(http, f"{scheme}://{host}:{port}/", most=1000) == HEALTH


ENVIRONMENTS = {
    "lower case": ("http_proxy", "https_proxy"),
    "upper case": ("HTTP_PROXY", "HTTPS_PROXY"),
    "all": ("all_proxy",),
    "ALL": ("ALL_PROXY",),
}


@pytest.mark.parametrize("host", [OTHER, "127.0.0.1", "localhost"])
@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_proxy_is_asked_for_other_hosts_and_never_for_this_machine(
    environment: str, scheme: str, host: str, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    secure = scheme in ("https", "wss")
    with proxy.running() as way:
        for name in ENVIRONMENTS[environment]:
            monkeypatch.setenv(name, way.url)
        serving(lambda port: ask(scheme, host, port), pem if secure else None)

    assert bool(way.asked) == (host == OTHER)
    if scheme != "http":
        assert all(asked.startswith(f"CONNECT {OTHER}:") for asked in way.asked)


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
def test_a_name_and_password_for_the_proxy_are_given_to_it(
    scheme: str, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with proxy.running() as way:
        monkeypatch.setenv(
            "all_proxy", way.url.replace("//", "//ann:secret@").removeprefix("http://")
        )
        secure = scheme in ("https", "wss")
        serving(lambda port: ask(scheme, OTHER, port), pem if secure else None)

    assert set(way.authorized) == {"Basic YW5uOnNlY3JldA=="}


@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_an_authority_that_was_not_named_is_not_believed(
    scheme: str, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def client(port: int) -> None:
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            await ask(scheme, "localhost", port)

    serving(client, pem)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"SSL_CERT_FILE": "/nonexistent"}, "SSL_CERT_FILE names /nonexistent"),
        ({"SSL_CERT_FILE": "/dev/null"}, "SSL_CERT_FILE names /dev/null"),
        ({"SSL_CERT_FILE": "/"}, "SSL_CERT_FILE names /"),
        ({"SSL_CERT_DIR": "/nonexistent"}, "SSL_CERT_DIR names /nonexistent"),
        ({"all_proxy": "socks5://h:1080"}, "all_proxy names a SOCKS proxy"),
        ({"ALL_PROXY": "socks5h://h"}, "ALL_PROXY names a SOCKS proxy"),
        ({"https_proxy": "socks4://h"}, "https_proxy does not name a proxy"),
        ({"https_proxy": "http://u:secret@h:99999"}, "https_proxy does not name a proxy"),
        ({"HTTPS_PROXY": "http://h/path"}, "HTTPS_PROXY does not name a proxy"),
        ({"https_proxy": "//"}, "https_proxy does not name a proxy"),
        ({"https_proxy": "h:８０"}, "https_proxy does not name a proxy"),
    ],
)
def test_what_the_environment_names_wrongly_is_said_where_it_is_needed(
    named: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadValue, match=says) as wrong:
        Client(f"https://{OTHER}", Circle.new(), "node-0001")
    assert "secret" not in str(wrong.value)
    with pytest.raises(Unreachable, match=says):
        asyncio.run(sockets.connect(f"wss://{OTHER}/v1/relay/ws", "token"))

    serving(lambda port: ask("http", "127.0.0.1", port))
    serving(lambda port: ask("ws", "localhost", port))


@pytest.mark.parametrize(
    "named",
    [
        {"SSL_CERT_FILE": "/nonexistent"},
        {"SSL_CERT_DIR": "/nonexistent"},
        {"ALL_PROXY": "socks5://h:1080"},
        {"https_proxy": "http://h:99999"},
        {"https_proxy": "http://127.0.0.1:1"},
    ],
)
def test_a_search_says_it_for_the_source_and_never_raises(
    named: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    found = asyncio.run(
        bootstrap(f"https://{OTHER}/peers.json#{KEY}", beacons=[f"https://{OTHER}/beacon"])
    )

    assert [attempt.reason for attempt in found.sources] == ["UNREACHABLE"] * 2


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("", "http://h.example.org", False),
        ("*", "https://h.example.org", True),
        ("example.org", "wss://h.example.org", True),
        (".example.org", "ws://h.example.org", True),
        ("*.example.org", "http://example.org", True),
        ("example.org", "http://badexample.org", False),
        ("a.org, H.Example.Org", "http://h.example.org", True),
        ("h.example.org:8080", "http://h.example.org", False),
        ("h.example.org:80", "http://h.example.org", True),
        ("h.example.org:443", "wss://h.example.org", True),
        ("192.0.2.0/24", "http://192.0.2.9", True),
        ("192.0.2.0/24", "http://198.51.100.1", False),
        ("2001:db8::/32", "http://[2001:db8::1]:80", True),
        ("[2001:db8::1]:80", "http://[2001:db8::1]", True),
        ("192.0.2.0/99,/,:,[", "http://192.0.2.9", False),
    ],
)
def test_no_proxy_names_hosts_domains_and_networks(
    no_proxy: str, url: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "proxy.example.net:3128")
    monkeypatch.setenv("no_proxy", no_proxy)

    assert network.route(url).proxy == (None if direct else "http://proxy.example.net:3128")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "LOCALHOST.", "[::]"]
)
@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
def test_this_machine_has_many_names_and_none_goes_by_a_proxy(
    scheme: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "http://proxy.example.net:3128")

    assert network.route(f"{scheme}://{host}:8787").proxy is None


@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_a_proxy_that_refuses_is_named_and_not_the_service(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy.running(refuses=True) as way:
        monkeypatch.setenv("https_proxy", way.url)
        with pytest.raises(Unreachable) as unreachable:
            asyncio.run(ask(scheme, OTHER, 443))
        said = str(hints.explain(unreachable.value, f"https://{OTHER}"))

    assert said.startswith(f"the proxy that https_proxy names does not lead to {OTHER}")
    assert "403" in said
