"""Calls of the app, by its model, in pages with made-up devices: what flows is asked of getStats and seen in pixels.

Chromium's made-up camera is a green picture that moves, its microphone beeps once a second.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.pages import Pages, Person

CALLS = """
  const { CallModel } = await import("/web/app/model/call.js");
  const { signal } = await import("/web/app/ui.js");
  window.signals = { devices: signal({ audio: "", video: "", speaker: "" }), ring: signal(true) };
  window.calls = new CallModel({ circle, settings: { viewers: given.viewers ?? 6, ...signals } });
  window.tile = (name) => calls.tiles.value.find((one) => one.name === name);
  /** What has come from somebody: frames that were decoded, bytes of pictures and of sound. */
  window.flow = async (name) => {
    const peer = [...circle.peers.values()].find((one) => one.name === name);
    const all = Object.values(await circle.stats(peer.id)).filter((one) => one.type === "inbound-rtp");
    const sum = (kind, what) => all.filter((one) => one.kind === kind).reduce((sum, one) => sum + (one[what] ?? 0), 0);
    return { frames: sum("video", "framesDecoded"), video: sum("video", "bytesReceived"), audio: sum("audio", "bytesReceived") };
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
    const { localCertificateId, iceLocalUsernameFragment } = all.find(({ type }) => type === "transport");
    return [localCertificateId, iceLocalUsernameFragment];
  };
  /** The share of pixels that are green in what somebody shows. */
  window.green = async (name) => {
    const video = document.createElement("video");
    Object.assign(video, { muted: true, srcObject: new MediaStream(tile(name).stream.getVideoTracks()) });
    await video.play();
    const canvas = new OffscreenCanvas(64, 48).getContext("2d");
    await new Promise((seen) => video.requestVideoFrameCallback(seen));
    canvas.drawImage(video, 0, 0, 64, 48);
    video.srcObject = null;
    const { data } = canvas.getImageData(0, 0, 64, 48);
    let count = 0;
    for (let at = 0; at < data.length; at += 4) count += Number(data[at + 1] > 100 && data[at + 1] > 1.5 * data[at]);
    return count / (64 * 48);
  };
"""


def people(pages: Pages, service: str, *names: str, **settings: Any) -> list[Person]:
    """Open a page for each, all in one circle, each with the model of calls."""
    found = [pages.person() for _ in names]
    invite = found[0].create(service, name=names[0])
    for one, name in zip(found[1:], names[1:], strict=True):
        one.join(invite, name=name)
    for one in found:
        one.run(CALLS, settings)
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


def test_two_talk_and_see_each_other(pages: Pages, here: str) -> None:
    ada, bob = people(pages, here, "Ada", "Bob")
    ada.run("await calls.start('general', 'video')")
    bob.until("calls.ringing.value?.name === 'Ada' && calls.ringing.value.media === 'video'")
    bob.run("await calls.accept({ video: true })")
    for one, other in ((ada, "Bob"), (bob, "Ada")):
        tiles(one, "Ada", "Bob")
        assert one.run("return flows(given, 'frames')", other)
        assert one.run("return flows(given, 'audio')", other)
        assert one.run("return green(given)", other) > 0.5
        assert one.run("return tile(given).health.path", other) == "direct"
    bob.run("await calls.leave()")
    ada.until("calls.tiles.value.length === 1")
    ada.run("await calls.end()")
    bob.until("!Object.keys(calls.ongoing.value).length")


def test_three_are_in_one_call_and_go_on_when_its_host_has_left(pages: Pages, here: str) -> None:
    ada, bob, eve = everybody = people(pages, here, "Ada", "Bob", "Eve")
    ada.run("await calls.start('general', 'audio')")
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
    ada.run("await calls.join('general')")
    tiles(ada, "Ada", "Bob", "Eve")
    assert ada.run("return calls.mine.value.role") == "host"
    ada.run("await calls.end()")
    for one in (bob, eve):
        one.until("!calls.mine.value && calls.problem.value.reason === 'ENDED'")


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
    host, *others = everybody = people(pages, here, "Host", "A", "B", "C", "D", "E", viewers=4)
    host.run("await calls.start('general', 'broadcast')")
    for at, one in enumerate(others):
        one.until("Object.values(calls.ongoing.value).length === 1")
        assert one.run("return calls.ringing.value") is None
        one.run("await calls.view('general')")
        host.until("calls.viewers.value.length === given", at + 1)
    *seen, last = others
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
    assert everybody
