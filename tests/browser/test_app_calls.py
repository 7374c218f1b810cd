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
