"""Make the pictures of the chat in docs/pictures: the main screen, invite, search, settings, help.

    python -m tools.pictures [FOLDER]

Three members talk for a moment on this machine: no service, and no files that
stay. What is drawn is the screen itself, as SVG without fonts from elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from muster.chat.node import Options, Profile, Room
from muster.chat.store import Store
from muster.circle import Circle
from muster.records import GENERAL

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
HERE = "127.0.0.1"
SIZE = (100, 26)


async def main(out: Path) -> None:
    """Play the scene, and draw it into a folder."""
    from muster.cli.home import Home
    from muster.cli.screen.app import ChatApp
    from muster.cli.screen.session import Session

    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        session = Session.open(Home(Path(folder)), Options(name="Ada", bind=HERE))
        ada = session.make("Allotment")
        app = ChatApp(session)
        async with AsyncExitStack() as stack, app.run_test(size=SIZE) as pilot:
            await _until(ada.peers_shown)
            invite = ada.circle.invite(peers=ada.peers_shown())
            bob = await stack.enter_async_context(_member(invite.code, "Bob"))
            cleo = await stack.enter_async_context(_member(invite.code, "Cleo"))
            await _until(lambda: len(ada.people()) == 3)
            await _talk(ada, bob, cleo)
            await pilot.pause(2.5)
            _draw(app, out, "chat")
            for key, name in (("f2", "invite"), ("f3", "settings"), ("f1", "help")):
                await pilot.press(key)
                await pilot.pause(0.4)
                _draw(app, out, f"chat-{name}")
                await pilot.press("escape")
            await pilot.press("ctrl+f", *"tomato")
            await pilot.pause(0.4)
            _draw(app, out, "chat-search")
        session.close()


async def _talk(ada: Room, bob: Room, cleo: Room) -> None:
    """Say a few things, so that there is something to see."""
    harvest = ada.talk.create_channel("harvest")
    await _until(lambda: harvest in {one.id for one in ada.places()})
    ada.talk.set_topic(ada.talk.channel("harvest"), "who picks what, and when")
    ada.talk.create_channel("keys", "invite")
    bob.say("the first tomatoes are red", channel=GENERAL)
    await _until(lambda: len(ada.page(GENERAL)) == 1)
    cleo.say("already? mine are still green", channel=GENERAL)
    await _until(lambda: len(ada.page(GENERAL)) == 2)
    ada.say("same here. Bob, what do you give them?", channel=GENERAL)
    await _until(lambda: len(bob.page(GENERAL)) == 3)
    asked = bob.page(GENERAL)[-1]
    bob.say("nettle water, every Sunday", channel=GENERAL, reply=asked)
    await _until(lambda: len(ada.page(GENERAL)) == 4)
    cleo.talk.react(cleo.page(GENERAL)[0], "🍅")
    ada.talk.react(ada.page(GENERAL)[0], "🍅")
    ada.talk.edit(ada.page(GENERAL)[2], "same here. Bob, what do you feed your tomatoes?")
    cleo.say("Saturday at nine?", channel=harvest)
    await _until(lambda: len(ada.page(harvest)) == 1)


@asynccontextmanager
async def _member(code: str, name: str) -> AsyncIterator[Room]:
    from muster.invites import Invite

    profile = Profile(Store.open(None), Options(name=name, bind=HERE))
    room = profile.add(name, Circle.join(Invite.parse(code)))
    async with profile:
        yield room


async def _until(fact: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not fact():
            await asyncio.sleep(0.05)


def _draw(app: object, out: Path, name: str) -> None:
    drawn = str(app.export_screenshot(title="muster chat"))  # type: ignore[attr-defined]
    drawn = re.sub(r"@font-face\s*\{[^}]*\}\s*", "", drawn)
    drawn = drawn.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")
    drawn = re.sub(r"terminal-\d+", "terminal", drawn)
    (out / f"{name}.svg").write_text(drawn.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ["MUSTER_BASE"] = "http://127.0.0.1:9"  # no service: an address that nobody has
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
    sys.exit(0)
