"""Terminal and app in one circle: texts, channels, names and what a terminal shows of a call."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.cli.terminal import Terminal
from tests.support.app import visit
from tests.support.pages import Pages

PASSPHRASE = "correct horse"


def test_a_terminal_and_the_app_talk_in_one_circle(pages: Pages, here: str, tmp_path: Path) -> None:
    ada = visit(pages, here)
    link = ada.make("Friends", "Ada")
    ada.say("from the app **in bold**")
    bob = Terminal(tmp_path / "Bob", here.partition("#")[0])
    with bob.typing("chat", "--plain", "--bind", "127.0.0.1") as his:
        his.until("no circle")
        his.type(f"/join {link}")
        his.until("you are in 'Friends'")
        his.until(r"Ada: from the app \*\*in bold\*\*")
        expect(ada.sees("Bob")).to_contain_text("takes no calls")
        expect(ada.page.get_by_role("button", name="Ring Bob")).to_have_count(0)
        his.type("from the terminal")
        expect(ada.reads("from the terminal").locator(".author")).to_have_text("Bob")
        ada.say("/reply heard")
        his.until("heard")
        ada.say("/react 🎉")

        # Channels: an open one, one with a passphrase that the terminal makes, a private one.
        ada.say("/channel create garden")
        expect(ada.page.locator(".place")).to_contain_text("garden")
        ada.say("among flowers")
        his.until("#garden Ada: among flowers")
        his.type("/channel switch garden")
        his.type("and bees")
        ada.reads("and bees")
        his.type(f"/channel create vault key {PASSPHRASE}")
        his.until("#vault is made")
        his.type("the treasure")
        his.until("the treasure")
        ada.say(f"/channel join vault {PASSPHRASE}")
        ada.reads("the treasure")
        ada.say("found it")
        his.until("found it")
        ada.say("/channel create board invite")
        expect(ada.page.locator(".place")).to_contain_text("board")
        ada.say("/channel invite Bob")
        ada.note("Bob is in from now on")
        ada.say("a secret of the board")
        his.until("#board Ada: a secret of the board")

        # Names.
        his.type("/name Robert")
        ada.sees("Robert")
        ada.say("/name Ada the First")
        ada.say("/channel switch general")
        expect(ada.page.locator(".place")).to_contain_text("general")
        ada.say("under a new name")
        his.until("Ada the First: under a new name")

        # A call: the terminal says that it is on and who is in; it is not in, and ends nothing.
        ada.say("/call start")
        expect(ada.page.locator(".call-panel")).to_contain_text("Nobody is here whom it could ring")
        ada.say("come, all")
        his.until("come, all")
        his.type("/channel switch general")
        his.type("/call")
        his.until(r"a call is on \(audio\): Ada the First; a terminal cannot join it, the app can")
        his.type("/call end")
        his.until("only")
        expect(ada.page.locator(".call-panel")).to_have_count(1)
        ada.say("/call end")
        expect(ada.page.locator(".call-panel")).to_have_count(0)
        ada.say("that was it")
        his.until("that was it")
        his.type("/call")
        his.until("no call is on here")
        his.type("/quit")
        assert his.end() == 0
