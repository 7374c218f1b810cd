"""TLS on one machine: what it shows, whom it lets in, and what strangers can do with handshakes.

That all else is as without TLS, `test_local.py` shows: it runs over both.
"""

import contextlib
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.certificate import Authority
from tests.support.local import Server, Wire, circle, request, running, running_with_tls

HSTS = "max-age=15552000"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_with_tls(tmp_path_factory.mktemp("server"), authority) as made:
        yield made
        assert made.stop() == 0
        assert made.errors() == ""


def clear(server: Server) -> socket.socket:
    """Open a TCP connection, and say nothing yet."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def ended(connection: socket.socket) -> bool:
    """Wait for the other side's end; whether nothing came before it."""
    return Wire(connection).ended()


def serial(server: Server) -> str:
    """Return the number of the certificate that a new connection is shown."""
    with contextlib.closing(server.open()) as wire:
        assert isinstance(wire.socket, ssl.SSLSocket)
        return str((wire.socket.getpeercert() or {})["serialNumber"])


# --- what it shows --------------------------------------------------------------------


def test_a_circle_meets_and_every_address_it_is_told_is_secure(server: Server) -> None:
    ann, bob = circle(server, "ann", "bob")
    with ann.subscribe() as hers:
        bob.leave("message-0001", text="hello")
        assert json.loads(hers.recv(timeout=10))["messages"]
    bob.leave("message-0002", text="x" * 900_000)
    assert ann.collect() == ["message-0001", "message-0002"]

    hers, session = ann.attach(bob)
    with hers:
        assert session
    told = server.call("GET", "/v1/info", headers={"Host": "muster.test:8443"}).json()
    assert told["websocket"] == "wss://muster.test:8443/v1/relay/ws"


def test_browsers_are_told_to_come_back_by_https_by_every_answer(server: Server) -> None:
    name = "strict-transport-security"
    assert server.call("GET", "/v1/health").headers[name] == HSTS
    assert server.call("OPTIONS", "/v1/register").headers[name] == HSTS
    assert server.call("GET", "/nowhere").headers[name] == HSTS
    with contextlib.closing(server.open()) as wire:
        wire.send(b"no request at all\r\n\r\n")
        assert wire.answer().headers[name] == HSTS
    with pytest.raises(InvalidStatus) as refused:
        server.websocket("?token=nonsense")
    assert refused.value.response.headers[name] == HSTS


def test_without_tls_of_ours_nobody_is_told_that(tmp_path: Path) -> None:
    with running(tmp_path, "--trusted-proxy=127.0.0.1/32") as plain:
        answer = plain.call("GET", "/v1/health", headers={"X-Forwarded-Proto": "https"})
    assert "strict-transport-security" not in answer.headers


def test_a_service_with_a_certificate_is_closed_as_it_comes(
    authority: Authority, tmp_path: Path
) -> None:
    with running_with_tls(tmp_path, authority, access="") as server:
        told = server.call("GET", "/v1/info", headers={"Host": f"localhost:{server.port}"})
        assert told.json()["open"] is False
    assert "closed: only circles that were let in" in server.greeting
    assert f"listens on https://127.0.0.1:{server.port}" in server.greeting


def test_the_status_page_is_for_this_machine_over_tls_too(server: Server) -> None:
    assert server.call("GET", "/status.json").status == 200
    assert server.call("GET", "/status.json", headers={"Host": "a.test"}).status == 404


# --- files that change ----------------------------------------------------------------


def test_a_new_certificate_is_shown_without_a_restart_and_a_broken_one_is_not(
    authority: Authority, tmp_path: Path
) -> None:
    with running_with_tls(tmp_path / "renewed", authority) as server:
        old = serial(server)
        with contextlib.closing(server.open()) as held:
            certificate, key = authority.issue("renewed")
            deadline = time.monotonic() + 20
            while serial(server) == old:
                assert time.monotonic() < deadline, "the new certificate is not shown"
                time.sleep(0.1)
            assert held.call("GET", "/v1/health").status == 200, "who was there before stays"
        new = serial(server)
        key.write_bytes(authority.issue("another")[1].read_bytes())
        os.utime(certificate)
        assert server.process.stderr is not None
        line = json.loads(server.process.stderr.readline())
        assert serial(server) == new
    assert line["level"] == "error"
    assert line["message"] == (
        "the new certificate is not used, the old one stays: "
        f"the key in {key} is not that of the certificate in {certificate}"
    )


# --- strangers ------------------------------------------------------------------------


def test_whoever_calls_in_clear_is_told_so_and_the_connection_ends(server: Server) -> None:
    with contextlib.closing(Wire(clear(server))) as wire:
        answer = wire.call("GET", "/v1/health")
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_REQUEST")
        assert "https://" in answer.json()["message"]
        assert "strict-transport-security" not in answer.headers, "in clear it counts for nothing"
        assert wire.ended()


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x00\x05hello",
        b"\x16" + bytes(64),
        b"\x16\x03\x01\xff\xff" + bytes(20_000),
        b"\x80\x2e\x01\x03\x01" + bytes(60),
    ],
    ids=["no hello", "zeros", "too long", "SSL 2"],
)
def test_what_is_no_handshake_ends_the_connection(server: Server, said: bytes) -> None:
    with contextlib.closing(clear(server)) as connection:
        connection.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(65536)[:1] in (b"", b"\x15", b"H")
    assert server.call("GET", "/v1/health").status == 200


def test_versions_before_1_2_are_refused(server: Server) -> None:
    body = b"\x03\x02" + bytes(32) + b"\x00" + b"\x00\x04\xc0\x13\x00\x2f" + b"\x01\x00"
    hello = b"\x01" + len(body).to_bytes(3, "big") + body
    with contextlib.closing(clear(server)) as connection:
        connection.sendall(b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello)
        alert = connection.recv(65536)
    assert (alert[0], alert[5:7]) == (21, b"\x02\x46"), "a fatal alert: protocol_version"


def test_versions_1_2_and_1_3_are_spoken(server: Server) -> None:
    assert server.trust is not None
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        server.trust.minimum_version = server.trust.maximum_version = version
        assert server.call("GET", "/v1/health").status == 200
    server.trust.minimum_version = ssl.TLSVersion.TLSv1_2


def test_a_handshake_that_does_not_come_to_its_end_is_given_up(
    authority: Authority, tmp_path: Path
) -> None:
    with running_with_tls(tmp_path, authority, head_s="1") as server:
        with contextlib.closing(clear(server)) as silent, contextlib.closing(clear(server)) as slow:
            slow.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
            started = time.monotonic()
            assert ended(silent)
            assert ended(slow)
            assert time.monotonic() - started < 8
        with contextlib.closing(server.open()) as wire:
            assert wire.call("GET", "/v1/health").status == 200
        server.stop()
        assert server.errors() == ""


def test_handshakes_count_among_the_connections_of_their_address(
    authority: Authority, tmp_path: Path
) -> None:
    with (
        running_with_tls(tmp_path, authority, address_connections="3") as server,
        contextlib.ExitStack() as stack,
    ):
        held = [stack.enter_context(contextlib.closing(clear(server))) for _ in range(2)]
        wire = stack.enter_context(contextlib.closing(server.open()))
        held += [stack.enter_context(contextlib.closing(clear(server)))]
        assert ended(held[-1]), "the fourth is let go before it has said a word"
        assert wire.call("GET", "/v1/health").status == 200

        held[0].close()
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                assert server.call("GET", "/v1/health").status == 200
                break
            assert time.monotonic() < deadline, "nobody took the place that became free"


def test_handshakes_count_as_calls_of_their_address(authority: Authority, tmp_path: Path) -> None:
    with (
        running_with_tls(tmp_path, authority, address_burst="4", address_per_s="1") as server,
        contextlib.closing(server.open()) as wire,
    ):
        assert [wire.call("GET", "/v1/health").status for _ in range(3)] == [200] * 3
        with contextlib.closing(clear(server)) as another:
            assert ended(another), "it may not even begin"


def test_a_stop_says_goodbye_to_sockets_and_ends_handshakes(
    authority: Authority, tmp_path: Path
) -> None:
    with running_with_tls(tmp_path, authority) as server:
        (ann,) = circle(server, "ann")
        with contextlib.closing(clear(server)) as shaking, ann.subscribe() as hers:
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < 8
            assert ended(shaking)
            with contextlib.suppress(Exception):
                hers.recv(timeout=20)
            assert hers.close_code == 1001
        assert server.errors() == ""


def test_a_call_may_come_in_the_same_breath_as_the_end_of_the_handshake(server: Server) -> None:
    """And in records of any size: what comes in pieces is put together."""
    assert server.trust is not None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = server.trust.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.closing(clear(server)) as connection:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65536))
        for byte in request("GET", "/v1/health"):
            tls.write(bytes((byte,)))
        connection.sendall(outgoing.read())
        answer = b""
        while b'"ok"' not in answer:
            incoming.write(connection.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                while True:
                    answer += tls.read(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()
        connection.sendall(outgoing.read())
        while connection.recv(65536):  # its goodbye, and then its end
            pass


def test_whoever_has_sent_more_than_was_read_still_hears_why_a_socket_is_closed(
    server: Server,
) -> None:
    """All of it lies in one piece: the goodbye waits until the rest was read."""
    (ann,) = circle(server, "ann")
    with contextlib.closing(server.open()) as wire:
        wire.send(
            f"GET /v1/relay/ws?token={ann.token()} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert wire.answer(head_only=True).status == 101
        binary = b"\x82\x81" + bytes(4) + b"x"
        close = b"\x88\x80" + bytes(4)
        assert isinstance(wire.socket, ssl.SSLSocket)
        for _ in range(20):
            wire.send(binary)
        wire.send(close)
        said = b""
        while data := wire.socket.recv(65536):
            said += data
        assert (1003).to_bytes(2, "big") + b"text frames only" in said
        wire.socket.settimeout(20)
        for _ in range(50):
            wire.send(binary)  # which is read and dropped, and no reset
