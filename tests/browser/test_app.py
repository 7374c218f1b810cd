"""The app: from an invite link to a talk, as people go."""

from __future__ import annotations

import time

from tests.support.app import joined, visit
from tests.support.pages import Pages, told


def test_who_opens_an_invite_link_talks_after_a_name(pages: Pages, service: str) -> None:
    ada = visit(pages, service)
    link = ada.make("Friends", "Ada")
    ada.say("Dinner at eight?")
    began = time.monotonic()
    bert = joined(pages, link, "Bert")
    bert.reads("Dinner at eight?")
    told(link_to_first_message_s=round(time.monotonic() - began, 2))
    bert.say("Yes!")
    ada.reads("Yes!")
    ada.sees("Bert")
    bert.sees("Ada")
    assert "muster2." not in bert.page.url, "an invite stays in no history"
