"""Do a page and a program in Python live in one circle?"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from muster.circle import Circle
from muster.circle.connection import NotLeft
from tests.support import local
from tests.support.members2 import address
from tests.support.pages import Pages
from tests.support.program import program

HOLD = """
  const pipe = circle.pipe("files");
  pipe.addEventListener("message", async ({ detail: { from, data } }) => {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await data.arrayBuffer()));
    const hex = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    piped.push([from.name, data.name, data.size, hex]);
  });
"""


def test_they_see_and_read_each_other_whoever_has_made_the_circle(
    pages: Pages, service: str, tmp_path: Path
) -> None:
    ada = pages.person()
    invite = ada.create(service, name="Ada", circle="Friends")
    ada.post("before you came")
    with program(invite, "Bob", tmp_path / "us.muster2") as bob:
        bob.sees("Ada")
        bob.reads("before you came")
        ada.sees("Bob")
        bob.says("hello from Python")
        assert ada.reads("hello from Python")["author"]["name"] == "Bob"
        ada.post("hello from the page")
        bob.reads("hello from the page")
        assert bob.circle.name == "Friends"
    ada.loses("Bob")


def test_a_page_joins_a_circle_that_was_made_in_python(
    pages: Pages, here: str, tmp_path: Path
) -> None:
    base, _, _ = here.partition("#")
    made = Circle.new(tmp_path / "made.muster2", name="Made", services=[address(base)])
    invite = made.invite().link()
    made.close()
    with program(invite, "Bob", tmp_path / "us.muster2") as bob:
        bob.says("first")
        ada = pages.person()
        ada.join(invite, name="Ada")
        ada.reads("first")
        assert ada.run("return circle.name") == "Made"
        bob.sees("Ada")


def test_they_exchange_files_over_the_relay(pages: Pages, here: str, tmp_path: Path) -> None:
    ada = pages.person()
    invite = ada.create(here, name="Ada")
    his = tmp_path / "holiday.bin"
    his.write_bytes(os.urandom(300_000))
    with program(invite, "Bob", tmp_path / "us.muster2", abilities=("pipes",)) as bob:
        ada.run(HOLD)
        ada.sees("Bob", "relay")
        ada.run(
            """window.hers = crypto.getRandomValues(new Uint8Array(60_000));
            const file = new File([hers], "cat.png", { type: "image/png" });
            circle.pipe("files").send(file).catch((error) => happened.push(["error", error]))"""
        )
        found, raw = bob.exchanges(bob.linked(), "files", his)
        assert (found.pipe, found.name, found.type) == ("files", "cat.png", "image/png")
        assert raw == bytes(ada.run("return [...hers]"))
        ada.until("piped.length")
        expected = ["Bob", "holiday.bin", 300_000, hashlib.sha256(his.read_bytes()).hexdigest()]
        assert ada.run("return piped") == [expected]


def test_a_page_reads_from_a_node_what_no_service_of_its_has(pages: Pages, tmp_path: Path) -> None:
    made = Circle.new(tmp_path / "made.muster2")
    code = made.invite().code
    made.close()
    ours = tmp_path / "us.muster2"
    with (
        local.running(tmp_path / "one", websocket_url="") as first,
        local.running(tmp_path / "two", websocket_url="") as second,
        program(code, "Bob", ours, abilities=("can_anchor",)) as bob,
    ):
        bob.meets_at(address(first.base))
        with program(bob.circle.invite(), "Carol", tmp_path / "her.muster2") as carol:
            carol.says("kept by a node")
            bob.reads("kept by a node")
        bob.meets_at(address(second.base))
        invite = bob.circle.invite()
        ada = pages.person()
        ada.join(replace(invite, services=(address(second.base),)).code, name="Ada")
        assert ada.reads("kept by a node", ms=30_000)["author"]["name"] == "Carol"


def test_a_rekey_that_python_makes_is_followed_by_those_who_stay_alone(
    pages: Pages, here: str, tmp_path: Path
) -> None:
    base, _, _ = here.partition("#")
    made = Circle.new(tmp_path / "made.muster2", services=[address(base)])
    invite = made.invite().code
    made.close()
    ada, eve = pages.person(), pages.person()
    ada.join(invite, name="Ada")
    eve.join(invite, name="Eve")
    ada.until("circle.state.state === 'live'")
    eve.until("circle.state.state === 'live'")
    out = eve.run("return circle.me.id")
    with program("", "Founder", tmp_path / "made.muster2", opens=True) as founder:
        founder.sees("Ada")
        founder.sees("Eve")
        founder.run(founder.member.here.rekey([bytes.fromhex(out)]))
        ada.until("happened.some(([type]) => type === 'rekeyed')", ms=30_000)
        eve.until("happened.some(([type, detail]) => detail.reason === 'LEFT_OUT')", ms=30_000)
        founder.says("without Eve")
        ada.reads("without Eve")
        ada.post("I am here")
        founder.reads("I am here")
        founder.sees("Ada")
        assert "without Eve" not in eve.texts()
        assert (
            eve.run("return circle.post('general', 'me too').catch((error) => error.reason)")
            == "LEFT_OUT"
        )


def test_records_that_nobody_can_read_stop_neither_reading_nor_coming_back(
    pages: Pages, here: str, tmp_path: Path
) -> None:
    ada = pages.person()
    invite = ada.create(here, name="Ada")
    evil = {"toString": 1}
    with program(invite, "Eve", tmp_path / "us.muster2") as eve:
        for kind, body in (
            ("delete", {"of": evil, "seq": 1}),
            ("text", {"closed": "x", "from": evil, "key": 0}),
            ("edit", {"of": evil, "text": "x"}),
            ("react", {"of": evil, "emoji": "__proto__"}),
            ("call", {"op": evil, "call": evil, "closed": evil, "from": evil}),
            ("channel", {"op": evil, "salt": evil, "closed": evil}),
            ("channel", {"op": "create", "mode": evil, "salt": "A" * 22, "name": "x"}),
            ("person", {"with": evil}),
            ("member", {"name": "Eve", "box": "A" * 43}),
            ("circle", {"op": "managers", "managers": evil, "at_ms": 1, "signature": "A" * 86}),
            ("services", {"services": [evil], "at_ms": 1, "signature": "A" * 86}),
            ("founder", {"to": evil, "box": evil}),
            ("constructor", {"constructor": evil}),
        ):
            with suppress(NotLeft):
                eve.run(eve.member.here.post(kind, body))
        eve.says("still here")
        ada.reads("still here")
        ada.page.reload()
        ada.join("")
        assert ada.texts() == ["still here"]
        bob = pages.person()
        bob.join(invite, name="Bob")
        bob.reads("still here")
        bob.post("so am I")
        ada.reads("so am I")
