"""The app as a person uses it: in a page of a real service, by what is written on its buttons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.support.pages import Pages, Person

SOON_MS = 15_000
expect.set_options(timeout=SOON_MS)  # what is waited for comes soon, on a busy machine later


@dataclass
class Member:
    """Somebody in front of the app."""

    person: Person
    page: Page = field(init=False)

    def __post_init__(self) -> None:
        self.page = self.person.page
        self.page.set_default_timeout(SOON_MS)

    def make(self, circle: str = "Friends", name: str = "Ada") -> str:
        """Make a circle on the first visit; returns the invite link."""
        self.button("Make a circle").click()
        self.page.get_by_label("Name of the circle").fill(circle)
        self.page.get_by_label("Your name").fill(name)
        self.button("Make a circle").click()
        self.page.wait_for_selector("#compose")
        return self.link()

    def enter(self, name: str) -> None:
        """Answer the invite that the page was opened with."""
        self.page.get_by_label("Your name").fill(name)
        self.button("Go in").click()
        self.page.wait_for_selector("#compose")

    def link(self) -> str:
        """Return the invite link, as the dialog shows it."""
        self.page.keyboard.press("F2")
        found = self.page.locator("#invite-link").input_value()
        self.page.keyboard.press("Escape")
        self.page.wait_for_selector("dialog", state="detached")
        return found

    def button(self, name: str, *, exact: bool = True) -> Locator:
        return self.page.get_by_role("button", name=name, exact=exact).first

    def say(self, text: str) -> None:
        """Write a text or a command, and send it."""
        self.page.fill("#compose", text)
        self.page.press("#compose", "Enter")

    def message(self, text: str) -> Locator:
        return self.page.locator(".message", has_text=text).last

    def reads(self, text: str) -> Locator:
        """Wait until a text is in the log."""
        found = self.message(text)
        found.wait_for()
        return found

    def sees(self, name: str) -> Locator:
        """Wait until somebody is among those who are here."""
        found = self.page.locator(".people .person", has_text=name).first
        found.wait_for()
        return found

    def note(self, text: str) -> None:
        """Wait until the app has said something."""
        self.page.locator(".note", has_text=text).first.wait_for()

    def run(self, script: str, argument: Any = None) -> Any:
        return self.person.run(script, argument)


def visit(pages: Pages, address: str, *, path: str = "/app/", **how: Any) -> Member:
    """Open the app of a service for somebody new."""
    url = path if path.startswith("http") else address.partition("#")[0] + path
    return Member(pages.tab(pages.browser.new_context(**how), url))


def joined(pages: Pages, link: str, name: str, **how: Any) -> Member:
    """Open an invite link for somebody new, and go in."""
    member = visit(pages, "", path=link, **how)
    member.enter(name)
    return member
