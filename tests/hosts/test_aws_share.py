"""What one address may use of a deployment on AWS: calls, frames, and units of the tables."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chalicelib import tables
from chalicelib.app_files import AppFiles
from chalicelib.aws.files import BURST_BYTES, CALL_BYTES
from chalicelib.aws.share import BURST_S, CALLERS, LEAST_CALLS, Meter, Share
from chalicelib.aws.told import Told
from chalicelib.library import Library, load
from chalicelib.limits import SPREAD_EVERY, SPREAD_MORE, SPREAD_S, Limits
from chalicelib.settings import Settings
from chalicelib.store.sqlite import open_sqlite
from infra import stack
from infra.ceilings import VISITS_AT_ONCE, Ceilings
from infra.cost import LOAD_BYTES
from muster import structs
from muster.felund import records
from tests.support import aws, web_app
from tests.support.gateway import Gateway, HandshakeRefused
from tests.support.members import Member, circle, dumps
from tests.support.serving import serving

on_stores = pytest.mark.parametrize("engine", ["moto", "dynalite"], indirect=True)
on_dynalite = pytest.mark.parametrize("engine", ["dynalite"], indirect=True)

RATES = {
    "MUSTER_REST_RATE": "100",
    "MUSTER_SOCKET_RATE": "100",
    "MUSTER_TABLE_READ_UNITS": "1000",
    "MUSTER_TABLE_WRITE_UNITS": "500",
}
TOLD = Told(rest_rate=100, socket_rate=100, table_read_units=1000, table_write_units=500)
PAGE_UNITS = 64
FAT = {"transport": "tcp", "host": "h" * 255, "port": 65535, "nat": "restricted"}


@pytest.fixture
def settings() -> Mapping[str, str]:
    return RATES


def used(gateway: Gateway, machine: int = 0) -> Meter:
    """Return what the last call took, as the engine says."""
    found: Meter = gateway.machines[machine].module.host.used
    return found


def most(per_s: int, machines: int, *, since: float) -> float:
    """Return what one address gets of so many machines in the minutes since then, or little more.

    A machine takes part in the count when it has asked for the first time.
    """
    minutes = int(time.time()) // SPREAD_S - int(since) // SPREAD_S + 1
    return minutes * per_s * SPREAD_S * SPREAD_MORE * 1.2 + machines * SPREAD_EVERY


def chosen(**told: Any) -> Settings:
    return Settings.from_environment(Share(replace(TOLD, **told)).settings())


# --- how much -------------------------------------------------------------------------


def test_the_template_tells_the_service_what_there_is() -> None:
    resources = json.loads(stack.RESOURCES.read_text())["Resources"]
    variables = resources[stack.SERVE]["Properties"]["Environment"]["Variables"]

    assert {name: variables[name] for name in RATES} == {
        "MUSTER_REST_RATE": {"Ref": "RestRate"},
        "MUSTER_SOCKET_RATE": {"Ref": "SocketRate"},
        "MUSTER_TABLE_READ_UNITS": {"Ref": "TableReadUnits"},
        "MUSTER_TABLE_WRITE_UNITS": {"Ref": "TableWriteUnits"},
    }


@pytest.mark.parametrize(("rest", "socket"), [(100, 100), (200, 200), (2_000, 9_999)])
def test_twenty_callers_that_take_all_they_may_fit_below_every_ceiling(
    rest: int, socket: int
) -> None:
    found = chosen(rest_rate=rest, socket_rate=socket)
    calls, frames = found.address_per_s * SPREAD_MORE, found.frames_per_s * SPREAD_MORE
    share = Share(replace(TOLD, rest_rate=rest, socket_rate=socket))

    assert CALLERS == 20
    assert 0 < CALLERS * calls <= rest
    assert 0 < CALLERS * frames <= socket
    assert share.calls(Meter(read=1000)) == share.calls(Meter(written=500)) == rest
    assert found.address_burst < 2 * rest, "as many as the stage takes at once"


def test_however_low_the_rates_one_caller_gets_what_a_household_of_three_browsers_needs() -> None:
    found = chosen(rest_rate=1, socket_rate=1)

    assert (found.address_per_s, found.address_burst, found.frames_per_s) == (4, 120, 1)


def test_as_it_comes_a_caller_may_take_as_many_units_with_its_calls_as_ever() -> None:
    """Ten units read, or five written, are as good as a call."""
    limits = Ceilings()
    told = Told(
        rest_rate=limits.rest_rate,
        socket_rate=limits.socket_rate,
        table_read_units=limits.read_units,
        table_write_units=limits.write_units,
    )

    assert Share(told).calls(Meter(read=10)) == Share(told).calls(Meter(written=5)) == 1
    assert limits.calls_per_s == 4
    burst = Share(told).settings()["MUSTER_ADDRESS_BURST"]
    assert int(limits.parameters()["RestBurst"]) >= int(burst), "what one address may call at once"


@on_stores
@pytest.mark.parametrize("settings", [RATES | {"MUSTER_ADDRESS_BURST": "7"}])
def test_what_an_operator_chose_goes_first(gateway: Gateway) -> None:
    limits = gateway.call("GET", "/v1/info").json()["limits"]

    assert (limits["address_burst"], limits["address_per_s"]) == (7, 4)


# --- files ----------------------------------------------------------------------------

on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
CLOSED = RATES | {"MUSTER_ACCESS": "closed"}


@on_sqlite
@pytest.mark.parametrize("settings", [CLOSED])
def test_one_address_pays_for_what_a_module_of_the_library_takes(gateway: Gateway) -> None:
    path, module = max(load().modules.items(), key=lambda one: len(one[1].body))
    pays, started = 1 + len(module.body) // CALL_BYTES, time.monotonic()

    answers = [gateway.call("GET", path, source_ip="198.51.100.7") for _ in range(100)]

    served = sum(answer.status == 200 for answer in answers)
    may = LEAST_CALLS * (BURST_S + time.monotonic() - started)
    assert pays > 2
    assert 0 < served * pays <= may + pays
    assert answers[-1].status == 429
    assert gateway.call("GET", "/v1/health", source_ip="198.51.100.8").status == 200


@on_sqlite
@pytest.mark.parametrize("settings", [CLOSED])
def test_all_addresses_together_get_of_files_what_a_container_may_send(gateway: Gateway) -> None:
    paths = itertools.cycle(load().modules)
    answers = [
        gateway.call("GET", path, source_ip=f"2001:db8:{number:x}::7")
        for number, path in zip(range(300), paths, strict=False)
    ]

    sent = sum(len(answer.body) for answer in answers if answer.status == 200)
    assert BURST_BYTES / 2 < sent <= BURST_BYTES * 1.2
    refused = next(answer for answer in answers if answer.status != 200)
    assert (refused.status, refused.headers["retry-after"]) == (429, "30")
    assert gateway.call("GET", "/v1/health", source_ip="2001:db8:ffff::7").status == 200


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8:{}::7"], ids=["one", "each its own"])
def test_a_new_container_sends_the_whole_app_to_a_circle_at_once(
    address: str, tmp_path: Path
) -> None:
    """Five who share an address, or as many as it may who have each their own."""
    visitors = VISITS_AT_ONCE if "{}" in address else 5
    web = web_app.as_packed(tmp_path / "web", random_bytes=int(0.86 * LOAD_BYTES))
    with aws.running("sqlite", directory=tmp_path, **CLOSED) as made:
        web_app.on_aws(made, web)
        served = AppFiles(web / "app", Library(web / "muster")).files
        names = sorted(set(served) - {"/app/vendor/LICENSES"})
        takes_gzip = [("Accept-Encoding", "gzip")]
        visits = [
            [
                made.call("GET", path, headers=takes_gzip, source_ip=address.format(visitor))
                for path in names
            ]
            for visitor in range(visitors)
        ]

    assert visitors >= 5
    assert {answer.status for visit in visits for answer in visit} == {200}
    for visit in visits:
        assert LOAD_BYTES * 0.95 < sum(len(answer.body) for answer in visit) <= LOAD_BYTES


# --- calls ----------------------------------------------------------------------------


@on_dynalite
def test_one_address_is_refused_long_before_the_stage_is_used_up(gateway: Gateway) -> None:
    started = time.time()
    for _ in range(4):
        gateway.start()
    answers = [
        gateway.call("GET", "/v1/health", machine=gateway.machines[n % 5]).status
        for n in range(400)
    ]
    other = gateway.call("GET", "/v1/health", source_ip="198.51.100.8")

    assert answers.count(200) <= most(4, 5, since=started)
    assert answers.count(429) == 400 - answers.count(200)
    assert other.status == 200


@on_dynalite
def test_the_doctor_gets_through(gateway: Gateway) -> None:
    with serving(gateway) as base, aws.environ({"MUSTER_WEBSOCKET_URL": _sockets(base)}):
        command = [sys.executable, "-m", "muster.cli", "doctor", base]
        done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def _sockets(base: str) -> str:
    return f"ws{base.removeprefix('http')}/v1/relay/ws"


# --- units ----------------------------------------------------------------------------


def fill(gateway: Gateway, member: Member, count: int, size: int) -> None:
    """Let so many nodes be in a circle, each of whose presences takes nearly *size* bytes."""
    stores, now = gateway.machines[0].module.host.service.stores, int(time.time())
    for number in range(count):
        endpoints: tuple[Any, ...] = ()
        peer = made = _peer(member.hint, f"fat-{number:05}", endpoints, now)
        while tables.presence_bytes(made) <= size and len(endpoints) < records.MAX_ENDPOINTS:
            peer, endpoints = made, (*endpoints, structs.from_json(FAT, records.Endpoint))
            made = _peer(member.hint, f"fat-{number:05}", endpoints, now)
        tables.save_presence(stores, peer)


def _peer(hint: str, node_id: str, endpoints: tuple[Any, ...], now: int) -> records.Peer:
    return records.Peer(
        node_id=node_id,
        circle_hint=hint,
        endpoints=endpoints,
        capabilities=records.Capabilities(),
        observed_at=now,
        expires_at=now + 600,
    )


@on_dynalite
@pytest.mark.parametrize("settings", [RATES | {"MUSTER_CIRCLE_MEMBERS": "10000"}])
def test_a_list_of_peers_reads_a_bounded_page_however_large_the_circle(gateway: Gateway) -> None:
    (ann,) = circle(gateway, "ann")
    fill(gateway, ann, 400, 1024)

    page = ann.ask("GET", "/v1/peers", query=f"circle_hint={ann.hint}&limit=200")

    assert len(page["peers"]) == 200
    assert used(gateway).read <= PAGE_UNITS


@on_dynalite
def test_a_circle_whose_members_take_all_its_room_takes_no_further_one(gateway: Gateway) -> None:
    ann, bob = (Member(gateway, f"{name}-00001", bytes(32)) for name in ("ann", "bob"))
    ann.register()
    fill(gateway, ann, 400, 1024)
    body = {"node_id": bob.node_id, "circle_hint": bob.hint, "signing_key": bob.key.hex()}

    answer = bob.call("POST", "/v1/register", body)

    assert (answer.status, answer.json()["code"]) == (409, "CIRCLE_FULL")
    assert used(gateway).read <= PAGE_UNITS + 1
    ann.register()


@on_stores
def test_a_presence_that_is_larger_than_a_kibibyte_is_refused_with_a_sentence(
    gateway: Gateway,
) -> None:
    (ann,) = circle(gateway, "ann")
    body = {"node_id": ann.node_id, "circle_hint": ann.hint, "endpoints": [FAT] * 4}

    answer = ann.call("POST", "/v1/register", body)

    assert (answer.status, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert answer.json()["message"] == "a presence may take 1024 bytes: name fewer endpoints"
    assert used(gateway).written <= 1, "the nonce"


@on_dynalite
@pytest.mark.parametrize(
    "endpoints",
    [
        [{"transport": "tcp", "host": "2001:db8:1:2:3:4:5:6", "port": 65535, "family": "ipv6"}] * 6,
        [{"transport": "ws", "host": "a" * 63 + ".example.org", "port": 443, "nat": "unknown"}] * 2,
        [],
    ],
)
def test_what_existing_clients_register_is_one_write_unit(
    gateway: Gateway, endpoints: list[Any]
) -> None:
    """They name one endpoint, their node ids have 24 or 32 digits and their hints 16."""
    node = Member(gateway, os.urandom(16).hex(), os.urandom(32))
    body = {
        "node_id": node.node_id,
        "circle_hint": node.hint,
        "endpoints": endpoints,
        "capabilities": {"relay": False, "transport": ["tcp", "ws"], "can_anchor": True},
        "ttl_s": 120,
        "signing_key": node.key.hex(),
    }
    node.ask("POST", "/v1/register", body)

    node.ask("POST", "/v1/register", body)

    assert used(gateway).written == 2, "the nonce and the presence"


@on_dynalite
def test_a_call_is_charged_what_it_reads(gateway: Gateway) -> None:
    """A page of 60 units is worth six calls, of which 120 may come at once."""
    (ann,) = circle(gateway, "ann")
    fill(gateway, ann, 240, 1024)
    query = f"circle_hint={ann.hint}"

    statuses = [ann.call("GET", "/v1/peers", query=query).status for _ in range(40)]

    assert statuses[0] == 200
    assert statuses.count(200) <= 24
    assert statuses[-1] == 429
    assert gateway.call("GET", "/v1/health").status == 429
    assert gateway.call("GET", "/v1/health", source_ip="198.51.100.8").status == 200


@on_dynalite
def test_who_opens_a_socket_is_charged_for_what_greeting_it_reads(gateway: Gateway) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    token = bob.token()
    for first in (0, 25):
        messages = [{"msg_id": f"m{n:07}", "text": "x" * 9_000} for n in range(first, first + 25)]
        body = dumps({"circle_hint": ann.hint, "messages": messages})
        headers = list(ann.signed("POST", "/v1/messages", body).items())
        address = f"203.0.113.{first}"
        gateway.call("POST", "/v1/messages", headers=headers, body=body, source_ip=address)

    opened = [opens(gateway, f"token={token}") for _ in range(9)]

    assert opened[0] == 200
    assert opened.count(200) <= 6, "each greeting reads 450 KB"
    assert opened[-1] == 429


def opens(gateway: Gateway, query: str) -> int:
    """Open a socket; return how the handshake was answered."""
    try:
        gateway.open(query)
    except HandshakeRefused as refusal:
        return refusal.answer.status
    return 200


# --- a closed service -------------------------------------------------------------------


@on_stores
@pytest.mark.parametrize("settings", [RATES | {"MUSTER_ACCESS": ""}])
def test_a_stranger_s_call_to_a_closed_service_reads_one_unit_at_most_and_writes_none(
    gateway: Gateway,
) -> None:
    eve = Member(gateway, "eve-00001", os.urandom(32))
    named = {"circle_hint": eve.hint, "node_id": eve.node_id}
    large = named | {"messages": [], "x": "[" * 1_000_000}
    gateway.call("GET", "/v1/health")
    query = f"circle_hint={eve.hint}&node_id={eve.node_id}"
    strangers: list[Callable[[], int]] = [
        lambda: eve.call("POST", "/v1/register", named | {"signing_key": eve.key.hex()}).status,
        lambda: eve.call("GET", "/v1/peers", query=query).status,
        lambda: gateway.call("GET", "/v1/messages", query=query).status,
        lambda: gateway.call("POST", "/v1/messages", body=dumps(large)).status,
        lambda: gateway.call("POST", "/announce", body=b'{"ticket":{}}').status,
        lambda: gateway.call("GET", "/peers").status,
    ]

    for call in strangers * 8:
        status, took = call(), used(gateway)
        assert status in (401, 403, 429)
        assert (took.read <= 1, took.written) == (True, 0)


# --- frames ---------------------------------------------------------------------------


@on_dynalite
def test_the_frames_of_all_sockets_of_an_address_count_together_on_all_machines(
    gateway: Gateway,
) -> None:
    ann, bob = circle(gateway, "ann", "bob")
    machines = [gateway.machines[0], *(gateway.start() for _ in range(4))]
    wires, started = [ann.subscribe(), bob.subscribe()], time.time()

    for number in range(600):
        wires[number % 2].send('{"t":"PING"}', machine=machines[number % 5])

    answers = [frame["t"] for wire in wires for frame in wire.frames()]
    assert answers.count("PONG") <= most(4, 5, since=started)
    assert answers.count("ERROR") == 600 - answers.count("PONG")
    stranger = circle(gateway, "eve")[0]
    wire = gateway.open(f"token={stranger.token()}", source_ip="198.51.100.8")
    wire.send('{"t":"PING"}', machine=machines[1])
    assert [frame["t"] for frame in wire.frames()] == ["PONG"]


@on_dynalite
def test_a_frame_costs_no_write(gateway: Gateway) -> None:
    (ann,) = circle(gateway, "ann")
    wire, other = ann.subscribe(), gateway.start()
    wire.send('{"t":"PING"}', machine=other)
    used(gateway, 1).clear()

    wire.send('{"t":"PING"}', machine=other)

    assert (used(gateway, 1).read, used(gateway, 1).written) == (0, 0)


def test_as_it_comes_ten_existing_browsers_in_six_households_are_never_refused() -> None:
    """Each makes 66 calls in 64 s, as counted; nobody's emulator throttles, so this reckons.

    The stage is a bucket of RestRate and RestBurst, as AWS says; behind it are the service's
    own limits, over three machines that take the calls in turns.
    """
    limits = Ceilings()
    rate, tokens, at = limits.rest_rate, float(limits.parameters()["RestBurst"]), 0.0
    told = Told(rest_rate=rate, socket_rate=limits.socket_rate)
    settings = Settings.from_environment(Share(told).settings())
    guard = open_sqlite(":memory:").guard
    machines = [Limits(guard, settings, spread=True) for _ in range(3)]
    households = [0, 0, 0, 1, 1, 1, 2, 2, 3, 4]
    calls = sorted(
        (period * 64 + first + number * 64 / 66, household)
        for first, household in enumerate(households)
        for period in range(10)
        for number in range(66)
    )
    for number, (clock, household) in enumerate(calls):
        tokens, at = min(120.0, tokens + (clock - at) * rate), clock
        assert tokens >= 1, "the stage refuses"
        tokens -= 1
        machines[number % 3].spend_address(f"198.51.100.{household}", clock=1_790_000_000 + clock)
