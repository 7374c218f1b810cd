"""Files and pictures of the app: offered to who is here, taken, stopped, and opened nowhere."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, expect

from tests.support.app import Member, joined, visit
from tests.support.pages import Pages, Person

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WATCH = """
  window.shown = new Set();
  const bars = document.getElementsByTagName("progress");
  const look = () => [...bars].forEach((bar) => shown.add(bar.value));
  const how = { subtree: true, childList: true, attributes: true };
  new MutationObserver(look).observe(document.querySelector("#log"), how);
  window.kinds = [];
  const make = URL.createObjectURL;
  URL.createObjectURL = (blob) => (kinds.push(blob.type), make.call(URL, blob));
"""
PAGE = b"<script>document.title = 'taken over'</script>"


def card(member: Member, name: str) -> Locator:
    return member.page.locator(".offer", has_text=name).last


def chosen(member: Member, name: str, content: bytes, kind: str = "text/plain") -> None:
    """Choose a file by the paper clip."""
    files: Any = [{"name": name, "mimeType": kind, "buffer": content}]
    member.page.locator("form.composer input[type=file]").set_input_files(files)


def dropped(member: Member, event: str, name: str, content: str, kind: str) -> None:
    """Drop a file on the page, or paste it into what is written."""
    member.run(
        """const [event, name, content, kind] = given;
        const data = new DataTransfer();
        const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt());
        data.items.add(new File([bytes], name, { type: kind }));
        const at = document.querySelector("#compose");
        const how = { bubbles: true, cancelable: true };
        at.dispatchEvent(event === "drop" ? new DragEvent("drop", { ...how, dataTransfer: data })
          : new ClipboardEvent("paste", { ...how, clipboardData: data }));""",
        [event, name, content, kind],
    )


def saved(member: Member, where: Locator, folder: Path) -> tuple[str, bytes]:
    """Save what has come; its name as the browser proposes it, and its bytes."""
    with member.page.expect_download() as found:
        where.get_by_role("button", name="Save").click()
    path = folder / "saved"
    found.value.save_as(path)
    return found.value.suggested_filename, path.read_bytes()


HELD = """
const read = Blob.prototype.arrayBuffer;
const released = new Promise((resolve) => { window.release = resolve; });
let parts = 0;
Blob.prototype.arrayBuffer = async function () {
  if ((parts += 1) > 2) await released;
  return read.call(this);
};
"""
"""A disk that gives two parts of a file, and the rest when it is told to."""


def test_a_file_is_offered_taken_with_progress_and_saved(
    pages: Pages, here: str, tmp_path: Path
) -> None:
    ada = visit(pages, here)
    ada.make()
    chosen(ada, "early.txt", b"too early")
    ada.note("Nobody is here to take it")
    bert = joined(pages, ada.link(), "Bert")
    ada.page.locator(".people .person", has_text="direct").wait_for()

    # A file is taken by a click; its progress is seen on both sides.
    content = bytes(range(256)) * (4 << 12)
    chosen(ada, "../../plan\u202etxt.exe", content, "application/x-plan")
    theirs = card(bert, "plan")
    expect(theirs).to_contain_text("plan txt.exe")
    expect(theirs).to_contain_text("4.2 MB")
    expect(card(ada, "plan")).to_contain_text("Offered to 1 member")
    bert.run(WATCH)
    theirs.get_by_role("button", name="Take").click()
    theirs.get_by_role("button", name="Save").wait_for(timeout=40_000)
    expect(card(ada, "plan")).to_contain_text("Taken by Bert")
    assert bert.run("return shown.size") > 1
    name, came = saved(bert, theirs, tmp_path)
    assert came == content
    assert "/" not in name
    assert "\u202e" not in name

    # A small picture is shown by itself, by drop and by paste too.
    for event, name in (("drop", "dropped.png"), ("paste", "pasted.png")):
        dropped(ada, event, name, base64.b64encode(PICTURE).decode(), "image/png")
        picture = card(bert, name).locator("img")
        picture.wait_for()
        expect(picture).to_have_js_property("naturalWidth", 1)
    picture.click()
    bert.page.locator("dialog[open] img.whole").wait_for()
    bert.page.keyboard.press("Escape")

    # Of a channel that is not shown it comes when that one is opened.
    bert.say("/channel create garden")
    expect(bert.page.locator(".place")).to_contain_text("garden")
    chosen(ada, "rose.png", PICTURE, "image/png")
    expect(card(ada, "rose.png")).to_contain_text("Offered to 1 member")
    bert.page.get_by_role("button", name="general", exact=True).click()
    card(bert, "rose.png").locator("img").wait_for()

    # A page is a file like others: it opens nowhere.
    chosen(ada, "page.html", PAGE, "text/html")
    card(bert, "page.html").get_by_role("button", name="Take").click()
    card(bert, "page.html").get_by_role("button", name="Save").wait_for()
    assert set(bert.run("return kinds")) == {"application/octet-stream", "image/png"}
    with bert.page.expect_download() as found:
        card(bert, "page.html").get_by_role("button", name="Save").click()
    assert found.value.suggested_filename == "page.html"
    assert "taken over" not in bert.page.title()

    # Who loads the page again has a line of each, and small pictures once more.
    bert.page.reload()
    card(bert, "rose.png").locator("img").wait_for()
    card(bert, "page.html").get_by_role("button", name="Take").wait_for()

    # Taken back, stopped midway, and gone with who had it.
    chosen(ada, "back.txt", b"back")
    card(bert, "back.txt").wait_for()
    card(ada, "back.txt").get_by_role("button", name="Take back").click()
    expect(card(ada, "back.txt")).to_have_count(0)
    expect(card(bert, "back.txt")).to_contain_text("No longer offered")
    ada.run(HELD)
    chosen(ada, "large.bin", bytes(16 << 20), "application/x-large")
    card(bert, "large.bin").get_by_role("button", name="Take").click()
    card(bert, "large.bin").get_by_role("button", name="Stop").click()
    ada.run("release()")
    card(bert, "large.bin").get_by_role("button", name="Take").wait_for()
    expect(card(ada, "large.bin").locator("progress")).to_have_count(0)
    expect(card(ada, "large.bin")).not_to_contain_text("Taken by")
    ada.page.reload()
    expect(card(ada, "plan")).to_contain_text("Who took it has it")
    expect(card(ada, "back.txt")).to_have_count(0)
    card(bert, "plan").get_by_role("button", name="Take").click()
    expect(card(bert, "plan")).to_contain_text("Ask Ada to send it again")
    ada.page.close()
    expect(card(bert, "large.bin")).to_contain_text("No longer offered")
    expect(card(bert, "rose.png").get_by_role("button", name="Save")).to_have_count(1)


def test_what_a_liar_offers_breaks_nothing(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    link = ada.make()
    liar: Person = pages.person()
    liar.join(link, name="Liar")
    ada.page.locator(".people .person", has_text="direct").wait_for()
    liar.run(
        """window.offers = circle.pipe("offers");
        window.offer = (id, more) => offers.send({
          ...{ t: "offer", id: String(id).padStart(32, "0"), channel: "0".repeat(32) },
          ...{ name: "a file", size: 4, type: "text/plain", ...more },
        });
        for (const [id, more] of given) await offer(id, more).catch(() => {});""",
        [
            (1, {"size": -1}),
            (2, {"size": 1e300}),
            (3, {"name": "x" * 256}),
            (4, {"id": "../x"}),
            (5, {"channel": None}),
            (6, {"type": ["image/png"]}),
            (7, {"name": {"toString": 1}}),
            (8, {"t": "gone"}),
            (9, {"name": "\u202e\u2066", "type": "image/svg+xml", "size": 9}),
            (10, {"name": "wrong size"}),
        ],
    )
    card(ada, "wrong size").wait_for()
    expect(ada.page.locator(".offer")).to_have_count(2)
    expect(ada.page.locator(".offer").first).to_contain_text("file9 bytes")
    liar.run(
        """offers.addEventListener("message", async ({ detail: { from, data } }) => {
          const pipe = circle.pipe(`file ${data.id}`, { to: from });
          await circle.pipe(`file ${data.id}`, { to: from, reliable: false }).send({ done: -5 });
          await pipe.send(new Blob(["longer than four"])).catch(() => {}); // it is stopped
        });"""
    )
    elsewhere = """return circle.pipe("elsewhere", { to: [...circle.peers.keys()][0] })
        .send(new Blob(["a file"])).then(() => "taken", ({ reason }) => reason)"""
    assert liar.run(elsewhere) == "TOO_LARGE", "no file comes by what the app does not open"
    card(ada, "wrong size").get_by_role("button", name="Take").click()
    expect(card(ada, "wrong size")).to_contain_text("It did not arrive whole. Try again.")

    # Of one node twenty are shown, the newest; what was said stays in sight.
    ada.say("still here")
    liar.run("for (let at = 100; at < 160; at += 1) await offer(at, { name: `offer ${at}` });")
    card(ada, "offer 159").wait_for()
    expect(ada.page.locator(".offer")).to_have_count(20)
    expect(card(ada, "offer 140")).to_have_count(1)
    ada.reads("still here")
