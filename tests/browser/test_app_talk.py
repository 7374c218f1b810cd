"""The app's talk: the first visit, what is said and done to it, what is unread, and keys."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.cli.terminal import Terminal
from tests.support import local
from tests.support.app import Member, joined, visit
from tests.support.members2 import address
from tests.support.pages import Pages, told


def of(service: str) -> str:
    """Return where a service is, without its key."""
    return service.partition("#")[0]


def pressed(member: Member, *keys: str) -> None:
    for key in keys:
        member.page.keyboard.press(key)


def focused(page: Page) -> str:
    """Return the text of what has the focus."""
    return str(page.evaluate("document.activeElement.textContent"))


def title(member: Member, pattern: str) -> None:
    expect(member.page).to_have_title(re.compile(pattern))


def badge(member: Member, channel: str) -> Locator:
    return member.page.locator(".sidebar .item", has_text=channel).locator(".badge")


def test_a_first_visit_makes_a_circle_takes_links_and_says_what_is_wrong_with_one(
    pages: Pages, here: str
) -> None:
    ada = visit(pages, here)
    page = ada.page
    pressed(ada, "F2")
    ada.button("Make a circle").click()
    page.get_by_label("Name of the circle").fill("Friends")
    for wrong, says in (("   ", "at least one letter"), ("é" * 40, "at most 64 bytes")):
        page.get_by_label("Your name").fill(wrong)
        ada.button("Make a circle").click()
        expect(page.locator("p.wrong")).to_contain_text(says)
    page.get_by_label("Your name").fill("Ada")
    ada.button("Make a circle").click()
    page.wait_for_selector("#compose")
    assert page.locator("dialog").count() == 0, "F2 of before there was a circle does not wait"
    assert ada.run("return localStorage['muster app name']") == '"Ada"'
    friends = ada.link()

    # A second one, and back, and the same after a reload.
    ada.button("Make or join another circle").click()
    ada.button("I have an invite link").click()
    ada.button("Back").click()
    ada.button("Make a circle").click()
    page.get_by_label("Name of the circle").fill("Chess")
    page.locator("dialog").get_by_role("button", name="Make a circle").click()
    title(ada, "Chess")
    chess = ada.link()
    ada.say("King’s gambit?")
    ada.reads("King’s gambit?")
    page.locator(".sidebar .circle", has_text="Friends").click()
    title(ada, "Friends")
    expect(page.locator(".message")).to_have_count(0)
    page.locator(".sidebar .circle", has_text="Chess").click()
    page.reload()
    title(ada, "Chess")
    ada.reads("King’s gambit?")
    expect(page.locator(".sidebar .circle")).to_have_count(2)

    # A link to where one is already only shows it; no name is asked for, no second one opened.
    ada.say(f"/join {friends}")
    title(ada, "Friends")
    expect(page.locator(".sidebar .circle")).to_have_count(2)
    page.goto(chess)
    title(ada, "Chess")
    assert "muster2." not in page.url

    # Damaged, in a field and in the address bar: what to do, and nothing is lost.
    ada.button("Make or join another circle").click()
    ada.button("I have an invite link").click()
    field = page.get_by_label("Invite link or code")
    field.fill(friends[:-20])
    ada.button("Open").click()
    expect(page.locator("p.wrong")).to_contain_text("Ask for it again, and copy all of it")
    expect(field).to_have_value(friends[:-20])
    field.fill(f"  {friends}\n")
    ada.button("Open").click()
    title(ada, "Friends")
    bert = visit(pages, here, path=friends[:-9])
    expect(bert.page.locator("h1")).to_have_text("This invite link is not whole")
    expect(bert.page.locator(".lead")).to_contain_text("Ask for it again")
    bert.button("To the beginning").click()
    bert.button("I have an invite link").click()
    bert.page.get_by_label("Invite link or code").fill(friends)
    bert.button("Open").click()
    expect(bert.page.locator("h1")).to_have_text("You are invited to Friends")
    bert.enter("Bert")
    ada.sees("Bert")


def test_a_closed_service_is_used_by_its_whole_address(pages: Pages, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with local.running(data, access="closed", websocket_url="") as server:
        made = Terminal(tmp_path).run("access", "new", "--name", "us", "--data", str(data))
        whole = address(server.base, code=made.stdout.split()[0]).text
        ada = visit(pages, whole)
        ada.button("Make a circle").click()
        field = ada.page.get_by_label("Address of a service")
        field.wait_for()
        expect(ada.page.locator("form")).to_contain_text("Paste its whole address")
        ada.page.get_by_label("Name of the circle").fill("Friends")
        ada.page.get_by_label("Your name").fill("Ada")
        for wrong in ("muster", server.base, whole.partition("&")[0]):
            field.fill(wrong)
            ada.button("Make a circle").click()
            expect(ada.page.locator(".wrong")).not_to_be_empty()
            expect(field).to_have_value(wrong)
        field.fill(whole)
        ada.button("Make a circle").click()
        ada.page.wait_for_selector("#compose")
        ada.say("Behind the door")
        joined(pages, ada.link(), "Bert").reads("Behind the door")


def test_what_was_said_is_answered_changed_taken_back_and_reacted_to(
    pages: Pages, here: str
) -> None:
    ada = visit(pages, here)
    ada.make()
    ada.say("First **bold** *soft* `x < y` https://example.org/a_(b), @Bert <b>raw</b>")
    bert = joined(pages, ada.link(), "Bert")
    first = bert.reads("First")
    for tag, text in (("strong", "bold"), ("em", "soft"), ("code", "x < y"), ("mark", "@Bert")):
        assert first.locator(tag).inner_text() == text
    assert first.locator("a").get_attribute("href") == "https://example.org/a_(b)"
    assert first.locator("a").get_attribute("rel") == "noopener noreferrer nofollow"
    assert first.locator("b").count() == 0
    expect(first).to_contain_text("<b>raw</b>")
    expect(ada.reads("First").locator(".sent")).to_have_count(1)

    first = bert.page.locator(f"#{first.get_attribute('id')}")  # others hold its words too

    # An answer leads to what it answers.
    first.hover()
    first.get_by_label("Answer").click()
    expect(bert.page.locator(".about-text")).to_have_text("Answering Ada")
    bert.say("It is")
    answer = ada.reads("It is")
    expect(answer.locator(".answered")).to_contain_text("First")
    answer.locator(".answered").click()
    ada.page.wait_for_function("document.activeElement.textContent.includes('First')")

    # A change: the draft of before is there again.
    mine = bert.reads("It is")
    bert.page.fill("#compose", "a draft")
    mine.hover()
    assert ada.message("It is").get_by_label("Change").count() == 0, "only one's own is changed"
    mine.get_by_label("Change").click()
    expect(bert.page.locator("#compose")).to_have_value("It is")
    bert.say("It is so")
    expect(bert.page.locator("#compose")).to_have_value("a draft")
    expect(ada.reads("It is so")).to_contain_text("edited")
    mine = bert.reads("It is so")
    mine.hover()
    mine.get_by_label("Change").click()
    pressed(bert, "Escape")
    expect(bert.page.locator("#compose")).to_have_value("a draft")

    # Reactions: a second click takes one's own away.
    theirs = ada.message("It is so")
    theirs.hover()
    theirs.get_by_label("React").click()
    theirs.get_by_role("button", name="🎉").click()
    reaction = mine.locator(".reaction")
    expect(reaction).to_have_attribute("aria-label", "🎉 1: Ada")
    expect(reaction).to_have_attribute("aria-pressed", "false")
    reaction.click()
    expect(theirs.locator(".reaction")).to_have_text("🎉 2")
    expect(theirs.locator(".reaction")).to_have_attribute(
        "aria-label", re.compile("🎉 2: (Ada and Bert|Bert and Ada)")
    )
    reaction.click()
    expect(theirs.locator(".reaction")).to_have_text("🎉 1")
    theirs.locator(".reaction").click()
    expect(mine.locator(".reaction")).to_have_count(0)

    # Copied as it was written, and taken back after a question.
    bert.person.context.grant_permissions(["clipboard-read", "clipboard-write"])
    first.hover()
    first.get_by_label("Copy text").click()
    assert bert.run("return navigator.clipboard.readText()").startswith("First **bold**")
    mine.hover()
    mine.get_by_label("Take back").click()
    dialog = bert.page.locator("dialog")
    expect(dialog).to_contain_text("It is so")
    dialog.get_by_role("button", name="Cancel").click()
    expect(mine).to_contain_text("It is so")
    mine.hover()
    mine.get_by_label("Take back").click()
    dialog.get_by_role("button", name="Take it back").click()
    ada.reads("This message was taken back.")
    expect(ada.page.locator(".message", has_text="It is so")).to_have_count(0)
    assert bert.message("taken back").locator(".actions").count() == 0


def test_keys_alone_do_what_a_mouse_does(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    ada.make()
    page = ada.page
    for key, name in (("F1", "Help"), ("F2", "Invite to Friends"), ("F3", "Settings")):
        pressed(ada, key)
        expect(page.locator("dialog[open] h2")).to_have_text(name)
        pressed(ada, "Escape")
        expect(page.locator("dialog")).to_have_count(0)
    ada.say("/channel create garden")
    title(ada, "#garden")
    pressed(ada, "Alt+ArrowUp")
    title(ada, "#general")
    pressed(ada, "Alt+ArrowUp")
    title(ada, "#garden")
    pressed(ada, "Alt+ArrowDown")
    title(ada, "#general")
    bert = joined(pages, ada.link(), "Bert Brown")
    bert.say("one")
    ada.reads("one")
    ada.say("two")
    ada.reads("two")

    # Up through messages, and what their keys do.
    page.locator("#compose").focus()
    pressed(ada, "ArrowUp")
    assert "two" in focused(page)
    pressed(ada, "e")
    expect(page.locator("#compose")).to_have_value("two")
    pressed(ada, "Escape", "ArrowUp", "ArrowUp")
    assert "one" in focused(page)
    pressed(ada, "e", "Delete")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator("#compose")).to_have_value("")
    pressed(ada, "r")
    expect(page.locator(".about-text")).to_have_text("Answering Bert Brown")
    pressed(ada, "Escape")
    expect(page.locator(".about-text")).to_have_count(0)
    pressed(ada, "ArrowUp", "ArrowUp", "+", "Escape")
    assert "one" in focused(page)
    pressed(ada, "+", "Tab", "Enter")
    expect(ada.message("one").locator(".reaction")).to_have_text("❤️ 1")
    assert "one" in focused(page), "and one is where one was"
    pressed(ada, "ArrowDown", "Delete", "Enter")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(".message", has_text="taken back")).to_have_count(1)
    pressed(ada, "Escape")
    assert page.evaluate("document.activeElement.id") == "compose"

    # Suggestions.
    for typed, taken in (("/channel cr", "/channel create "), ("Hello @be", "Hello @Bert Brown ")):
        page.fill("#compose", "")
        page.locator("#compose").press_sequentially(typed)
        expect(page.get_by_role("option")).to_have_count(1)
        pressed(ada, "Tab")
        expect(page.locator("#compose")).to_have_value(taken)
    page.fill("#compose", "")
    page.locator("#compose").press_sequentially("in #g")
    expect(page.get_by_role("option")).to_have_text(["#general", "#garden"])
    pressed(ada, "ArrowDown", "Tab")
    expect(page.locator("#compose")).to_have_value("in #garden ")
    pressed(ada, "#", "Escape")
    expect(page.get_by_role("option")).to_have_count(0)
    expect(page.locator("#compose")).to_have_value("in #garden #")
    page.fill("#compose", "line 1")
    pressed(ada, "Shift+Enter")
    page.locator("#compose").press_sequentially("line 2")
    pressed(ada, "Enter")
    bert.reads("line 1\nline 2")


def test_what_is_unread_is_counted_marked_and_shared_between_tabs(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    ada.make()
    ada.say("/channel create garden")
    title(ada, "#garden")
    ada.page.fill("#compose", "not yet said")
    bert = joined(pages, ada.link(), "Bert")
    bert.say("seen before")
    expect(badge(ada, "general")).to_have_text("1")
    ada.page.locator(".sidebar .item", has_text="general").click()
    ada.reads("seen before")
    expect(ada.page.locator("#compose")).to_have_value("")
    expect(badge(ada, "general")).to_have_count(0)
    ada.page.locator(".sidebar .item", has_text="garden").click()
    expect(ada.page.locator("#compose")).to_have_value("not yet said")
    other = Member(pages.tab(ada.person.context, of(here) + "/app/"))
    title(other, "#garden")
    for number in range(3):
        bert.say(f"unread {number}")
    for one in (ada, other):
        expect(badge(one, "general")).to_have_text("3")
        title(one, r"^\(3\) ")
    ada.page.locator(".sidebar .item", has_text="general").click()
    divider = ada.page.locator(".divider.new")
    expect(divider).to_have_count(1)
    assert "unread 0" in divider.evaluate("node => node.nextElementSibling.textContent")
    for one in (ada, other):
        expect(badge(one, "general")).to_have_count(0)
        title(one, r"^#g")

    # The tab that does not show it counts what comes; the one that does has read it for both.
    bert.say("read at once")
    ada.reads("read at once")
    expect(badge(other, "general")).to_have_count(0)
    title(ada, "^#general")
    ada.page.close()
    bert.say("and later")
    expect(badge(other, "general")).to_have_text("1")
    other.page.reload()
    expect(badge(other, "general")).to_have_text("1")
    other.page.evaluate("document.querySelector('.sidebar [aria-label=Channels] .item').click()")
    expect(other.page.locator(".divider.new")).to_have_count(1)
    other.page.reload()
    title(other, "^#general")
    expect(other.page.locator(".divider.new")).to_have_count(0)


def test_of_1500_messages_the_newest_are_shown_and_the_others_come_in_their_place(
    pages: Pages, here: str
) -> None:
    ada = visit(pages, here)
    link = ada.make()
    writer = pages.person()
    writer.join(link, name="Writer")
    writer.run(
        """for (let at = 0; at < 1500; at += 1) {
          await circle.post("general", `line ${at}${at % 7 ? "" : " which is longer ".repeat(20)}`);
        }"""
    )
    ada.reads("line 1499")
    page = ada.page
    log = page.locator("#log")
    expect(page.locator(".message")).to_have_count(60)
    assert page.locator(".message.first").count() < 10, "one author at one time is one group"
    expect(page.locator(".jump")).to_have_count(0)

    def top() -> tuple[str, float]:
        """What stands at the top of what is seen, and where."""
        return tuple(
            page.evaluate(
                """() => {
              const log = document.querySelector("#log").getBoundingClientRect();
              const all = [...document.querySelectorAll(".message")];
              const first = all.find((one) => one.getBoundingClientRect().bottom > log.top + 1);
              return [first.id, first.getBoundingClientRect().top - log.top];
            }"""
            )
        )

    def scrolled(to: str, turns: int) -> None:
        """Scroll to an end of what is shown again and again; what was in sight stays there."""
        for _ in range(turns):
            ends = page.evaluate(
                f"""() => {{
                  const log = document.querySelector("#log");
                  log.scrollTop = {to};
                  return [...document.querySelectorAll(".message")].map(({{ id }}) => id);
                }}"""
            )
            before = top()
            page.wait_for_function(
                """([first, last]) => {
                  const all = [...document.querySelectorAll(".message")];
                  return all[0].id !== first || all.at(-1).id !== last;
                }""",
                arg=[ends[0], ends[-1]],
            )
            name, at = top()
            assert name == before[0]
            assert abs(at - before[1]) < 3
            assert page.locator(".message").count() <= 600

    scrolled("100", 2)
    expect(page.locator(".message")).to_have_count(300)
    expect(page.locator(".jump")).to_have_text("To the newest")
    before = top()
    writer.post("one more")
    ada.reads("one more")
    name, at = top()
    assert (name, abs(at - before[1]) < 3) == (before[0], True), "what comes below moves nothing"
    expect(badge(ada, "general")).to_have_text("1")
    below = "(log) => log.scrollHeight - log.scrollTop - log.clientHeight"
    page.locator(".jump").click()
    expect(badge(ada, "general")).to_have_count(0)
    assert log.evaluate(below) < 2

    # Up to the first message and down again, and never more than so many at once.
    scrolled("100", 10)
    log.evaluate("(log) => { log.scrollTop = 0; }")
    expect(page.locator(".beginning")).to_have_count(1)
    expect(page.locator(".message").first).to_contain_text("line 0")
    writer.post("the last one")
    expect(page.locator(".jump")).to_have_text("To the newest (1 unread)")
    expect(page.locator(".message", has_text="the last one")).to_have_count(0)
    scrolled("log.scrollHeight", 2)
    expect(page.locator(".beginning")).to_have_count(0)
    expect(badge(ada, "general")).to_have_text("1")
    page.locator(".jump").click()
    ada.reads("the last one")
    expect(page.locator(".jump")).to_have_count(0)
    expect(badge(ada, "general")).to_have_count(0)
    assert log.evaluate(below) < 2

    # Search, and go there.
    pressed(ada, "Control+k")
    page.get_by_label("Words").press_sequentially("line 42 longer")
    found = page.locator("dialog .found .item")
    expect(found).to_have_count(7)
    expect(page.locator("dialog")).to_contain_text("7 messages")
    page.get_by_label("Words").fill("no such words")
    expect(page.locator("dialog")).to_contain_text(
        "Nothing that is stored here has all these words."
    )
    page.get_by_label("Words").fill("line 42 longer")
    found.last.click()
    page.wait_for_function("document.activeElement.textContent.includes('line 42 ')")
    expect(page.locator("dialog")).to_have_count(0)
    assert log.evaluate(below) > 1000
    told(messages_shown=page.locator(".message").count())
    for line in ("line 41", "line 43"):
        expect(page.locator(".message", has_text=line).first).to_be_in_viewport()

    # An answer to it quotes it wherever it is; who writes is at the end again.
    page.keyboard.press("r")
    ada.say("an answer to that")
    answered = ada.reads("an answer to that").locator(".answered")
    expect(answered).to_contain_text("line 42 ")
    assert log.evaluate(below) < 2
    answered.click()
    page.wait_for_function("document.activeElement.textContent.includes('line 42 ')")
    ada.say("/delete")
    expect(ada.message("This message was taken back.")).to_be_in_viewport()
