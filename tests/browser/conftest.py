"""A browser, and services of both hosts for its pages."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import local, turn
from tests.support.members2 import address
from tests.support.pages import CHROMIUM, Pages, browsing
from tests.support.serving import on_aws

TURN_SECRET = "of turn alone"


@pytest.fixture(scope="module")
def browser() -> Iterator[Pages]:
    if CHROMIUM is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with browsing() as pages:
        yield pages


@pytest.fixture
def pages(browser: Pages) -> Iterator[Pages]:
    """People with fresh profiles; whatever a page throws fails the test."""
    yield browser
    browser.close()


@pytest.fixture
def coturn(tmp_path: Path) -> Iterator[str]:
    """A coturn that relays to this machine, as ours in production never does; its port in a URL."""
    if turn.missing():
        pytest.skip(turn.missing())
    port = turn._free_port()
    told = {
        "listening-ip": "127.0.0.1",
        "relay-ip": "127.0.0.1",
        "listening-port": port,
        "realm": turn.REALM,
        "static-auth-secret": TURN_SECRET,
        "pidfile": tmp_path / "coturn.pid",
        "userdb": tmp_path / "coturn.db",
        "log-file": "stdout",
    }
    flags = ["use-auth-secret", "allow-loopback-peers", "no-tls", "no-dtls", "no-cli"]
    file, log = tmp_path / "turnserver.conf", tmp_path / "coturn.out"
    file.write_text("\n".join([f"{key}={value}" for key, value in told.items()] + flags))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [turn.PROGRAM, "-c", str(file)],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            turn._wait(port, process, log)
            yield f"turn:127.0.0.1:{port}?transport=udp"
        finally:
            process.terminate()
            process.wait(timeout=15)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The whole address of a service on one machine."""
    with local.running(tmp_path_factory.mktemp("here"), websocket_url="") as server:
        yield address(server.base).text


@pytest.fixture(scope="module", params=["one machine", "aws"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The whole address of a running service of each host."""
    directory = tmp_path_factory.mktemp("service")
    if request.param == "one machine":
        with local.running(directory) as server:
            yield address(server.base).text
        return
    with on_aws(directory) as found:
        yield found
