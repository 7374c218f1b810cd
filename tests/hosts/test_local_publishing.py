"""Publishing on one machine: the files over HTTP, the keys on the disk, and what can go wrong."""

import json
import os
import shlex
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capsules import manifest, trust
from capsules.keys import VerifyKey
from chalicelib.call import Call, Reply
from chalicelib.community import key_files, keyring
from chalicelib.community.keyring import DAY_S, Unusable
from chalicelib.community.publisher import FILES
from chalicelib.local.metrics import publishing_metrics
from chalicelib.local.publishing import KEPT_S, NAMED, FolderPublishing
from chalicelib.local.publishing_keys import KeyFolder, notice
from muster import whole_file
from muster.cli import main
from tests.support import local
from tests.support.circle import World, world
from tests.support.local import Server
from tests.unit.test_beacon import Node

CAPSULE, SIGNATURE, MANIFEST = (f"/capsules/mainnet/{name}" for name in FILES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has published a capsule with one ticket."""
    with local.running(tmp_path_factory.mktemp("data")) as running:
        here = world()
        here.clock = time.time()
        body = json.dumps({"ticket": Node(1).ticket(here)}).encode()
        assert running.call("POST", "/announce", body).json()["ok"] is True
        deadline = time.monotonic() + 15
        while running.call("GET", MANIFEST).status != 200:
            assert time.monotonic() < deadline, "it was not published"
            time.sleep(0.05)
        yield running


# --- over HTTP --------------------------------------------------------------------


def test_a_capsule_is_fetched_as_browsers_need_it(server: Server) -> None:
    answer = server.call("GET", CAPSULE, headers={"Origin": "https://app.example"})

    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "ETag" in answer.headers["access-control-expose-headers"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "public, max-age=30, stale-if-error=600"
    assert server.call("GET", SIGNATURE).headers["content-type"] == "text/plain"
    assert server.call("GET", SIGNATURE).body.decode() == answer.json()["signature"]


def test_the_root_key_of_info_is_the_capsules(server: Server) -> None:
    key = server.call("GET", "/v1/info").json()["capsule_root"]
    described = server.call("GET", MANIFEST).body

    accepted = trust.accept(
        trust.begin(VerifyKey.from_base64(key)),
        described,
        server.call("GET", CAPSULE).body,
        community="mainnet",
        now=int(time.time()),
    )

    assert [ticket.peer_id for ticket in accepted.tickets] == ["peer-1"]


def test_what_a_reader_has_already_is_not_sent_again(server: Server) -> None:
    tag = server.call("GET", CAPSULE).headers["etag"]

    for condition in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = server.call("GET", CAPSULE, headers={"If-None-Match": condition})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert "content-length" not in again.headers
    assert server.call("GET", CAPSULE, headers={"If-None-Match": '"other"'}).status == 200


def test_a_head_is_a_get_without_its_body(server: Server) -> None:
    head, got = server.call("HEAD", CAPSULE), server.call("GET", CAPSULE)

    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(got.body))
    assert head.headers["etag"] == got.headers["etag"]


def test_a_preflight_lets_a_browser_ask_conditionally(server: Server) -> None:
    answer = server.call("OPTIONS", CAPSULE)

    assert answer.status == 204
    assert "If-None-Match" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "path",
    [
        "/capsules/",
        "/capsules/mainnet",
        "/capsules/mainnet/",
        "/capsules/other/peers.json",
        "/capsules/mainnet/peers.json.new",
        "/capsules/mainnet/.lock",
        "/capsules/mainnet/PEERS.JSON",
        "/capsules/../muster.sqlite3",
        "/capsules/../keys/publishing.key",
        "/capsules/..%2fkeys/publishing.key",
        "/capsules/%2e%2e/keys/root.key",
        "/capsules/mainnet/../../keys/root.key",
        "/capsules/mainnet%00/peers.json",
        "/capsules//peers.json",
        "/capsules/mainnet/peers.json/",
        "/capsules/mainnet/peers.json%0a",
    ],
)
def test_nothing_else_is_served(server: Server, path: str) -> None:
    answer = server.call("GET", path)

    assert answer.status == 404
    assert answer.json()["code"] == "NOT_FOUND"
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nobody_writes_there(server: Server, method: str) -> None:
    answer = server.call(method, CAPSULE)

    assert (answer.status, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


def test_keys_are_their_owners_alone(server: Server) -> None:
    keys = server.directory / "keys"

    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()} == {0o600}
    assert sorted(os.listdir(keys)) == ["publishing.key", "root.key"]


# --- the keys ---------------------------------------------------------------------

NOW = int(time.time())


def test_keys_are_made_once(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "keys")

    assert keys.prepare(now=NOW) is True
    made = keys.load(NOW)
    assert keys.prepare(now=NOW) is False
    assert KeyFolder(tmp_path / "keys").load(NOW) == made
    assert "were made" in notice(keys, "http://h", made=True, now=NOW)


def test_keys_that_somebody_brings_are_read_at_the_next_run(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path)
    keys.prepare(now=NOW)
    old = keys.load(NOW)
    root = key_files.read_root(keys.root_path)
    whole_file.write(tmp_path / "publishing.key", keyring.encode(root.renew(old, now=NOW)))

    assert keyring.certificate(keys.load(NOW)).serial > keyring.certificate(old).serial


def test_a_certificate_is_renewed_while_the_root_key_is_here(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path)
    keys.prepare(now=NOW)
    later = NOW + 70 * DAY_S

    assert keyring.certificate(keys.load(later)).expires_at == later + 90 * DAY_S


def test_without_the_root_key_an_end_is_told_in_time(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path)
    keys.prepare(now=NOW)
    keys.root_path.unlink()
    later = NOW + 80 * DAY_S

    assert keyring.certificate(keys.load(later)).expires_at == NOW + 90 * DAY_S
    assert "10 more days" in notice(keys, "http://h", made=False, now=later)
    assert "more days" not in notice(keys, "http://h", made=False, now=NOW)


def test_another_root_key_in_the_folder_renews_nothing(tmp_path: Path) -> None:
    keys, other = KeyFolder(tmp_path / "a"), KeyFolder(tmp_path / "b")
    for made in (keys, other):
        made.prepare(now=NOW)
    keys.root_path.unlink()
    other.root_path.rename(keys.root_path)
    later = NOW + 80 * DAY_S

    assert keyring.certificate(keys.load(later)).expires_at == NOW + 90 * DAY_S


def test_keys_that_others_can_read_are_not_used(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path)
    keys.prepare(now=NOW)
    (tmp_path / "publishing.key").chmod(0o640)

    with pytest.raises(Unusable, match="others can read"):
        KeyFolder(tmp_path).prepare(now=NOW)


# --- the runs ---------------------------------------------------------------------


class Desk:
    """Publishing over a service in memory."""

    def __init__(self, folder: Path, *, every_s: int = 300) -> None:
        self.here: World = world(address_burst=10**6, address_per_s=10**6)
        self.here.clock = time.time()
        self.keys = KeyFolder(folder / "keys")
        self.keys.prepare(now=self.here.now)
        self.folder = folder / "capsules"
        self.publishing = self.open(every_s)

    def open(self, every_s: int = 300) -> FolderPublishing:
        return FolderPublishing(
            self.here.service,
            keys=self.keys,
            folder=self.folder,
            every_s=every_s,
            now=self.here.now,
        )

    def announce(self, number: int, community: str = "mainnet") -> None:
        self.here.clock = time.time()
        body = json.dumps({"ticket": Node(number).ticket(self.here)}).encode()
        call = Call("POST", "/announce", {"community": community}, body=body, clock=self.here.clock)
        self.publishing.heard(call, self.here.reply(call))

    def shown(self) -> Any:
        return self.publishing.to_json(now=int(time.time()))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_community_that_comes_to_life_is_due_at_once(desk: Desk) -> None:
    desk.publishing.run()
    assert not desk.publishing.due(int(time.time()))

    desk.announce(1)
    assert desk.publishing.due(int(time.time()))
    desk.publishing.run()

    assert (desk.folder / "mainnet" / MANIFEST.rpartition("/")[2]).exists()
    assert [found["community"] for found in desk.shown()["communities"]] == ["mainnet"]
    desk.announce(2)
    assert not desk.publishing.due(int(time.time())), "it was published a moment ago"
    assert desk.publishing.due(int(time.time()) + 300)


def test_a_restart_waits_for_its_time(desk: Desk) -> None:
    desk.announce(1)
    desk.publishing.run()

    again = desk.open()

    assert not again.due(int(time.time()))
    assert [found.community for found in again.outcomes(now=int(time.time()))] == ["mainnet"]


@pytest.mark.parametrize(
    ("query", "body", "community"),
    [
        ({"community": "a"}, b'{"community":"b"}', "a"),
        ({}, b'{"community":"b"}', "b"),
        ({}, b'{"community":1}', "mainnet"),
        ({}, b"{}", "mainnet"),
        ({}, b"nobody has read this", "mainnet"),
    ],
)
def test_the_community_is_the_one_that_the_beacon_reads(
    desk: Desk, query: dict[str, str], body: bytes, community: str
) -> None:
    call = Call("POST", "/announce", query, body=body, clock=time.time())

    desk.publishing.heard(call, Reply(200))

    assert desk.publishing._announced == {community}


def test_a_refused_announce_brings_nothing_to_life(desk: Desk) -> None:
    desk.publishing.run()
    call = Call("POST", "/announce", {"community": "x"}, clock=time.time())

    desk.publishing.heard(call, Reply(200, code="EXPIRED"))
    desk.publishing.heard(call, Reply(400))

    assert not desk.publishing.due(int(time.time()))


def test_a_folder_that_cannot_be_written_is_counted_and_shown(desk: Desk) -> None:
    desk.folder.mkdir()
    (desk.folder / "mainnet").write_text("in the way")
    desk.announce(1)

    desk.publishing.run()

    [shown] = desk.shown()["communities"]
    assert (shown["failures"], shown["alarm"]) == (1, False)
    assert "cannot" in shown["reason"]


def test_keys_that_disappear_are_counted_and_hurt_nobody(desk: Desk) -> None:
    (desk.keys.root_path.parent / "publishing.key").unlink()
    desk.announce(1)

    desk.publishing.run()

    [shown] = desk.shown()["communities"]
    assert "No such file" in shown["reason"]


def test_folders_of_silent_communities_are_cleared_away(desk: Desk) -> None:
    desk.announce(1)
    desk.announce(2, "silent")
    desk.publishing.run()
    long_ago = time.time() - KEPT_S - 60
    os.utime(desk.folder / "silent" / FILES[2], (long_ago, long_ago))

    desk.open(every_s=1)._tidy(int(time.time()))

    assert sorted(os.listdir(desk.folder)) == ["mainnet"]


def test_a_folder_without_a_manifest_stops_no_tidying_and_goes_at_its_age(desk: Desk) -> None:
    for number in range(20):
        desk.announce(number, f"silent-{number}")
    desk.publishing.run()
    long_ago = time.time() - KEPT_S - 60
    for folder in desk.folder.iterdir():
        os.utime(folder / FILES[2], (long_ago, long_ago))
    for name, at in (("empty", long_ago), ("fresh", time.time())):
        (desk.folder / name).mkdir()
        os.utime(desk.folder / name, (at, at))
    (desk.folder / "a-file").touch()

    desk.open(every_s=1)._tidy(int(time.time()))

    assert sorted(os.listdir(desk.folder)) == ["a-file", "fresh"]


def test_tidying_where_nothing_was_published_is_no_error(desk: Desk) -> None:
    desk.publishing._tidy(int(time.time()))


def test_few_communities_are_named_and_the_others_counted(desk: Desk) -> None:
    for number in range(NAMED + 5):
        desk.announce(number, f"community-{number}")
    for number in range(3):
        desk.announce(100 + number, "large")
    desk.folder.mkdir()
    (desk.folder / "community-53").write_text("in the way")
    desk.publishing.run()

    shown = desk.shown()

    named = [found["community"] for found in shown["communities"]]
    assert named[:2] == ["community-53", "large"]
    assert len(named) == NAMED
    assert shown["others"] == {"communities": 6, "peers": 6, "failures": 0}
    metrics = {metric.name: metric for metric in publishing_metrics(shown)}
    assert len(metrics["muster_publish_peers"].samples) == NAMED
    assert metrics["muster_publish_other_communities"].samples[0].value == 6
    assert metrics["muster_publish_other_peers"].samples[0].value == 6
    assert metrics["muster_publish_other_failures"].samples[0].value == 0


def test_the_command_that_renews_is_one_there_is(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path)
    keys.prepare(now=NOW)
    root = tmp_path / "away.key"
    keys.root_path.rename(root)

    said = notice(keys, "http://h", made=False, now=NOW + 80 * DAY_S)

    [command] = [line.split("'")[1] for line in said.splitlines() if "rotate" in line]
    before = keys.load(NOW)
    assert main.main(shlex.split(command.replace("FILE", str(root)))[1:]) == 0
    assert keys.load(NOW).key != before.key


def test_after_the_stop_no_run_begins(desk: Desk) -> None:
    desk.announce(1)
    desk.publishing.stop()

    desk.publishing.run()

    assert not desk.folder.exists()


def test_sequences_are_the_seconds_of_their_runs(desk: Desk) -> None:
    desk.announce(1)
    before = int(time.time())
    desk.publishing.run()

    found = manifest.sequence_of((desk.folder / "mainnet" / FILES[2]).read_bytes())
    assert before <= found <= time.time()
