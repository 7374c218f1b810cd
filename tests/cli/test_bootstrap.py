"""`muster bootstrap` and `muster capsule fetch`, on a service that was just started."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from muster.bootstrap import sources
from muster.cli.bars import bar
from tests.cli.terminal import Terminal
from tests.support import node
from tests.support.community import Community, key
from tools import loopback
from tools.loopback import Place, publishes, says

COMMUNITY = "town"
ROOT = Path(__file__).parents[2]


class Service(NamedTuple):
    """A service to which two nodes have announced, and what it printed when it started."""

    base: str
    root_key: str
    terminal: Terminal

    @property
    def capsule(self) -> str:
        return f"{self.base}/capsules/{COMMUNITY}/peers.json#{self.root_key}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = Terminal(tmp_path_factory.mktemp("home"))
    data = str(tmp_path_factory.mktemp("data"))
    with ExitStack() as stack:
        running = stack.enter_context(
            home.running("serve", "--port=0", "--publish-every=1", f"--data={data}")
        )
        base = running.until(r"listens on (http://\S+)")[1]
        root_key = running.until(r"root key  (\S+)")[1]
        for name in ("ann", "bob"):
            home.run(
                *("bootstrap", "--beacon", base, "--community", COMMUNITY, "--announce"),
                *("--peer-id", name, "--cache", str(home.home / name)),
                expect=1 if name == "ann" else 0,  # the first finds nobody yet
            )
        made = Service(base, root_key, home)
        _wait_for_both(made)
        yield made


def _wait_for_both(service: Service) -> None:
    deadline = time.monotonic() + 30
    while True:
        command = ("capsule", "fetch", service.capsule, "--json")
        done = subprocess.run(
            [sys.executable, "-m", "muster.cli", *command],
            env=service.terminal.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0 and len(json.loads(done.stdout)["peers"]) == 2:
            return
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.2)


def test_two_nodes_announce_and_the_capsule_is_fetched_by_the_printed_root_key(
    service: Service, tmp_path: Path
) -> None:
    done = service.terminal.run("capsule", "fetch", service.capsule, "--out", str(tmp_path))

    assert "is good" in done.stdout
    for name in ("ann", "bob", f"community    {COMMUNITY}"):
        assert name in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "peers.json",
        "peers.json.manifest",
        "peers.json.sig",
    }
    checked = service.terminal.run(
        *("capsule", "verify", str(tmp_path), "--root", service.root_key),
        *("--community", COMMUNITY),
    )
    assert checked.returncode == 0


def test_the_javascript_module_fetches_the_same_in_node(service: Service) -> None:
    script = """
    import { fetchCapsule } from "./web/muster/bootstrap/index.js";
    const [url, root, community] = process.argv.slice(1);
    const tries = async (left) => {  // the service publishes each second, between two reads
      try {
        return await fetchCapsule(url, { root, community });
      } catch (error) {
        if (left === 0) throw error;
        await new Promise((wait) => setTimeout(wait, 300));
        return tries(left - 1);
      }
    };
    const found = await tries(3);
    console.log(JSON.stringify(found.tickets.map((ticket) => ticket.peerId)));
    """
    url = service.capsule.partition("#")[0]
    done = subprocess.run(
        [node.executable(), "--input-type=module", "-e", script, url, service.root_key, COMMUNITY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(done.stdout)) == ["ann", "bob"]


def test_bootstrap_prints_who_where_from_and_how_long_each_source_took(
    service: Service,
) -> None:
    gone = loopback.nobody()
    done = service.terminal.run(
        *("bootstrap", "--capsule", service.capsule, "--beacon", gone),
        *("--beacon", service.base, "--peer-id", "ann"),
    )
    lines = done.stdout.splitlines()
    assert any(line.startswith("✓") and "capsule http" in line for line in lines)
    assert any(line.startswith("✗") and "UNREACHABLE" in line and " ms" in line for line in lines)
    peer = next(line for line in lines if line.startswith("bob"))
    assert "s left  from" in peer
    assert f"beacon {service.base}" in peer
    assert not any(line.startswith("ann") for line in lines)
    assert "the first after" in lines[-1]
    assert "█" in done.stdout


def test_bootstrap_for_programs(service: Service) -> None:
    done = service.terminal.run("bootstrap", "--capsule", service.capsule, "--json")
    told = json.loads(done.stdout)
    assert told["ok"]
    assert {peer["peer_id"] for peer in told["peers"]} == {"ann", "bob"}
    assert told["first_peer_ms"] > 0
    assert told["community"] == COMMUNITY


def test_a_name_that_is_taken_is_said_and_peers_are_found_all_the_same(service: Service) -> None:
    done = service.terminal.run(
        *("bootstrap", "--beacon", service.base, "--community", COMMUNITY, "--announce"),
        *("--peer-id", "ann", "--cache", str(service.terminal.home / "thief")),
    )
    assert "not announced: PEER_ID_TAKEN" in done.stdout
    assert "bob" in done.stdout


def test_a_wrong_key_finds_nobody_and_gets_a_hint(service: Service, tmp_path: Path) -> None:
    wrong = sources.fragment(key("mallory").verify_key)
    url = f"{service.base}/capsules/{COMMUNITY}/peers.json#{wrong}"
    done = service.terminal.run(
        *("bootstrap", "--capsule", url, "--cache", str(tmp_path)), expect=1
    )
    assert "ROOT_CHAIN_BROKEN" in done.stdout
    assert "compare the key" in done.stderr
    assert "compare the key" in service.terminal.fails(
        "capsule", "fetch", url, "--cache", str(tmp_path)
    )


def test_nobody_there_yet(service: Service) -> None:
    done = service.terminal.run(
        "bootstrap", "--beacon", service.base, "--community", "desert", expect=1
    )
    assert "perhaps nobody is there" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bootstrap",), "nowhere to look"),
        (("bootstrap", "--beacon", "x"), "is not a URL"),
        (("bootstrap", "--beacon", "http://a", "--announce"), "needs a --peer-id"),
        (("bootstrap", "--capsule", "http://a/b"), "needs the key"),
        (("bootstrap", "--beacon", "http://a", "--deadline", "x"), "not a number of seconds"),
        (("bootstrap", "--beacon", "http://a", "--announce", "--peer-id", "x" * 300), "256 bytes"),
        (("capsule", "fetch", "http://a/b"), "needs the key"),
    ],
)
def test_it_says_how_it_wants_to_be_called(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in Terminal(tmp_path).fails(*words, expect=2)


# --- without a service ----------------------------------------------------------


async def _fetch(us: Community, place: Place, terminal: Terminal, *words: str) -> str:
    async with place:
        url = us.pinned_url(place.url) if "--pinned" in words else us.url(place.url)
        rest = [word for word in words if word != "--pinned"]
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "muster.cli", "capsule", "fetch", url, *rest],
            env=terminal.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def test_a_pinned_capsule_is_fetched_by_its_own_key(tmp_path: Path) -> None:
    us = Community()
    place = Place({"/peers.json": says(us.pinned("ann"))})
    said = asyncio.run(_fetch(us, place, Terminal(tmp_path), "--pinned"))
    assert said.startswith("0\n")
    assert "ann" in said
    assert "root version" not in said


def test_rollback_is_remembered_between_two_runs(tmp_path: Path) -> None:
    us = Community()
    older = Community(now=us.now - 60)
    terminal = Terminal(tmp_path)
    first = asyncio.run(_fetch(us, Place(publishes(us.publish("a"))), terminal))
    assert first.startswith("0\n")
    said = asyncio.run(_fetch(us, Place(publishes(older.publish("a"))), terminal))
    assert said.startswith("1\nmuster: ROLLBACK")
    for path in (tmp_path / "bootstrap").iterdir():
        path.write_text("{")
    said = asyncio.run(_fetch(us, Place(publishes(us.publish("a"))), terminal))
    assert "damaged" in said


def test_what_hangs_or_tampers_is_named(tmp_path: Path) -> None:
    us = Community()
    files = us.publish("a")
    tampered = Place(publishes(files._replace(signature=b"x")))
    said = asyncio.run(_fetch(us, tampered, Terminal(tmp_path)))
    assert "SIGNATURE_MISMATCH" in said
    manifest = "/capsules/mainnet/peers.json.manifest"
    said = asyncio.run(
        _fetch(us, Place({manifest: loopback.hangs}), Terminal(tmp_path), "--deadline=0.5")
    )
    assert "TIMEOUT" in said
    blocked = tmp_path / "file"
    blocked.write_text("")
    for word in (f"--out={blocked}", f"--cache={blocked}/x"):
        said = asyncio.run(_fetch(us, Place(publishes(files)), Terminal(tmp_path), word))
        assert said.startswith("1\nmuster: ")
        assert "cannot be read" in said or "cannot write" in said


def test_what_is_not_fresh_or_not_believed_is_shown(tmp_path: Path) -> None:
    us = Community()
    old = Community(now=us.now - 1000)
    said = asyncio.run(_fetch(us, Place(publishes(old.publish("gone"))), Terminal(tmp_path)))
    assert "A newer one should exist" in said
    assert "1 EXPIRED" in said


def test_a_bar_is_never_outside_the_picture() -> None:
    for started, took in ((0.0, 0.0), (99.0, 1.0), (100.0, 50.0), (0.0, 100.0)):
        drawn = bar(started, took, 100.0, ascii_only=True, cells=10)
        assert len(drawn) == 10
        assert "#" in drawn
    assert bar(0, 0, 0, ascii_only=False, cells=3) == "   "
