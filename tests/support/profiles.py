"""Profiles that run: whole nodes of the chat, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from muster.chat.node import Options, Profile, Room
from muster.chat.store import Store
from muster.circle import Circle
from muster.records import GENERAL

HERE = "127.0.0.1"


@asynccontextmanager
async def room_of(
    circle: Circle, name: str, *, store: Store | None = None, **options: Any
) -> AsyncIterator[Room]:
    """One circle of one profile, while it runs."""
    chosen = Options(name=name, bind=HERE, **options)
    profile = Profile(store or Store.open(None), chosen)
    room = profile.add(name, circle)
    async with profile:
        yield room


async def until(fact: Callable[[], object], what: str, *, seconds: float = 30) -> None:
    """Wait for a fact."""
    try:
        async with asyncio.timeout(seconds):
            while not fact():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{what} has not come") from None


def texts(room: Room, channel: bytes = GENERAL) -> list[str]:
    return [message.text for message in room.talk.page(channel, most=100_000)]


async def listening(room: Room) -> str:
    """Wait until a node has a port; return its place."""
    await until(room.peers_shown, "a port")
    return room.peers_shown()[0]


def names(room: Room) -> set[str]:
    return {node.name for node in room.talk.store.present(room.circle.id)}


def path(room: Room, other: Room) -> str:
    return room.path_of.get(other.talk.me, "none")
