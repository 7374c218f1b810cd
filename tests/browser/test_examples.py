"""The examples of the browser library as people use them: in several browsers, with a service."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import ConsoleMessage, FilePayload, Page, expect

from tests.support import local
from tests.support.members2 import address
from tests.support.pages import ROOT, Pages, Person

SEEN_MS = 20_000
KEPT_MS = 2500
"""The provider keeps what was typed after a second."""
YJS = ROOT / "tests" / "node_modules" / "yjs"

SHAPES = [(scheme, width) for scheme in ("light", "dark") for width in (320, 1280)]

WATCH_PROGRESS = """
  window.progress = [];
  new MutationObserver((changes) => {
    for (const { target } of changes) {
      if (target.localName === "progress") progress.push(target.value / target.max);
    }
  }).observe(document, { subtree: true, attributes: true, attributeFilter: ["value"] });
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that a user types."""
    with local.running(tmp_path_factory.mktemp("service")) as server:
        yield address(server.base).text


def heard(person: Person, said: ConsoleMessage) -> None:
    """What the policy of a page has refused is an error."""
    if "Content Security Policy" in said.text:
        person.errors.append(said.text)


def come(pages: Pages, example: str, name: str, *, place: str = "", link: str = "") -> Person:
    """Open an example, and fill in its form: with a service, or by a link."""
    person = pages.person(f"/web/examples/{example}/{link and '#' + link.split('#')[1]}")
    person.page.on("console", functools.partial(heard, person))
    person.page.get_by_label("Your name").fill(name)
    if place:
        person.page.get_by_label("Service").fill(place)
    person.page.get_by_role("button", name="Go in").click()
    expect(person.page.locator("#state")).to_have_text("live", timeout=SEEN_MS)
    return person


def link(person: Person) -> str:
    """What the page gives to others."""
    return person.page.get_by_label("Link for others").input_value()


def together(pages: Pages, example: str, place: str, *names: str) -> list[Person]:
    """The first makes a circle, the others come by its link; all wait until they see each other."""
    first = come(pages, example, names[0], place=place)
    people = [first, *(come(pages, example, name, link=link(first)) for name in names[1:])]
    for person in people:
        reached = person.page.locator("#people li.webrtc")
        expect(reached).to_have_count(len(names) - 1, timeout=SEEN_MS)
    return people


def upload(name: str, data: bytes) -> FilePayload:
    """What a user chooses from the disk."""
    return {"name": name, "mimeType": "text/plain", "buffer": data}


def is_pictured(page: Page, name: str, directory: Path) -> None:
    """Take a picture in light and dark, narrow and wide; nothing is wider than the screen."""
    directory = Path(os.environ.get("EXAMPLE_PICTURES", directory))
    for scheme, width in SHAPES:
        page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
        page.set_viewport_size({"width": width, "height": 640 if width < 400 else 800})
        picture = directory / f"{name}-{scheme}-{width}.png"
        page.screenshot(path=picture, animations="disabled")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_cursor_moves_where_others_see_it(pages: Pages, place: str, tmp_path: Path) -> None:
    ada, bob, eve = together(pages, "cursors", place, "Ada", "Bob", "Eve")

    for x, y in ((300, 300), (640, 400)):
        ada.page.mouse.move(x, y)
        for other in (bob, eve):
            cursor = other.page.locator(".cursor", has_text="Ada")
            other.page.wait_for_function(
                """([x, y]) => [...document.querySelectorAll(".cursor")].some((one) => {
                  const { left, top } = one.getBoundingClientRect();
                  return Math.abs(left - x) < 3 && Math.abs(top - y) < 3;
                })""",
                arg=[x, y],
                timeout=SEEN_MS,
            )
            expect(cursor).to_be_visible()
    bob.page.mouse.move(200, 500)
    expect(eve.page.locator(".cursor")).to_have_count(2, timeout=SEEN_MS)
    is_pictured(eve.page, "cursors", tmp_path)

    ada.page.close()
    for other in (bob, eve):
        expect(other.page.locator(".cursor", has_text="Ada")).to_have_count(0, timeout=SEEN_MS)


def test_a_file_arrives_whole_and_its_way_is_shown(
    pages: Pages, place: str, tmp_path: Path
) -> None:
    ada, bob = together(pages, "files", place, "Ada", "Bob")
    data = os.urandom(20_000_000)
    (tmp_path / "holiday in the mountains.tar").write_bytes(data)
    (tmp_path / "empty").write_bytes(b"")
    ada.page.evaluate(WATCH_PROGRESS)

    chosen = [tmp_path / "holiday in the mountains.tar", tmp_path / "empty"]
    ada.page.locator("#choose").set_input_files(chosen)
    expect(ada.page.get_by_text("Bob has it")).to_have_count(2, timeout=60_000)
    with bob.page.expect_download() as download:
        bob.page.get_by_role("link", name="holiday").click()

    raw = Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename == "holiday in the mountains.tar"
    assert hashlib.sha256(raw).digest() == hashlib.sha256(data).digest()
    shown = ada.page.evaluate("progress")
    assert shown[-1] == 1
    assert len([part for part in shown if 0 < part < 1]) > 10
    expect(bob.page.get_by_role("link", name="empty")).to_be_visible()

    bob.page.locator("#choose").set_input_files(upload("<b>shopping<b> list.txt", b"bread"))
    listed = ada.page.get_by_role("link", name="<b>shopping<b> list.txt")
    expect(listed).to_be_visible(timeout=SEEN_MS)
    is_pictured(ada.page, "files", tmp_path)


def test_a_file_to_who_has_gone_waits_and_is_lost_with_the_page(
    pages: Pages, place: str, tmp_path: Path
) -> None:
    ada, bob = together(pages, "files", place, "Ada", "Bob")
    (tmp_path / "large").write_bytes(os.urandom(200_000_000))
    ada.page.locator("#choose").set_input_files(tmp_path / "large")
    expect(ada.page.locator("progress")).to_be_visible()
    where = bob.page.url
    bob.page.goto("about:blank")
    expect(ada.page.get_by_text("Bob is away")).to_be_visible(timeout=SEEN_MS)

    bob.page.goto(where)
    expect(ada.page.get_by_text("Bob did not get it")).to_be_visible(timeout=40_000)


@pytest.mark.skipif(not YJS.exists(), reason="needs Yjs: make node")
def test_texts_converge_together_apart_and_alone(pages: Pages, tmp_path: Path) -> None:
    with local.running(tmp_path) as server:
        ada, bob = together(pages, "yjs", address(server.base).text, "Ada", "Bob")
        page = ada.page.get_by_label("Text", exact=True)
        other = bob.page.get_by_label("Text", exact=True)
        page.press_sequentially("Dinner at eight.")
        expect(other).to_have_value("Dinner at eight.", timeout=SEEN_MS)
        expect(bob.page.get_by_text("Ada writing")).to_be_visible()
        other.press("Home")
        other.press_sequentially("News: ")
        expect(page).to_have_value("News: Dinner at eight.", timeout=SEEN_MS)
        ada.page.wait_for_timeout(KEPT_MS)

        # Apart: no service, and no connection, as Bob's page was loaded anew.
        port = server.port
        server.stop()
        bob.page.reload()
        expect(other).to_have_value("News: Dinner at eight.", timeout=SEEN_MS)
        other.press("End")
        other.press_sequentially(" Bob brings bread.")
        page.press("Home")
        page.press_sequentially("Ada cooks. ")
        assert page.input_value() == "Ada cooks. News: Dinner at eight."
        with local.running(tmp_path, f"--port={port}"):
            both = "Ada cooks. News: Dinner at eight. Bob brings bread."
            expect(page).to_have_value(both, timeout=60_000)
            expect(other).to_have_value(both, timeout=60_000)
            is_pictured(bob.page, "yjs", tmp_path)

            # Alone: who comes when nobody is there finds it.
            ada.page.wait_for_timeout(KEPT_MS)
            link_of_ada = link(ada)
            for person in (ada, bob):
                person.page.close()
            eve = come(pages, "yjs", "Eve", link=link_of_ada)
            expect(eve.page.get_by_label("Text", exact=True)).to_have_value(both, timeout=SEEN_MS)


@pytest.mark.skipif(not YJS.exists(), reason="needs Yjs: make node")
def test_more_than_a_text_may_hold_is_kept_too(pages: Pages, place: str) -> None:
    ada = come(pages, "yjs", "Ada", place=place)
    long = "".join(f"{number:07}\n" for number in range(60_000))
    ada.page.evaluate(
        """(given) => {
          const area = document.querySelector("#text");
          area.value = given;
          area.dispatchEvent(new Event("input"));
        }""",
        long,
    )
    ada.page.wait_for_timeout(2 * KEPT_MS)
    where = link(ada)
    ada.page.close()

    eve = come(pages, "yjs", "Eve", link=where)

    eve.page.wait_for_function(
        "given => document.querySelector('#text').value.length === given",
        arg=len(long),
        timeout=SEEN_MS,
    )


@pytest.mark.skipif(not YJS.exists(), reason="needs Yjs: make node")
def test_a_member_who_plays_does_not_stop_the_text(pages: Pages, place: str) -> None:
    ada, bob = together(pages, "yjs", place, "Ada", "Bob")
    eve = pages.person()
    eve.join(link(ada), name="Eve")
    eve.sees("Ada", "webrtc")
    eve.sees("Bob", "webrtc")
    eve.run(
        """const texts = ["hello", "yjs:", "yjs:a:0:1:AAAA", "yjs:b:999:1:/w=="];
        for (const junk of texts) await circle.post("general", junk);
        const pieces = [null, 5, "x", [], { length: 1e9 }, new Uint8Array(300).fill(255)];
        for (const word of ["update", "ask", "state"]) {
          for (const junk of pieces) await circle.pipe(`yjs/${word}`).send(junk);
        }"""
    )

    ada.page.get_by_label("Text", exact=True).press_sequentially("All is well.")

    text = bob.page.get_by_label("Text", exact=True)
    expect(text).to_have_value("All is well.", timeout=SEEN_MS)
    ada.page.wait_for_timeout(KEPT_MS)
    where = link(ada)
    for person in (ada, bob):
        person.page.close()
    later = come(pages, "yjs", "Fay", link=where)
    text = later.page.get_by_label("Text", exact=True)
    expect(text).to_have_value("All is well.", timeout=SEEN_MS)


def test_a_form_says_what_was_wrong_and_lets_one_try_again(
    pages: Pages, place: str, tmp_path: Path
) -> None:
    person = pages.person("/web/examples/cursors/")
    is_pictured(person.page, "form", tmp_path)
    person.page.get_by_label("Your name").fill("Ada")
    person.page.get_by_label("Service").fill("not an address")
    person.page.get_by_role("button", name="Go in").click()
    expect(person.page.get_by_role("alert").first).not_to_be_empty()

    person.page.get_by_label("Service").fill(place)
    person.page.get_by_role("button", name="Go in").click()
    expect(person.page.locator("#state")).to_have_text("live", timeout=SEEN_MS)

    person.page.reload()
    expect(person.page.locator("#state")).to_have_text("live", timeout=SEEN_MS)
