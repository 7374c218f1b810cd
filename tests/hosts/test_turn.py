"""Does a real coturn with our configuration accept what assist tells, and lead nowhere private?"""

import ipaddress
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import turn
from tests.support.circle import world
from tests.support.local import running

SECRET = secrets.token_hex(16)

needs_coturn = pytest.mark.skipif(bool(turn.missing()), reason=turn.missing() or "it is here")

INSIDE = (
    *("0.0.0.1", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1", "255.255.255.255"),
)
INSIDE_6 = (
    *("::1", "::10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1"),
    *("64:ff9b:1::a00:1", "2001:0:a00:1::", "2002:a00:1::", "fc00::1", "fd00:ec2::254", "fe80::1"),
    *("fec0::1", "ff02::1"),
)
OUTSIDE = ("1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "192.169.0.1", "198.20.0.1")
OUTSIDE_6 = ("2606:4700::1111", "2a00:1450::1", "2003::1", "2001:200::1", "2620::1")


@pytest.fixture(scope="module")
def coturn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with turn.running(tmp_path_factory.mktemp("coturn"), secret=SECRET) as port:
        yield port


def plan(port: int, **login: str) -> str:
    server = {"urls": [f"turn:127.0.0.1:{port}?transport=udp"], "realm": turn.REALM}
    return json.dumps({"ice_servers": [server | login]})


def told(port: int, *, at: float) -> dict[str, Any]:
    """What assist tells at some time."""
    w = world(assist=plan(port, secret=SECRET), assist_open="allow")
    w.service.entropy = secrets.token_bytes
    w.clock = at
    status, answer = w.call("POST", "/api/p2p/assist", {}, headers={})
    assert status == 200
    [server] = answer["ice"]["servers"]
    found: dict[str, Any] = server
    return found


@needs_coturn
def test_coturn_grants_an_allocation_for_what_the_running_server_tells(
    coturn: int, tmp_path: Path
) -> None:
    with running(tmp_path, assist_open="allow", assist=plan(coturn, secret=SECRET)) as server:
        [login] = server.call("POST", "/api/p2p/assist", b"{}").json()["ice"]["servers"]
    host, port = turn.allocate(coturn, username=login["username"], password=login["credential"])
    assert host == "127.0.0.1"
    assert 49152 <= port <= 49651


@needs_coturn
def test_coturn_leads_into_the_internet_and_to_nothing_behind_it(coturn: int) -> None:
    login = told(coturn, at=time.time())
    found = turn.refused(
        coturn,
        (*INSIDE, *OUTSIDE),
        username=login["username"],
        password=login["credential"],
    )
    assert found == dict.fromkeys(INSIDE, 403)


def test_what_is_denied_is_denied_in_ipv6_too_however_it_is_written() -> None:
    """By the file alone: an allocation of coturn's for IPv6 needs a network that has it."""
    lines = turn.CONFIGURATION.read_text().splitlines()
    texts = [line.partition("=")[2] for line in lines if line.startswith("denied-peer-ip")]
    ranges = [tuple(map(ipaddress.ip_address, text.split("-"))) for text in texts]

    def denied(text: str) -> bool:
        address = ipaddress.ip_address(text)
        return any(
            first.version == address.version and int(first) <= int(address) <= int(last)
            for first, last in ranges
        )

    assert [text for text in (*INSIDE, *INSIDE_6) if not denied(text)] == []
    assert [text for text in (*OUTSIDE, *OUTSIDE_6) if denied(text)] == []


@needs_coturn
def test_coturn_refuses_it_after_its_time(coturn: int) -> None:
    login = told(coturn, at=time.time() - 601)
    assert int(login["username"].partition(":")[0]) < time.time()
    with pytest.raises(turn.Refused, match="401"):
        turn.allocate(coturn, username=login["username"], password=login["credential"])


@needs_coturn
def test_coturn_refuses_a_login_whose_time_was_changed(coturn: int) -> None:
    login = told(coturn, at=time.time())
    longer = f"{int(time.time()) + 9999}:{login['username'].partition(':')[2]}"
    with pytest.raises(turn.Refused, match="401"):
        turn.allocate(coturn, username=longer, password=login["credential"])


@needs_coturn
def test_the_ice_fragment_and_password_alone_are_no_login(coturn: int) -> None:
    """As an example of the guide has it; only `ice.servers` are."""
    w = world(assist=plan(coturn, secret=SECRET), assist_open="allow")
    ice = w.call("POST", "/api/p2p/assist", {}, headers={})[1]["ice"]
    with pytest.raises(turn.Refused, match="401"):
        turn.allocate(coturn, username=ice["username_fragment"], password=ice["password"])


@needs_coturn
def test_a_fixed_login_is_accepted_too(tmp_path: Path) -> None:
    with turn.running(tmp_path, login="ann:a-password") as port:
        w = world(assist=plan(port, username="ann", password="a-password"), assist_open="allow")
        [login] = w.call("POST", "/api/p2p/assist", {}, headers={})[1]["ice"]["servers"]
        assert login["ttl_secs"] == 0
        turn.allocate(port, username=login["username"], password=login["credential"])
