"""The app among liars, and in a browser that forgets: nothing breaks, and nothing is lost."""

from __future__ import annotations

import re

from playwright.sync_api import ConsoleMessage, expect

from tests.support.app import Member, joined, visit
from tests.support.pages import Pages, Person

TRAP = '<img src=x onerror="window.caught = 1"><script>window.caught = 1</script>'
ZALGO = "Z" + "".join(chr(0x300 + at % 112) for at in range(2000))


def liar(pages: Pages, link: str, name: str) -> Person:
    found = pages.person()
    found.join(link, name=name)
    return found


def test_names_and_texts_of_liars_are_shown_as_what_they_are(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    link = ada.make()
    page = ada.page
    complaints: list[str] = []

    def hear(said: ConsoleMessage) -> None:
        if said.type == "error":
            complaints.append(said.text)

    page.on("console", hear)
    eve = liar(pages, link, "<b>Eve</b>\u202eevil")
    eve.post(TRAP)
    eve.post("\u202edesrever \u2066 and [click](javascript:alert(1)) javascript:alert(2) http://")
    eve.post(ZALGO)
    eve.post("https://example.org/\u202egnp.exe and www.example.org")
    eve.post("```" * 400 + "`" * 400 + "**" * 400 + "@" * 400)
    ada.reads("www.example.org")
    trap = ada.reads("<img src=x")
    assert trap.locator("img, script").count() == 0
    assert page.evaluate("window.caught") is None
    expect(trap.locator(".author")).to_have_text("<b>Eve</b> evil")
    assert page.locator(".message a").count() == 1
    href = page.locator(".message a").first.get_attribute("href")
    assert href is not None
    assert href.startswith("https://example.org/")
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    tall = page.evaluate(
        """Math.max(...[...document.querySelectorAll(".message")]
          .map((one) => one.getBoundingClientRect().height))"""
    )
    assert tall < 1500

    # Who is called as another has a key behind the name; who has none is shown by the key.
    liar(pages, link, "A\u200bdа")  # with a Cyrillic letter, and one that is not seen
    page.locator(".people .person", has_text=re.compile(r"\([0-9a-f]{6}\)")).wait_for()
    liar(pages, link, "\u202e\u2066")
    page.locator(".people .person bdi", has_text=re.compile(r"^[0-9a-f]{6}$")).wait_for()

    # A text is clipped until all of it is asked for.
    eve.post("long " * 50_000)
    long = ada.reads("long long")
    assert len(long.locator(".text").inner_text()) < 10_000
    long.get_by_role("button", name="Show all of it (250 KB)").click()
    expect(long.locator("button.more")).to_have_count(0)
    assert len(long.locator(".text").inner_text()) > 249_000
    eve.post("line\n" * 5000)
    high = ada.reads("line\nline").evaluate("(one) => one.getBoundingClientRect().height")
    assert high < 2000

    # One's own is too long before it is said, and stays where it was written.
    page.fill("#compose", "x" * 300_000)
    page.locator("#compose").press("Enter")
    ada.note("This text has more than 256 KB. Send it as a file.")
    expect(page.locator("#compose")).to_have_value("x" * 300_000)
    page.fill("#compose", "")

    # One member and many emoji: a bound for each, and the rest is a count.
    said = eve.post("react to this")["hash"]
    ada.reads("react to this")
    eve.run(
        """const react = (emoji, on = true) => circle.act("react", given, emoji, on);
        for (let at = 0; at < 60; at += 1) await react(String.fromCodePoint(0x1f600 + at));
        await Promise.all(Array.from({ length: 1000 }, (_, at) => react("👍", at % 2 === 0)));
        for (const emoji of ["__proto__", "constructor", "<b>", "\u202e", "x".repeat(32)]) {
          await react(emoji);
        }
        await circle.post("general", "all reacted");""",
        said,
    )
    ada.reads("all reacted")
    reacted = page.locator(f"#m-{said}")
    expect(reacted.locator(".reaction")).to_have_count(12)
    expect(reacted.locator(".reactions")).to_contain_text(re.compile("[34] more"))
    reacted.hover()
    reacted.get_by_label("React").click()
    reacted.get_by_role("button", name="👀").click()
    mine = reacted.locator(".reaction[aria-pressed=true]")
    expect(mine).to_have_text("👀 1")
    mine.click()
    expect(mine).to_have_count(0)

    # Who lies about the time is shown when the text came.
    eve.run(
        """Date.now = () => 4e15;
        await circle.post("general", "from a far future").catch(() => {});
        Date.now = () => 5;
        await circle.post("general", "from the beginning of time").catch(() => {});"""
    )
    for text in ("from a far future", "from the beginning of time"):
        assert ada.reads(text).locator("time").first.text_content()
    expect(page.locator(".divider")).to_have_count(1)
    ada.say("and all goes on")
    ada.reads("and all goes on")
    assert complaints == []


def test_an_address_with_junk_in_it_opens_the_app_all_the_same(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    link = ada.make()
    ada.say("here")
    ada.reads("here")
    home = ada.page.url.partition("#")[0]
    for junk in ("%", "%E0%A4%A", "/" + "0" * 32, "<script>", "x" * 9000):
        ada.page.goto("about:blank")
        ada.page.goto(f"{home}#{junk}")
        ada.reads("here")
        ada.page.evaluate("(junk) => (location.hash = junk)", f"{junk}%")
    circle = ada.run('return (await import("/app/model/session.js")).room.value.id')
    ada.page.goto("about:blank")
    ada.page.goto(f"{home}#/{circle}/{'f' * 32}")
    ada.reads("here")
    expect(ada.page).to_have_title(re.compile("^#general"))
    code = link.partition("#")[2]
    for damaged in (code[:40], code + "x", code.swapcase(), code.replace("muster2.", "muster9.")):
        bert = visit(pages, here, path=f"{home}#{damaged}")
        expect(bert.page.locator("h1")).to_have_text("This invite link is not whole")
        assert "muster" not in bert.page.url.partition("#")[2]
        bert.page.close()


def test_a_browser_that_has_forgotten_settings_keeps_the_person(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    link = ada.make()
    bert = joined(pages, link, "Bert")
    bert.say("unforgotten")
    ada.reads("unforgotten")

    # Wiped: the circle knows how one is called.
    ada.page.evaluate("localStorage.clear()")
    ada.page.reload()
    ada.reads("unforgotten")
    expect(ada.page.locator(".sidebar .me bdi").first).to_have_text("Ada")
    ada.say("still Ada")
    expect(bert.reads("still Ada").locator(".author")).to_have_text("Ada")

    # Junk, and what another page has written.
    circle = ada.run('return (await import("/app/model/session.js")).room.value.id')
    for value in ("junk", "7", '"x"', '{"a":5}', '[null,{"urls":7}]'):
        ada.run(
            """for (const name of [
              ..."name theme notify ring turn viewers devices shown people".split(" "),
              ...["relay only", `unread ${given[0]}`, `channel ${given[0]}`],
            ]) localStorage.setItem(`muster app ${name}`, given[1]);""",
            [circle, value],
        )
        ada.page.reload()
        ada.reads("unforgotten")
        expect(ada.page).to_have_title(re.compile("^#general"))
    ada.page.evaluate("localStorage.setItem('muster app name', JSON.stringify('x'.repeat(99)))")
    ada.page.reload()
    ada.reads("unforgotten")

    # Forbidden altogether.
    ada.page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } });"
    )
    ada.page.reload()
    ada.reads("unforgotten")
    ada.say("without a memory")
    bert.reads("without a memory")


def _erase(member: Member) -> None:
    """Erase what the page has stored, as a browser does that needs space, while it is open."""
    cdp = member.person.context.new_cdp_session(member.page)
    origin = member.page.url.partition("/app/")[0]
    cdp.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "indexeddb"})


def test_storage_that_goes_or_is_full_is_said_and_the_talk_goes_on(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    bert = joined(pages, ada.make(), "Bert")
    ada.sees("Bert")
    ada.say("before")
    bert.reads("before")
    _erase(ada)
    ada.say("after it was erased")
    banner = ada.page.locator(".banner.wrong")
    expect(banner).to_contain_text("The browser has erased what was stored")
    bert.reads("after it was erased")
    bert.say("I still read you")
    ada.reads("I still read you")
    banner.get_by_role("button", name="Understood").click()
    expect(banner).to_have_count(0)
    ada.page.reload()
    expect(ada.page.locator("h1")).to_have_text("Talk in a small circle")

    # Full: what is said is said, and the person knows.
    bert.run(
        """IDBObjectStore.prototype.put = () => {
          throw new DOMException("no room", "QuotaExceededError");
        }"""
    )
    bert.say("what is too much")
    expect(bert.page.locator(".banner.wrong")).to_contain_text("The browser stores no more")
    bert.say("in a full house")
    bert.reads("in a full house")


def test_a_browser_that_stores_nothing_says_so(pages: Pages, here: str) -> None:
    context = pages.browser.new_context()
    context.add_init_script("Object.defineProperty(window, 'indexedDB', { value: undefined });")
    ada = Member(pages.tab(context, here.partition("#")[0] + "/app/"))
    expect(ada.page.locator("h1")).to_have_text("This browser stores nothing here")
    expect(ada.page.locator(".lead")).to_contain_text("Open the page in an ordinary window")


def test_of_many_circles_some_are_opened_when_they_are_chosen(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    ada.make("First", "Ada")
    ada.run(
        """const { Circle } = await import("/app/muster/index.js");
        for (let at = 2; at < 15; at += 1) {
          const made = await Circle.create({ circle: `Circle ${at}`, name: "Ada" });
          await made.leave();
        }"""
    )
    ada.page.reload()
    items = ada.page.locator(".sidebar .circle")
    expect(items).to_have_count(14)
    opened = (
        'return (await import("/app/model/session.js")).rooms.value.map((one) => one.title.value)'
    )
    expect(ada.page).to_have_title(re.compile("First"))
    assert len(ada.run(opened)) == 13, "the twelve used last, and the one of the address"
    assert "Circle 2" not in ada.run(opened)
    ada.page.locator(".sidebar .circle", has_text="Circle 2").click()
    expect(ada.page).to_have_title(re.compile("Circle 2"))
    expect(items).to_have_count(14)
    ada.say("in the second of all")
    ada.reads("in the second of all")
    ada.page.reload()
    ada.reads("in the second of all")
