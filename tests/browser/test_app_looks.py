"""The app's looks, and whether everybody can use it: every screen, light and dark, small and large.

A `Scene` is a circle in which much has been said; `walk` shows one screen of the app after the
other in it. The looks are then asked of axe, of a narrow page, and of a keyboard.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Page, Request, TimeoutError, ViewportSize, expect

from tests.support.app import Member, visit
from tests.support.pages import ROOT, Pages, told

AXE = ROOT / "tests/node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

SMALL: ViewportSize = {"width": 320, "height": 640}
PHONE: ViewportSize = {"width": 390, "height": 844}
DESK: ViewportSize = {"width": 1280, "height": 800}

LONG_NAME = "Dr. Wilhelmina-Alexandrina von und zu Hohenfriedeberg-Langenau"
LONG_WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
CODE = """It says:
```
$ sync --from attic --to cellar --exclude '*.tmp' --verbose --progress --delete-after
412 files, 3 of them newer there
```
so `--delete-after` is wrong."""

CHANNEL = """const called = (name) =>
  until(async () => (await circle.channels()).find((one) => one.name === name));"""
DIALOGS = ("invite", "channel", "about", "settings", "leave", "search", "help", "create", "bring")


def show(page: Page, script: str, given: Any = None) -> Any:
    """Change what the app holds, as `session` and `room`."""
    return page.evaluate(
        f"""async (given) => {{
            const session = await import(new URL("./model/session.js", document.baseURI));
            const room = session.room.value;
            {script}
        }}""",
        given,
    )


@dataclass
class Scene:
    """Ada in front of the app, in a circle of four, where everything is that can be."""

    pages: Pages
    service: str
    how: dict[str, Any] = field(default_factory=dict)

    def begin(self) -> Scene:
        ada = self.ada = visit(self.pages, self.service, **self.how)
        self.link = ada.make("Allotment 12", "Ada")
        self.cast = {name: self.pages.person() for name in ("Bert", LONG_NAME, "دانا")}
        for name, person in self.cast.items():
            person.join(self.link, name=name)
        bert, long, dana = self.cast.values()
        show(ada.page, "await until(() => room.peers.value.length === 3)")
        self.channels()
        ada.say("Who comes to water the beans on Thursday?")
        bert.reads("Who comes to water the beans on Thursday?")
        bert.run(
            """const [asked] = await circle.history("general", { limit: 1 });
            await circle.act("react", asked.hash, "👍", true);
            await circle.post("general", given[0], { reply: asked.hash });
            for (const one of given.slice(1)) await circle.post("general", one)""",
            [
                "I do, and **Dana** too. After six it is *much* cooler.",
                "Plan of the beds: https://example.org/beds?year=2031&view=plan",
                CODE,
            ],
        )
        ada.reads("is wrong")
        long.post(f"{LONG_WORD} {LONG_WORD}. @Ada, what do you say?")
        ada.reads("what do you say?")
        dana.post("مرحبا، أحضر الماء والخبز. See you at 18:30!")
        ada.reads("18:30")
        ada.say("Bring the *blue* can")
        ada.reads("Bring the blue can")
        ada.say("Never mind")
        show(
            ada.page,
            """await until(() => room.messages.value.length > 7);
            const find = (words) => room.messages.value.find(({ text }) => text.includes(words));
            await until(() => find("blue") && find("Never"));
            await room.act("edit", find("blue").hash, "Bring the *green* can");
            await room.act("delete", find("Never").hash);
            await room.react(find("18:30"), "🎉");
            await room.react(find("Who comes"), "👍");""",
        )
        ada.page.set_input_files("input[type=file]", [picture(), text_file()])
        ada.page.wait_for_selector(".offer")
        return self

    def channels(self) -> None:
        """Channels of all kinds: unread, asked for, left and locked."""
        bert, long, _ = self.cast.values()
        keys = show(
            self.ada.page,
            """const { channel } = await room.act("create", "seeds and swaps", "public");
            await room.act("topic", channel, "What we have too much of, and what we look for");
            await room.act("create", given, "public");
            return (await room.act("create", "keys", "invite")).channel;""",
            "a-channel-with-a-name-that-is-longer-than-any-column",
        )
        bert.run(
            f"""{CHANNEL}
            const {{ channel }} = await circle.act("create", "board", "invite");
            await circle.act("create", "cellar", "key", "correct horse");
            const ada = [...circle.peers.values()].find(({{ name }}) => name === "Ada");
            await circle.act("invite", channel, ada.member);
            await circle.act("join", (await called("seeds and swaps")).id);
            await circle.post("seeds and swaps", "Twelve tomato plants to give away");
            await circle.post("seeds and swaps", "and two pumpkins")"""
        )
        long.run("await until(() => circle.act('join', given).then(() => 1, () => 0))", keys)
        self.ada.page.locator(".item", has_text="board").wait_for(state="attached")
        show(
            self.ada.page,
            """const unlock = () => room.act("unlock", "cellar", "correct horse").catch(() => null);
            await room.act("leave", (await until(unlock)).channel);""",
        )
        bert.run(
            f"""{CHANNEL}
            const {{ id, members }} = await called("board");
            await circle.act("remove", id, members.find((one) => one !== circle.me.id));"""
        )
        swaps = self.ada.page.locator(".item", has_text="seeds and swaps")
        swaps.locator(".badge").wait_for(state="attached")


def picture(width: int = 320, height: int = 180) -> FilePayload:
    """A picture to offer: beds in the evening, from above, as far as a formula can."""

    def colour(x: int, y: int) -> bytes:
        bed = (x // 40 + y // 45) % 2
        return bytes((90 + y // 3 + 40 * bed, 120 + x // 8 - 30 * bed, 70 + (x + y) // 12))

    rows = b"".join(b"\0" + b"".join(colour(x, y) for x in range(width)) for y in range(height))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return {"name": "beds.png", "mimeType": "image/png", "buffer": png}


def text_file() -> FilePayload:
    name = "the-minutes-of-the-meeting-of-march-with-all-that-was-said-and-more.txt"
    return {"name": name, "mimeType": "text/plain", "buffer": b"minutes " * 9000}


def still(page: Page) -> None:
    """Wait until nothing moves any more but what moves for ever."""
    page.evaluate(
        """Promise.allSettled(document.getAnimations()
            .filter(({ effect }) => effect.getComputedTiming().endTime < Infinity)
            .map(({ finished }) => finished)).then(() => null)"""
    )


def welcome(member: Member) -> Iterator[str]:
    """Show what is there before one is in."""
    page = member.page
    page.get_by_role("heading", level=1).wait_for()
    yield "welcome"
    member.button("Make a circle").click()
    yield "create"
    member.button("Back").click()
    member.button("I have an invite link").click()
    yield "paste"
    page.get_by_label("Invite link or code").fill("muster2.damaged")
    member.button("Open").click()
    page.locator(".wrong").wait_for()
    yield "damaged paste"
    show(page, "void session.openInvite('muster2.damaged')")
    page.get_by_role("heading", name="This invite link is not whole").wait_for()
    yield "damaged link"
    member.button("To the beginning").click()
    show(page, "session.home.value = { ...session.home.value, open: false }")
    member.button("Make a circle").click()
    yield "closed service"
    show(
        page,
        """const { text } = await import(new URL("./text.js", document.baseURI));
        session.problem.value = text.problems.insecure(given);
        session.screen.value = "problem";""",
        "muster.of-the-allotment-gardens.example.org:8080",
    )
    yield "insecure address"
    show(page, "session.screen.value = 'loading'")
    yield "loading"


def invited(member: Member) -> Iterator[str]:
    """Show what an invite link opens."""
    member.button("Go in").wait_for()
    yield "invited"


def general(scene: Scene) -> None:
    """Show the channel that everybody is in."""
    show(scene.ada.page, "room.enter('0'.repeat(32))")
    scene.ada.page.get_by_role("log", name="Messages in #general").wait_for()
    scene.ada.page.locator(".message", has_text="green").wait_for(state="attached")


def calling(scene: Scene) -> Iterator[str]:
    """Show somebody who calls, and the call."""
    page = scene.ada.page
    bert = scene.cast["Bert"]
    general(scene)
    hash = bert.run("return (await circle.act('call', 'general', 'create', 'audio')).hash")
    page.wait_for_selector(".incoming")
    yield "incoming call"
    page.get_by_role("button", name="Accept", exact=True).click()
    page.wait_for_selector(".controls")
    yield "call"
    page.get_by_role("button", name="Hang up").click()
    page.wait_for_selector(".controls", state="detached")
    bert.run("await circle.act('call', 'general', 'end', given)", hash)


def talk(scene: Scene) -> Iterator[str]:
    """Show all of the talk, and every dialog."""
    page = scene.ada.page
    page.wait_for_selector(".message")
    yield "talk"
    page.locator(".message", has_text="green").hover()
    yield "actions"
    page.locator(".message", has_text="green").focus()
    page.keyboard.press("+")
    page.wait_for_selector(".emoji-choice")
    yield "emoji"
    page.keyboard.press("Escape")
    page.fill("#compose", "/c")
    page.locator("#compose").press("End")
    page.keyboard.type("a")
    page.wait_for_selector("[role=listbox]")
    yield "suggestions"
    page.fill("#compose", "")
    page.locator(".message", has_text="is wrong").focus()
    page.keyboard.press("r")
    page.wait_for_selector(".about-text")
    page.fill("#compose", "\n".join(["A longer answer."] * 9))
    yield "long answer"
    page.fill("#compose", "")
    page.keyboard.press("Escape")
    people = page.get_by_role("button", name="People, Here now")
    if not page.locator(".people").is_visible():
        people.click()
        yield "people"
        people.click()
    menu = page.get_by_role("button", name="Circles and channels")
    if menu.is_visible():
        menu.click()
        page.locator("#sidebar button:focus").wait_for()
        still(page)
        yield "drawer"
        page.keyboard.press("Escape")
        page.locator(".head button:focus").wait_for()
        still(page)
    for name in DIALOGS:
        show(page, "session.dialog.value = { name: given }", name)
        page.wait_for_selector("dialog[open]")
        if name == "search":
            page.get_by_label("Words").fill("the")
            page.wait_for_selector(".found .item")
        if name == "channel":
            page.get_by_label("with a passphrase").check()
        yield f"dialog {name}"
        if name == "settings":
            for summary in page.locator("summary").all():
                summary.click()
            page.locator("details").last.scroll_into_view_if_needed()
            yield "dialog export"
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
    page.locator(".message", has_text="green").focus()
    page.keyboard.press("Delete")
    page.wait_for_selector("dialog[open]")
    yield "dialog delete"
    page.keyboard.press("Escape")
    page.locator(".picture").click()
    page.wait_for_selector("dialog[open]")
    yield "dialog picture"
    page.keyboard.press("Escape")
    show(
        page,
        """session.note("Saved");
        session.note("There is no command /nonsense. F1 lists them.", "wrong");
        session.update.value = true;
        const why = "the service does not answer";
        room.state.value = { ...room.state.value, state: "offline", why };
        room.troubles.value = [{ reason: "CLOCK_WRONG", message: "" }];
        session.closed.value = [{ id: "1", name: "Choir", why: "It was opened elsewhere." }]""",
    )
    page.wait_for_selector(".banner")
    yield "troubles"
    show(
        page,
        """session.notes.value = session.closed.value = room.troubles.value = [];
        session.update.value = false;
        room.state.value = { ...room.state.value, state: "live", why: "" };""",
    )
    for name, id in (
        ("seeds and swaps", "unread"),
        ("board", "gate"),
        ("cellar", "passphrase gate"),
        ("keys", "requests"),
    ):
        show(
            page,
            """room.enter(room.channels.value.find((one) => one.name === given).id)""",
            name,
        )
        page.locator(".place h1", has_text=name).wait_for()
        if id == "unread":
            page.wait_for_selector(".divider.new")
        if "gate" in id:
            page.wait_for_selector(".gate")
        if id == "requests":
            show(page, "session.dialog.value = { name: 'about' }")
            page.locator("dialog").get_by_role("button", name="Let in").wait_for()
        yield id
    page.keyboard.press("Escape")
    show(
        page,
        """const about = room.channels.value.find((one) => one.name === "cellar");
        session.dialog.value = { name: "unlock", about };""",
    )
    page.wait_for_selector("dialog[open]")
    yield "dialog unlock"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")


class Keys:
    """Somebody with a keyboard and nothing else."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def write(self, text: str) -> None:
        self.page.keyboard.type(text)

    def where(self) -> str:
        """Return the name of what has the focus."""
        return str(
            self.page.evaluate(
                """() => {
                    const one = document.activeElement;
                    const named = one.ariaLabel ?? one.labels?.[0]?.innerText ?? one.innerText;
                    return (named || one.tagName).replace(/\\s+/g, " ").trim();
                }"""
            )
        )

    def at(self, name: str) -> None:
        """Wait until something has the focus."""
        try:
            self.page.wait_for_function(
                """(name) => {
                    const one = document.activeElement;
                    const named = one.ariaLabel ?? one.labels?.[0]?.innerText ?? one.innerText;
                    return (named || "").replace(/\\s+/g, " ").trim().startsWith(name);
                }""",
                arg=name,
                timeout=4000,
            )
        except TimeoutError:
            raise AssertionError(f"the focus is at {self.where()!r}, and not at {name!r}") from None

    def inside(self, title: str) -> None:
        """Wait until a dialog is open, and the focus in it."""
        dialog = self.page.get_by_role("dialog", name=title)
        expect(dialog).to_be_visible()
        expect(dialog.locator(":focus")).to_have_count(1)

    def go(self, name: str, key: str, *, backwards: bool = False) -> None:
        """Tab to something, and press a key there."""
        for _ in range(60):
            if self.where().startswith(name):
                return self.press(key)
            self.press("Shift+Tab" if backwards else "Tab")
        raise AssertionError(f"no Tab leads to {name!r}")


def axe(page: Page, screen: str) -> list[str]:
    """Ask axe about a screen, in light and, as far as colours go, in dark."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())
    found: list[str] = []
    for scheme, kind, values in (("light", "tag", RULES), ("dark", "rule", ["color-contrast"])):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        still(page)
        said = page.evaluate(
            """async (runOnly) => {
                const shown = document.querySelector("dialog[open]") ?? document;
                const how = { runOnly, resultTypes: ["violations"] };
                const { violations } = await axe.run(shown, how);
                return violations.flatMap(({ id, nodes }) => nodes.map(
                    ({ target, failureSummary }) => `${id} ${target}: ${failureSummary}`));
            }""",
            {"type": kind, "values": values},
        )
        found += [f"{screen}, {scheme}: {one}" for one in said]
    page.emulate_media(color_scheme="light")
    return found


WIDE = """() => {
    const isSeen = (one) =>
        one.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    const isMovable = (one) => one === document.documentElement
        || /auto|scroll/.test(getComputedStyle(one).overflowX);
    const all = "html, body, body *:not(pre, textarea, input)";
    const movable = [...document.querySelectorAll(all)].filter((one) => one.clientWidth > 1
        && one.scrollWidth > one.clientWidth + 1 && isMovable(one) && isSeen(one));
    const parts = `button, input, textarea, select, summary, label, h1, h2, h3, p, img,
        .message, .banner, .note, .file`;
    const outside = [...document.querySelectorAll(parts)].filter((one) => {
        const { left, right, width } = one.getBoundingClientRect();
        return width > 1 && isSeen(one) && (left < -0.5 || right > innerWidth + 0.5);
    });
    return [...movable, ...outside].map((one) => one.outerHTML.slice(0, 120));
}"""

TINY = """() => {
    const parts = `button, input:not([type=radio], [type=checkbox]), select, summary,
        [role=option], label:has(input)`;
    const shown = document.querySelector("dialog[open]") ?? document;
    return [...shown.querySelectorAll(parts)].filter((one) => {
        const place = one.closest("h1") ? one.closest(".place") : one; // its button is all of it
        const { width, height } = place.getBoundingClientRect();
        return place.checkVisibility({ visibilityProperty: true }) && Math.min(width, height) < 36;
    }).map((one) => one.outerHTML.slice(0, 120));
}"""


def wide(page: Page, screen: str) -> list[str]:
    """Say what of a screen is out of sight to a side, or can be moved to one."""
    still(page)
    return [f"{screen}: {one}" for one in page.evaluate(WIDE)]


def tiny(page: Page, screen: str) -> list[str]:
    """Say what of a screen a finger would miss: less than 36 px in height or width."""
    return [f"{screen}: {one}" for one in page.evaluate(TINY)]


@pytest.fixture(scope="module")
def scene(browser: Pages, here: str) -> Iterator[Scene]:
    """A circle in which much has been said; whatever a page throws fails the last test."""
    how = {"viewport": SMALL, "permissions": ["microphone", "camera"]}
    yield Scene(browser, here, how).begin()
    browser.close()


@dataclass
class Seen:
    """What was found on the screens of the app, each shown once."""

    screens: list[str] = field(default_factory=list)
    by_axe: list[str] = field(default_factory=list)
    too_wide: list[str] = field(default_factory=list)
    too_small: list[str] = field(default_factory=list)

    def look(self, page: Page, screens: Iterator[str]) -> None:
        for screen in screens:
            self.screens.append(screen)
            self.too_wide += wide(page, screen)
            self.too_small += tiny(page, screen)
            self.by_axe += axe(page, screen)
            if screen in ("welcome", "talk", "call"):
                page.set_viewport_size(DESK)
                self.by_axe += axe(page, f"{screen} on a desk")
                page.set_viewport_size(SMALL)


@pytest.fixture(scope="module")
def seen(scene: Scene) -> Seen:
    found = Seen()
    stranger = visit(scene.pages, scene.service, **scene.how)
    found.look(stranger.page, welcome(stranger))
    guest = visit(scene.pages, "", path=scene.link, **scene.how)
    found.look(guest.page, invited(guest))
    found.look(scene.ada.page, talk(scene))
    found.look(scene.ada.page, calling(scene))
    return found


def test_axe_finds_nothing_on_any_screen_in_light_and_dark(seen: Seen) -> None:
    told(screens_of_the_app=len(seen.screens))
    assert seen.by_axe == []


def test_no_screen_is_wider_than_320_px(seen: Seen) -> None:
    assert seen.too_wide == []


def test_a_finger_hits_every_control_of_a_small_screen(seen: Seen) -> None:
    assert seen.too_small == []


def test_text_of_twice_the_size_fits(scene: Scene) -> None:
    page = scene.ada.page
    devtools = page.context.new_cdp_session(page)
    narrow: ViewportSize = {"width": 640, "height": 900}
    for viewport in (DESK, narrow):
        page.set_viewport_size(viewport)
        devtools.send("Page.setFontSizes", {"fontSizes": {"standard": 32, "fixed": 26}})
        page.wait_for_function("getComputedStyle(document.documentElement).fontSize === '32px'")
        found = wide(page, "talk")
        page.keyboard.press("F3")
        page.wait_for_selector("dialog[open]")
        found += wide(page, "settings")
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
        devtools.send("Page.setFontSizes", {"fontSizes": {"standard": 16, "fixed": 13}})
        assert found == []


def test_what_is_newest_stays_in_sight_over_an_open_keyboard(scene: Scene) -> None:
    page = scene.ada.page
    general(scene)
    page.set_viewport_size(PHONE)
    last = page.locator(".log > :last-child")
    expect(last).to_be_in_viewport(ratio=1)
    page.set_viewport_size({"width": 390, "height": 500})
    expect(last).to_be_in_viewport(ratio=1)
    expect(page.locator("#compose")).to_be_in_viewport(ratio=1)


def test_nothing_moves_for_who_wants_no_motion(scene: Scene) -> None:
    page = scene.ada.page
    page.set_viewport_size(SMALL)
    moving = "document.getAnimations().length"
    menu = page.get_by_role("button", name="Circles and channels")
    menu.click()
    assert page.evaluate(moving) > 0
    page.keyboard.press("Escape")
    still(page)
    page.emulate_media(reduced_motion="reduce")
    menu.click()
    assert page.evaluate(moving) == 0
    page.keyboard.press("Escape")
    page.emulate_media(reduced_motion="no-preference")


def test_all_of_it_goes_by_keyboard_alone(browser: Pages, here: str) -> None:
    ada = visit(browser, here, viewport=DESK)
    page, keys = ada.page, Keys(ada.page)
    ada.button("Make a circle").wait_for()
    keys.go("Make a circle", "Enter")
    keys.at("Name of the circle")
    keys.write("Friends")
    keys.press("Tab")
    keys.at("Your name")
    keys.write("Ada")
    keys.press("Enter")
    keys.at("Message to #general")
    keys.write("Hello")
    keys.press("Enter")
    ada.reads("Hello")
    for key, title in (
        ("F1", "Help"),
        ("F2", "Invite to"),
        ("F3", "Settings"),
        ("Control+k", "Search"),
    ):
        keys.press(key)
        keys.inside(title)
        keys.press("Escape")
        keys.at("Message to #general")
    for button, title in (
        ("Make or join another circle", "Another circle"),
        ("New channel", "New channel"),
        ("Invite somebody", "Invite to Friends"),
        ("Ada Connected", "Settings"),
        ("#general", "About #general"),
        ("Search #general", "Search #general"),
    ):
        keys.go(button, "Enter")
        keys.inside(title)
        keys.go("Close", "Enter")
        keys.at(button)
    people = page.locator(".people")
    expect(people).to_be_visible()
    keys.go("People, Here now: 1", "Enter")
    expect(people).to_be_hidden()
    keys.press("Enter")
    expect(people).to_be_visible()
    keys.press("Escape")
    keys.at("Message to #general")
    keys.write("/he")
    keys.press("Tab")
    expect(page.locator("#compose")).to_have_value("/help ")
    keys.press("Enter")
    keys.inside("Help")
    keys.press("Escape")
    keys.at("Message to #general")
    keys.press("ArrowUp")
    keys.at("Ada, ")
    keys.write("+")
    keys.at("👍")
    keys.press("Tab", "Enter")
    expect(page.locator(".reaction")).to_have_accessible_name("❤️ 1: Ada")
    keys.at("Ada, ")
    keys.write("e")
    keys.at("Message to #general")
    keys.press("End")
    keys.write(" all")
    keys.press("Enter")
    ada.reads("Hello all")
    keys.press("ArrowUp")
    keys.press("Delete")
    keys.inside("Take this message back?")
    keys.go("Cancel", "Enter")
    keys.at("Ada, ")
    keys.go("New channel", "Enter", backwards=True)
    keys.at("Name")
    keys.write("beans")
    keys.press("Enter")
    keys.at("Message to #beans")
    keys.press("Alt+ArrowUp", "Alt+ArrowDown", "Alt+ArrowDown")
    keys.at("Message to #general")
    keys.go("beans", "Enter", backwards=True)
    keys.at("Message to #beans")


def test_a_screen_reader_hears_where_it_is_and_what_is_new_once(scene: Scene) -> None:
    page = scene.ada.page
    page.set_viewport_size(DESK)
    general(scene)
    expect(page.locator("body")).to_match_aria_snapshot(
        """
        - link "Skip to what is said"
        - complementary:
          - navigation "Circles":
            - list
          - navigation "Channels":
            - list
        - main:
          - 'heading "#general" [level=1]'
          - 'log "Messages in #general"'
          - 'textbox "Message to #general"'
        - complementary "People":
          - heading /Here now/ [level=2]
        - status
        """
    )
    for name in DIALOGS:
        show(page, "session.dialog.value = { name: given }", name)
        title = page.locator("dialog h2").first.inner_text()
        expect(page.get_by_role("dialog", name=title, exact=True)).to_be_visible()
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
    page.evaluate(
        """() => {
            window.heard = [];
            const places = `[aria-live=polite], [aria-live=assertive], [role=status],
                [role=alert], [role=log]:not([aria-live=off])`;
            const live = (one) => one.closest(places);
            new MutationObserver((all) => all.forEach(({ target, addedNodes }) => {
                const place = target.nodeType === 1 ? target : target.parentElement;
                if (live(place)) addedNodes.forEach((one) => heard.push(one.textContent));
            })).observe(document.body, { subtree: true, childList: true });
        }"""
    )
    bert = scene.cast["Bert"]
    bert.post("The can is back")
    scene.ada.reads("The can is back")
    bert.run(
        """const [said] = await circle.history("general", { limit: 1 });
        await circle.act("react", said.hash, "🎉", true);"""
    )
    scene.ada.message("The can is back").locator(".reaction").wait_for()
    show(page, "room.enter(room.channels.value.find(({ name }) => name === 'seeds and swaps').id)")
    scene.ada.reads("and two pumpkins")
    show(page, "session.note('Saved')")
    page.locator(".note", has_text="Saved").wait_for()
    heard = [one for one in page.evaluate("heard") if one]
    assert heard == ["Bert: The can is back", "Saved×"]


def test_chromium_would_install_it(scene: Scene) -> None:
    devtools = scene.ada.page.context.new_cdp_session(scene.ada.page)
    manifest = devtools.send("Page.getAppManifest")
    assert manifest["errors"] == []
    found = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
    private = {"errorId": "in-incognito", "errorArguments": []}  # as every page of a test
    assert [one for one in found if one != private] == []


def test_a_first_visit_is_counted(browser: Pages, here: str) -> None:
    context = browser.browser.new_context(viewport=PHONE)
    page = context.new_page()
    asked: list[Request] = []
    page.on("requestfinished", lambda one: asked.append(one))
    page.goto(here.partition("#")[0] + "/app/")
    page.get_by_role("button", name="Make a circle").wait_for()
    usable_ms = page.evaluate("Math.round(performance.now())")
    files = [one for one in asked if one.url.startswith(page.url)]
    sizes = [one.sizes() for one in files]
    told(
        first_load_requests=len(files),
        first_load_bytes=sum(one["responseBodySize"] for one in sizes),
        usable_ms=usable_ms,
    )
    origin = here.partition("#")[0]
    assert [one.url for one in asked if not one.url.startswith(f"{origin}/")] == []
    context.close()
