"""The wire of version 2 on both hosts and three engines: what holds, and what is refused.

The lines of docs/protocol2.md that a stranger, a member or a network could try to break over
HTTP, each against a service that runs as people run it.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from capsules.errors import Refused
from capsules.keys import SigningKey, VerifyKey
from chalicelib import tables
from chalicelib.service import Service
from chalicelib.settings import Settings
from chalicelib.store.dynamodb import create_tables, open_client, open_dynamodb
from infra import cost
from muster import base64url, calls, keys
from muster.calls import Answer, Authorization, Credential, Proof
from tests.golden.make_version2 import SMALL_ORDER
from tests.support import aws, gateway, stores
from tests.support.circle import Gateway as Nobody
from tests.support.circle import World
from tests.support.local import GENEROUS
from tests.support.local import running as one_machine
from tests.support.serving import serving
from tests.support.version2 import DAY_MS, Node, Wire, in_world, new_epoch, opened, passing
from tools.bench.units import Tally

HOSTS = ("local", "sqlite", "dynalite")
BODY = b'{"want":{"messages":9}}'


@contextlib.contextmanager
def house(host: str, folder: Path, dynalite_url: str, **settings: str) -> Iterator[str]:
    """Serve on a host; give the base URL."""
    if host == "local":
        chosen = {name.removeprefix("MUSTER_"): value for name, value in settings.items()}
        with one_machine(folder, "--publish-every=0", **chosen) as server:
            yield server.base
        return
    url = dynalite_url if host == "dynalite" else ""
    with (
        aws.running(host, directory=folder, dynalite_url=url, **(GENEROUS | settings)) as made,
        serving(made) as base,
    ):
        yield base
    assert made.crashes == []


@pytest.fixture(scope="module", params=HOSTS)
def base(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, dynalite_url: str
) -> Iterator[str]:
    with house(request.param, tmp_path_factory.mktemp("house"), dynalite_url) as served:
        yield served


def now_ms() -> int:
    return int(time.time() * 1000)


def node(base: str, epoch: keys.Epoch | None = None) -> Node:
    return Node(epoch or new_epoch(), passing(base), now_ms)


@pytest.fixture
def ann(base: str) -> Node:
    return node(base)


def refused(node: Node, header: Authorization | str, body: bytes = BODY) -> tuple[int, str, str]:
    """Make a call; return status, code and message of the refusal, and see that it is one."""
    text = header if isinstance(header, str) else header.header
    status, headers, answer = node.send("POST", "/v2/sync", {"Authorization": text}, body)
    said = json.loads(answer)
    assert status in (400, 401, 403), said
    assert (said["ok"], headers["access-control-allow-origin"]) == (False, "*")
    return status, said["code"], said["message"]


# --- what it is for ---------------------------------------------------------------------


def test_two_nodes_meet_talk_and_exchange_signals(base: str) -> None:
    epoch = new_epoch()
    ann, bob = node(base, epoch), node(base, epoch)
    ann.sync(
        presence={"sealed": ann.presence("Ann")},
        send={"messages": [ann.message("dinner at eight?")], "signals": [ann.signal(bob)]},
    )
    found = bob.sync(
        presence={"sealed": bob.presence("Bob")},
        want={"peers": True, "messages": 9, "signals": 9},
    )

    assert bob.names(found) == ["Ann"]
    assert bob.texts(found) == ["dinner at eight?"]
    assert [one["from"] for one in found["signals"]] == [ann.id]


def test_what_a_thousand_messages_are_is_read_to_the_end(base: str) -> None:
    epoch = new_epoch()
    ann, bob = node(base, epoch), node(base, epoch)
    for start in range(0, 200, 50):
        left = [ann.message(f"{n}") for n in range(start, start + 50)]
        assert ann.sync(send={"messages": left})["refused"] == {}
    texts: list[str] = []
    after, more = 0, True
    while more:
        page = bob.sync(want={"messages": 60}, after={"messages": after})
        texts += bob.texts(page)
        after = page["entries"][-1]["number"]
        more = "messages" in page["more"]

    assert texts == [f"{n}" for n in range(200)]


def test_the_headers_are_for_browsers_too(base: str) -> None:
    status, headers, _ = passing(base)("OPTIONS", "/v2/sync", {"Origin": "https://x"}, b"")

    assert status == 204
    assert "Authorization" in headers["access-control-allow-headers"]
    assert "Muster-Answer" in headers["access-control-expose-headers"]


# --- who calls --------------------------------------------------------------------------


def other_bytes(raw: bytes, at: int) -> bytes:
    changed = bytearray(raw)
    changed[at] ^= 1
    return bytes(changed)


FORMS: dict[str, Callable[[list[str]], str]] = {
    "nothing": lambda parts: "",
    "another scheme": lambda parts: "Bearer " + ".".join(parts),
    "no proof": lambda parts: "Muster2 " + parts[0],
    "a part more": lambda parts: "Muster2 " + ".".join([*parts, "AAAA", "AAAA"]),
    "junk": lambda parts: "Muster2 " + ".".join([parts[0][:-1] + "*", parts[1]]),
    "padded": lambda parts: "Muster2 " + ".".join([parts[0] + "==", parts[1]]),
    "a credential that is cut": lambda parts: f"Muster2 {parts[0][:-4]}.{parts[1]}",
    "a proof that is cut": lambda parts: f"Muster2 {parts[0]}.{parts[1][:-4]}",
    "a tag of another length": lambda parts: "Muster2 " + ".".join([*parts, "AAAA"]),
    "a kilobyte": lambda parts: "Muster2 " + "A" * 1000,
    "a name with an accent": lambda parts: "Müster2 " + ".".join(parts),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_header_of_another_form_is_refused_by_what_is_wrong(ann: Node, form: str) -> None:
    text = FORMS[form](ann.header(BODY).text.split("."))
    status, code, said = refused(ann, text.encode("utf-8").decode("latin-1"))

    assert (status, code) in ((400, "INVALID_REQUEST"), (401, "INVALID_SIGNATURE"))
    assert "Authorization" in said


def credentials(node: Node) -> dict[str, Credential]:
    good = node.credential()
    stranger = SigningKey(bytes(32))
    point = VerifyKey(SMALL_ORDER["1"])
    return {
        "another circle's": replace(good, circle=stranger.verify_key),
        "another node's": replace(good, node=stranger.verify_key),
        "until later": replace(good, expires_ms=good.expires_ms + 1),
        "expired": node.credential(expires_ms=now_ms() - 1),
        "for nine days": node.credential(expires_ms=now_ms() + 9 * DAY_MS),
        "of small order": replace(good, circle=point, signature=SMALL_ORDER["1"] + bytes(32)),
    }


KINDS = ("another circle's", "another node's", "until later", "expired", "for nine days")


@pytest.mark.parametrize("kind", [*KINDS, "of small order"])
def test_a_credential_that_no_circle_made_is_refused(ann: Node, kind: str) -> None:
    bad = credentials(ann)[kind]

    assert refused(ann, ann.header(BODY, credential=bad))[:2] == (401, "INVALID_SIGNATURE")


@pytest.mark.parametrize("call", [calls.INFO, calls.OPEN, calls.FRAME, "POST /v1/sync", ""])
def test_a_call_that_was_signed_as_another_is_refused(ann: Node, call: str) -> None:
    assert refused(ann, ann.header(BODY, call=call))[1] == "INVALID_SIGNATURE"


@pytest.mark.parametrize("body", [b"", BODY + b" ", b'{"want":{"messages":8}}'])
def test_a_body_that_was_changed_on_the_way_is_refused(ann: Node, body: bytes) -> None:
    assert refused(ann, ann.header(BODY), body)[1] == "INVALID_SIGNATURE"


def test_a_member_speaks_for_no_other(base: str) -> None:
    epoch = new_epoch()
    ann, bob = node(base, epoch), node(base, epoch)
    proof = bob.header(BODY).proof
    taken = Authorization(ann.credential().raw, proof)

    assert refused(ann, taken)[1] == "INVALID_SIGNATURE"
    assert refused(ann, replace(taken, proof=Proof(proof.at_ms, bytes(64))))[0] == 401


@pytest.mark.parametrize("seconds", [-121, 121, 10**7, -(10**6)])
def test_a_call_at_another_time_is_refused_and_told_the_time_signed(
    ann: Node, seconds: int
) -> None:
    header = ann.header(BODY, at_ms=max(0, now_ms() + seconds * 1000))
    status, _, said = ann.raw(BODY, header)
    (answer,) = ann.answers

    assert (status, said["code"]) == (400, "EXPIRED_TIMESTAMP")
    assert abs(answer.at_ms - now_ms()) < 60_000


@pytest.mark.parametrize("seconds", [0, 30, 119])
def test_a_call_is_nothing_at_another_service(
    base: str, tmp_path: Path, dynalite_url: str, seconds: int
) -> None:
    """At the same service the copy says what was said; at another nothing."""
    ann = node(base)
    body = json.dumps({"presence": {"sealed": ann.presence()}}).encode()
    header = ann.header(body, at_ms=now_ms() - seconds * 1000)
    assert ann.raw(body, header)[2]["refused"] == {}
    assert ann.raw(body, header)[2]["refused"]["presence"]["code"] == "OUTDATED"
    with house("sqlite", tmp_path, dynalite_url) as elsewhere:
        there = replace(ann, send=passing(elsewhere))

        assert refused(there, header, body)[1] == "INVALID_SIGNATURE"


def test_a_query_is_refused(ann: Node) -> None:
    header = ann.header(BODY)
    status, _, answer = ann.send(
        "POST", "/v2/sync?want=all", {"Authorization": header.header}, BODY
    )

    assert (status, json.loads(answer)["code"]) == (400, "INVALID_REQUEST")


BODIES = [
    b"{",
    b"[]",
    b"null",
    b'{"want":7}',
    b'{"want":{"messages":-1}}',
    b'{"after":{"messages":9007199254740992}}',
    b'{"presence":{}}',
    b'{"presence":{"sealed":7}}',
    b'{"send":{"messages":["short"]}}',
    b'{"send":{"signals":[{"to":"x","sealed":"' + b"A" * 400 + b'"}]}}',
    json.dumps({"send": {"messages": ["A" * 400] * 51}}).encode(),
    b'{"quiet":1}',
    b'{"want":{},"want":{}}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_body_of_another_shape_is_refused_by_name_and_signed(ann: Node, body: bytes) -> None:
    status, headers, said = ann.raw(body)

    assert (status, said["code"]) == (400, "INVALID_REQUEST")
    assert "muster-answer" in headers


# --- answers ----------------------------------------------------------------------------


def test_an_answer_is_for_this_call_alone(ann: Node) -> None:
    first, second = ann.header(BODY), ann.header(BODY, at_ms=now_ms() - 5)
    said = {"Authorization": first.header}
    status, headers, body = ann.send("POST", "/v2/sync", said, BODY)
    answer = Answer.parse(headers["muster-answer"])
    answer.check(ann.service_id, first.proof.raw, status=status, body=body)

    for proof, told, what in (
        (second.proof.raw, status, body),
        (first.proof.raw, 500, body),
        (first.proof.raw, status, body + b" "),
    ):
        with pytest.raises(Refused):
            answer.check(ann.service_id, proof, status=told, body=what)


def test_no_secret_and_no_signing_key_is_in_the_store(tmp_path: Path, dynalite_url: str) -> None:
    with house("local", tmp_path, dynalite_url) as base:
        ann = node(base)
        ann.sync(
            presence={"sealed": ann.presence()},
            send={"messages": [ann.message("hello")], "signals": [ann.signal(ann)]},
        )
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert ann.epoch.hint.hex().encode() in stored
    for secret in (
        *(ann.epoch.secret, ann.epoch.circle_key.seed, ann.member.secret),
        *(ann.member.key.seed, ann.node.key.seed, ann.member.box_key),
    ):
        assert secret not in stored
        assert secret.hex().encode() not in stored
        assert base64url.encode(secret).encode() not in stored


# --- the socket -------------------------------------------------------------------------


def test_on_sockets_two_nodes_are_told_of_each_other_and_pass_frames(base: str) -> None:
    epoch = new_epoch()
    ann, bob = node(base, epoch), node(base, epoch)
    with opened(ann, base) as hers, opened(bob, base) as his:
        hers.sync(presence={"sealed": ann.presence("Ann"), "tell": True})
        assert bob.names(his.hear()) == ["Ann"]
        hers.sync(send={"messages": [ann.message("hello")], "signals": [ann.signal(bob)]})
        heard = [his.hear(), his.hear()]
        assert [name for frame in heard for name in frame if name != "t"] == ["signals", "entries"]
        assert bob.texts(his.sync(want={"messages": 9})) == ["hello"]

        payload = base64url.encode(os.urandom(16 * 1024))
        his.say(t="FRAME", n=1, to=ann.id, payload=payload)
        assert hers.hear() == {"t": "FRAME", "from": bob.id, "payload": payload}
        assert his.hear() == {"t": "TAKEN", "n": 1}
    found = node(base, epoch).sync(want={"peers": True})
    assert found["peers"] == [], "presence ends with its socket"


def test_a_newer_socket_of_a_node_takes_over(base: str) -> None:
    epoch = new_epoch()
    ann, bob = node(base, epoch), node(base, epoch)
    with opened(ann, base) as first, opened(bob, base) as his:
        header = ann.header(b"", call=calls.OPEN, at_ms=now_ms() + 10)
        with opened(ann, base, header=header) as second:
            assert first.hear() == {"t": "REPLACED"}
            with pytest.raises(ConnectionClosed):
                first.hear()
            his.say(t="FRAME", n=1, to=ann.id, payload="AAAA")
            assert second.hear()["from"] == bob.id


@pytest.mark.parametrize("kind", ["used", "as a sync", "of another node", "late", "none"])
def test_a_handshake_that_proves_nothing_is_refused(base: str, kind: str) -> None:
    ann = node(base)
    good = ann.header(b"", call=calls.OPEN)
    with opened(ann, base, header=good):
        pass
    bad = {
        "used": good,
        "as a sync": ann.header(b""),
        "of another node": replace(good, credential=node(base).credential().raw),
        "late": ann.header(b"", call=calls.OPEN, at_ms=now_ms() - 200_000),
        "none": Authorization(bytes(136), Proof(now_ms(), bytes(64))),
    }[kind]

    with pytest.raises(InvalidStatus) as refused, opened(ann, base, header=bad):
        pass

    said = json.loads(refused.value.response.body or b"")
    assert refused.value.response.status_code in (400, 401, 409)
    assert said["code"] in ("OUTDATED", "INVALID_SIGNATURE", "EXPIRED_TIMESTAMP")


# --- a closed service ------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS)
def test_a_closed_service_keeps_circles_out_that_it_was_not_told_of(
    host: str, tmp_path: Path, dynalite_url: str
) -> None:
    with house(host, tmp_path, dynalite_url, MUSTER_ACCESS="closed") as base:
        eve = node(base)
        body = json.dumps({"presence": {"sealed": eve.presence()}}).encode()

        assert refused(eve, eve.header(body), body)[:2] == (403, "NOT_ALLOWED")
        told: Any = json.loads(eve.send("GET", "/v2/info", {}, b"")[2])
        assert told["open"] is False


def test_a_code_opens_a_closed_service_to_who_shows_that_it_knows_it(dynalite_url: str) -> None:
    here = Counted(dynalite_url, access="closed")
    now, stores_ = here.world.now, here.world.service.stores
    for number in range(3):
        allowed = tables.Allowed("us", now, f"a code of many letters {number}")
        tables.allow(stores_, f"{tables.CODE}{number}", allowed, until=now + 900)
    ann, eve = in_world(here.world), in_world(here.world)
    ann.code = "a code of many letters 1"
    header = ann.header(BODY)

    assert ann.sync()["ok"]
    for bad in (
        eve.header(BODY),
        replace(eve.header(BODY), tag=header.tag),
        replace(header, tag=bytes(16)),
        replace(header, credential=eve.credential().raw),
    ):
        node = ann if bad.credential == header.credential else eve
        status, _, said = node.raw(BODY, bad)
        assert (status, said["code"]) == (403, "NOT_ALLOWED")
        assert "access code" in said["message"]
    here.world.clock += 901
    assert ann.raw(BODY)[0] == 403, "it was for a while"


def test_a_guess_at_a_code_writes_nothing_and_reads_once_in_ten_seconds(dynalite_url: str) -> None:
    here = Counted(dynalite_url, access="closed")
    eve = in_world(here.world)
    eve.code = "a guess of many letters"

    def guess() -> None:
        assert eve.raw(BODY)[0] == 403

    assert here.units(guess) == (0, 0)
    here.world.clock += 11
    here.tally.take()
    guess()
    _, units = here.tally.take()
    assert (units["write_units"], units["read_units"]) == (0, 2), "codes, and who is let in"


# --- what it costs -------------------------------------------------------------------------


class Counted:
    """A service on DynamoDB's emulator that counts units, and what calls it."""

    def __init__(self, dynalite_url: str, **chosen: Any) -> None:
        names = stores.fresh_names()
        client = open_client(endpoint_url=dynalite_url, region=gateway.REGION)
        create_tables(client, names)
        self.tally = Tally()
        counted = open_dynamodb(tables=names, client=client, meter=self.tally.meter)
        nobody = Nobody()
        made = Service(Settings(**chosen), counted, nobody, os.urandom, believed_s=60)
        self.world = World(made, nobody)

    def units(self, step: Callable[[], object]) -> tuple[float, float]:
        """Return the units that a step takes once everything is warm: written, read."""
        step()
        self.world.clock += 1
        self.tally.take()
        step()
        _, units = self.tally.take()
        return units["write_units"], units["read_units"]


def test_on_dynamodb_calls_take_the_units_that_the_model_counts(dynalite_url: str) -> None:
    here = Counted(dynalite_url)
    epoch = new_epoch()
    circle = [in_world(here.world, epoch) for _ in range(10)]
    for one in circle:
        one.sync(presence={"sealed": one.presence()})
    ann = circle[0]
    whole = {"peers": True, "messages": 9, "signals": 9}

    def placed(*, quiet: bool = False) -> object:
        return ann.sync(presence={"sealed": ann.presence()}, want=whole, quiet=quiet)

    assert here.units(placed) == (1, 4)
    assert here.units(lambda: placed(quiet=True)) == cost.SYNC_QUIET[:2]
    assert here.units(lambda: ann.sync(want={"messages": 9, "signals": 9})) == (0, 2)
    ann.sync(send={"messages": [ann.message("first")]})
    wrote, read = here.units(lambda: ann.sync(send={"messages": [ann.message("hello")]}))
    assert (wrote, read) == cost.SYNC_MESSAGE[:2], "the entry before, and who is to be told"


def test_on_dynamodb_sockets_take_the_units_that_the_model_counts(dynalite_url: str) -> None:
    here = Counted(dynalite_url)
    epoch = new_epoch()
    ann, bob = (Wire(here.world, in_world(here.world, epoch), name) for name in ("ann", "bob"))

    def passed() -> None:
        assert ann.say({"t": "FRAME", "n": 1, "to": bob.node.id, "payload": "AAAA"})

    def come_and_go() -> None:
        wire = Wire(here.world, ann.node, f"ann-{here.world.clock}")
        wire.sync(presence={"sealed": ann.node.presence()}, quiet=True)
        wire.close()

    assert here.units(passed) == (0, 1)
    wrote, read = here.units(come_and_go)
    assert wrote <= cost.SOCKET_2.write, "opened and closed, and a presence between"
    assert read <= cost.SOCKET_2.read


def test_on_dynamodb_a_stranger_of_a_closed_service_writes_nothing(dynalite_url: str) -> None:
    here = Counted(dynalite_url, access="closed")
    eve = in_world(here.world)
    body = json.dumps({"presence": {"sealed": eve.presence()}}).encode()

    def knock() -> None:
        status, _, said = eve.raw(body)
        assert (status, said["code"]) == (403, "NOT_ALLOWED")

    wrote, read = here.units(knock)
    assert wrote == 0
    assert read <= 1


def test_a_program_that_offers_no_subprotocol_is_answered_with_none(base: str) -> None:
    """RFC 6455, 4.2.2: a server chooses among what was offered, and libraries refuse the rest."""
    node = Node(new_epoch(), passing(base), lambda: int(time.time() * 1000))
    told = json.loads(node.send("GET", "/v2/info", {}, b"")[2])["socket"]
    url = told if "127.0.0.1" in told else base.replace("http", "ws", 1) + "/v2/socket"
    shown = {"Authorization": node.header(b"", call=calls.OPEN).header}

    with connect(url, additional_headers=shown, proxy=None) as wire:
        assert wire.subprotocol is None
        wire.send('{"t":"FRAME","n":7,"to":"' + "0" * 32 + '","payload":"AAAA"}')
        assert json.loads(wire.recv(timeout=20))["n"] == 7
