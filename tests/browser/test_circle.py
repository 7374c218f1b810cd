"""Do pages of a circle find each other, talk and stay, on both hosts, in real Chromium?

Figures are printed, never asserted: the machine is shared.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from tests.support import local
from tests.support.members2 import address
from tests.support.pages import Pages, Person, told

SECONDS = """
  const started = performance.now();
  const { Circle } = await library();
  hold(await Circle.join(given.invite, { name: given.name }));
  const seen = {};
  circle.addEventListener("message", () => (seen.message ??= performance.now() - started));
  circle.addEventListener("peer", ({ detail }) => {
    seen.peer ??= performance.now() - started;
    if (detail.path === "webrtc") seen.channel ??= performance.now() - started;
  });
  const late = [...circle.peers.values()].some((peer) => peer.path === "webrtc");
  if (late) seen.channel ??= performance.now() - started;
  seen.joined = performance.now() - started;
  await until(() => seen.channel);
  return Object.fromEntries(Object.entries(seen).map(([what, ms]) => [what, Math.round(ms)]));
"""


def two(pages: Pages, service: str, **options: Any) -> tuple[Person, Person, str]:
    """Ada, who has made a circle, and Bob, who has come in by her link."""
    ada, bob = pages.person(), pages.person()
    invite = ada.create(service, name="Ada", circle="Friends", **options)
    bob.join(invite, name="Bob", **options)
    return ada, bob, invite


def test_a_link_leads_to_the_first_message_and_to_a_data_channel(
    pages: Pages, service: str
) -> None:
    ada, bob = pages.person(), pages.person()
    invite = ada.create(service, name="Ada", circle="Friends")
    assert "/app/#muster2." in invite
    ada.until("circle.state.state === 'live'")
    ada.post("hello")

    took = bob.run(SECONDS, {"invite": invite, "name": "Bob"})
    assert bob.reads("hello")["author"]["name"] == "Ada"
    bob.post("hello, Ada")

    assert ada.reads("hello, Ada")["mine"] is False
    assert ada.sees("Bob", "webrtc")
    told(**took)


def test_the_library_that_a_service_serves_is_all_that_a_page_needs(
    pages: Pages, service: str
) -> None:
    ada, bob = pages.person(), pages.person()
    url, _, _ = service.partition("#")
    join = """const { Circle } = await import(given.library);
      const made = given.invite
        ? await Circle.join(given.invite, { name: "Bob" })
        : await Circle.create({ name: "Ada", services: [given.service] });
      hold(made);
      return circle.invite()"""
    library = f"{url}/app/muster/index.js"
    invite = ada.run(join, {"library": library, "service": service})
    bob.run(join, {"library": library, "invite": invite})
    bob.post("from the service itself")
    ada.reads("from the service itself")
    ada.sees("Bob", "webrtc")
    made = ada.run("return (await circle.act('create', 'plans', 'invite')).channel")
    assert len(made) == 32, "what is loaded when it is used is served too"


def test_three_pages_hear_each_other_and_see_who_goes(pages: Pages, here: str) -> None:
    ada, bob, invite = two(pages, here)
    eve = pages.person()
    eve.join(invite, name="Eve")
    for one in (ada, bob, eve):
        for name in {"Ada", "Bob", "Eve"} - {one.run("return circle.me.name")}:
            one.sees(name, "webrtc")
    for one in (ada, bob, eve):
        one.post(f"by {one.run('return circle.me.name')}")
    for one in (ada, bob, eve):
        for name in ("Ada", "Bob", "Eve"):
            one.reads(f"by {name}")

    eve.run("await circle.leave()")
    ada.loses("Eve")
    bob.page.close(run_before_unload=False)
    ada.loses("Bob")


def test_who_reloads_is_the_same_person_with_all_that_was_said(pages: Pages, service: str) -> None:
    ada, bob, invite = two(pages, service)
    before = bob.run("return circle.me")
    bob.post("before")
    ada.reads("before")
    bob.page.reload()

    again = bob.join(invite)

    assert again["id"] == before["id"]
    assert again["name"] == "Bob"
    assert bob.texts() == ["before"]
    bob.post("after")
    ada.reads("after")
    assert ada.run("return happened.filter(([type]) => type === 'unread')") == []


def test_without_an_invite_the_circle_of_before_is_opened(pages: Pages, here: str) -> None:
    ada = pages.person()
    refused = ada.run(
        """const { Circle } = await library();
        return Circle.join("").catch((error) => error.reason)"""
    )
    assert refused == "NO_INVITE"
    ada.create(here, name="Ada", circle="Friends")
    ada.run("await circle.leave()")
    ada.page.reload()

    ada.join("")

    assert ada.run("return circle.name") == "Friends"


def test_keys_cannot_be_read_back(pages: Pages, here: str) -> None:
    ada = pages.person()
    ada.create(here, name="Ada")

    found = ada.run(
        """const { openStore } = await library("store.js");
        const [[, row]] = await (await openStore("muster default")).all("circles");
        const read = crypto.subtle.exportKey("raw", row.member);
        const refused = await read.catch((error) => error.name);
        return [row.member instanceof CryptoKey, row.member.extractable, refused]"""
    )

    assert found[:2] == [True, False]
    assert found[2] in ("InvalidAccessError", "NotSupportedError")


def test_a_service_that_is_killed_and_comes_back_loses_nothing(
    pages: Pages, tmp_path: Path
) -> None:
    with local.running(tmp_path, websocket_url="") as server:
        ada, bob, _ = two(pages, address(server.base).text)
        ada.sees("Bob", "webrtc")
        bob.sees("Ada", "webrtc")
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        ada.until("circle.state.state === 'offline'")
        ada.post("while it is down")
        bob.reads("while it is down")
        bob.post("I hear you")
        ada.reads("I hear you")
        assert ada.sees("Bob", "webrtc")
        port = server.port
        with local.running(tmp_path, f"--port={port}", websocket_url=""):
            ada.until("circle.state.state === 'live'", ms=40_000)
            bob.until("circle.state.state === 'live'", ms=40_000)
            ada.until(
                """(await circle.history("general")).every((one) => !one.mine || one.left)""",
                ms=20_000,
            )
            assert ada.texts() == bob.texts() == ["while it is down", "I hear you"]


def test_a_network_that_goes_and_comes_back_loses_nothing(pages: Pages, here: str) -> None:
    ada, bob, _ = two(pages, here)
    ada.sees("Bob", "webrtc")
    bob.context.set_offline(True)
    bob.post("said offline")
    ada.post("said meanwhile")
    time.sleep(1)
    bob.context.set_offline(False)

    ada.reads("said offline")
    bob.reads("said meanwhile")


def test_a_page_that_is_frozen_reads_what_it_missed(pages: Pages, here: str) -> None:
    ada, bob, _ = two(pages, here)
    bob.sees("Ada")
    cdp = bob.context.new_cdp_session(bob.page)
    cdp.send("Page.setWebLifecycleState", {"state": "frozen"})
    ada.post("while you slept")
    time.sleep(1)
    cdp.send("Page.setWebLifecycleState", {"state": "active"})

    bob.reads("while you slept")


def test_two_tabs_are_one_node_and_the_second_goes_on_when_the_first_is_closed(
    pages: Pages, service: str
) -> None:
    ada, bob, invite = two(pages, service)
    other = pages.tab(bob.context)
    other.join(invite)
    assert other.run("return circle.me") == bob.run("return circle.me")
    other.sees("Ada")
    ada.run("window.pipe = circle.pipe('news')")
    other.run(
        "circle.pipe('news').addEventListener('message', ({ detail }) => piped.push(detail.data))"
    )
    other.post("by the second tab")
    bob.reads("by the second tab")
    ada.reads("by the second tab")
    ada.sees("Bob", "webrtc")
    ada.run("await pipe.send({ n: 1 })")
    other.until("piped.length === 1")
    assert ada.run("return circle.peers.size") == 1

    bob.page.close()
    other.until("circle.state.state === 'live'")
    other.post("alone now")
    ada.reads("alone now")
    other.sees("Ada", "webrtc")
    ada.sees("Bob", "webrtc")
    ada.run("await pipe.send({ n: 2 })")
    other.until("piped.length === 2")
    assert other.texts() == ["by the second tab", "alone now"]


def test_two_circles_of_the_same_pages_stay_apart(pages: Pages, here: str) -> None:
    ada, bob, _ = two(pages, here)
    ada.run("window.first = circle")
    bob.run("window.first = circle")
    invite = ada.create(here, name="Ada at work", circle="Work")
    bob.join(invite, name="Bob at work")
    for one in (ada, bob):
        one.run("window.second = circle")
    ada.run("await first.post('general', 'for friends'); await second.post('general', 'for work')")
    bob.run(
        """window.pipes = [first, second].map((circle, at) => {
          const pipe = circle.pipe("x");
          pipe.addEventListener("message", ({ detail }) => piped.push([at, detail.data]));
          return pipe;
        })"""
    )

    bob.reads("for work")
    bob.until("(await first.history('general')).length === 1")
    assert bob.run("return (await first.history('general')).map((one) => one.text)") == [
        "for friends"
    ]
    assert bob.texts() == ["for work"]
    assert bob.run("return first.me.id !== second.me.id")
    ada.until("[...second.peers.values()].some((one) => one.path === 'webrtc')")
    ada.run("await second.pipe('x').send('only at work')")
    bob.until("piped.length")
    assert bob.run("return piped") == [[1, "only at work"]]


def test_a_backlog_of_1500_messages_and_a_text_of_200_kb_are_read(
    pages: Pages, service: str
) -> None:
    ada = pages.person()
    invite = ada.create(service, name="Ada")
    ada.until("circle.state.state === 'live'")
    took = ada.run(
        """const started = performance.now();
        for (let at = 0; at < 1500; at += 1) await circle.post("general", `number ${at}`);
        await circle.post("general", "x".repeat(200_000));
        const said = performance.now() - started;
        const all = () => circle.history("general", { limit: 2000 });
        await until(async () => (await all()).every((one) => one.left), 60000);
        return [said, performance.now() - started].map(Math.round)"""
    )
    bob = pages.person()

    read = bob.run(
        """const started = performance.now();
        const { Circle } = await library();
        hold(await Circle.join(given, { name: "Bob" }));
        const all = () => circle.history("general", { limit: 2000 });
        await until(async () => (await all()).length === 1501, 60000);
        return Math.round(performance.now() - started)""",
        invite,
    )

    expected = [f"number {at}" for at in range(1500)]
    assert bob.texts()[:1500] == expected
    assert len(bob.texts()[1500]) == 200_000
    told(said_ms=took[0], left_ms=took[1], read_ms=read)


def test_messages_are_iterated_once_each_history_first(pages: Pages, here: str) -> None:
    ada, bob, _ = two(pages, here)
    ada.post("one")
    ada.post("two")
    bob.reads("two")
    bob.run(
        """(async () => {
          for await (const message of circle.messages("general")) said.push(message.text);
          said.push("the end");
        })()"""
    )
    bob.until("said.length === 2")
    ada.post("three")
    bob.until("said.length === 3")
    bob.run("await circle.leave()")
    bob.until("said.length === 4")

    assert bob.run("return said") == ["one", "two", "three", "the end"]


def test_records_of_an_apps_own_wait_and_come_as_texts_do(pages: Pages, here: str) -> None:
    ada, bob, _ = two(pages, here)
    ada.run("await circle.record('move', { x: 1, y: 2 })")
    bob.until("(await circle.records('move')).length")
    [found] = bob.run("return circle.records('move')")
    assert (found["author"], found["body"]) == (ada.run("return circle.me.id"), {"x": 1, "y": 2})
    refused = ada.run("return circle.record('text', {}).catch((error) => error.reason)")
    assert refused == "MALFORMED"
    assert ada.texts() == []


def test_what_is_so_already_is_told_to_who_listens_at_once(pages: Pages, here: str) -> None:
    _, bob, invite = two(pages, here)
    bob.sees("Ada")
    late = pages.tab(bob.context)
    told = late.run(
        """const { Circle } = await library();
        const circle = await Circle.join(given);
        const told = [];
        circle.addEventListener("peer", ({ detail }) => told.push(detail.name));
        circle.addEventListener("state", ({ detail }) => told.push(detail.state));
        await until(() => told.includes("Ada"));
        return [...new Set(told)]""",
        invite,
    )
    assert told[0] in ("connecting", "polling", "live")
    assert told[-1] == "Ada"


def test_a_call_of_two_is_seen_by_both_whichever_tab_begins_it(pages: Pages, here: str) -> None:
    ada, bob, invite = two(pages, here)
    other = pages.tab(bob.context)
    other.join(invite)
    ada.sees("Bob", "webrtc")
    for one in (ada, other):
        one.run(
            """const media = { audio: true, video: true };
            const stream = await navigator.mediaDevices.getUserMedia(media);
            window.call = await circle.call(stream, [...circle.peers.keys()]);
            window.tracks = [];
            call.addEventListener("track", ({ detail }) => tracks.push(detail.track.kind))"""
        )
    for one in (ada, other):
        one.until("tracks.includes('audio') && tracks.includes('video')", ms=30_000)
    bob.post("the first tab goes on")
    ada.reads("the first tab goes on")
    ada.run("call.end()")


def test_an_invite_that_is_damaged_is_refused_by_name_and_never_repeated(pages: Pages) -> None:
    ada = pages.person()
    for given in ("#muster2.abc", "nonsense", "#muster2." + "A" * 5000, "#muster2.e30"):
        found = ada.run(
            """const { Circle } = await library();
            const refused = (error) => [error.reason, error.message];
            return Circle.join(given).then(() => "joined", refused)""",
            given,
        )
        assert found[0] == "MALFORMED"
        assert given not in found[1]


def test_who_sends_to_nobody_is_told_so_and_who_came_just_now_is_sent_to(
    pages: Pages, here: str
) -> None:
    ada = pages.person()
    invite = ada.create(here, name="Ada")
    send = "return circle.pipe('x').send(1, given).catch((error) => error.reason)"
    assert ada.run(send, {"to": "0" * 32}) == "NO_PEER"
    ada.run(
        """circle.addEventListener("peer", ({ detail }) => {
          if (!said.length) circle.pipe("x").send("welcome").then(() => said.push(detail.path));
        })"""
    )
    bob = pages.person()
    bob.run(
        """const { Circle } = await library();
        hold(await Circle.join(given, { name: "Bob" }));
        circle.pipe("x").addEventListener("message", ({ detail }) => piped.push(detail.data))""",
        invite,
    )
    bob.until("piped.includes('welcome')")


def test_a_service_with_another_id_is_named_as_that(pages: Pages, here: str) -> None:
    ada = pages.person()
    url, _, _ = here.partition("#")
    ada.create(f"{url}#{'0' * 32}", name="Ada")
    ada.until("circle.state.state === 'offline'")
    assert "another id" in ada.run("return circle.state.why")


def test_without_webrtc_pages_talk_by_the_relay_and_say_so(pages: Pages, service: str) -> None:
    ada, bob, _ = two(pages, service, RTCPeerConnection=None)
    assert ada.sees("Bob", "relay")
    bob.run("circle.pipe('x').addEventListener('message', ({ detail }) => piped.push(detail.data))")
    ada.run("await circle.pipe('x').send({ by: 'relay' })")
    bob.until("piped.length")
    assert bob.run("return piped") == [{"by": "relay"}]
    assert bob.sees("Ada")["path"] == "relay"
