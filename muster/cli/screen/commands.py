"""Slash commands: a table of what can be typed, each with its help, the same on every face."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from muster.chat.facts import Channel
from muster.chat.room import AnyRoom
from muster.cli import output
from muster.cli.screen import looks
from muster.cli.screen.session import Session
from muster.errors import BadValue, Hinted
from muster.records import GENERAL

Show = Literal["", "help", "invite", "settings", "search", "debug", "quit", "read"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command has to say, and what the face is to show."""

    lines: tuple[str, ...] = ()
    show: Show = ""
    about: str = ""


Run = Callable[[Session, str], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Command:
    """A command: the words that call it, what follows them, and what it is for."""

    words: str
    usage: str
    what: str
    run: Run

    @property
    def typed(self) -> str:
        """How it is typed."""
        return f"/{self.words} {self.usage}".strip()


COMMANDS: dict[str, Command] = {}


def command(words: str, usage: str, what: str) -> Callable[[Run], Run]:
    """Add a command to the table."""

    def add(run: Run) -> Run:
        COMMANDS[words] = Command(words, usage, what, run)
        return run

    return add


async def run(session: Session, text: str) -> Answer:
    """Do what was typed; what is no command is said. Raises `errors.Hinted`."""
    if text.startswith("//"):
        text = text[1:]
    elif text.startswith("/"):
        found, rest = found_in(text)
        return await found.run(session, rest)
    session.here.say(text, channel=session.channel)
    return Answer()


def found_in(text: str) -> tuple[Command, str]:
    """Return the command of a line and what follows it; raises `BadValue`.

    What looks like a command is never said: it may hold an invite.
    """
    words = text[1:].split(None, 2)
    for count in (2, 1):
        name = " ".join(words[:count]).lower()
        if len(words) >= count and name in COMMANDS:
            rest = text[1:]
            for _ in range(count):
                rest = rest.lstrip().partition(" ")[2] if " " in rest.strip() else ""
            return COMMANDS[name], rest.strip()
    start = words[0].lower() if words else ""
    near = [f"/{name}" for name in COMMANDS if start and name.startswith(start)]
    more = ", ".join(near[:6]) if near else "/help lists them; // begins a text with a slash"
    raise BadValue(f"there is no command '/{start}'", more)


def complete(session: Session, text: str) -> list[str]:
    """Return how a line could go on: commands, channels, names."""
    head, _, last = text.rpartition(" ")
    if text.startswith("/") and not text.startswith("//"):
        typed = text[1:].lower()
        found = [f"/{name} " for name in sorted(COMMANDS) if name.startswith(typed)]
        if found and typed:
            return found
    room = session.room
    if room is None or not last:
        return []
    start, bare = head + " " if head else "", last.lstrip("#@").casefold()
    mark = last[0] if last[0] in "#@" else ""
    found = []
    if mark in ("", "#") and (mark or text.startswith("/")):
        places = [one.name for one in room.places() if " " not in one.name]
        found += [f"{start}{mark}{one} " for one in places if one.casefold().startswith(bare)]
    if mark in ("", "@"):
        people = [output.name(one.name) for one in room.people() if not one.me]
        end = " " if head or mark else ": "
        found += [f"{start}{mark}{one}{end}" for one in people if one.casefold().startswith(bare)]
    if text.startswith("/circle"):
        found += [f"{start}{one.name} " for one in session.rooms if one.name.startswith(last)]
    return list(dict.fromkeys(found))


# --- help ---------------------------------------------------------------------------------


@command("help", "[COMMAND]", "list all commands, or explain one")
async def _help(session: Session, rest: str) -> Answer:
    if not rest:
        return Answer(show="help")
    name = rest.removeprefix("/").lower()
    found = [
        one for words, one in COMMANDS.items() if words == name or words.startswith(f"{name} ")
    ]
    if not found:
        raise BadValue(f"there is no command '/{name}'", "/help lists them")
    return Answer(tuple(f"{one.typed}: {one.what}" for one in found))


@command("quit", "", "end the chat; a 'muster node' of this home goes on")
async def _quit(session: Session, rest: str) -> Answer:
    return Answer(show="quit")


@command("settings", "", "name, services, and how texts are kept")
async def _settings(session: Session, rest: str) -> Answer:
    return Answer(show="settings")


@command("debug", "", "show what happens underneath, or no longer")
async def _debug(session: Session, rest: str) -> Answer:
    session.debugs = not session.debugs
    return Answer(show="debug")


@command("name", "[NAME]", "show or change how you are called, in all circles")
async def _name(session: Session, rest: str) -> Answer:
    if not rest:
        return Answer((f"you are called {session.name}",))
    session.call_me(rest)
    return Answer((f"you are called {session.name} from now on",))


# --- circles --------------------------------------------------------------------------------


@command("circles", "", "list your circles")
async def _circles(session: Session, rest: str) -> Answer:
    lines = []
    for room in session.rooms:
        count = sum(place.unread for place in room.places())
        unread = f", {count} unread" if count else ""
        mark = "*" if room is session.room else " "
        kind = "" if room.kind == "muster" else f" ({room.kind})"
        title = output.name(room.title)
        also = "" if title == room.name else f" '{title}'"
        lines.append(f"{mark} {room.name}{also}{kind}: {output.line(room.status)}{unread}")
    return Answer(tuple(lines) or ("you are in no circle yet: /circle create NAME, or /join LINK",))


@command("circle create", "NAME", "make a circle; you are its founder")
async def _circle_create(session: Session, rest: str) -> Answer:
    room = session.make(rest)
    return Answer((f"you have a circle '{room.name}'; /invite lets somebody in",))


@command("join", "LINK [yes]", "join a circle by a link or a code; yes: take what it changes")
async def _join(session: Session, rest: str) -> Answer:
    link, _, word = rest.partition(" ")
    sure = word.strip().lower() == "yes"
    room = session.join(link if sure else rest, sure=sure)
    return Answer((f"you are in '{output.name(room.title)}'",))


@command("circle join", "LINK [yes]", "the same as /join")
async def _circle_join(session: Session, rest: str) -> Answer:
    return await _join(session, rest)


@command("circle switch", "NAME", "show another circle")
async def _circle_switch(session: Session, rest: str) -> Answer:
    session.go(_room(session, rest))
    return Answer()


@command("circle name", "NAME", "call the circle otherwise, for everybody; its managers may")
async def _circle_name(session: Session, rest: str) -> Answer:
    if not rest:
        return Answer((f"this circle is called '{output.name(session.here.title)}'",))
    session.ours.talk.name_circle(rest)
    return Answer((f"the circle is called '{output.name(rest)}' from now on",))


@command(
    "circle keep", "DAYS", "keep texts for so many days, 0 as long as one likes (30 if unsaid)"
)
async def _circle_keep(session: Session, rest: str) -> Answer:
    session.ours.talk.keep_circle(_days(rest))
    return Answer((f"texts are kept {_kept(_days(rest))} in this circle",))


@command("circle managers", "[NAME…]", "who may name the circle; the founder's device says it")
async def _circle_managers(session: Session, rest: str) -> Answer:
    talk, shown = session.ours.talk, looks.names(session.here.people())
    if not rest:
        found = [shown.get(one, one.hex()[:6]) for one in sorted(talk.facts.managers)]
        return Answer((", ".join(found) or "the founder alone",))
    talk.name_managers(_devices(session, rest))
    return Answer(("named",))


@command("circle leave", "[yes]", "forget this circle: its secrets and all that was said, here")
async def _circle_leave(session: Session, rest: str) -> Answer:
    room = session.here
    if rest.lower() != "yes":
        raise BadValue(
            f"leaving '{room.name}' removes its secrets and all that was said from here",
            "if that is meant: /circle leave yes",
        )
    await session.leave(room)
    return Answer((f"you have left '{room.name}'",))


@command("invite", "", "show the link and the picture that let somebody in")
async def _invite(session: Session, rest: str) -> Answer:
    return Answer(show="invite", about=session.here.invite())


@command("device", "NAME [no]", "say that another member is you, on another device; both must")
async def _device(session: Session, rest: str) -> Answer:
    name, _, word = rest.rpartition(" ") if rest.lower().endswith(" no") else (rest, "", "")
    person = session.find_person(name)
    talk = session.ours.talk
    talk.link_device(person.id, on=not word)
    if word:
        return Answer((f"{output.name(person.name)} is somebody else from now on",))
    if person.id in talk.facts.asks(talk.me):
        return Answer((f"{output.name(person.name)} and you are one person from now on",))
    return Answer((f"asked: on the other device, type /device {output.name(session.name)}",))


# --- channels -------------------------------------------------------------------------------


@command("channels", "", "list the channels of this circle")
async def _channels(session: Session, rest: str) -> Answer:
    lines = []
    for place in session.here.places():
        mark = "*" if place.id == session.channel else " "
        mode = "" if place.mode == "public" else f" ({place.mode})"
        unread = f", {place.unread} unread" if place.unread else ""
        topic = f": {output.line(place.topic)}" if place.topic else ""
        lines.append(f"{mark} #{output.name(place.name)}{mode}{unread}{topic}")
    if session.here.kind == "muster":
        facts = session.ours.talk.facts
        for channel in facts.channels.values():
            if channel.is_private and channel.creator is not None and not channel.name:
                who = output.name(session.ours.talk.name_of(channel.creator))
                how = "ask: /channel join" if channel.mode == "invite" else "with a passphrase"
                lines.append(f"  {channel.id.hex()[:6]} ({channel.mode}) by {who}; {how}")
                if len(lines) > 60:
                    break
    return Answer(tuple(lines))


@command("channel create", "NAME [public|key|invite] [PASSPHRASE]", "make a channel")
async def _channel_create(session: Session, rest: str) -> Answer:
    words = rest.split()
    if not words:
        raise BadValue("a channel needs a name", "/channel create NAME [public|key|invite]")
    if session.here.kind == "felund":
        raise BadValue(
            "channels of a felund circle begin when somebody writes in them",
            f"/channel switch {words[0]}",
        )
    name, mode = words[0], words[1] if len(words) > 1 else "public"
    passphrase = rest.split(None, 2)[2] if mode == "key" and len(words) > 2 else ""
    talk = session.ours.talk
    channel = talk.create_channel(name, mode, passphrase=passphrase)
    for _ in range(30):  # until it is said
        talk.catch_up()
        if channel in talk.facts.channels:
            session.go(session.here, channel)
            return Answer((f"#{output.name(name)} is made",))
        await asyncio.sleep(0.1)
    return Answer((f"#{output.name(name)} is made as soon as somebody is reached",))


@command("channel join", "NAME [PASSPHRASE]", "be in a channel, or ask to be let in")
async def _channel_join(session: Session, rest: str) -> Answer:
    name, _, passphrase = rest.partition(" ")
    found = session.ours.talk.join_channel(name, passphrase=passphrase.strip())
    if found.name:
        session.go(session.here, found.id)
        return Answer()
    return Answer(("asked; who manages the channel lets you in",))


@command("channel switch", "NAME", "show another channel")
async def _channel_switch(session: Session, rest: str) -> Answer:
    room = session.here
    if room.kind == "felund":
        from muster.chat.felund import FelundRoom

        assert isinstance(room, FelundRoom)  # noqa: S101 - it is its kind
        session.go(room, room.channel(rest))
    else:
        session.go(room, session.find_place(rest).id)
    return Answer()


@command("channel leave", "[NAME]", "be in a channel no longer")
async def _channel_leave(session: Session, rest: str) -> Answer:
    channel = _channel(session, rest)
    session.ours.talk.leave_channel(channel)
    session.go(session.here)
    return Answer((f"you have left #{output.name(channel.name)}",))


@command("channel name", "NAME", "call this channel otherwise; who manages it may")
async def _channel_name(session: Session, rest: str) -> Answer:
    session.ours.talk.rename_channel(_channel(session, ""), rest)
    return Answer()


@command("topic", "[TEXT]", "show or change what this channel is about")
async def _topic(session: Session, rest: str) -> Answer:
    channel = _channel(session, "")
    if not rest:
        return Answer((output.line(channel.topic) or "this channel has no topic",))
    session.ours.talk.set_topic(channel, rest)
    return Answer()


@command("channel keep", "DAYS", "keep the texts of this channel for so many days")
async def _channel_keep(session: Session, rest: str) -> Answer:
    session.ours.talk.keep_channel(_channel(session, ""), _days(rest))
    return Answer((f"texts are kept {_kept(_days(rest))} here",))


@command("channel managers", "[NAME…]", "who may do in this channel what its creator may")
async def _channel_managers(session: Session, rest: str) -> Answer:
    channel = _channel(session, "")
    if not rest:
        shown = looks.names(session.here.people())
        return Answer(
            (", ".join(shown.get(one, one.hex()[:6]) for one in sorted(channel.managers)),)
        )
    session.ours.talk.manage_channel(channel, _devices(session, rest))
    return Answer(("named",))


@command("channel invite", "NAME", "let somebody into this channel")
async def _channel_invite(session: Session, rest: str) -> Answer:
    person = session.find_person(rest)
    session.ours.talk.invite(_channel(session, ""), person.id)
    return Answer((f"{output.name(person.name)} is let in",))


@command("channel requests", "", "list who asks to be let into this channel")
async def _channel_requests(session: Session, rest: str) -> Answer:
    shown = looks.names(session.here.people())
    found = [shown.get(one, one.hex()[:6]) for one in sorted(_channel(session, "").asking)]
    return Answer((", ".join(found) or "nobody asks",))


@command("channel approve", "NAME", "let in somebody who has asked")
async def _channel_approve(session: Session, rest: str) -> Answer:
    return await _channel_invite(session, rest)


@command("channel remove", "NAME [NEW PASSPHRASE]", "let somebody be in this channel no longer")
async def _channel_remove(session: Session, rest: str) -> Answer:
    channel = _channel(session, "")
    name, passphrase = rest, ""
    if channel.mode == "key":
        name, _, passphrase = rest.partition(" ")
    person = session.find_person(name)
    session.ours.talk.remove(channel, person.id, passphrase=passphrase.strip())
    key = " and there is a new key" if channel.is_private else ""
    return Answer((f"{output.name(person.name)} is removed{key}",))


@command("who", "[CHANNEL]", "list who is in the circle or a channel, and by what path")
async def _who(session: Session, rest: str) -> Answer:
    people = session.here.people()
    if rest:
        members = _channel(session, rest).members
        facts = session.ours.talk.facts
        people = [one for one in people if facts.devices(one.id) & members]
    shown = looks.names(people)
    lines = []
    for one in people:
        path = "" if one.me else f", {PATHS[one.path]}"
        where = f"here{path}" if one.here else "not here"
        you = " (you)" if one.me else ""
        devices = f", {one.devices} devices" if one.devices > 1 else ""
        lines.append(f"{shown[one.id]}{you}: {where}{devices}  {one.key}")
    return Answer(tuple(lines) or ("nobody",))


PATHS = {"tcp": "direct", "webrtc": "direct", "relay": "by the service", "none": "not reached"}
"""How paths are called."""


# --- messages -------------------------------------------------------------------------------


@command("reply", "[^N] TEXT", "answer the newest message, or another: ^2, or its key")
async def _reply(session: Session, rest: str) -> Answer:
    ref, text = _ref(rest)
    session.here.say(text, channel=session.channel, reply=session.find_message(ref))
    return Answer()


@command("edit", "[^N] TEXT", "let your newest message, or another of yours, say something else")
async def _edit(session: Session, rest: str) -> Answer:
    ref, text = _ref(rest)
    session.ours.talk.edit(session.find_message(ref, mine=True), text)
    return Answer()


@command("delete", "[^N]", "take back your newest message, or another of yours")
async def _delete(session: Session, rest: str) -> Answer:
    ref, _ = _ref(rest)
    session.ours.talk.delete(session.find_message(ref, mine=True))
    return Answer()


@command("react", "[^N] EMOJI", "put an emoji beside a message, or take it away")
async def _react(session: Session, rest: str) -> Answer:
    ref, emoji = _ref(rest)
    if not emoji or len(emoji.encode()) > 32 or " " in emoji:
        raise BadValue("a reaction is one emoji", "/react 👍")
    talk = session.ours.talk
    message = session.find_message(ref)
    talk.react(message, emoji, on=talk.me not in message.reactions.get(emoji, ()))
    return Answer()


@command("last", "[N]", "show the newest messages with their keys and where they are by now")
async def _last(session: Session, rest: str) -> Answer:
    room = session.here
    lines = []
    for message in room.page(session.channel, most=_count(rest, 10)):
        fate = f"  [{room.fate(message)}]" if room.is_mine(message) else ""
        who = output.name(room.author(message))
        lines.append(
            f"^{message.hash.hex()[:4]} {who}: {output.line(message.text, most=120)}{fate}"
        )
    return Answer(tuple(lines) or ("nothing was said here so far",))


@command("inbox", "[-m] [N]", "show the newest messages of all circles; -m: those that name you")
async def _inbox(session: Session, rest: str) -> Answer:
    words = rest.split()
    named = bool({"-m", "--mentions"} & set(words))
    number = next((one for one in words if one.isdecimal()), "")
    found = inbox(session, _count(number, 20), mentions=session.name if named else "")
    return Answer(tuple(found) or ("nothing was said so far",))


def inbox(session: Session, most: int, *, mentions: str = "") -> list[str]:
    """Return the newest messages of all circles, a line each, the oldest first.

    With *mentions* those alone of others that hold this name.
    """
    found = []
    for room in session.rooms:
        for place in room.places():
            page = room.page(place.id, most=most)
            if mentions:
                found_here = room.search(place.id, mentions, most=most)
                page = [one for one in found_here if not room.is_mine(one)]
            for message in page:
                where = f"{room.name}#{output.name(place.name)}"
                found.append((message.shown_ms, where, room, message))
    found.sort(key=lambda one: one[0])
    return [
        f"{clock(message.shown_ms)} {where} {output.name(room.author(message))}: "
        f"{output.line(message.text)}"
        for _, where, room, message in found[-most:]
    ]


def clock(at_ms: int, form: str = "%Y-%m-%d %H:%M") -> str:
    """Return a time of this place's clock."""
    try:
        return time.strftime(form, time.localtime(at_ms / 1000))
    except (OverflowError, ValueError, OSError):
        return "--:--"


@command("search", "WORDS", "find messages of this channel with all these words")
async def _search(session: Session, rest: str) -> Answer:
    return Answer(show="search", about=rest)


@command("read", "", "note that everything in this circle was read")
async def _read(session: Session, rest: str) -> Answer:
    for place in session.here.places():
        page = session.here.page(place.id, most=1)
        if page:
            session.here.read(place.id, max(one.id for one in page))
    session.changed()
    return Answer(show="read")


# --- calls ----------------------------------------------------------------------------------


JOINED_BY = "a terminal cannot join it, the app can"


@command("call", "", "say whether a call is on in this channel")
async def _call(session: Session, rest: str) -> Answer:
    room = session.ours
    if rest:
        word = output.name(rest.split()[0])
        raise BadValue(f"a terminal cannot do '/call {word}'; the app can{_app_of(session)}")
    call = room.talk.call_in(session.channel)
    if call is None:
        return Answer(("no call is on here",))
    shown = looks.names(room.people())
    inside = ", ".join(shown.get(one, one.hex()[:6]) for one in sorted(call.participants))
    return Answer((f"a call is on ({call.media}): {inside}; {JOINED_BY}",))


@command("call start", "", "say where a call is started: a terminal cannot")
async def _call_start(session: Session, rest: str) -> Answer:
    raise BadValue(f"a terminal cannot start a call; the app can{_app_of(session)}")


def _app_of(session: Session) -> str:
    """Return where the app of this circle is, if that is known."""
    return "".join(f" at {one.url}/app/" for one in session.ours.circle.services[:1])


@command("call end", "", "end the call that you began, for all")
async def _call_end(session: Session, rest: str) -> Answer:
    room = session.ours
    call = room.talk.call_in(session.channel)
    if call is None:
        raise BadValue("no call is on here")
    room.talk.end_call(call)
    return Answer(("the call is over",))


def _room(session: Session, name: str) -> AnyRoom:
    found = session.profile.rooms.get(name)
    if found is None:
        for room in session.rooms:
            if room.title.casefold() == name.casefold():
                return room
        raise BadValue(f"there is no circle '{name}'", "/circles lists them")
    return found


def _channel(session: Session, name: str) -> Channel:
    talk = session.ours.talk
    if name:
        return talk.channel(name)
    if session.channel == GENERAL:
        raise BadValue(
            "this is about a channel of its own, and 'general' is everybody's",
            "/channel switch NAME first",
        )
    found = talk.facts.channels.get(session.channel)
    if found is None:
        raise BadValue("the channel is not made so far", "in a moment")
    return found


def _devices(session: Session, rest: str) -> list[bytes]:
    facts = session.ours.talk.facts
    return [
        device for name in rest.split() for device in facts.devices(session.find_person(name).id)
    ]


def _ref(rest: str) -> tuple[str, str]:
    if rest.startswith("^"):
        ref, _, text = rest.partition(" ")
        return ref, text.strip()
    return "^1", rest


def _days(rest: str) -> int:
    if not rest.isdecimal():
        raise BadValue("this wants a number of days", "30 is usual, 0 is as long as one likes")
    return int(rest[:9])


def _kept(days: int) -> str:
    return f"for {days} days" if days else "as long as one likes"


def _count(rest: str, usual: int) -> int:
    return min(int(rest), 1000) if rest.isdecimal() and len(rest) < 6 else usual


def problem(error: Hinted) -> tuple[str, ...]:
    """Return what went wrong, and what to do, as lines."""
    return tuple(output.line(one) for one in (error.message, error.hint) if one)
