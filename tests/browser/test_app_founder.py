"""What a founder does in the app: somebody is removed, and the circle is handed on."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Locator, expect

from muster.circle import events
from tests.support.app import Member, joined, visit
from tests.support.pages import Pages
from tests.support.program import program


def dialog(member: Member) -> Locator:
    return member.page.locator("dialog[open]")


def test_a_founder_removes_a_member_and_hands_the_circle_on_to_a_program(
    pages: Pages, here: str, tmp_path: Path
) -> None:
    ada = visit(pages, here)
    link = ada.make("Friends", "Ada")
    bert, cleo = joined(pages, link, "Bert"), joined(pages, link, "Cleo")
    with program(link, "Dora", tmp_path / "us.muster2") as dora:
        for name in ("Bert", "Cleo", "Dora"):
            ada.sees(name)
        ada.say("before")
        for member in (bert, cleo, dora):
            member.reads("before")
        cleo.sees("Bert")
        expect(cleo.button("Remove from the circle: Bert")).to_have_count(0)

        ada.button("Remove from the circle: Bert").click()
        expect(dialog(ada)).to_contain_text("Remove Bert from Friends?")
        expect(dialog(ada)).to_contain_text("The invite links of before no longer work")
        dialog(ada).get_by_role("button", name="Remove, and give new keys").click()
        ada.note("Bert is removed.")
        ada.say("without him")
        for member in (cleo, dora):
            member.reads("without him")
        dora.says("I stay")
        ada.reads("I stay")
        for member in (ada, cleo):
            expect(member.page.locator(".person", has_text="Bert")).to_have_count(0)

        expect(bert.page.locator(".gate")).to_contain_text("removed this device from the circle")
        expect(bert.page.locator(".banner")).to_contain_text("left you out")
        expect(bert.page.locator("#compose")).to_have_count(0)
        expect(bert.message("before")).to_have_count(1)
        expect(bert.page.locator(".message", has_text="without him")).to_have_count(0)

        ada.page.keyboard.press("F3")
        ada.button("Hand the circle on").click()
        dialog(ada).get_by_label("Dora").check()
        expect(dialog(ada)).to_contain_text("Dora could remove you as well")
        dialog(ada).get_by_role("button", name="Give it to Dora").click()
        ada.note("Dora gets the founder’s key")
        dora.run(dora.member.until(lambda told: events.Founder() in told, "the founder's key"))
        dora.run(dora.member.here.rekey())
        dora.says("by keys of mine")
        for member in (ada, cleo):
            member.reads("by keys of mine")

        # By a new invite he is in again.
        bert.page.get_by_role("button", name="Understood").first.click()
        bert.page.goto(ada.link())
        bert.button("Go in").click()
        bert.page.wait_for_selector("#compose")
        bert.say("here again")
        for member in (ada, cleo, dora):
            member.reads("here again")
        ada.sees("Bert")
