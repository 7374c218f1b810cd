"""Calls of the app, by its model, in pages with made-up devices.

What flows is asked of getStats, and seen in pixels: Chromium's made-up camera is a green picture
that moves, its microphone beeps.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import TURN_SECRET
from tests.support import local, turn
from tests.support.app import joined, visit
from tests.support.members2 import address
from tests.support.pages import CHROMIUM, FLAGS, Pages, Person

CALLS = """
  const { CallModel } = await import("/web/app/model/call.js");
  const { signal } = await import("/web/app/ui.js");
  window.signals = { devices: signal({ audio: "", video: "", speaker: "" }), ring: signal(true) };
  window.calls = new CallModel({ circle, settings: { viewers: given.viewers ?? 6, ...signals } });
  window.sending = () => calls.sending.value;
  window.tile = (name) => calls.tiles.value.find((one) => one.name === name);
  /** What has come from somebody: frames that were decoded, bytes of pictures and of sound. */
  window.flow = async (name) => {
    const peer = [...circle.peers.values()].find((one) => one.name === name);
    const all = Object.values(await circle.stats(peer.id));
    const found = { frames: 0, video: 0, audio: 0 };
    for (const { type, kind, bytesReceived = 0, framesDecoded = 0 } of all) {
      if (type !== "inbound-rtp") continue;
      found[kind] += bytesReceived;
      found.frames += framesDecoded;
    }
    return found;
  };
  /** Wait until more of a kind comes from somebody. */
  window.flows = async (name, kind) => {
    const before = (await flow(name))[kind];
    const more = kind === "frames" ? 5 : 1000;
    await until(async () => (await flow(name))[kind] > before + more);
    return true;
  };
  /** Hear somebody: a browser weighs only what is played. */
  window.play = (name) => {
    window.sound = Object.assign(new Audio(), { srcObject: tile(name).stream });
    return sound.play();
  };
  /** What stays as long as a connection with the other does, and no ICE restart has come. */
  window.way = async () => {
    const all = Object.values(await circle.stats([...circle.peers.keys()][0]));
    const one = all.find(({ type }) => type === "transport");
    return [one.localCertificateId, one.iceLocalUsernameFragment];
  };
  /** The share of pixels that are green in what somebody shows. */
  window.green = async (name) => {
    const video = document.createElement("video");
    const srcObject = new MediaStream(tile(name).stream.getVideoTracks());
    Object.assign(video, { muted: true, srcObject });
    await video.play();
    const canvas = new OffscreenCanvas(64, 48).getContext("2d");
    await new Promise((seen) => video.requestVideoFrameCallback(seen));
    canvas.drawImage(video, 0, 0, 64, 48);
    video.srcObject = null;
    const { data } = canvas.getImageData(0, 0, 64, 48);
    let count = 0;
    for (let at = 0; at < data.length; at += 4) {
      count += Number(data[at + 1] > 100 && data[at + 1] > 1.5 * data[at]);
    }
    return count / (64 * 48);
  };
"""


class Way:
    """How much a page may send; Chromium shapes the connections that are made after `begin`."""

    def begin(self, person: Person) -> None:
        self.session = person.context.new_cdp_session(person.page)
        self.session.send("Network.enable")
        self.carry(10_000_000)

    def carry(self, bytes_per_s: int) -> None:
        wide = {"downloadThroughput": 10_000_000, "uploadThroughput": bytes_per_s}
        shape = {"offline": False, "latency": 1, "packetLoss": 0, "packetQueueLength": 30}
        self.session.send("Network.emulateNetworkConditions", wide | shape)


def people(
    pages: Pages,
    service: str,
    *names: str,
    viewers: int = 6,
    way: Way | None = None,
    **options: Any,
) -> list[Person]:
    """Open a page for each, all in one circle, each with the model of calls.

    A *way* is the first one's way out, as wide as it is set.
    """
    found = [pages.person() for _ in names]
    if way:
        way.begin(found[0])
    invite = found[0].create(service, name=names[0], **options)
    for one, name in zip(found[1:], names[1:], strict=True):
        one.join(invite, name=name, **options)
    for one in found:
        one.run(CALLS, {"viewers": viewers})
    for one in found:
        one.until("circle.peers.size === given", len(names) - 1)
    return found


def tiles(person: Person, *names: str, ms: int = 20_000) -> None:
    """Wait until these are in the call, in any order, and reached."""
    person.until(
        """calls.tiles.value.map(({ name }) => name).sort().join() === given
        && calls.tiles.value.every(({ health }) => health.state === 'connected')""",
        ",".join(sorted(names)),
        ms,
    )


def test_two_see_each_other_in_pictures_as_large_as_the_path_carries(
    pages: Pages, here: str
) -> None:
    way = Way()
    ada, bob = people(pages, here, "Ada", "Bob", way=way)
    ada.run("await calls.start('general', 'video')")
    bob.until("calls.ringing.value?.name === 'Ada' && calls.ringing.value.media === 'video'")
    bob.run("await calls.accept({ video: true })")
    for one, other in ((ada, "Bob"), (bob, "Ada")):
        tiles(one, "Ada", "Bob")
        assert one.run("return flows(given, 'frames')", other)
        assert one.run("return flows(given, 'audio')", other)
        assert one.run("return green(given)", other) > 0.5
        one.until("tile(given).health.path === 'direct'", other)
    width = "tile('Ada').stream.getVideoTracks()[0].getSettings().width"
    bob.until(f"{width} >= 400", ms=30_000)
    way.carry(20_000)  # pictures follow, and what is said is still heard
    bob.until(f"{width} < 400", ms=30_000)
    bob.run("await flows('Ada', 'audio')")
    bob.run("await calls.leave()")
    ada.until("calls.tiles.value.length === 1")
    ada.run("await calls.end()")
    bob.until("!Object.keys(calls.ongoing.value).length")


def test_three_are_in_one_call_and_go_on_when_its_host_has_left(pages: Pages, here: str) -> None:
    """In a channel with members only, of which one is removed in the end."""
    ada, bob, eve = everybody = people(pages, here, "Ada", "Bob", "Eve")
    ada.run("await circle.act('create', 'plans', 'invite')")
    for one in (bob, eve):
        ada.run("await circle.act('invite', 'plans', given)", one.run("return circle.me.id"))
        one.until("(await circle.channels()).length === 2")
    ada.run("await calls.start('plans', 'audio')")
    for one in (bob, eve):
        one.until("calls.ringing.value")
        one.run("await calls.accept()")
    for one in everybody:
        tiles(one, "Ada", "Bob", "Eve")
    for one, name in ((bob, "Eve"), (eve, "Ada")):
        assert one.run("return flows(given, 'audio')", name)
    ada.run("await calls.leave()")
    for one in (bob, eve):
        tiles(one, "Bob", "Eve")
    assert bob.run("return flows('Eve', 'audio')")
    ada.until("Object.values(calls.ongoing.value).length === 1")
    ada.run("await calls.join('plans')")
    tiles(ada, "Ada", "Bob", "Eve")
    assert ada.run("return calls.mine.value.role") == "host"
    ada.run("await circle.act('remove', 'plans', given)", eve.run("return circle.me.id"))
    for one in (ada, bob):
        tiles(one, "Ada", "Bob")
    eve.until("!calls.mine.value && calls.problem.value.reason === 'REVOKED'")
    ada.run("await calls.end()")
    bob.until("!calls.mine.value && calls.problem.value.reason === 'ENDED'")


def test_mute_camera_and_screen_leave_the_connection_as_it_is(pages: Pages, here: str) -> None:
    ada, bob = people(pages, here, "Ada", "Bob")
    ada.run("await calls.start('general', 'audio')")
    bob.until("calls.ringing.value")
    bob.run("await calls.accept()")
    tiles(bob, "Ada", "Bob")
    assert bob.run("return flows('Ada', 'audio')")
    bob.run("await play('Ada')")
    first = ada.run("return way()")
    bob.until("tile('Ada').speaking")  # it beeps
    ada.run("await calls.toggleMicrophone()")
    bob.until("tile('Ada').muted && !tile('Ada').speaking")
    ada.run("await calls.toggleMicrophone()")
    bob.until("!tile('Ada').muted && tile('Ada').speaking")
    ada.run("await calls.toggleCamera()")
    bob.until("tile('Ada').camera && tile('Ada').stream.getVideoTracks().length")
    assert bob.run("return flows('Ada', 'frames')")
    assert bob.run("return green('Ada')") > 0.5
    ada.run("window.light = tile('Ada').stream.getVideoTracks()[0]; await calls.toggleCamera()")
    bob.until("!tile('Ada').camera")
    assert ada.run("return light.readyState") == "ended"
    stands = bob.run("return (await flow('Ada')).video")
    assert bob.run("return flows('Ada', 'audio')")
    assert bob.run("return (await flow('Ada')).video") - stands < 5000
    ada.run("await calls.toggleCamera()")
    assert bob.run("return flows('Ada', 'frames')")
    ada.run(
        """const canvas = document.createElement("canvas");
        Object.assign(canvas, { width: 640, height: 360 });
        const draw = canvas.getContext("2d");
        setInterval(() => {
          draw.fillStyle = "#c01010";
          draw.fillRect(0, 0, 640, 360);
          draw.fillStyle = "#fff";
          draw.fillRect((performance.now() / 10) % 600, 100, 40, 40);
        }, 60);
        navigator.mediaDevices.getDisplayMedia = async () => canvas.captureStream(15);
        await calls.shareScreen()"""
    )
    bob.until("tile('Ada').screen")
    bob.until("(async () => (await green('Ada')) < 0.1)()")
    ada.run("await calls.stopScreen()")
    bob.until("tile('Ada').camera && !tile('Ada').screen")
    bob.until("(async () => (await green('Ada')) > 0.5)()")
    assert ada.run("return way()") == first


def test_a_broadcast_goes_to_as_many_as_its_host_has_set_and_stops_for_who_is_shut_out(
    pages: Pages, here: str
) -> None:
    host, *others = people(pages, here, "Host", "A", "B", "C", "D", "E", viewers=4)
    host.run("await calls.start('general', 'broadcast')")
    *seen, last = others
    for one in others:
        one.until("Object.values(calls.ongoing.value).length === 1")
        assert one.run("return calls.ringing.value") is None
    for one in seen:
        one.run("void calls.view('general')")
    host.until("calls.viewers.value.length === 4")
    last.run("await calls.view('general')")
    last.until("calls.waiting.value")
    for one in seen:
        tiles(one, "Host")
        one.run("await flows('Host', 'frames')")
    admitted = host.run("return calls.viewers.value.map(({ admitted }) => admitted)")
    assert admitted == [True, True, True, True, False]
    assert host.run("return calls.tiles.value.length") == 1
    assert last.run("return (await flow('Host')).video") == 0
    shut, *stay = seen
    # who is shut out hears nothing of it, and goes on listening: the host alone sees to it
    shut.run(
        """window.before = await flow("Host");
        calls.close = calls.refresh = async () => {};
        circle.dispatchEvent = () => true"""
    )
    host.run("await calls.revoke(given)", shut.run("return circle.me.id"))
    stands = shut.run("return flow('Host')")
    last.until("!calls.waiting.value && calls.tiles.value.length", ms=20_000)
    last.run("await flows('Host', 'frames')")
    for one in stay:
        one.run("await flows('Host', 'audio')")
    later = shut.run("return flow('Host')")
    assert later["video"] - stands["video"] < 3000
    assert later["audio"] - stands["audio"] < 3000
    # a viewer who talks too sends to the host and takes from it
    talker = stay[0]
    talker.run("await calls.becomeParticipant()")
    host.until("calls.tiles.value.length === 2")
    host.run("await flows('B', 'audio')")
    talker.run("await flows('Host', 'frames')")
    host.run("await calls.leave()")  # a broadcast does not go on without its host
    for one in (*stay, last):
        one.until("!calls.mine.value && calls.problem.value.reason === 'ENDED'")


def test_a_call_rings_and_is_taken_declined_or_missed(pages: Pages, here: str) -> None:
    ada, bob, eve = people(pages, here, "Ada", "Bob", "Eve")
    only_bob = {"ring": [bob.run("return circle.me.id")]}
    ada.run("await calls.start('general', 'audio', given)", only_bob)
    bob.until("calls.ringing.value?.from === given", ada.run("return circle.me.id"))
    eve.until("Object.values(calls.ongoing.value).length")
    assert eve.run("return calls.ringing.value") is None  # it rings for Bob alone
    bob.run("calls.decline()")
    ada.until("calls.declined.value.join() === given", bob.run("return circle.me.id"))
    bob.until("!calls.ringing.value")
    ada.run("await calls.leave()")
    bob.until("!Object.keys(calls.ongoing.value).length")
    assert bob.run("return calls.missed.value") == []  # it was not missed, but declined

    ada.run("await calls.start('general', 'video')")
    for one in (bob, eve):
        one.until("calls.ringing.value")
    eve.run("const { now } = Date; Date.now = () => now() + 46_000; await calls.refresh()")
    assert eve.run("return calls.ringing.value") is None  # in time it has rung long enough
    assert eve.run("return calls.missed.value") == []  # and can still be joined
    bob.run("await calls.accept()")
    tiles(ada, "Ada", "Bob")
    ada.run("await calls.end()")
    eve.until("calls.missed.value.length === 1")
    assert eve.run("const [one] = calls.missed.value; return [one.media, one.ended]") == [
        "video",
        True,
    ]
    bob.until("!calls.mine.value")
    assert bob.run("return calls.missed.value") == []
    cards = bob.run("return Object.values(calls.cards.value)[0].map((one) => one.ended_ms > 0)")
    assert cards == [True, True]


def test_two_who_call_at_the_same_moment_are_in_one_call(pages: Pages, here: str) -> None:
    ada, bob = people(pages, here, "Ada", "Bob")
    for one in (ada, bob):
        one.run("calls.start('general', 'audio')")
    for one in (ada, bob):
        one.until("calls.mine.value")
        tiles(one, "Ada", "Bob")
    calls = {one.run("return calls.mine.value.hash") for one in (ada, bob)}
    assert len(calls) == 1
    assert ada.run("return flows('Bob', 'audio')")
    assert bob.run("return calls.ringing.value") is None
    assert bob.run("return calls.missed.value") == []


def test_who_reloads_is_in_again_when_they_like(pages: Pages, here: str) -> None:
    ada, bob = people(pages, here, "Ada", "Bob")
    ada.run("await calls.start('general', 'audio')")
    bob.until("calls.ringing.value")
    bob.run("await calls.accept()")
    tiles(ada, "Ada", "Bob")
    bob.page.reload()
    ada.until("calls.tiles.value.length === 1")
    bob.join("")
    bob.run(CALLS, {})
    bob.until("Object.values(calls.ongoing.value)[0]?.participants.includes(circle.me.id)")
    assert bob.run("return calls.mine.value ?? calls.ringing.value") is None
    bob.run("await calls.join('general')")
    for one, other in ((ada, "Bob"), (bob, "Ada")):
        tiles(one, "Ada", "Bob")
        one.run("await flows(given, 'audio')", other)
    # another tab of the same person goes in: the call is there then
    tab = pages.tab(bob.context)
    tab.join("")
    tab.run(CALLS, {})
    tab.until("Object.values(calls.ongoing.value).length")
    tab.run("await calls.join('general')")
    tiles(tab, "Ada", "Bob")
    bob.until("!calls.mine.value")
    ada.run("await flows('Bob', 'audio')")


def test_who_has_no_microphone_hears_and_a_camera_may_be_taken_away(
    pages: Pages, here: str
) -> None:
    """A Chromium that asks before it gives a device, and takes it back when it was given."""
    asking = pages.browser.browser_type.launch(
        executable_path=CHROMIUM, args=[one for one in FLAGS if "fake-ui" not in one]
    )
    strict = Pages(asking, pages.origin)
    ada, bob = pages.person(), strict.person()
    bob.join(ada.create(here, name="Ada"), name="Bob")
    for one in (ada, bob):
        one.run(CALLS, {})
        one.until("circle.peers.size")
    ada.run("await calls.start('general', 'audio')")
    bob.until("calls.ringing.value")
    bob.run("await calls.accept()")
    assert bob.run("return calls.problem.value.reason") == "MICROPHONE_DENIED"
    tiles(ada, "Ada", "Bob")
    ada.until("!tile('Bob').microphone")
    assert bob.run("return flows('Ada', 'audio')")
    allowed = ["microphone", "camera"]
    bob.context.grant_permissions(allowed, origin=pages.origin)
    bob.run("await calls.toggleMicrophone(); await calls.toggleCamera()")
    assert bob.run("return calls.problem.value") is None
    ada.until("tile('Bob').camera && tile('Bob').microphone")
    ada.run("await flows('Bob', 'frames'); await flows('Bob', 'audio')")
    bob.context.clear_permissions()
    bob.until(
        "calls.problem.value && !calls.sending.value.camera && !calls.sending.value.microphone"
    )
    assert bob.run("return calls.problem.value.reason").endswith("_GONE")
    ada.until("!tile('Bob').camera && !tile('Bob').microphone")
    assert bob.run("return flows('Ada', 'audio')")
    bob.context.grant_permissions(allowed, origin=pages.origin)
    bob.run("await calls.toggleMicrophone(); await calls.toggleCamera()")
    ada.run("await flows('Bob', 'frames'); await flows('Bob', 'audio')")
    strict.close()
    asking.close()


def test_what_members_may_not_say_of_calls_changes_nothing(pages: Pages, here: str) -> None:
    ada, bob, eve = people(pages, here, "Ada", "Bob", "Eve")
    ada.run(
        "await calls.start('general', 'audio', given)", {"ring": [bob.run("return circle.me.id")]}
    )
    bob.until("calls.ringing.value")
    bob.run("await calls.accept()")
    tiles(bob, "Ada", "Bob")
    call = ada.run("return calls.mine.value.hash")
    eve.until("Object.values(calls.ongoing.value).length")
    # by records
    refused = "return circle.act('call', 'general', ...given).catch(({ reason }) => reason)"
    host = ada.run("return circle.me.id")
    assert eve.run(refused, ["end", call]) == "NOT_ALLOWED"
    assert eve.run(refused, ["revoke", call, host]) == "NOT_ALLOWED"
    assert eve.run(refused, ["create", "audio", {"ring": ["x"]}]) == "MALFORMED"
    # by the pipe: of a call that she is not in, and as the host that she is not
    eve.run(
        """const lies = circle.pipe("call");
        const call = given;
        for (const lie of [
          { t: "in", call, camera: true, muted: "yes" }, { t: "out", call }, { t: "full", call },
          { t: "admitted", call }, { t: "in", call: "x".repeat(64) }, { t: "in" }, { t: 5, call },
          "in", 7, null, [], { t: "declined", call: "__proto__" }, { t: "in", call: [call] },
          new Uint8Array(9),
        ]) await lies.send(lie)""",
        call,
    )
    eve.run("await circle.inCall(given)", call)  # and by the word of her node
    for one in (ada, bob):
        one.run("window.word = (await circle.calls())[0].word")
        one.until("[...circle.peers.values()].every((one) => one.abilities.includes(word))")
    for one in (ada, bob):
        one.run("await calls.refresh()")
        assert one.run("return calls.tiles.value.map(({ name }) => name).sort()") == ["Ada", "Bob"]
        assert one.run("return [calls.mine.value.hash, calls.waiting.value]") == [call, False]
    assert bob.run("return flows('Ada', 'audio')")
    # a member who rings and rings is heard a few times
    for _ in range(7):
        made = eve.run("return circle.act('call', 'general', 'create', 'audio')")
        eve.run("await circle.act('call', 'general', 'end', given)", made["hash"])
    assert bob.run("return calls.mine.value.hash") == call
    # who was shut out stays out
    ada.run("await calls.revoke(given)", bob.run("return circle.me.id"))
    bob.until("calls.problem.value?.reason === 'REVOKED' && !calls.mine.value")
    bob.run("await calls.join('general')")
    bob.until("calls.problem.value?.reason === 'REVOKED' && !calls.mine.value")
    ada.until("calls.tiles.value.length === 1")


def test_turn_alone_carries_a_call_and_ice_finds_another_way_when_it_is_cut(
    pages: Pages, tmp_path: Path
) -> None:
    """By the coturn that we ship the configuration of, with logins that the service makes."""
    if turn.missing():
        pytest.skip(turn.missing())
    first, again = tmp_path / "first", tmp_path / "again"
    first.mkdir()
    again.mkdir()
    with ExitStack() as stack:
        cut = stack.enter_context(ExitStack())
        port = cut.enter_context(turn.running(first, secret=TURN_SECRET, here_too=True))
        server = {"urls": [f"turn:127.0.0.1:{port}?transport=udp"], "secret": TURN_SECRET}
        plan = json.dumps({"ice_servers": [server | {"realm": turn.REALM}]})
        service = stack.enter_context(
            local.running(tmp_path / "service", assist=plan, websocket_url="")
        )
        ada, bob = people(
            pages, address(service.base).text, "Ada", "Bob", iceTransportPolicy="relay"
        )
        ada.run("await calls.start('general', 'video')")
        bob.until("calls.ringing.value")
        bob.run("await calls.accept()")
        for one, other in ((ada, "Bob"), (bob, "Ada")):
            tiles(one, "Ada", "Bob")
            one.until("tile(given).health.path === 'turn'", other)
        bob.run("await flows('Ada', 'frames')")
        certificate, way = bob.run("return way()")
        cut.close()  # all that it has allocated is gone with it
        stack.enter_context(turn.running(again, secret=TURN_SECRET, port=port, here_too=True))
        bob.until("tile('Ada').health.state === 'poor'")
        bob.until("flow('Ada').then(({ frames }) => (window.stood = frames))")
        bob.until("flow('Ada').then(({ frames }) => frames > stood + 5)", ms=40_000)
        bob.run("await flows('Ada', 'audio')")
        after = bob.run("return way()")
        assert after[0] == certificate  # the same connection
        assert after[1] != way
        tiles(bob, "Ada", "Bob")


def test_a_call_by_keyboard_alone_from_ringing_to_hanging_up(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    bob = joined(pages, ada.make(), "Bob")
    ada.sees("Bob")
    bob.sees("Ada")
    press = ada.page.keyboard.press
    press("F4")
    expect(ada.button("Start a call")).to_be_focused()
    press("Enter")
    expect(ada.page.locator(".call-panel .tile")).to_have_count(1)

    rings = bob.page.get_by_role("alertdialog", name="Ada is calling")
    bob.page.keyboard.type("hello ")  # a key that was meant for a text takes no call
    rings.wait_for()
    panel = ada.page.locator(".call-panel")
    expect(panel).to_contain_text("Ringing Bob")
    bob.page.keyboard.press("F4")
    expect(bob.button("Accept")).to_be_focused()
    bob.page.keyboard.press("Enter")
    rings.wait_for(state="detached")
    for one in (ada, bob):
        expect(one.page.locator(".call-panel .tile")).to_have_count(2)
        expect(one.page.locator(".tile .mark.connected")).to_have_count(1)
    assert bob.page.locator("#compose").input_value() == "hello "
    # what is heard is played, and is no silence
    bob.person.until(
        "[...document.querySelectorAll('audio')].some((one) => !one.paused && one.currentTime > 0)"
    )
    expect(bob.page.locator(".tile.speaking", has_text="Ada")).to_have_count(1)

    microphone, camera = bob.button("Microphone"), bob.button("Camera")
    expect(microphone).to_have_attribute("aria-pressed", "true")
    microphone.focus()
    bob.page.keyboard.press("Space")
    expect(microphone).to_have_attribute("aria-pressed", "false")
    expect(ada.page.locator(".tile", has_text="Bob")).to_contain_text("muted")
    bob.page.keyboard.press("Tab")
    expect(camera).to_be_focused()
    bob.page.keyboard.press("Enter")
    expect(ada.page.get_by_label("Picture of Bob")).to_be_visible()
    ada.person.until("document.querySelector('.tile video').videoWidth > 0")
    large = ada.button("Show Bob large")
    large.focus()
    for pressed in ("true", "false"):
        press("Enter")
        expect(large).to_have_attribute("aria-pressed", pressed)
        expect(ada.page.locator(".tile.large", has_text="Bob")).to_have_count(
            int(pressed == "true")
        )
    before = ada.button("Hang up").bounding_box()
    panel.get_by_text("Devices").click()
    expect(panel.get_by_label("Speaker")).to_be_visible()
    assert ada.button("Hang up").bounding_box() == before

    ada.button("Shut Bob out").focus()
    press("Enter")
    expect(ada.page.locator(".shut-out")).to_be_focused()  # it is asked once more
    press("Enter")
    bob.page.get_by_text("The host has shut you out of this call").wait_for()
    ada.button("Hang up").focus()
    press("Enter")
    expect(ada.page.locator(".call-panel")).to_have_count(0)
    expect(bob.page.locator(".call-card")).to_contain_text("lasted less than a minute")
