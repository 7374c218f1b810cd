"""What pages of a circle go through: TURN alone, large files, a crowd, a store that fails."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

from muster import base64url, keys, presences
from muster.circle.service import Service
from muster.invites import Invite
from tests.browser.conftest import TURN_SECRET
from tests.support import local
from tests.support.members2 import address
from tests.support.pages import Pages, Person, told

MEMORY = "performance.memory ? performance.memory.usedJSHeapSize : 0"
DIGEST = """
  const digestOf = async (blob) => {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
    return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  };
"""


def two(pages: Pages, service: str, **options: Any) -> tuple[Person, Person]:
    ada, bob = pages.person(), pages.person()
    bob.join(ada.create(service, name="Ada", **options), name="Bob", **options)
    return ada, bob


def test_turn_alone_carries_pipes_by_the_logins_of_the_service(
    pages: Pages, coturn: str, tmp_path: Path
) -> None:
    server = {"urls": [coturn], "secret": TURN_SECRET, "realm": "muster.test"}
    plan = json.dumps({"ice_servers": [server]})
    with local.running(tmp_path / "turn", assist=plan, websocket_url="") as service:
        ada, bob = two(pages, address(service.base).text, iceTransportPolicy="relay")
        peer = ada.sees("Bob", "webrtc", ms=30_000)
        bob.run(
            """const pipe = circle.pipe("x");
            pipe.addEventListener("message", ({ detail }) => piped.push(detail.data))"""
        )
        ada.run("await circle.pipe('x').send('by turn')")
        bob.until("piped.length")
        found = ada.run(
            """const stats = Object.values(await circle.stats(given));
            const pair = stats.find((one) => one.type === "candidate-pair" && one.nominated);
            return [pair.localCandidateId, pair.remoteCandidateId].map(
              (id) => stats.find((one) => one.id === id).candidateType)""",
            peer["id"],
        )
        assert found == ["relay", "relay"]


def test_direct_is_direct_as_the_browser_says_too(pages: Pages, here: str) -> None:
    ada, _ = two(pages, here)
    peer = ada.sees("Bob", "webrtc")

    kinds = ada.run(
        """const stats = Object.values(await circle.stats(given));
        return stats.filter(({ type }) => /^(local|remote)-candidate$/.test(type))
          .map(({ candidateType }) => candidateType)""",
        peer["id"],
    )

    assert kinds
    assert set(kinds) <= {"host", "prflx"}


def test_50_mb_go_both_ways_at_once_beside_a_text_of_1_mb(pages: Pages, here: str) -> None:
    ada, bob = two(pages, here)
    for one, name in ((ada, "Bob"), (bob, "Ada")):
        one.sees(name, "webrtc")
        one.run(
            DIGEST
            + """
            circle.pipe("files").addEventListener("message", async ({ detail: { data } }) => {
              const isText = typeof data === "string";
              piped.push(isText ? data.length : [data.size, await digestOf(data)]);
            });
            const parts = Array.from({ length: 50 }, () => {
              const part = new Uint8Array(1_048_576);
              for (let at = 0; at < part.length; at += 65_536) {
                crypto.getRandomValues(part.subarray(at, at + 65_536));
              }
              return part;
            });
            window.mine = new File(parts, "large.bin");
            window.digest = await digestOf(mine);
            window.most = 0;
            window.shown = [];
            setInterval(() => (most = Math.max(most, """
            + MEMORY
            + ")), 100)"
        )
    before = ada.run(f"return {MEMORY}")
    for one in (ada, bob):
        one.run(
            """window.began = performance.now();
            const progress = (sent, size) => shown.push([sent, size]);
            window.sent = circle.pipe("files").send(mine, { progress })
              .then(() => (window.took = performance.now() - began))"""
        )
    ada.run("await circle.pipe('files').send('x'.repeat(1_048_576))")
    for one, other in ((ada, bob), (bob, ada)):
        one.until("window.took", ms=90_000)
        other.until("piped.some((one) => Array.isArray(one))", ms=90_000)
        assert [50 * 1_048_576, one.run("return digest")] in other.run("return piped")
        shown = one.run("return shown")
        assert shown == sorted(shown)
        assert shown[-1] == [50 * 1_048_576] * 2
    assert 1_048_576 in bob.run("return piped")
    assert bob.run("return piped.indexOf(1048576)") == 0, "the text waited for the file"
    told(
        took_ms=[round(one.run("return took")) for one in (ada, bob)],
        heap_before=before,
        heap_most=[one.run("return most") for one in (ada, bob)],
    )


def test_a_page_among_200_nodes_sees_them_all_and_still_answers(pages: Pages, here: str) -> None:
    ada = pages.person()
    invite = Invite.parse(ada.create(here, name="Ada"))
    ada.until("circle.state.state === 'live'")

    async def crowd() -> None:
        limit = asyncio.Semaphore(16)

        async def come(number: int) -> None:
            member = keys.Member.new(invite.epoch.circle_id)
            node = member.node(invite.epoch)
            service = Service(invite.services[0], node)
            made = presences.Presence.of(
                node, name=f"Member {number}", at_ms=service.now_ms(), abilities=("pipes",)
            )
            sealed = presences.seal(node, made, nonce=secrets.token_bytes(12))
            told_ = {"sealed": base64url.encode(sealed), "ttl_s": 120, "tell": True}
            async with limit:
                await service.sync({"presence": told_})
            await service.aclose()

        await asyncio.gather(*(come(number) for number in range(200)))

    _in_a_thread(crowd)

    ada.until("circle.peers.size === 200", ms=30_000)
    took = ada.run(
        """const began = performance.now();
        await circle.post("general", "I hear you all");
        return Math.round(performance.now() - began)"""
    )
    assert ada.texts() == ["I hear you all"]
    told(post_among_200_ms=took)


def test_a_browser_that_erases_what_is_stored_stops_nobody_from_talking(
    pages: Pages, here: str
) -> None:
    ada, bob = two(pages, here)
    ada.post("before")
    bob.reads("before")
    before = bob.run("return circle.me.id")
    cdp = bob.context.new_cdp_session(bob.page)
    cdp.send(
        "Storage.clearDataForOrigin",
        {"origin": bob.page.evaluate("location.origin"), "storageTypes": "all"},
    )
    bob.post("after")
    ada.reads("after")
    bob.until("happened.some(([type, detail]) => detail.reason === 'STORAGE_GONE')")
    assert bob.texts() == ["before", "after"]

    bob.page.reload()
    again = bob.join(ada.run("return circle.invite()"), name="Bob")
    assert again["id"] != before, "a new member: the key was erased with the rest"
    bob.reads("after")


def test_a_store_that_is_full_is_told_and_loses_nothing_of_what_is_said(
    pages: Pages, here: str
) -> None:
    ada, bob = two(pages, here)
    bob.run(
        """IDBObjectStore.prototype.put = () => {
          throw new DOMException("no room", "QuotaExceededError");
        }"""
    )
    bob.run(
        """for (let at = 0; at < 5; at += 1) {
          await circle.post("general", at + "x".repeat(50_000));
        }"""
    )
    bob.until("happened.some(([type, detail]) => detail.reason === 'STORAGE_FULL')")
    for number in range(5):
        ada.reads(f"{number}" + "x" * 50_000)
    assert len(bob.texts()) == 5


def test_two_tabs_that_begin_at_the_same_moment_are_one_node(pages: Pages, here: str) -> None:
    ada = pages.person()
    invite = ada.create(here, name="Ada")
    one = pages.person()
    other = pages.tab(one.context)
    for tab in (one, other):
        tab.run(
            """const { Circle } = await library();
            const join = () => Circle.join(given, { name: "Bob" }).then(hold);
            window.begin = () => { window.joined = join(); }""",
            invite,
        )
    for tab in (one, other):
        tab.page.evaluate("begin()")
    found = [tab.page.evaluate("joined") for tab in (one, other)]
    assert found[0] == found[1]
    one.post("by one")
    other.post("by the other")
    ada.reads("by one")
    ada.reads("by the other")
    assert ada.run("return circle.peers.size") == 1


def _in_a_thread(work: Any) -> None:
    """Run a coroutine while playwright has an event loop of its own."""
    import threading

    failed: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(60)
    if failed:
        raise failed[0]
