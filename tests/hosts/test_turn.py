"""Does a real coturn accept the logins that assist tells, and refuse them once they are over?"""

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

pytestmark = pytest.mark.skipif(bool(turn.missing()), reason=turn.missing() or "it is here")


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


def test_coturn_grants_an_allocation_for_what_the_running_server_tells(
    coturn: int, tmp_path: Path
) -> None:
    with running(tmp_path, assist_open="allow", assist=plan(coturn, secret=SECRET)) as server:
        [login] = server.call("POST", "/api/p2p/assist", b"{}").json()["ice"]["servers"]
    host, port = turn.allocate(coturn, username=login["username"], password=login["credential"])
    assert host == "127.0.0.1"
    assert 50000 <= port <= 50100


def test_coturn_refuses_it_after_its_time(coturn: int) -> None:
    login = told(coturn, at=time.time() - 601)
    assert int(login["username"].partition(":")[0]) < time.time()
    with pytest.raises(turn.Refused, match="401"):
        turn.allocate(coturn, username=login["username"], password=login["credential"])


def test_coturn_refuses_a_login_whose_time_was_changed(coturn: int) -> None:
    login = told(coturn, at=time.time())
    longer = f"{int(time.time()) + 9999}:{login['username'].partition(':')[2]}"
    with pytest.raises(turn.Refused, match="401"):
        turn.allocate(coturn, username=longer, password=login["credential"])


def test_the_ice_fragment_and_password_alone_are_no_login(coturn: int) -> None:
    """As an example of the guide has it; only `ice.servers` are."""
    w = world(assist=plan(coturn, secret=SECRET), assist_open="allow")
    ice = w.call("POST", "/api/p2p/assist", {}, headers={})[1]["ice"]
    with pytest.raises(turn.Refused, match="401"):
        turn.allocate(coturn, username=ice["username_fragment"], password=ice["password"])


def test_a_fixed_login_is_accepted_too(tmp_path: Path) -> None:
    with turn.running(tmp_path, login="ann:a-password") as port:
        w = world(assist=plan(port, username="ann", password="a-password"), assist_open="allow")
        [login] = w.call("POST", "/api/p2p/assist", {}, headers={})[1]["ice"]["servers"]
        assert login["ttl_secs"] == 0
        turn.allocate(port, username=login["username"], password=login["credential"])
