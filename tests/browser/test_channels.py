"""Channels of the chat in pages, of all modes: keys follow who is in, in programs too."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import Pages, Person
from tests.support.program import chatting


def act(person: Person, *args: Any) -> Any:
    return person.run("return circle.act(...given)", list(args))


def refused(person: Person, *args: Any) -> Any:
    return person.run(
        "return circle.act(...given).then(() => null, (error) => error.reason)", list(args)
    )


def channel(person: Person, name: str) -> Any:
    return person.until("(await circle.channels()).find((one) => one.name === given)", name)


def two(pages: Pages, service: str) -> tuple[Person, Person, str]:
    ada, bob = pages.person(), pages.person()
    invite = ada.create(service, name="Ada", circle="Friends")
    bob.join(invite, name="Bob")
    ada.until("(await circle.people()).length === 2")
    bob.until("(await circle.people()).length === 2")
    return ada, bob, invite


def test_replies_edits_deletions_and_reactions_are_seen_by_the_others(
    pages: Pages, service: str
) -> None:
    ada, bob, _ = two(pages, service)
    first = ada.post("helo")
    bob.reads("helo")
    act(ada, "edit", first["hash"], "hello")
    assert bob.reads("hello")["edited"] is True
    act(bob, "react", first["hash"], "👋")
    ada.until("(await circle.history('general'))[0].reactions['👋']?.length === 1")
    bob.run("await circle.post('general', 'hi', { reply: given })", first["hash"])
    assert ada.reads("hi")["reply"] == first["hash"]
    assert refused(bob, "edit", first["hash"], "mine now") == "NOT_ALLOWED"
    act(ada, "delete", first["hash"])
    bob.until("(await circle.history('general'))[0].deleted")
    assert bob.texts() == ["", "hi"]


def test_a_channel_by_invitation_is_read_by_who_is_in_and_not_by_who_was_removed(
    pages: Pages, here: str
) -> None:
    ada, bob, invite = two(pages, here)
    eve = pages.person()
    eve.join(invite, name="Eve")
    ada.until("(await circle.people()).length === 3")
    made = act(ada, "create", "plans", "invite")["channel"]
    ada.post("before", made)
    for one in (bob, eve):
        act(ada, "invite", "plans", one.run("return circle.me.id"))
        channel(one, "plans")
        one.reads("before", "plans")
    act(ada, "remove", "plans", eve.run("return circle.me.id"))
    bob.until(
        "!(await circle.channels()).find(({ name }) => name === 'plans').members.includes(given)",
        eve.run("return circle.me.id"),
    )
    bob.post("after", "plans")
    ada.reads("after", "plans")
    time.sleep(1)
    assert "after" not in eve.texts(made)
    assert (
        eve.run("return circle.post(given, 'x').catch((error) => error.reason)", made)
        == "NOT_ALLOWED"
    )
    assert refused(bob, "topic", "plans", "mine") == "NOT_ALLOWED"


def test_a_channel_with_a_passphrase_is_opened_by_it_alone(pages: Pages, here: str) -> None:
    ada, bob, _ = two(pages, here)
    made = act(ada, "create", "secret", "key", "correct horse")["channel"]
    ada.post("hidden", "secret")
    bob.until(
        "happened.some(([type, detail]) => type === 'change' && detail.channel === given)", made
    )
    assert [one["name"] for one in bob.run("return circle.channels()")] == ["general"]
    assert refused(bob, "unlock", "secret", "wrong horse") == "MALFORMED"
    act(bob, "unlock", "secret", "correct horse")
    bob.reads("hidden", "secret")
    bob.page.reload()
    bob.join("")
    bob.reads("hidden", "secret")


def test_the_founder_names_the_circle_and_how_long_texts_are_kept(pages: Pages, here: str) -> None:
    ada, bob, _ = two(pages, here)
    act(ada, "title", "Family")
    bob.until("circle.name === 'Family'")
    assert refused(bob, "title", "Mine") == "NOT_ALLOWED"
    act(ada, "keep", "general", 7)
    bob.until("(await circle.channels())[0].days === 7")


def test_two_devices_are_shown_as_one_person(pages: Pages, here: str) -> None:
    ada, bob, _ = two(pages, here)
    act(ada, "device", bob.run("return circle.me.id"))
    act(bob, "device", ada.run("return circle.me.id"))
    ada.until("new Set((await circle.people()).map(({ person }) => person)).size === 1")


def test_a_call_that_begins_in_a_page_is_heard_of_in_the_others(pages: Pages, here: str) -> None:
    ada, bob, _ = two(pages, here)
    made = act(ada, "call", "general", "create", "audio")
    bob.until("(await circle.ongoing('general'))?.hash === given", made["hash"])
    act(bob, "call", "general", "join", made["hash"])
    ada.until("(await circle.ongoing('general')).participants.length === 2")
    act(ada, "call", "general", "end", made["hash"])
    bob.until("!(await circle.ongoing('general'))")


@pytest.mark.parametrize("mode", ["public", "invite"])
def test_a_page_and_a_program_share_channels(
    pages: Pages, here: str, tmp_path: Path, mode: str
) -> None:
    ada = pages.person()
    invite = ada.create(here, name="Ada", circle="Friends")
    with chatting(invite, "Bob", tmp_path) as bob:
        ada.until("(await circle.people()).length === 2")
        act(ada, "create", "plans", mode)
        if mode == "invite":
            act(ada, "invite", "plans", bob.me)
        bob.sees_channel("plans")
        ada.post("from the page", "plans")
        bob.reads("plans", "from the page")
        bob.says("plans", "from the terminal")
        assert ada.reads("from the terminal", "plans")["author"]["name"] == "Bob"
