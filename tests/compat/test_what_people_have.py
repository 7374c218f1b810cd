"""What people have: folders, a copy, keys and caches that version 0.1 wrote, opened today.

They lie in tests/data/0.1 and are never made again; expected.json says what is in them.
Messages and pins expire, so what is kept is read at the second at which it was written;
a host and commands, which have no clock to choose, are asked what no time changes.
"""

import asyncio
import hashlib
import json
import os
import shutil
import sqlite3
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from capsules.errors import Reason, Refused
from capsules.keys import SigningKey, VerifyKey
from capsules.manifest import Document, Manifest, publish
from capsules.ticket import create
from capsules.trust import Accepted, State, accept, accept_pinned
from chalicelib.assist.pq_keys import decapsulate, exchange
from chalicelib.community.beacon import places
from chalicelib.community.key_files import read_publishing, read_root
from chalicelib.community.keyring import certificate, encode, revoked, root_key
from chalicelib.community.press import Press
from chalicelib.community.publisher import FILES, Terms, outcomes, write
from chalicelib.community.shelf import FolderShelf
from chalicelib.local.publishing_keys import KeyFolder
from chalicelib.store.sqlite import open_sqlite
from muster.backoff import Rim
from muster.bootstrap import Found, bootstrap
from muster.bootstrap.cache import Cache
from muster.bootstrap.sources import fragment
from muster.bootstrap.trusted import Trust
from muster.chat.store import Store
from muster.chat.talk import Talk
from muster.circle import Circle as Ours
from muster.cli.home import Home
from muster.felund.circle import Circle
from muster.felund.crypto import Unreadable, decrypt
from muster.felund.invite import Invite
from muster.records import GENERAL
from tests.cli.terminal import Terminal
from tests.support.circle import World, world
from tests.support.local import Server, running

DATA = Path(__file__).resolve().parents[1] / "data" / "0.1"
HAD: dict[str, Any] = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
NOW: int = HAD["now"]
SERVICE, HOME, TRUST, MAINTAINER = (
    HAD[name] for name in ("service", "home", "trust", "maintainer")
)
CIRCLES: dict[str, Any] = SERVICE["circles"]
COMMUNITIES: dict[str, Any] = SERVICE["communities"]
DATABASE = "muster.sqlite3"
A_DAY = "--publish-every=86400"
"""So that a host which starts soon after the folder was written publishes nothing anew."""

SIGNED = sorted(name for name, had in CIRCLES.items() if had["signed"])
SHOWN = {shown["folder"]: shown for shown in TRUST["shown"]}


# --- opening ----------------------------------------------------------------------


def copied(name: str, folder: Path) -> Path:
    """Copy what a person had, with the modes that git does not keep and today's file times."""
    source, target = DATA / name, folder / name
    if source.is_file():
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    else:
        shutil.copytree(source, target, copy_function=shutil.copyfile)
        for path in (target, *target.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
    return target


def restored(file: Path, folder: Path) -> Path:
    data = folder / "restored"
    Terminal(folder / "nobody").run("restore", str(file), "--data", str(data))
    return data


def in_place(folder: Path) -> Path:
    return copied("service", folder)


def from_the_copy(folder: Path) -> Path:
    return restored(copied("backup.tar", folder), folder)


def from_a_copy_made_today(folder: Path) -> Path:
    file, data = folder / "today.tar", copied("service", folder)
    Terminal(folder / "nobody").run("backup", str(file), "--data", str(data))
    return restored(file, folder)


@pytest.fixture(scope="module", params=[in_place, from_the_copy, from_a_copy_made_today])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as it was left, and as its copies bring it back."""
    make: Callable[[Path], Path] = request.param
    return make(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """The data folder, for one test to do with what it likes."""
    return Path(shutil.copytree(kept, tmp_path / "data"))


@pytest.fixture
def here(folder: Path) -> Iterator[World]:
    """The service over the folder, at the second at which it was left."""
    with closing(open_sqlite(folder / DATABASE)) as stores:
        opened = world(stores, unsigned=SERVICE["unsigned"])
        opened.clock = float(NOW)
        yield opened


# --- asking -----------------------------------------------------------------------


class Inside:
    """A circle that was there, seen by one of its nodes."""

    def __init__(self, here: World, name: str, node: str = "eve-00000005") -> None:
        self.had: dict[str, Any] = CIRCLES[name]
        self.circle = Circle.from_secret_hex(self.had["secret"])
        self._here = here
        self._node = node

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Make a call as the circle's clients make it; it must succeed."""
        signed = self.had["signed"]
        status, answer = self._here.call(
            method,
            path,
            body,
            query={name: str(value) for name, value in query.items()},
            node=self._node,
            key=self.circle.request_key if signed else None,
            headers=None if signed else {"x-felund-node": self._node},
        )
        assert status == 200, (path, answer)
        return answer

    def page(self, **query: Any) -> Any:
        return self.ask("GET", "/v1/messages", circle_hint=self.circle.circle_hint, **query)

    def leave(self, *envelopes: dict[str, Any]) -> Any:
        body = {"circle_hint": self.circle.circle_hint, "messages": envelopes}
        return self.ask("POST", "/v1/messages", body)

    def open(self, page: Any) -> list[dict[str, Any]]:
        like = self.had["entries"][0]["messages"][0]
        return [had_of(self.read(one), like) for one in page["messages"]]

    def read(self, envelope: dict[str, Any]) -> Any:
        """Decrypt an envelope; those in clear are kept as they came, and believed by nobody."""
        if "enc" in envelope:
            return decrypt(self.circle, envelope)
        with pytest.raises(Unreadable):
            decrypt(self.circle, envelope)
        return envelope


def said(entries: list[Any]) -> list[dict[str, Any]]:
    return [message for entry in entries for message in entry["messages"]]


def had_of(found: Any, had: dict[str, Any]) -> dict[str, Any]:
    """Return what *found* says of everything that *had* said; later versions may say more."""
    if isinstance(found, dict):
        return {name: found.get(name) for name in had}
    return {name: getattr(found, name) for name in had}


def verify_keys(info: Any) -> dict[str, str]:
    return {key["kid"]: key["verify_key"] for key in info["keys"]}


def announced(here: World, peer_id: str, community: str, signer: SigningKey) -> dict[str, Any]:
    """Leave a ticket, and return what is said of it."""
    ticket = create(
        signer,
        peer_id=peer_id,
        user_id="",
        now_ms=here.now * 1000,
        nonce=os.urandom(12),
        ttl_ms=3_600_000,
    )
    body = {"ticket": ticket.to_json()}
    status, answer = here.call(
        "POST", "/announce", body, query={"community": community}, headers={}
    )
    assert status == 200, answer
    return answer


# --- messages ---------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CIRCLES))
def test_every_message_is_read_in_order_and_at_its_cursor(here: World, name: str) -> None:
    inside = Inside(here, name)
    found, after, more = [], 0, True
    while more:
        page = inside.page(after=after, limit=1)
        after, more = page["cursor"], page["more"]
        if page["messages"]:
            found.append({"cursor": after, "messages": inside.open(page)})

    assert found == inside.had["entries"]
    assert len(found) > 1


@pytest.mark.parametrize("name", sorted(CIRCLES))
def test_who_asks_by_time_gets_every_message_too(here: World, name: str) -> None:
    inside = Inside(here, name)
    found: dict[str, Any] = {}
    since, more = 0, True
    while more:
        page = inside.page(since=since)
        found |= {note["msg_id"]: note for note in inside.open(page)}
        more = page["more"] and page["server_time"] > since
        since = page["server_time"]

    assert list(found.values()) == said(inside.had["entries"])


@pytest.mark.parametrize("name", sorted(CIRCLES))
def test_every_reader_goes_on_where_it_was_and_hears_what_comes_next(
    here: World, name: str
) -> None:
    inside = Inside(here, name)
    entries = inside.had["entries"]
    for place, entry in enumerate(entries):
        assert inside.open(inside.page(after=entry["cursor"])) == said(entries[place + 1 :])

    here.clock += 1
    left = inside.leave({"msg_id": "said-today", "created_ts": here.now})
    page = inside.page(after=entries[-1]["cursor"])

    assert left["stored"] == 1
    assert [message["msg_id"] for message in page["messages"]] == ["said-today"]
    assert page["cursor"] == left["cursor"] > entries[-1]["cursor"]


@pytest.mark.parametrize("name", sorted(CIRCLES))
def test_a_message_that_was_left_is_not_kept_twice(here: World, name: str) -> None:
    inside = Inside(here, name)
    messages = inside.page(after=0)["messages"]

    assert len(messages) == len(said(inside.had["entries"]))
    for message in messages:
        assert inside.leave(message)["stored"] == 0


# --- nodes and signals ------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CIRCLES))
def test_every_node_of_a_circle_is_seen_by_the_others(here: World, name: str) -> None:
    for node, had in CIRCLES[name]["peers"].items():
        inside = Inside(here, name, node)
        found = inside.ask("GET", "/v1/peers", circle_hint=inside.circle.circle_hint)["peers"]

        assert found == had != []


@pytest.mark.parametrize("name", sorted(CIRCLES))
def test_every_signal_waits_for_its_node_and_the_next_one_follows_it(
    here: World, name: str
) -> None:
    for node, had in CIRCLES[name]["signals"].items():
        inside = Inside(here, name, node)
        hint = {"circle_hint": inside.circle.circle_hint}
        assert inside.ask("GET", "/v1/signal", to_node_id=node, **hint)["signals"] == had

        pair = {"session_id": f"eve-00000005:{node}", "from_node_id": "eve-00000005"}
        signal = {"to_node_id": node, "type": "answer", "payload": "new"}
        left = Inside(here, name).ask("POST", "/v1/signal", pair | signal | hint)
        last = had[-1]["id"] if had else 0
        [new] = inside.ask("GET", "/v1/signal", to_node_id=node, since_id=last, **hint)["signals"]
        assert (new["id"], new["payload"]) == (left["id"], "new")


def test_somebody_who_names_no_circle_finds_the_signals_of_all(here: World) -> None:
    node, had = "ann-00000001", CIRCLES
    status, answer = here.call(
        "GET",
        "/v1/signal",
        query={"to_node_id": node},
        headers={"x-felund-node": node},
    )

    wanted = {s["payload"] for name in SIGNED for s in had[name]["signals"].get(node, ())}
    assert status == 200
    assert {signal["payload"] for signal in answer["signals"]} == wanted
    assert len(wanted) > 1


# --- who may speak ----------------------------------------------------------------


@pytest.mark.parametrize("name", SIGNED)
def test_a_pinned_key_lets_its_circle_in_and_refuses_another_key(here: World, name: str) -> None:
    inside = Inside(here, name)
    hint, thief = inside.circle.circle_hint, Circle(bytes(32)).request_key
    body = {"node_id": "mallory-0001", "circle_hint": hint, "signing_key": thief.hex()}
    bare = {"x-felund-node": "mallory-0001"}
    register = ("POST", "/v1/register", body)

    for answer in (
        here.call(*register, node="mallory-0001", key=thief),
        here.call(*register, headers=bare),
        here.call("GET", "/v1/messages", query={"circle_hint": hint}, key=thief),
    ):
        assert (answer[0], answer[1]["code"]) == (401, "INVALID_SIGNATURE")
    own = {"node_id": "eve-00000005", "signing_key": inside.circle.request_key.hex()}
    assert inside.ask("POST", "/v1/register", body | own)["ok"] is True


def test_a_call_that_was_made_is_not_made_again(here: World) -> None:
    spent = SERVICE["spent_call"]
    status, answer = here.call(
        spent["method"], spent["path"], query=spent["query"], headers=spent["headers"]
    )

    assert (status, answer["code"]) == (409, "NONCE_REPLAY")


def test_the_service_has_the_key_it_had(here: World) -> None:
    _, info = here.call("GET", "/v1/info", headers={})

    assert verify_keys(info)[SERVICE["kid"]] == SERVICE["verify_key"]


def test_a_token_that_was_given_is_still_good_and_a_changed_one_is_not(here: World) -> None:
    token, had = SERVICE["tokens"]["assist"]["token"], SERVICE["key_set"]
    head, claims, signature = token.split(".")
    spoilt = f"{head}.{claims}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"

    def advise(text: str) -> tuple[int, dict[str, Any]]:
        headers = {"authorization": f"Bearer {text}"}
        return here.call("POST", "/api/p2p/assist", {}, headers=headers)

    assert advise(spoilt)[0] == 401
    status, advice = advise(token)
    assert status == 200
    # That signature is made with chance, so it is another one each time, of the same key.
    signature = {"pq_signature_hex": advice["pq"]["pq_signature_hex"]}
    assert had_of(advice["pq"], had["answer"]) == had["answer"] | signature
    assert advice["security"]["multipath_sessions"] == had["sessions_counted"] + 1


def test_a_subscription_that_was_granted_opens_and_is_told_what_was_said_lately(
    here: World,
) -> None:
    inside = Inside(here, "family")
    connection = here.open("c-1", SERVICE["tokens"]["subscription"]["token"])
    told = here.gateway.take(connection.id)

    heard = [note for frame in told if frame["t"] == "MESSAGES" for note in inside.open(frame)]
    late = [n for n in said(inside.had["entries"]) if n["created_ts"] > NOW - 120]
    assert heard == late != []


def test_a_relay_session_that_was_open_takes_both_of_its_nodes(here: World) -> None:
    relay = SERVICE["tokens"]["relay"]
    (ann, ann_token), (bob, bob_token) = relay["tokens"].items()
    first, second = here.open("c-ann", ann_token), here.open("c-bob", bob_token)
    frame = {"t": "FRAME", "session_id": relay["session_id"], "seq": 1}
    payload = {"payload_b64": b64encode(b"hello").decode()}
    here.say(first, frame | payload)

    assert {"t": "ATTACHED", "session_id": relay["session_id"], "node_id": bob} in (
        here.gateway.take(first.id)
    )
    assert frame | payload | {"from": ann} in here.gateway.take(second.id)


def test_what_was_sealed_for_the_services_keys_is_opened(here: World) -> None:
    had = SERVICE["key_set"]
    key_id, sealed, shared = had["answer"]["key_id"], had["encapsulated"], had["exchanged"]
    ciphertext = bytes.fromhex(sealed["ciphertext_hex"])
    public = bytes.fromhex(shared["public_hex"])

    secret = decapsulate(here.service, key_id, ciphertext, now=NOW)
    agreed = exchange(here.service, key_id, public, now=NOW)

    assert (secret.hex(), agreed.hex()) == (sealed["secret_hex"], shared["shared_hex"])


# --- communities ------------------------------------------------------------------


@pytest.mark.parametrize("community", sorted(COMMUNITIES))
def test_every_ticket_is_listed_and_has_its_place(here: World, community: str) -> None:
    had = COMMUNITIES[community]["places"]
    _, answer = here.call("GET", "/peers", query={"community": community}, headers={})
    listed = {ticket["payload"]["peerId"]: ticket for ticket in answer["peers"]}
    kept = {
        place.peer_id: (place.slot.rstrip("0123456789"), place.since)
        for place in places(here.service, community, now=NOW)
    }

    assert listed == {peer_id: place["ticket"] for peer_id, place in had.items()}
    assert kept == {peer_id: (place["place"], place["since"]) for peer_id, place in had.items()}


def test_some_had_been_there_long_enough_for_a_lasting_place() -> None:
    found = [place["place"] for had in COMMUNITIES.values() for place in had["places"].values()]

    assert set(found) == {"long", "new"}  # ten minutes passed between two announces


@pytest.mark.parametrize("community", sorted(COMMUNITIES))
def test_a_name_stays_with_the_key_that_took_it(here: World, community: str) -> None:
    here.clock += 60
    for peer_id, had in COMMUNITIES[community]["places"].items():
        stolen = announced(here, peer_id, community, SigningKey(bytes(32)))
        own = announced(here, peer_id, community, SigningKey.from_base64(had["signing_key"]))

        assert (stolen["ok"], stolen["validation"]["reason"]) == (False, "PEER_ID_TAKEN")
        assert own["ok"] is True


def test_how_publishing_went_is_known(here: World) -> None:
    found = outcomes(here.service, now=NOW)

    assert {done.community: (done.sequence, done.peers) for done in found} == {
        name: (had["sequence"], len(had["published"])) for name, had in COMMUNITIES.items()
    }


def test_the_keys_to_publish_with_are_the_same(folder: Path) -> None:
    had = SERVICE["publishing"]
    keys, root = KeyFolder(folder / "keys"), read_root(folder / "keys" / "root.key")

    assert keys.prepare(now=NOW) is False
    found = certificate(keys.load(NOW))
    assert root.verify_key.to_base64() == SERVICE["capsule_root"]
    assert root_key(keys.load(NOW)) == root.verify_key
    assert (found.verify_key.to_base64(), found.serial) == (had["verify_key"], had["serial"])
    assert (found.not_before, found.expires_at) == (had["not_before"], had["expires_at"])
    assert found.communities is had["communities"] is None


def test_publishing_goes_on_and_clients_of_before_believe_it(here: World, folder: Path) -> None:
    here.clock += 60
    press = Press(here.service, FolderShelf(folder / "capsules"), KeyFolder(folder / "keys").load)
    done = {outcome.community: outcome for outcome in press.run(now=here.now)}

    state = remembered("service")
    assert set(done) == set(COMMUNITIES)
    for community, had in COMMUNITIES.items():
        assert (done[community].reason, done[community].failures) == ("", 0)
        assert done[community].sequence > had["sequence"]
        found = believe(state, folder / "capsules" / community, community, now=here.now)
        assert found.manifest is not None
        assert found.manifest.sequence == done[community].sequence
        assert {ticket.peer_id for ticket in found.tickets} == set(had["places"])


# --- a host -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Today's host in the folder of before."""
    folder = copied("service", tmp_path_factory.mktemp("host"))
    with running(folder, A_DAY, unsigned=SERVICE["unsigned"]) as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.errors()


def test_a_host_starts_and_is_who_it_was(server: Server) -> None:
    info = server.call("GET", "/v1/info").json()

    assert server.call("GET", "/v1/health").json()["ok"] is True
    assert verify_keys(info)[SERVICE["kid"]] == SERVICE["verify_key"]
    assert info["capsule_root"] == SERVICE["capsule_root"]
    assert SERVICE["capsule_root"] in server.greeting


def test_a_host_serves_what_was_published_byte_by_byte(server: Server) -> None:
    found = {
        path: hashlib.sha256(server.call("GET", f"/{path}").body).hexdigest()
        for path in SERVICE["files"]
    }

    assert len(found) == len(COMMUNITIES) * len(FILES)
    assert found == SERVICE["files"]


@pytest.mark.parametrize("community", sorted(COMMUNITIES))
def test_a_client_of_before_starts_again_from_that_host(
    server: Server, tmp_path: Path, community: str
) -> None:
    cache = copied("trust", tmp_path)
    key = fragment(VerifyKey.from_base64(SERVICE["capsule_root"]))
    url = f"{server.base}/capsules/{community}/peers.json"

    async def start() -> Found:
        rim = Rim(now=lambda: float(NOW))
        return await bootstrap(f"{url}#{key}", cache=cache, rim=rim, linger_s=None)

    found = asyncio.run(start())

    asked = {(str(one.source.kind), one.source.url): one for one in found.sources}
    assert asked["cache", str(cache)].ok, asked["cache", str(cache)]
    assert asked["capsule", url].sequence == COMMUNITIES[community]["sequence"]
    assert asked["capsule", url].ok, asked["capsule", url]
    assert {peer.peer_id for peer in found.peers} >= set(COMMUNITIES[community]["published"])


def test_people_of_before_talk_through_the_host_of_before(server: Server, tmp_path: Path) -> None:
    ann = Terminal(copied("home", tmp_path), server.base)
    ann.run("send", "--circle", "band", "--base", server.base, "are you still there?")

    words = ("listen", "--circle", "band", "--base", server.base, "--since", "all", "--json")
    with ann.running(*words) as listening:
        found = listening.until("are you still there")

    heard = json.loads(found.string)
    assert (heard["text"], heard["node_id"]) == ("are you still there?", HOME["node_id"])


def test_a_folder_is_whole_after_a_host_has_run_in_it(tmp_path: Path) -> None:
    folder = copied("service", tmp_path)
    with running(folder, A_DAY) as server:
        assert server.call("GET", "/v1/health").status == 200
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with closing(open_sqlite(folder / DATABASE)) as stores:
        again = world(stores)
        again.clock = float(NOW)
        _, info = again.call("GET", "/v1/info", headers={})
    assert verify_keys(info)[SERVICE["kid"]] == SERVICE["verify_key"]


# --- a home -----------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Terminal:
    return Terminal(copied("home", tmp_path))


def listed(home: Terminal) -> dict[str, Any]:
    lines = home.run("circle", "list", "--json").stdout.splitlines()
    return {told["circle"]: told for told in map(json.loads, lines)}


def test_a_home_lists_the_circles_it_had_and_means_the_same_one(home: Terminal) -> None:
    wanted = {
        name: {
            "circle": name,
            "circle_hint": Circle.from_secret_hex(had["secret"]).circle_hint,
            "base_url": had["base_url"],
            "default": name == HOME["default"],
        }
        for name, had in HOME["circles"].items()
    }
    found = listed(home)

    assert {name: had_of(told, wanted[name]) for name, told in found.items()} == wanted


def test_a_home_knows_its_node_its_secrets_and_how_far_it_read(home: Terminal) -> None:
    opened = Home(home.home)

    assert opened.node_id() == HOME["node_id"]
    found = {known.name: known for known in opened.memberships()}
    assert {name: known.circle.secret.hex() for name, known in found.items()} == {
        name: had["secret"] for name, had in HOME["circles"].items()
    }
    cursors = {name: opened.cursor(known, known.base_url) for name, known in found.items()}
    assert cursors == {**dict.fromkeys(found), **HOME["cursors"]}


@pytest.mark.parametrize("name", sorted(HOME["cursors"]))
def test_a_home_goes_on_reading_where_it_stopped(here: World, name: str) -> None:
    inside, cursor = Inside(here, name), HOME["cursors"][name]
    rest = [entry for entry in inside.had["entries"] if entry["cursor"] > cursor]

    assert 0 < len(rest) < len(inside.had["entries"])
    assert inside.open(inside.page(after=cursor)) == said(rest)


@pytest.mark.parametrize("name", sorted(HOME["invites"]))
def test_a_home_still_lets_others_in_by_the_same_code(
    home: Terminal, tmp_path: Path, name: str
) -> None:
    code = home.run("circle", "invite", "--circle", name).stdout.strip()
    guest = Terminal(tmp_path / "guest")
    guest.run("circle", "join", HOME["invites"][name])

    assert code == HOME["invites"][name]
    assert Invite.parse(code).circle.secret.hex() == HOME["circles"][name]["secret"]
    [joined] = listed(guest).values()
    assert joined["circle_hint"] == listed(home)[name]["circle_hint"]


def test_a_homes_circles_are_renamed_and_chosen_and_keep_what_they_had(home: Terminal) -> None:
    name = HOME["default"]
    home.run("circle", "rename", name, "renamed")
    home.run("circle", "use", "band")

    found = listed(home)
    assert set(found) == set(HOME["circles"]) - {name} | {"renamed"}
    assert [called for called, told in found.items() if told["default"]] == ["band"]
    opened = Home(home.home)
    renamed = opened.chosen("renamed")
    assert renamed.circle.secret.hex() == HOME["circles"][name]["secret"]
    assert opened.cursor(renamed, renamed.base_url) == HOME["cursors"][name]


def test_a_home_remembers_whom_it_found(home: Terminal) -> None:
    known = Cache(home.home / "bootstrap").known("mainnet")

    assert [ticket.peer_id for ticket in known.tickets] == HOME["bootstrap"]["peers"] != []


# --- trust ------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(copied("trust", tmp_path))


def remembered(whose: str) -> State:
    """Return what the cache of before holds of a root key."""
    state = Cache(DATA / "trust").state(VerifyKey.from_base64(TRUST["keys"][whose]))
    assert state is not None
    return state


def opened(cache: Cache, *whose: str) -> Trust:
    trust = Trust(cache)
    trust.open(VerifyKey.from_base64(TRUST["keys"][name]) for name in whose)
    return trust


def believe(state: State, folder: Path, community: str, *, now: int = NOW) -> Accepted:
    capsule, signature, manifest = ((folder / name).read_bytes() for name in FILES)
    return accept(state, manifest, capsule, signature, community=community, now=now)


@pytest.mark.parametrize("whose", sorted(TRUST["keys"]))
def test_a_cache_holds_what_it_learned_of_every_key(cache: Cache, whose: str) -> None:
    state = cache.state(VerifyKey.from_base64(TRUST["keys"][whose]))

    assert state is not None
    had = TRUST["states"][whose]
    assert state.root.version == had["root"]["version"]
    assert state.root.verify_key.to_base64() == had["root"]["verify_key"]
    assert state.revocations == had["revocations"]["version"]
    assert sorted(state.revoked) == had["revocations"]["verify_keys"]
    like = had["memories"][0]
    assert [had_of(memory, like) for memory in state.memories] == had["memories"]


def test_the_states_hold_enough_to_be_worth_keeping() -> None:
    had = TRUST["states"]

    assert len(had["service"]["memories"]) == 2
    assert had["maintainer"]["root"]["version"] == 2
    assert len(had["maintainer"]["revocations"]["verify_keys"]) == 2
    assert had["pinned"]["memories"][0]["pinned"] is True
    assert {shown.get("refused") for shown in TRUST["shown"]} >= {"ROLLBACK", None}


@pytest.mark.parametrize("name", [n for n, shown in SHOWN.items() if "refused" in shown])
def test_what_was_published_earlier_is_refused_as_it_was(name: str) -> None:
    shown = SHOWN[name]
    with pytest.raises(Refused) as caught:
        believe(remembered(shown["root"]), DATA / name, shown["community"])

    assert str(caught.value.reason) == shown["refused"]


@pytest.mark.parametrize("later", [-60, 60])
def test_a_cache_of_before_knows_what_is_older_also_by_another_key(
    later: int, tmp_path: Path
) -> None:
    state = remembered("service")
    when = max(memory.sequence for memory in state.memories if memory.community == "mainnet")
    root = read_root(copied("service/keys", tmp_path) / "root.key")
    other = root.certify(SigningKey(bytes(32)), now=when)
    published = publish(other, (), community="mainnet", now=when + later)

    def shown() -> Accepted:
        return accept(
            state, published.manifest, published.capsule, community="mainnet", now=when + 60
        )

    if later > 0:
        assert shown().fresh
        return
    with pytest.raises(Refused) as caught:
        shown()
    assert caught.value.reason == Reason.ROLLBACK


@pytest.mark.parametrize("name", [n for n, shown in SHOWN.items() if "peers" in shown])
def test_what_is_published_is_believed(name: str) -> None:
    shown = SHOWN[name]
    state = remembered(shown["root"])

    found = believe(state, DATA / name, shown["community"])

    assert set(found.state.memories) == set(state.memories)  # nothing in it was news
    assert found.manifest is not None
    assert found.manifest.sequence == shown["sequence"]
    assert [ticket.peer_id for ticket in found.tickets] == shown["peers"] != []


def test_a_clock_that_was_turned_back_is_noticed() -> None:
    with pytest.raises(Refused) as caught:
        believe(remembered("service"), DATA / "service/capsules/mainnet", "mainnet", now=NOW - 3600)

    assert caught.value.reason == Reason.CLOCK_WRONG


def test_a_key_that_was_revoked_is_not_believed_even_where_it_was_pinned(cache: Cache) -> None:
    pinned = VerifyKey.from_base64(TRUST["keys"]["pinned"])
    capsule = (DATA / "seen" / "by-hand-1" / FILES[0]).read_bytes()
    alone = remembered("pinned")
    assert accept_pinned(alone, capsule, pinned, community="book-club", now=NOW).tickets

    trust = opened(cache, *TRUST["keys"])
    with pytest.raises(Refused) as caught:
        trust.accept_pinned(pinned, capsule, community="book-club", now=NOW)

    assert caught.value.reason == Reason.REVOKED_KEY
    assert trust.known("book-club", now_ms=NOW * 1000)[1] == {"REVOKED_KEY": 1}
    assert trust.damage == []


@pytest.mark.parametrize("community", sorted(TRUST["known"]))
def test_a_cache_knows_who_was_there_and_where_to_look(cache: Cache, community: str) -> None:
    had = TRUST["known"][community]
    trust = opened(cache, "service")

    known, skipped = trust.known(community, now_ms=NOW * 1000)

    assert [ticket.peer_id for ticket in known.tickets] == had["peers"] != []
    assert not skipped
    looked = [
        [str(place.kind), place.url, place.key.to_base64() if place.key else ""]
        for place in known.places
    ]
    assert looked == had["places"] != []
    assert trust.damage == []


def test_a_node_signs_its_tickets_with_the_key_it_had(cache: Cache) -> None:
    signer = cache.signing_key(os.urandom)

    assert signer.verify_key.to_base64() == TRUST["node_verify_key"]


# --- a maintainer -----------------------------------------------------------------


@pytest.fixture
def maintainer(tmp_path: Path) -> Path:
    return copied("maintainer", tmp_path)


def test_a_maintainers_keys_are_what_they_were(maintainer: Path) -> None:
    first, second = read_root(maintainer / "root.key"), read_root(maintainer / "root-2.key")
    keys = read_publishing(maintainer / "keys")

    assert first.verify_key.to_base64() == MAINTAINER["root_1"]
    assert second.verify_key.to_base64() == MAINTAINER["root_2"]
    assert second.documents[:1] == first.documents
    assert root_key(keys) == second.verify_key
    assert keys.key.verify_key.to_base64() == MAINTAINER["online_2"]
    assert certificate(keys).communities == (MAINTAINER["community"],)
    assert sorted(second.revoked) == sorted(revoked(keys)) == sorted(MAINTAINER["revoked"])


def test_a_maintainer_rotates_and_revokes_on_with_the_keys_of_before(maintainer: Path) -> None:
    terminal, keys = Terminal(maintainer), str(maintainer / "keys")
    root = ("--root", str(maintainer / "root-2.key"), "--keys", keys)
    terminal.run("capsule", "rotate", "--online", *root)
    terminal.run("capsule", "revoke", MAINTAINER["online_2"], *root)
    terminal.run("capsule", "rotate", "--new-root", str(maintainer / "root-3.key"), *root)

    third, found = read_root(maintainer / "root-3.key"), read_publishing(maintainer / "keys")
    assert third.documents[:2] == read_root(maintainer / "root-2.key").documents
    assert root_key(found) == third.verify_key
    assert set(revoked(found)) == {*MAINTAINER["revoked"], MAINTAINER["online_2"]}


def test_a_maintainer_publishes_on_and_clients_of_before_believe_it(maintainer: Path) -> None:
    community, later = MAINTAINER["community"], NOW + 60
    folder = maintainer / "published"
    before = believe(remembered("maintainer"), folder / community, community)
    renewed = read_root(maintainer / "root-2.key").renew(
        read_publishing(maintainer / "keys"), now=later
    )
    (maintainer / "keys" / "publishing.key").write_bytes(encode(renewed))
    terms = Terms(read_publishing(maintainer / "keys"))
    write(FolderShelf(folder), terms, before.tickets, community=community, now=later)

    found = believe(before.state, folder / community, community, now=later)

    assert found.manifest is not None
    assert found.manifest.sequence == later > MAINTAINER["sequences"][-1]
    with pytest.raises(Refused) as caught:
        believe(found.state, DATA / "maintainer/published" / community, community, now=later)
    assert caught.value.reason == Reason.ROLLBACK


def test_publishing_by_hand_remembers_when_it_last_worked(maintainer: Path) -> None:
    community, published = MAINTAINER["community"], maintainer / "published"
    kept = {name: (published / community / name).read_bytes() for name in FILES}
    words = ("--community", community, "--keys", str(maintainer / "keys"), "--out", str(published))
    said = Terminal(maintainer).run(
        "capsule", "publish", "--beacon", "http://127.0.0.1:1", *words, expect=1
    )

    assert "ALARM" not in said.stderr
    known = json.loads((published / ".muster-publish.json").read_text())[community]
    assert known["last_success_at"] == MAINTAINER["last_success_at"]
    assert known["failures"] == 1
    assert {name: (published / community / name).read_bytes() for name in FILES} == kept
    last = Manifest.from_json(Document.parse(kept[FILES[2]]).manifest.payload)
    assert last.sequence == MAINTAINER["sequences"][-1]


def test_a_circle_of_version_2_of_before_the_chat_opens_and_has_all_that_was_said(
    tmp_path: Path,
) -> None:
    path = tmp_path / "circle.muster2"
    shutil.copyfile(DATA / "circle.muster2", path)
    path.chmod(0o600)

    with closing(Ours.open(path)) as circle, closing(Store.open(None)) as store:
        talk = Talk(store, circle)
        talk.catch_up()

        assert {message.text for message in talk.page(GENERAL)} == {
            "hello from Ada",
            "hello from Bob",
        }
        assert set(talk.facts.names.values()) == {"Ada", "Bob"}
        assert [pending.text for pending in talk.pending(GENERAL)] == ["not said so far"]
        assert not circle.file.is_copy  # it speaks: nothing marks a copy of then
