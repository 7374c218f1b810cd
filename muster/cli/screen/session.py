"""A session: the circles of a home, the one that is shown, and what is done with them.

The screen and plain lines are two faces of it; slash commands work on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Self, TypeVar

from muster import keys
from muster.chat.felund import LACKS, FelundRoom
from muster.chat.node import Options, Profile, Room
from muster.chat.room import AnyRoom, Place, Someone
from muster.chat.store import NAME, Message, Store
from muster.circle import Circle
from muster.circle.events import Event
from muster.circle.file import Unusable
from muster.cli import output
from muster.cli.circle.opening import called, first_services
from muster.cli.circle.talking import describe
from muster.cli.home import Home
from muster.cli.output import Failure, Misuse
from muster.cli.screen import looks
from muster.errors import BadValue
from muster.felund.invite import Invite as FelundInvite
from muster.invites import PREFIX, InvalidInvite, Invite
from muster.records import GENERAL

NOBODY = ("root", "somebody")
"""Names of logins that are no person's."""

_Room = TypeVar("_Room", bound=AnyRoom)


class Session:
    """What one person has before them."""

    def __init__(self, home: Home, store: Store, options: Options) -> None:
        self.home, self.store = home, store
        named = options.name or os.environ.get("MUSTER_NAME") or store.setting("name")
        self.name = called(named)
        self.is_named = bool(named)
        self.known_as = self.name if named or self.name not in NOBODY else ""
        """The same, or nothing where it is a login that says nothing of a person."""
        self.profile = Profile(store, replace(options, name=self.name))
        self.room: AnyRoom | None = None
        self.channel = GENERAL
        self.troubles: list[str] = []
        self.changed: Callable[[], None] = lambda: None
        self.heard: Callable[[str], None] = lambda line: None
        """What happens underneath, told where somebody has asked for it."""
        self.debugs = False

    @classmethod
    def open(cls, home: Home, options: Options, *, only: str | None = None) -> Self:
        """Open all circles of a home, or one; those that are damaged are named in `troubles`."""
        try:
            store = Store.open(home.path / NAME)
        except Unusable as error:
            raise Failure(error.message, error.hint) from None
        session = cls(home, store, options)
        only = None if only is None else home.which(only)
        for name in home.names() if only is None else [only]:
            try:
                session._open(name)
            except (Unusable, Failure) as error:
                session.troubles.append(str(error))
        usual = only or home.usual_name()
        rooms = session.profile.rooms
        session.room = rooms.get(usual or "") or next(iter(rooms.values()), None)
        return session

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def _open(self, name: str) -> AnyRoom:
        room: AnyRoom
        if self.home.is_ours(name):
            room = self.profile.add(name, Circle.open(self.home.file_of(name)))
        else:
            found = next(one for one in self.home.memberships() if one.name == name)
            room = self.profile.add_room(
                FelundRoom(
                    *(name, found.circle, found.base_url, self.home.node_id(), self.store),
                    called=self.name,
                )
            )
        return self._watched(room)

    def _watched(self, room: _Room) -> _Room:
        """Be told when something in a circle changes."""
        room.changed = lambda: self.changed()
        if isinstance(room, Room):
            room.happened = lambda event: self._happened(room.name, event)
        return room

    def _happened(self, name: str, event: Event) -> None:
        if self.debugs:
            told = describe(event)
            what = told.pop("t")
            self.heard(f"{name} {what}: " + " ".join(f"{key}={told[key]}" for key in told))

    # --- where one is ---------------------------------------------------------------------

    @property
    def rooms(self) -> list[AnyRoom]:
        """All circles, by name."""
        return [self.profile.rooms[name] for name in sorted(self.profile.rooms)]

    @property
    def here(self) -> AnyRoom:
        """The circle that is shown; raises `Misuse` where there is none."""
        if self.room is None:
            raise Misuse("you are in no circle yet", "/circle create NAME, or /join LINK")
        return self.room

    @property
    def ours(self) -> Room:
        """The circle that is shown, if it is of version 2; raises `BadValue` for others."""
        room = self.here
        if not isinstance(room, Room):
            raise BadValue(LACKS, "make a circle of version 2: /circle create NAME")
        return room

    def go(self, room: AnyRoom, channel: bytes = GENERAL) -> None:
        """Show a channel of a circle."""
        self.room, self.channel = room, channel
        self.changed()

    @property
    def place(self) -> Place:
        """The channel that is shown."""
        places = self.room.places() if self.room else []
        return next((one for one in places if one.id == self.channel), Place(GENERAL, "general"))

    def find_place(self, name: str) -> Place:
        """Return a channel of the circle by its name or the beginning of its id."""
        wanted = name.removeprefix("#").casefold()
        places = self.here.places()
        found = [one for one in places if one.name.casefold() == wanted]
        found = found or [
            one for one in places if len(wanted) >= 4 and one.id.hex().startswith(wanted)
        ]
        if not found:
            raise BadValue(f"there is no channel '{name}'", "/channels lists them")
        if len(found) > 1:
            ids = ", ".join(one.id.hex()[:6] for one in found)
            raise BadValue(f"several channels are called '{name}'", f"say which: {ids}")
        return found[0]

    def find_person(self, name: str) -> Someone:
        """Return a person of the circle by name, or by key where several are called so."""
        wanted = name.removeprefix("@")
        people = self.here.people()
        shown = looks.names(people)
        found = [one for one in people if one.name.casefold() == wanted.casefold()]
        found = found or [
            one
            for one in people
            if shown[one.id].casefold() == wanted.casefold()
            or (len(wanted) >= 4 and one.id.hex().startswith(wanted.lower()))
        ]
        if not found:
            raise BadValue(f"nobody here is called '{name}'", "/who lists everybody")
        if len(found) > 1:
            raise BadValue(
                f"several are called '{name}'",
                f"say which, by key: {', '.join(one.key for one in found)}",
            )
        return found[0]

    def find_message(self, ref: str, *, mine: bool = False) -> Message:
        """Return a message of the channel: ``^1`` is the newest, ``^ab12`` has that key."""
        page = self.here.page(self.channel, most=500)
        if mine:
            page = [one for one in page if self.here.is_mine(one)]
        word = ref.removeprefix("^") or "1"
        if word.isdecimal() and len(word) < 4:
            place = int(word)
            if 1 <= place <= len(page):
                return page[-place]
        else:
            found = [one for one in page if one.hash.hex().startswith(word.lower())]
            if found:
                return found[-1]
        whose = "no message of yours" if mine else "no message"
        raise BadValue(f"there is {whose} '^{word}' here", "^1 is the newest one; /last shows keys")

    # --- circles --------------------------------------------------------------------------

    def make(self, name: str = "", *, at: str | None = None) -> Room:
        """Make a circle of ours; its name is also the title that others see."""
        title = " ".join(name.split())
        kept = self.home.free_name(title)
        services = first_services(at)
        circle = Circle.new(self.home.place_for(kept), name=title or kept, services=services)
        room = self._watched(self.profile.add(kept, circle))
        circle.introduce(self.name)
        if title:
            room.talk.name_circle(title)
        self.go(room)
        return room

    def join(self, text: str, *, sure: bool = False) -> AnyRoom:
        """Join by a link or a code, of either kind; raises `Misuse`.

        *sure*: what it brings to a circle that one is in is to be taken.
        """
        code = text.strip()
        if not code:
            raise Misuse("there is no link or code", "/join LINK")
        if f"#{PREFIX}" in code or code.startswith(PREFIX):
            return self._join_ours(code, sure=sure)
        try:
            invite = FelundInvite.parse(code)
        except BadValue as error:
            raise Misuse(error.message, error.hint) from None
        return self._join_felund(invite)

    def told_by(self, code: str) -> str:
        """Return whose circle a link leads into, and where, as far as it says so itself."""
        try:
            invite = Invite.parse(code)
        except InvalidInvite:
            return " by this link"
        name = f" '{output.name(invite.name)}'" if invite.name else ""
        where = f" at {output.line(invite.services[0].url)}" if invite.services else ""
        return name + where

    def _join_ours(self, code: str, *, sure: bool) -> AnyRoom:
        try:
            invite = Invite.parse(code)
        except InvalidInvite as error:
            raise Misuse(error.message, error.hint) from None
        circle_id = keys.circle_id(invite.founder)
        for room in self.rooms:
            if room.id == circle_id and isinstance(room, Room):
                news = room.circle.news_of(invite)
                if news and not sure:
                    raise Misuse(
                        f"you are in '{room.name}' already, and the link brings {', '.join(news)}",
                        "if you trust who gave it to you with that: /join LINK yes",
                    )
                room.circle.take_invite(invite)
                self.go(room)
                return room
        name = self.home.free_name(invite.name)
        circle = Circle.join(invite, self.home.place_for(name))
        joined = self._watched(self.profile.add(name, circle))
        circle.introduce(self.name)
        self.go(joined)
        return joined

    def _join_felund(self, invite: FelundInvite) -> AnyRoom:
        from muster.cli.base import base_url
        from muster.cli.home import Membership

        base = base_url(invite.base_url)
        known = next((m for m in self.home.memberships() if m.circle == invite.circle), None)
        name = known.name if known else self.home.free_name()
        self.home.keep(Membership(name, invite.circle, base), new=known is None)
        room = self.profile.rooms.get(name) or self._open(name)
        self.go(room)
        return room

    async def leave(self, room: AnyRoom) -> None:
        """Forget a circle: its secrets, and all that was said."""
        if isinstance(room, Room) and not room.is_connected:
            room.circle.file.lock()  # raises `InUse` while another process has it open
            room.circle.file.unlock()
        await self.profile.drop(room.name)
        if isinstance(room, Room):
            self.home.forget_ours(room.name)
        else:
            self.home.forget(self.home.chosen(room.name))
        self.room = next(iter(self.rooms), None)
        self.channel = GENERAL
        self.changed()

    def call_me(self, name: str) -> None:
        """Be called otherwise, in all circles from now on."""
        name = " ".join(name.split())
        if not name or len(name.encode(errors="replace")) > 64:
            raise BadValue("a name has 1 to 64 bytes")
        self.name = self.known_as = name
        self.store.put("name", name)
        self.profile.options = replace(self.profile.options, name=name)
        for room in self.rooms:
            if isinstance(room, Room):
                room.call_me(name)
            elif isinstance(room, FelundRoom):
                room.called = name
        self.changed()
