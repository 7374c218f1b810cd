"""The app's channels and slash commands: everything that the table of commands has, typed once."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.support.app import Member, joined, visit
from tests.support.pages import Pages

PASSPHRASE = "correct horse"


def title(member: Member, pattern: str) -> None:
    expect(member.page).to_have_title(re.compile(pattern))


def item(member: Member, channel: str) -> Locator:
    return member.page.locator("nav[aria-label=Channels] .item", has_text=channel)


def gate(member: Member) -> Locator:
    return member.page.locator(".gate")


def typed(member: Member, command: str, says: str = "") -> None:
    """Type a command, and wait for what the app says of it."""
    member.say(command)
    if says:
        member.note(says)
        member.page.locator(".note .quiet").first.click()


def dialog(member: Member) -> Locator:
    return member.page.locator("dialog[open]")


def test_a_channel_is_open_has_a_passphrase_or_lets_in_whom_it_invites(
    pages: Pages, here: str
) -> None:
    ada = visit(pages, here)
    ada.make()
    bert = joined(pages, ada.link(), "Bert")
    ada.sees("Bert")

    # Open to all: whoever reads it may join; its name and topic are for who manages it.
    ada.button("New channel").click()
    dialog(ada).get_by_label("Name").fill("garden")
    dialog(ada).get_by_role("button", name="Make the channel").click()
    title(ada, "#garden")
    item(bert, "garden").click()
    expect(gate(bert)).to_contain_text("You read #garden and have not joined it.")
    gate(bert).get_by_role("button", name="Join").click()
    expect(gate(bert)).to_have_count(0)
    bert.say("among flowers")
    ada.reads("among flowers")
    ada.page.locator(".place").click()
    dialog(ada).get_by_label("Name").fill("garden party")
    dialog(ada).get_by_label("What it is about").fill("Saturday")
    dialog(ada).get_by_role("button", name="Save").click()
    expect(bert.page.locator(".place")).to_contain_text("Saturday")
    expect(item(bert, "garden party")).to_have_count(1)
    bert.page.locator(".place").click()
    expect(dialog(bert).get_by_label("Name")).to_have_count(0)
    dialog(bert).get_by_role("button", name="Leave the channel").click()
    expect(gate(bert)).to_contain_text("have not joined")

    # With a passphrase: its name is known to who has it.
    ada.button("New channel").click()
    dialog(ada).get_by_label("Name").fill("vault")
    dialog(ada).get_by_label("with a passphrase").check()
    dialog(ada).get_by_label("Passphrase, at least").fill(PASSPHRASE)
    dialog(ada).get_by_role("button", name="Make the channel").click()
    title(ada, "#vault")
    ada.say("the treasure")
    ada.reads("the treasure")
    expect(item(bert, "vault")).to_have_count(0)
    bert.button("New channel").click()
    dialog(bert).get_by_role("button", name="Join a channel with a passphrase").click()
    dialog(bert).get_by_label("Name").fill("vault")
    dialog(bert).get_by_label("Passphrase").fill("wrong horse")
    dialog(bert).get_by_role("button", name="Join").click()
    expect(dialog(bert)).to_contain_text("opens with this passphrase")
    dialog(bert).get_by_label("Passphrase").fill(PASSPHRASE)
    dialog(bert).get_by_role("button", name="Join").click()
    bert.reads("the treasure")
    typed(bert, "/channel leave", "You have left #vault")
    expect(gate(bert)).to_contain_text("its passphrase opens it")
    assert bert.page.locator("#compose").count() == 0
    gate(bert).get_by_role("button", name="Join").click()
    dialog(bert).get_by_label("Passphrase").fill(PASSPHRASE)
    dialog(bert).get_by_role("button", name="Join").click()
    bert.page.wait_for_selector("#compose")

    # By invitation: asked for, let in, and out again.
    ada.button("New channel").click()
    dialog(ada).get_by_label("Name").fill("board")
    dialog(ada).get_by_label("by invitation").check()
    dialog(ada).get_by_role("button", name="Make the channel").click()
    title(ada, "#board")
    expect(item(bert, "board")).to_have_count(0)
    ada.page.get_by_label("Let into this channel: Bert").click()
    item(bert, "board").click()
    ada.say("a secret of the board")
    bert.reads("a secret of the board")
    bert.page.locator(".place").click()
    dialog(bert).get_by_role("button", name="Leave the channel").click()
    expect(gate(bert)).to_contain_text("#board is private")
    gate(bert).get_by_role("button", name="Ask to be let in").click()
    bert.page.wait_for_selector("#compose")  # who was let in comes back without a word
    ada.page.get_by_label("Remove from this channel: Bert").click()
    ada.page.get_by_role("button", name="Remove", exact=True).click()
    expect(gate(bert)).to_contain_text("You were removed from #board")
    expect(gate(bert).get_by_role("button")).to_have_count(0)
    expect(bert.page.get_by_label("Start a call")).to_have_count(0)
    ada.say("without Bert")
    ada.reads("without Bert")

    # Who has its address asks, and is let in.
    cleo = joined(pages, ada.link(), "Cleo")
    item(bert, "general").click()
    bert.say("Welcome, Cleo")
    cleo.reads("Welcome, Cleo")
    cleo.say(f"/channel join {ada.page.url[-32:]}")
    cleo.note("You have asked to be let into")
    expect(ada.page.locator(".people")).to_contain_text("asks to be let in")
    ada.page.locator(".place").click()
    dialog(ada).get_by_role("button", name="Let in").click()
    ada.page.keyboard.press("Escape")
    item(cleo, "board").click()
    cleo.say("may I?")
    ada.reads("may I?")
    expect(cleo.page.locator(".message", has_text="a secret of the board")).to_have_count(0)


def _help(ada: Member, bert: Member, link: str) -> None:
    ada.say("/help channel")
    expect(dialog(ada)).to_contain_text("/channel create NAME")
    expect(dialog(ada)).not_to_contain_text("/circle create")


def _invite(ada: Member, bert: Member, link: str) -> None:
    ada.say("/invite")
    expect(ada.page.locator("#invite-link")).to_have_value(re.compile(r"/app/#muster2\."))
    expect(dialog(ada).locator("svg.qr")).to_be_visible()


def _settings(ada: Member, bert: Member, link: str) -> None:
    ada.say("/settings")
    expect(dialog(ada).locator("h2")).to_have_text("Settings")


def _search(ada: Member, bert: Member, link: str) -> None:
    ada.say("a needle")
    ada.reads("a needle")
    ada.say("/search needle")
    expect(dialog(ada).locator(".found .item")).to_contain_text(["a needle"])


def _join(ada: Member, bert: Member, link: str) -> None:
    ada.say(f"/join {link[:-8]}")
    expect(ada.page.locator("h1")).to_have_text("This invite link is not whole")
    ada.button("To the beginning").click()
    typed(ada, "/join", "/join LINK")
    typed(ada, f"/join {link}")
    title(ada, "Friends")


def _circle_create(ada: Member, bert: Member, link: str) -> None:
    ada.say("/circle create Chess club")
    expect(dialog(ada).get_by_label("Name of the circle")).to_have_value("Chess club")
    dialog(ada).get_by_role("button", name="Make a circle").click()
    title(ada, "Chess club")


def _circles(ada: Member, bert: Member, link: str) -> None:
    typed(ada, "/circles", "Friends, Chess club")


def _circle_switch(ada: Member, bert: Member, link: str) -> None:
    typed(ada, "/circle switch Nowhere", "You are in no circle called ‘Nowhere’")
    ada.say("/circle switch friends")
    title(ada, "Friends")


def _circle_join(ada: Member, bert: Member, link: str) -> None:
    ada.say("/circle switch chess club")
    title(ada, "Chess club")
    ada.say(f"/circle join {link}")
    title(ada, "Friends")


def _circle_leave(ada: Member, bert: Member, link: str) -> None:
    ada.say("/circle switch chess club")
    title(ada, "Chess club")
    ada.say("/circle leave")
    expect(dialog(ada)).to_contain_text("Its keys and all that was said are erased")
    dialog(ada).get_by_role("button", name="Erase it here").click()
    title(ada, "Friends")
    expect(ada.page.locator(".sidebar .circle")).to_have_count(1)


def _circle_name(ada: Member, bert: Member, link: str) -> None:
    typed(bert, "/circle name Mine", "only those who manage the circle")
    typed(ada, "/circle name Friends of tea", "The circle is called Friends of tea")
    title(bert, "Friends of tea")
    typed(bert, "/circle name", "This circle is called Friends of tea")
    typed(ada, "/circle name Friends")


def _circle_keep(ada: Member, bert: Member, link: str) -> None:
    typed(ada, "/circle keep for ever", "/circle keep DAYS")
    typed(ada, "/circle keep 5000", "1 to 3650 days")
    typed(ada, "/circle keep 60", "Texts are kept for 60 days")


def _channel_create(ada: Member, bert: Member, link: str) -> None:
    typed(ada, "/channel create", "/channel create NAME")
    typed(ada, "/channel create vault key short", "at least 8 characters")
    ada.say(f"/channel create Long vault key {PASSPHRASE}")
    title(ada, "#Long vault")
    typed(ada, "/channel create long vault", "There is a channel 'long vault' already")


def _channel_join(ada: Member, bert: Member, link: str) -> None:
    typed(bert, "/channel join nowhere", "There is no channel #nowhere")
    typed(bert, "/channel join vault wrong horse", "opens with this passphrase")
    ada.say("/channel create tea")
    title(ada, "#tea")
    item(bert, "tea").wait_for()
    bert.say("/channel join tea")
    title(bert, "#tea")
    ada.say(f"/channel create cave key {PASSPHRASE}")
    title(ada, "#cave")
    ada.say("in the cave")
    ada.reads("in the cave")
    bert.say(f"/channel join cave {PASSPHRASE}")
    bert.reads("in the cave")


def _channel_switch(ada: Member, bert: Member, link: str) -> None:
    ada.say("/channel switch #Tea")
    title(ada, "#tea")
    bert.say("/channel switch tea")
    title(bert, "#tea")


def _channels(ada: Member, bert: Member, link: str) -> None:
    typed(ada, "/channels", "#general, #cave (with a passphrase), #Long vault")


def _channel_name(ada: Member, bert: Member, link: str) -> None:
    typed(bert, "/channel name mine", "only those who manage #tea")
    ada.say("/channel name green tea")
    title(bert, "#green tea")


def _channel_keep(ada: Member, bert: Member, link: str) -> None:
    typed(ada, "/channel keep 7", "Texts are kept for 7 days")
    ada.page.locator(".place").click()
    expect(dialog(ada)).to_contain_text("7 days")


def _topic(ada: Member, bert: Member, link: str) -> None:
    typed(bert, "/topic", "Nobody has said what this channel is about")
    ada.say("/topic Leaves & water")
    expect(bert.page.locator(".topic")).to_have_text("Leaves & water")
    typed(bert, "/topic", "Leaves & water")


def _channel_invite(ada: Member, bert: Member, link: str) -> None:
    ada.say("/channel create den invite")
    title(ada, "#den")
    typed(ada, "/channel invite Nobody", "Nobody is called ‘Nobody’")
    typed(ada, "/channel invite @Bert Brown", "Bert Brown is in from now on")
    item(bert, "den").click()
    title(bert, "#den")


def _channel_remove(ada: Member, bert: Member, link: str) -> None:
    typed(ada, "/channel remove Bert Brown", "Bert Brown is in this channel no longer")
    expect(gate(bert)).to_contain_text("You were removed from #den")
    item(bert, "cave").click()
    ada.say("/channel switch cave")
    title(ada, "#cave")
    typed(ada, "/channel remove Bert Brown", "at least 8 characters")
    typed(ada, "/channel remove Bert Brown another horse", "Bert Brown is in this channel no")
    expect(gate(bert)).to_contain_text("You were removed from #cave")
    ada.say("/channel switch general")
    item(bert, "general").click()


def _channel_leave(ada: Member, bert: Member, link: str) -> None:
    typed(ada, "/channel leave", "Everybody is in #general")
    typed(bert, "/channel leave green tea", "You have left #green tea")


def _who(ada: Member, bert: Member, link: str) -> None:
    ada.sees("Bert")
    ada.page.locator(".people .person", has_text="direct").wait_for()
    typed(ada, "/who", "Ada: you, Bert Brown: direct")


def _reply(ada: Member, bert: Member, link: str) -> None:
    bert.say("is it?")
    ada.reads("is it?")
    ada.say("/reply it is")
    expect(bert.reads("it is").locator(".answered")).to_contain_text("is it?")
    ada.say("/reply")
    expect(ada.page.locator(".about-text")).to_contain_text("Answering")
    ada.page.keyboard.press("Escape")


def _edit(ada: Member, bert: Member, link: str) -> None:
    ada.say("/edit it was")
    bert.reads("it was")
    ada.say("/edit")
    expect(ada.page.locator("#compose")).to_have_value("it was")
    ada.page.keyboard.press("Escape")
    expect(ada.page.locator("#compose")).to_have_value("")


def _react(ada: Member, bert: Member, link: str) -> None:
    typed(bert, "/react", "/react EMOJI")
    typed(bert, f"/react {'x' * 40}", "A react has another form")
    bert.say("/react 🎉")
    expect(ada.message("it was").locator(".reaction")).to_have_text("🎉 1")
    bert.say("/react 🎉")
    expect(ada.message("it was").locator(".reaction")).to_have_count(0)


def _delete(ada: Member, bert: Member, link: str) -> None:
    ada.say("/delete")
    expect(bert.page.locator(".message", has_text="it was")).to_have_count(0)
    bert.reads("taken back")


def _device(ada: Member, bert: Member, link: str) -> None:
    typed(ada, "/device Nobody", "Nobody is called ‘Nobody’")
    typed(ada, "/device Bert Brown", "On the device of Bert Brown, say the same of Ada the First")
    typed(ada, "/device Bert Brown no", "Bert Brown is somebody else from now on")
    typed(ada, "/device Bert Brown")
    typed(bert, "/device Ada the First", "then you are one person")
    ada.page.locator(".people .person", has_text="on 2 devices").wait_for()


def _name(ada: Member, bert: Member, link: str) -> None:
    typed(ada, "/name", "You are called Ada")
    typed(ada, f"/name {'é' * 40}", "A name has at most 64 bytes")
    typed(ada, "/name Ada the First", "You are called Ada the First")
    bert.say("/channel switch general")
    bert.page.locator(".people .person", has_text="Ada the First").wait_for()


def panels(ada: int, bert: int) -> Callable[[Member, Member], None]:
    def look(one: Member, other: Member) -> None:
        expect(one.page.locator(".call-panel")).to_have_count(ada)
        expect(other.page.locator(".call-panel")).to_have_count(bert)

    return look


def _call_start(ada: Member, bert: Member, link: str) -> None:
    typed(ada, "/call start carrier pigeon", "/call start [audio|video|broadcast]")
    ada.say("/call start")
    panels(1, 0)(ada, bert)
    bert.page.locator(".call-bar.on").wait_for()


def _call_join(ada: Member, bert: Member, link: str) -> None:
    bert.say("/call join")
    panels(1, 1)(ada, bert)


def _call_leave(ada: Member, bert: Member, link: str) -> None:
    bert.say("/call leave")
    panels(1, 0)(ada, bert)


def _call_view(ada: Member, bert: Member, link: str) -> None:
    bert.say("/call view")
    panels(1, 1)(ada, bert)


def _call_end(ada: Member, bert: Member, link: str) -> None:
    ada.say("/call end")
    panels(0, 0)(ada, bert)


TABLE: dict[str, Callable[[Member, Member, str], None]] = {
    "help": _help,
    "invite": _invite,
    "settings": _settings,
    "search": _search,
    "join": _join,
    "circle create": _circle_create,
    "circles": _circles,
    "circle switch": _circle_switch,
    "circle join": _circle_join,
    "circle leave": _circle_leave,
    "circle name": _circle_name,
    "circle keep": _circle_keep,
    "channel create": _channel_create,
    "channel join": _channel_join,
    "channel switch": _channel_switch,
    "channels": _channels,
    "topic": _topic,
    "channel name": _channel_name,
    "channel keep": _channel_keep,
    "channel invite": _channel_invite,
    "channel remove": _channel_remove,
    "channel leave": _channel_leave,
    "who": _who,
    "reply": _reply,
    "edit": _edit,
    "react": _react,
    "delete": _delete,
    "name": _name,
    "call start": _call_start,
    "call view": _call_view,
    "call join": _call_join,
    "call leave": _call_leave,
    "call end": _call_end,
    "device": _device,
}
"""In an order in which each finds what it needs, so that two pages are enough for all."""


def test_every_command_of_the_table_does_what_its_help_says(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    link = ada.make()
    bert = joined(pages, link, "Bert Brown")
    ada.sees("Bert Brown")
    known = ada.run(
        """const [{ COMMANDS }, { text }] =
          await Promise.all([import("/app/model/commands.js"), import("/app/text.js")]);
        return [Object.keys(COMMANDS), Object.keys(text.commandHelp)];"""
    )
    assert sorted(known[0]) == sorted(known[1])
    assert set(known[0]) == set(TABLE), "a command came or went: test it here"
    for try_it in TABLE.values():
        try_it(ada, bert, link)
        for one in (ada, bert):
            one.page.keyboard.press("Escape")
            expect(dialog(one)).to_have_count(0)
    said = ada.run(
        """return [...document.querySelectorAll(".message .text")].map((one) => one.textContent)"""
    )
    assert not [text for text in said if text.startswith("/")]


def test_what_looks_like_a_command_is_never_said(pages: Pages, here: str) -> None:
    ada = visit(pages, here)
    link = ada.make()
    for command, near in (
        (f"/jion {link}", "There is no command /jion. F1 lists them"),
        ("/", "There is no command /"),
        ("/channel", "Do you mean /channels, /channel create, /channel join"),
        ("/constructor", "There is no command /constructor"),
        ("/Circle nothing", "Do you mean /circles, /circle create"),
        ("/call fly", "Do you mean /call start"),
    ):
        ada.say(command)
        ada.note(near)
        expect(ada.page.locator("#compose")).to_have_value(command)
        ada.page.locator(".note .quiet").last.click()
    ada.say("//not a command")
    ada.reads("/not a command")
    expect(ada.page.locator(".message")).to_have_count(1)
    ada.page.locator("#compose").press("ArrowUp")
    ada.page.keyboard.press("e")
    expect(ada.page.locator("#compose")).to_have_value("//not a command")
    ada.say("//not one either")
    ada.reads("/not one either")
