"""A public community in Chromium: pages of another origin, by a capsule's URL and by a beacon."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect

from tests.support.local import Server, running
from tests.support.pages import Pages, Person, told

JOIN = """
  const { Community } = await library("bootstrap/index.js");
  window.community = await Community.join(given.capsules, given.options);
  for (const type of ["peer", "left", "source", "error"]) {
    community.addEventListener(type, ({ detail: one }) =>
      happened.push([type, one.peerId ?? one.url ?? one.message]));
  }
  return community.peerId;
"""


class Town(NamedTuple):
    """A service with a community whose manifests name its own beacon."""

    server: Server
    capsule: str


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    port = _free_port()
    beacon = f"http://127.0.0.1:{port}"
    with running(tmp_path, "--publish-every=1", f"--port={port}", capsule_beacons=beacon) as server:
        printed = re.search(r"root key  (\S+)", server.greeting)
        assert printed is not None
        yield Town(server, f"{server.base}/capsules/town/peers.json#{printed[1]}")


def join(person: Person, *capsules: str, **options: object) -> str:
    given = {"capsules": list(capsules), "options": options}
    return str(person.run(JOIN, given))


def test_pages_find_each_other_by_beacon_and_by_the_capsules_url(pages: Pages, town: Town) -> None:
    ann, bob = pages.person(), pages.person()
    first = join(ann, beacons=[town.server.base], community="town", everyMs=2000)
    ann.until("community.diagnostics().announced > 0")
    town.server.await_published("town", first)

    second = join(bob, town.capsule, everyMs=2000)
    assert bob.run("return community.name") == "town"
    bob.until("community.peers.get(given)?.vouched", first)
    ann.until("community.peers.has(given)", second)
    assert first != second

    told(community_in_a_page=bob.run("return community.diagnostics()"))
    sources = bob.run("return community.diagnostics().sources")
    assert {(one["kind"], one["ok"]) for one in sources} == {
        ("cache", True),
        ("beacon", True),
        ("capsule", True),
    }


def test_a_reload_keeps_who_one_is_and_starts_warm_and_a_dead_service_ends_nothing(
    pages: Pages, town: Town
) -> None:
    ann, bob = pages.person(), pages.person()
    first = join(ann, town.capsule, beacons=[town.server.base])
    ann.until("community.diagnostics().announced > 0")
    second = join(bob, town.capsule, beacons=[town.server.base])
    bob.until("community.peers.has(given)", first)
    assert bob.run("return community.diagnostics().durable")
    bob.until("happened.some(([type, url]) => type === 'source' && url.includes('capsules'))")

    bob.page.reload()
    assert join(bob, town.capsule, beacons=[town.server.base]) == second
    bob.until("community.peers.has(given)", first)

    town.server.stop(signal.SIGKILL)
    bob.page.reload()
    assert join(bob, town.capsule, beacons=[town.server.base]) == second
    found = bob.until("community.peers.get(given)", first)
    assert found["sources"] == ["cache"]
    bob.until("community.diagnostics().failures >= 2")
    told(warm_start_without_a_service=bob.run("return community.diagnostics()"))


def test_two_tabs_of_a_profile_are_one_node_and_its_key_cannot_be_read(
    pages: Pages, town: Town
) -> None:
    one = pages.person()
    other = pages.tab(one.context)
    names = {join(tab, town.capsule, beacons=[town.server.base]) for tab in (one, other)}
    assert len(names) == 1
    kept = one.run(
        """const asked = indexedDB.open("muster-bootstrap default");
        await new Promise((opened) => (asked.onsuccess = opened));
        const get = asked.result.transaction("kept").objectStore("kept").get("identity");
        await new Promise((done) => (get.onsuccess = done));
        asked.result.close();
        const { key } = get.result;
        const read = await crypto.subtle.exportKey("pkcs8", key).catch((e) => e.name);
        return [key.type, key.extractable, read]"""
    )
    assert kept == ["private", False, "InvalidAccessError"]


def test_storage_that_goes_away_is_told_and_stops_nothing(pages: Pages, town: Town) -> None:
    ann, bob = pages.person(), pages.person()
    first = join(ann, beacons=[town.server.base], community="town")
    ann.until("community.diagnostics().announced > 0")
    bob.run(
        """const value = { open() { throw new Error("no") } };
        Object.defineProperty(window, "indexedDB", { value })"""
    )
    join(bob, beacons=[town.server.base], community="town")
    bob.until("community.peers.has(given)", first)
    assert not bob.run("return community.diagnostics().durable")
    assert ["error", "STORAGE_GONE: nothing can be kept: no"] in bob.run("return happened")


def test_the_example_shows_peers_and_sources(pages: Pages, town: Town) -> None:
    ann = pages.person()
    first = join(ann, town.capsule, beacons=[town.server.base])
    ann.until("community.diagnostics().announced > 0")
    town.server.await_published("town", first)
    query = urlencode({"capsule": town.capsule, "beacon": town.server.base})
    shown = pages.person(f"/web/examples/community/?{query}").page
    expect(shown.locator("#peers li code")).to_have_text([first], timeout=10_000)
    expect(shown.locator("#sources tr", has_text="capsule ")).to_contain_text("ok")
    shown.locator("#add input").fill("by-hand")
    shown.locator("#add button").click()
    expect(shown.locator("#peers li").last).to_contain_text("by-hand from manual")
    expect(shown.locator("#trouble")).to_be_empty()
