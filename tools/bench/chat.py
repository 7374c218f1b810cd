"""The chat with a long history: how long a newcomer waits, and what a screen costs.

    python -m tools.bench.chat [--messages 10000] [--members 20]

A circle whose members have said so many messages; one node has them. A newcomer has them from
that node over TLS, and from a mailbox; a store is opened, searched and paged; and the command
is started on it, in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from muster.chat.node import Options, Profile, Room
from muster.chat.store import Store
from muster.chat.talk import Talk
from muster.circle import Circle
from muster.invites import ServiceAddress
from muster.records import GENERAL
from tools.bench import servers

WORDS = [
    "river",
    "stone",
    "house",
    "garden",
    "letter",
    "window",
    "winter",
    "morning",
    "bread",
    "paper",
    "music",
    "ocean",
]
HERE = "127.0.0.1"
PATIENCE_S = 300


def measure(*, messages: int, members: int) -> dict[str, Any]:
    """Measure all of it once."""
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as folder:
        home = Path(folder)
        path = home / "circles" / "old.muster2"
        circles, said_s = _history(path, messages=messages, members=members)
        found: dict[str, Any] = {
            "messages": messages,
            "members": members,
            "said_per_s": round(messages / said_s),
        }
        found |= _store(home, path)
        found |= _facts(messages * 3 // 10)
        found |= _command(home)
        found["newcomer_from_peer_s"] = round(asyncio.run(_from_peer(path, messages)), 2)
        with servers.muster() as server:
            found |= asyncio.run(_from_mailbox(circles, _address(server.port), messages))
        for circle in circles:
            circle.close()
        found["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return found


def _history(path: Path, *, messages: int, members: int) -> tuple[list[Circle], float]:
    """Let members say their messages; the file has all of them."""
    chance = random.Random(7)  # noqa: S311 - the same history each time
    first = Circle.new(path, name="old")
    circles = [first, *(Circle.join(first.invite(), None) for _ in range(members - 1))]
    began = time.perf_counter()
    for number, one in enumerate(circles):
        with one.file.writing():
            one.introduce(f"member {number}")
            for _ in range(messages // members):
                text = " ".join(chance.choices(WORDS, k=8))
                one.file.draft(GENERAL, "text", {"text": text})
            for draft in one.file.drafts():
                one.record(draft)
    took_s = time.perf_counter() - began
    with first.file.writing():
        for one in circles[1:]:
            for kept in one.file.records():
                first.take_record(kept.said, 0)
    return circles, took_s


def _address(port: int) -> ServiceAddress:
    base = f"http://{HERE}:{port}"
    told = httpx2.get(f"{base}/v2/info").json()
    return ServiceAddress(base, bytes.fromhex(told["service_id"]))


def _store(home: Path, path: Path) -> dict[str, Any]:
    """Take all into a store; open it again; look for words; turn pages."""
    circle, store = Circle.open(path), Store.open(home / "chat.sqlite3")
    began = time.perf_counter()
    Talk(store, circle).catch_up()
    taken_s = time.perf_counter() - began
    store.close()
    circle.close()
    began = time.perf_counter()
    circle, store = Circle.open(path), Store.open(home / "chat.sqlite3")
    talk = Talk(store, circle)
    talk.catch_up()
    page = talk.page(GENERAL, most=100)
    opened_ms = (time.perf_counter() - began) * 1000
    began = time.perf_counter()
    found = len(talk.search(GENERAL, "river winter", most=50))
    search_ms = (time.perf_counter() - began) * 1000
    began, pages = time.perf_counter(), 0
    while page:
        page = talk.page(GENERAL, before=(page[0].shown_ms, page[0].hash), most=100)
        pages += 1
    page_ms = (time.perf_counter() - began) * 1000 / pages
    size = sum(one.stat().st_size for one in home.rglob("*") if one.is_file())
    store.close()
    circle.close()
    return {
        "taken_into_store_s": round(taken_s, 2),
        "open_and_first_page_ms": round(opened_ms, 1),
        "search_ms": round(search_ms, 1),
        "found": found,
        "page_of_100_ms": round(page_ms, 2),
        "on_disk_mib": round(size / 2**20, 1),
    }


def _facts(count: int) -> dict[str, Any]:
    """Take facts of a channel that one member has said, all at once; then one more."""
    first = Circle.new(None)
    member = Circle.join(first.invite(), None)
    channel = Talk(Store.open(None), member).create_channel("plans")
    talk = Talk(Store.open(None), first)
    taken_ms = []
    for some in (count, 1):
        with member.file.writing():
            for number in range(some):
                member.file.draft(channel, "channel", {"op": "topic", "topic": f"{number}"})
            said = [member.record(draft).hash for draft in member.file.drafts()]
        with first.file.writing():
            for kept in filter(None, map(member.file.record, said)):
                first.take_record(kept.said, 0)
        began = time.perf_counter()
        talk.catch_up()
        taken_ms.append((time.perf_counter() - began) * 1000)
    for one in (first, member):
        one.close()
    return {
        "facts": count,
        "facts_at_once_ms": round(taken_ms[0]),
        "one_more_fact_ms": round(taken_ms[1], 1),
    }


def _command(home: Path) -> dict[str, Any]:
    """Start the command on it, in lines, and on the screen without a terminal."""
    environment = os.environ | {"MUSTER_HOME": str(home), "MUSTER_NAME": "bench"}
    script = (
        "import resource, sys, time; began = time.perf_counter()\n"
        "from muster.cli.main import main\n"
        "code = main(['inbox', '--limit', '1'])\n"
        "print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    screen = (
        "import asyncio, resource, time; began = time.perf_counter()\n"
        "from muster.chat.node import Options\n"
        "from muster.cli.home import Home\n"
        "from muster.cli.screen.app import ChatApp\n"
        "from muster.cli.screen.session import Session\n"
        "async def main():\n"
        "    session = Session.open(Home.from_environment(), Options(listens=False))\n"
        "    app = ChatApp(session)\n"
        "    async with app.run_test(size=(110, 30)) as pilot:\n"
        "        while app.query_one('#log').option_count < 50: await pilot.pause(0.01)\n"
        "        print(time.perf_counter() - began,"
        " resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "    session.close()\n"
        "asyncio.run(main())\n"
    )
    found = {}
    for name, code in (("inbox", script), ("screen", screen)):
        done = subprocess.run(  # noqa: S603 - our own code, our own Python
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )
        seconds, kib = done.stdout.split()[-2:]
        found[f"{name}_start_s"] = round(float(seconds), 2)
        found[f"{name}_mib"] = round(int(kib) / 1024)
    return found


async def _from_peer(path: Path, messages: int) -> float:
    """Let somebody join who meets one member, and no service."""
    old = Circle.open(path)
    for service in old.services:
        old.file.remove_service(service.id)
    async with _running(old) as host:
        while not host.peers_shown():
            await asyncio.sleep(0.01)
        new = Circle.join(old.invite(peers=host.peers_shown()), None)
        began = time.perf_counter()
        async with _running(new) as guest:
            await _has(guest, messages)
            return time.perf_counter() - began


async def _from_mailbox(
    circles: list[Circle], service: ServiceAddress, messages: int
) -> dict[str, Any]:
    """Let all leave what they said at a service; let somebody join who finds it there."""
    began = time.perf_counter()
    for one in circles:
        one.file.add_services([service])
        _seq, tip = one.file.tip(one.member.public.raw)
        async with one.connect(), asyncio.timeout(PATIENCE_S):
            while tip is not None and not one.file.at_services(tip):
                await asyncio.sleep(0.01)
    left_s = time.perf_counter() - began
    new = Circle.join(circles[0].invite(), None)
    began = time.perf_counter()
    async with _running(new) as guest:
        await _has(guest, messages)
        took_s = time.perf_counter() - began
    return {"left_at_service_s": round(left_s, 2), "newcomer_from_mailbox_s": round(took_s, 2)}


class _running:
    def __init__(self, circle: Circle) -> None:
        self._profile = Profile(Store.open(None), Options(name="bench", bind=HERE))
        self._room = self._profile.add("bench", circle)

    async def __aenter__(self) -> Room:
        await self._profile.__aenter__()
        return self._room

    async def __aexit__(self, *exc: object) -> None:
        await self._profile.__aexit__(*exc)


async def _has(room: Room, messages: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while room.talk.store.newest() < messages:
            await asyncio.sleep(0.02)


def main() -> int:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.chat", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--members", type=int, default=20)
    chosen = parser.parse_args()
    print(json.dumps(measure(messages=chosen.messages, members=chosen.members), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
