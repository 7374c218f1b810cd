"""The app when the service is gone: history stays, peers talk on, and it comes back by itself."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.support import local
from tests.support.app import Member, joined, visit
from tests.support.members2 import address
from tests.support.pages import Pages


def state(member: Member, word: str) -> None:
    expect(member.page.locator(".sidebar .state")).to_have_text(word, timeout=30_000)


def test_without_a_service_one_reads_on_peers_talk_and_it_comes_back_by_itself(
    pages: Pages, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with local.running(data, websocket_url="") as server:
        here = address(server.base).text
        ada = visit(pages, here)
        bert = joined(pages, ada.make(), "Bert")
        ada.say("while it was there")
        bert.reads("while it was there")
        ada.page.locator(".people .person", has_text="direct").wait_for()
        bert.page.locator(".people .person", has_text="direct").wait_for()
        ada.run("await navigator.serviceWorker.ready; return null")
        cleo = joined(pages, ada.link(), "Cleo")
        cleo.reads("while it was there")
        cleo.page.close()
        port = server.port

    # Who is connected talks on; what to expect is said.
    state(ada, "No service")
    banner = ada.page.locator(".banner")
    expect(banner).to_contain_text("What you write is kept here and sent as soon as one is back.")
    expect(banner).to_contain_text("1 person is still connected to you directly.")
    ada.say("among ourselves")
    bert.reads("among ourselves")
    expect(ada.message("among ourselves").locator(".waits")).to_have_count(1)
    ada.page.keyboard.press("F3")
    expect(ada.page.locator("dialog[open] .services")).to_contain_text("No service")
    ada.page.keyboard.press("Escape")

    # Loaded again without it: from what is kept.
    ada.page.reload()
    ada.reads("while it was there")
    ada.reads("among ourselves")
    expect(ada.page).to_have_title(re.compile("^#general"))
    ada.say("into the void")
    ada.reads("into the void")
    expect(ada.message("into the void").locator(".waits")).to_have_count(1)
    state(ada, "No service")

    # Back: nothing is to be done.
    with local.running(data, f"--port={port}", websocket_url="") as server:
        bert.page.locator(".message", has_text="into the void").wait_for(timeout=60_000)
        state(ada, "Connected")
        expect(banner).to_have_count(0)
        expect(ada.message("into the void").locator(".sent")).to_have_count(1)
        dora = joined(pages, ada.link(), "Dora")
        dora.reads("among ourselves")
        dora.reads("into the void")

        # The founder adds another; the first is taken away after a question, and the last stays.
        with local.running(tmp_path / "second", websocket_url="") as second:
            services = ada.page.locator("dialog[open] .services li")
            gone = f"Meet at {server.base} no longer"
            ada.page.keyboard.press("F3")
            expect(services).to_have_count(1)
            expect(services.get_by_role("button")).to_have_count(0)
            ada.page.get_by_label("Add a service").fill(address(second.base).text)
            ada.button("Add").click()
            expect(services).to_contain_text(["Connected", "Connected"])
            for answer in ("Cancel", "Take it away"):
                expect(services).to_have_count(2)
                ada.button(gone).click()
                dialog = ada.page.locator("dialog[open]", has_text="Take this service away?")
                expect(dialog).to_contain_text(server.base)
                expect(dialog).to_contain_text("they need a new invite link")
                dialog.get_by_role("button", name=answer).click()
            ada.note(f"This device meets at {server.base} no longer.")
            expect(services).to_have_count(1)
            expect(services).to_contain_text(second.base)
            expect(services.get_by_role("button")).to_have_count(0)
            ada.page.keyboard.press("Escape")
            assert ada.link().startswith(second.base)
            dora.page.keyboard.press("F3")
            expect(dora.page.locator("dialog[open] .services li")).to_contain_text(
                ["Connected", "Connected"]
            )
            dora.page.keyboard.press("Escape")
            ada.say("at the second one")
            dora.reads("at the second one")
