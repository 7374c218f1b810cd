"""The app attacked by members, links and other tabs: it stands, and sends nothing unasked."""

from __future__ import annotations

import json
import re

from playwright.sync_api import expect

from tests.support.app import Member, joined, visit
from tests.support.pages import Pages, Person

ROOM = 'const s = await import("/app/model/session.js"), room = s.room.value;'
#: Make a picture of few bytes and many points.
PLAIN = """
  const table = Array.from({ length: 256 }, (_, n) => {
    let c = n;
    for (let at = 0; at < 8; at += 1) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
    return c >>> 0;
  });
  const u32 = (n) => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255];
  const chunk = (kind, data) => {
    const body = [...kind].map((one) => one.charCodeAt()).concat([...data]);
    let crc = 0xffffffff;
    for (const one of body) crc = table[(crc ^ one) & 255] ^ (crc >>> 8);
    return [...u32(data.length), ...body, ...u32((crc ^ 0xffffffff) >>> 0)];
  };
  window.plain = async (name, side) => {
    const row = 1 + Math.ceil(side / 8);
    const packing = new CompressionStream("deflate");
    const out = new Response(packing.readable).arrayBuffer();
    const into = packing.writable.getWriter();
    for (let at = 0; at < side; at += 1) await into.write(new Uint8Array(row));
    await into.close();
    const head = chunk("IHDR", [...u32(side), ...u32(side), 1, 0, 0, 0, 0]);
    const data = chunk("IDAT", new Uint8Array(await out));
    const all = [137, 80, 78, 71, 13, 10, 26, 10, ...head, ...data, ...chunk("IEND", [])];
    return new File([new Uint8Array(all)], name, { type: "image/png" });
  };
"""
#: Devices that are given late, and what was given.
SLOW = """
  window.got = [];
  window.slow = 0;
  const late = (give) => async (how) => {
    await new Promise((resolve) => setTimeout(resolve, slow));
    const stream = await give(how);
    got.push(...stream.getTracks());
    return stream;
  };
  const { mediaDevices } = navigator;
  mediaDevices.getUserMedia = late(mediaDevices.getUserMedia.bind(mediaDevices));
  mediaDevices.getDisplayMedia = late(async () => {
    const canvas = document.createElement("canvas");
    canvas.getContext("2d");
    return canvas.captureStream(5);
  });
  window.live = () => got.filter((one) => one.readyState === "live").map((one) => one.kind);
"""


def hostile(pages: Pages, link: str, ada: Member, name: str = "Eve") -> Person:
    """Somebody in the circle who speaks the wire, and is reached."""
    eve = pages.person()
    eve.join(link, name=name)
    ada.page.locator(".people .person", has_text="direct").first.wait_for()
    return eve


def test_calls_of_an_impossible_time_or_by_hundreds_neither_break_the_talk_nor_end_a_call(
    pages: Pages, here: str
) -> None:
    ada = visit(pages, here)
    link = ada.make()
    bob = joined(pages, link, "Bob")
    eve = hostile(pages, link, ada)
    eve.run(
        """const { now } = Date;
        Date.now = () => 8.7e15;
        await circle.act("call", "general", "create", "audio");
        Date.now = now;
        await circle.post("general", "and now?");"""
    )
    ada.reads("and now?")
    expect(ada.page.locator(".call-card")).to_have_count(0)
    ada.button("Start a call").click()
    bob.button("Accept").click()
    expect(ada.page.locator(".tile")).to_have_count(2)
    eve.run(
        """for (let at = 0; at < 220; at += 1) {
          await circle.act("call", "general", "create", "audio");
        }
        await circle.post("general", "all are mine");"""
    )
    for one in (ada, bob):
        one.reads("all are mine")
        one.run(f"{ROOM} await room.calls.refresh()")
        expect(one.page.locator(".tile")).to_have_count(2)
        expect(one.page.locator(".call-problem")).to_have_count(0)

    # Who listens to a call that is no broadcast is seen by the host, and can be shut out.
    call = ada.run(f"{ROOM} return room.calls.mine.value.hash")
    eve.run("await circle.act('call', 'general', 'view', given); await circle.inCall(given)", call)
    watching = ada.page.get_by_role("region", name="Watching")
    # her node has 220 records to leave first
    expect(watching).to_contain_text("Eve", timeout=40_000)
    watching.get_by_role("button", name="Shut Eve out").wait_for()


def test_a_device_that_comes_late_is_given_back_and_sent_to_nobody_else(
    pages: Pages, here: str
) -> None:
    ada = visit(pages, here)
    bob = joined(pages, ada.make(), "Bob")
    ada.sees("Bob")
    for one in (ada, bob):
        one.run(SLOW)
    ada.run(
        f"""{ROOM}
        const {{ calls }} = room;
        await calls.start("general", "audio");
        slow = 300;
        const late = [calls.shareScreen(), calls.toggleCamera()];
        await calls.leave();
        slow = 0;
        await calls.start("general", "audio");
        await Promise.all(late);"""
    )
    assert ada.run("return live()") == ["audio"]
    sending = ada.run(f"{ROOM} return room.calls.sending.value")
    assert not sending["camera"]
    assert not sending["screen"]

    # Who leaves the circle in the middle of a call sends nothing, and it does not come back.
    bob.button("Accept with video").click()
    expect(bob.page.locator(".tile")).to_have_count(2)
    assert sorted(bob.run("return live()")) == ["audio", "video"]
    bob.page.keyboard.press("F3")
    bob.button("Leave this circle").click()
    bob.page.locator("dialog button.danger").click()
    expect(bob.page.locator("h1")).to_have_text("Talk in a small circle")
    assert bob.run("return live()") == []
    expect(ada.page.locator(".tile")).to_have_count(1)
    bob.page.reload()
    expect(bob.page.locator("h1")).to_have_text("Talk in a small circle")


def test_who_calls_one_person_or_takes_a_call_is_in_no_call_of_others(
    pages: Pages, here: str
) -> None:
    ada = visit(pages, here)
    link = ada.make()
    bob = joined(pages, link, "Bob")
    eve = hostile(pages, link, ada)
    for one in (ada, bob):
        one.run(SLOW)
    eve.run(
        "window.call = await circle.act('call', 'general', 'create', 'broadcast', { ring: [] })"
    )
    ada.page.locator(".call-bar.on").wait_for()
    ada.sees("Bob")
    ada.button("Ring Bob in #general").click()
    expect(ada.page.locator(".call-problem")).to_contain_text("Others have a call here")
    assert ada.run(f"{ROOM} return [room.calls.mine.value, live()]") == [None, []]

    # A call that rang is not taken if another is on at that moment.
    eve.run("await circle.act('call', 'general', 'end', call.hash)")
    ada.button("Start a call").click()
    bob.button("Accept").wait_for()
    bob.run(
        f"""{ROOM}
        const {{ calls }} = room;
        calls.ringing.value = {{ ...calls.ringing.value, hash: "0".repeat(64) }};
        await calls.accept();"""
    )
    expect(bob.page.locator(".call-problem")).to_contain_text("The call is over")
    assert bob.run("return live()") == []

    # Who goes on as a viewer gives the microphone back.
    bob.run(f"{ROOM} await room.calls.join('general')")
    assert bob.run("return live()") == ["audio"]
    bob.run(f"{ROOM} await room.calls.view('general')")
    assert bob.run("return live()") == []
    bob.run(f"{ROOM} await room.calls.becomeParticipant()")
    expect(ada.page.locator(".tile", has_text="Bob").locator(".silent")).to_have_count(0)
    assert bob.run("return live()") == ["audio"]


def test_a_picture_of_a_few_bytes_that_is_a_plain_of_many_points_is_a_file(
    pages: Pages, here: str
) -> None:
    ada = visit(pages, here)
    eve = hostile(pages, ada.make(), ada)
    eve.run(PLAIN)
    script = "await circle.pipe('files').send(await plain(...given))"
    eve.run(script, ["plain.png", 12_000])
    eve.run(script, ["small.png", 20])
    ada.page.locator(".offer", has_text="small.png").locator("img").wait_for()
    large = ada.page.locator(".offer", has_text="plain.png")
    large.get_by_role("button", name="Save").wait_for()
    expect(large.locator("img")).to_have_count(0)

    # What comes unasked makes room for itself.
    eve.run(
        """const pipe = circle.pipe("files");
        for (let at = 0; at < 5; at += 1) {
          const mib = new Uint8Array(2 ** 20);
          await pipe.send(new File([mib], `heap ${at}`));
        }"""
    )
    ada.page.locator(".offer", has_text="heap 4").get_by_role("button", name="Save").wait_for()
    ada.run(
        f"""{ROOM}
        const {{ offers }} = room.files;
        offers.value = offers.value.map((one) => ({{ ...one, size: 2 ** 26 }}));"""
    )
    eve.run("await circle.pipe('files').send(new File(['one more'], 'one more'))")
    ada.page.locator(".offer", has_text="one more").get_by_role("button", name="Save").wait_for()
    expect(ada.page.locator(".offer")).to_have_count(4)


def test_a_name_that_ends_as_a_key_does_gets_the_key_of_its_own(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    link = ada.make()
    second = hostile(pages, link, ada, "Ada")
    key = str(second.run("return circle.me.id"))[:6]
    people = ada.page.locator(".people .person bdi")
    expect(people.filter(has_text=f"Ada ({key})")).to_have_count(1)
    eve = hostile(pages, link, ada, f"Ada ({key})")
    hers = str(eve.run("return circle.me.id"))[:6]
    expect(people.filter(has_text=f"Ada ({key}) ({hers})")).to_have_count(1)
    expect(people.filter(has_text=re.compile(rf"^Ada \({key}\)$"))).to_have_count(1)


def test_what_is_being_written_outlasts_a_reload_and_a_link_that_opens_the_circle_anew(
    pages: Pages, here: str
) -> None:
    ada = visit(pages, here)
    link = ada.make()
    composer = ada.page.locator("#compose")
    composer.fill("half a thought")
    ada.page.reload()
    expect(composer).to_have_value("half a thought")

    # An invite by a member, to the same circle at a service of another: it is there all the same.
    crafted = ada.run(
        """const { readInvite, writeInvite } = await import("/app/muster/invites.js");
        const services = [{ url: "http://127.0.0.1:1234", id: "ab".repeat(16), code: "" }];
        return writeInvite({ ...await readInvite(given), services, name: "Ha\\u202eha" });""",
        link,
    )
    ada.page.evaluate("(code) => (location.hash = code)", crafted)
    ada.page.get_by_text("You are in this circle already.").wait_for()  # it names another service
    ada.button("Go in").click()
    expect(ada.page).to_have_url(re.compile("#/[0-9a-f]{32}/"))
    expect(composer).to_have_value("half a thought")

    # To somebody new the name of a circle turns nothing around.
    new = visit(pages, here, path=f"/app/#{crafted}")
    expect(new.page.locator("h1")).to_have_text("You are invited to Ha ha")
    assert "muster" not in new.page.url.partition("#")[2]

    # A command may hold a secret: it is kept nowhere.
    composer.fill(f"/join {link}")
    ada.page.reload()
    expect(composer).to_have_value("")
    assert link.partition("#")[2] not in json.dumps(
        ada.run(
            "return [{ ...sessionStorage }, { ...localStorage }, history.state, document.title]"
        )
    )

    # A link to a channel that there is not leaves one where one is.
    circle = ada.run(f"{ROOM} return room.id")
    ada.page.evaluate("(hash) => (location.hash = hash)", f"#/{circle}/{'f' * 32}")
    expect(ada.page).to_have_url(re.compile("#/" + circle + "/0{32}$"))
    expect(ada.page).to_have_title(re.compile("^#general"))


def test_a_link_with_a_profile_makes_somebody_else_and_renames_nobody(
    pages: Pages, here: str
) -> None:
    ada = visit(pages, here)
    link = ada.make()
    app, _, code = link.partition("#")
    other = Member(pages.tab(ada.person.context, f"{app}?profile=%3Cb%3Eother#{code}"))
    other.enter("Second")
    other.say("I am another")
    ada.reads("I am another")
    ada.page.reload()
    ada.say("I am Ada")
    expect(other.reads("I am Ada").locator(".author")).to_have_text("Ada")
    expect(ada.page.locator(".sidebar .me bdi").first).to_have_text("Ada")
    other.page.reload()
    other.say("still another")
    expect(ada.reads("still another").locator(".author")).to_have_text("Second")


def test_a_circle_that_was_left_in_one_tab_is_gone_in_the_other(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    ada.make()
    tab = Member(pages.tab(ada.person.context, ada.page.url))
    tab.page.wait_for_selector("#compose")
    ada.run(f"{ROOM} await s.leave(room)")
    expect(tab.page.locator("h1")).to_have_text("Talk in a small circle")
    tab.note("You have left Friends in another tab")
    tab.page.reload()
    expect(tab.page.locator("h1")).to_have_text("Talk in a small circle")
    kept = tab.run("return Object.keys({ ...localStorage, ...sessionStorage })")
    assert not [one for one in kept if re.search("unread|channel|drafts", one)]


def test_unread_messages_of_many_channels_leave_room_for_the_rest(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    ada.make()
    ada.run(
        f"""{ROOM}
        for (let at = 0; at < 22; at += 1) {{
          for (let n = 0; n < 100; n += 1) {{
            const hash = `${{at}} ${{n}}`.padStart(64, "0");
            const message = {{ hash, channel: `${{at}}`.padStart(32, "f"), mine: false, text: "" }};
            const author = {{ id: "0".repeat(64), name: "Eve" }};
            room.circle.hear("message", {{ ...message, author, at_ms: 0 }});
          }}
        }}"""
    )
    assert ada.run(f"{ROOM} return room.count.value") == 2000
    kept = ada.run("return Object.values({ ...localStorage }).join('').length")
    assert kept < 200_000
    newest = ada.run(f"{ROOM} return room.unread.value['21'.padStart(32, 'f')].at(-1)")
    assert newest == "21 99".rjust(64, "0")
