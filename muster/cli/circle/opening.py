"""Opening: a circle of version 2 of this home, connected, with sentences for what goes wrong."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from muster import calls, exchange
from muster.circle import Circle, Connection
from muster.circle.circle import NotFounder
from muster.circle.connection import NotLeft
from muster.circle.file import InUse, Unusable
from muster.cli import output
from muster.cli.base import HERE, PATIENCE_S
from muster.cli.home import Home
from muster.cli.output import Failure, Misuse
from muster.errors import BadValue
from muster.invites import ServiceAddress


@contextmanager
def opened(home: Home, name: str) -> Iterator[Circle]:
    """Open a circle of version 2; whatever is wrong is one sentence with advice."""
    try:
        circle = Circle.open(home.file_of(name))
    except Unusable as error:
        raise Failure(error.message, error.hint) from None
    try:
        yield circle
    except (InUse, NotLeft, NotFounder) as error:
        raise Failure(error.message, error.hint) from None
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None
    finally:
        circle.close()


@asynccontextmanager
async def connected(circle: Circle, name: str) -> AsyncIterator[Connection]:
    """Be in a circle; says why, if no service can be read."""
    async with circle.connect(name=name) as here:
        if not await here.ready() and circle.services:
            raise reachless(here)
        yield here


def reachless(here: Connection) -> Failure:
    """Say why no service can be read."""
    for attendant in here.attendants:
        if attendant.trouble is not None:
            return explained(attendant.trouble, attendant.url)
    return Failure("no service has answered in time", "is it up? 'muster doctor URL' says more")


class Unanswered(Failure):
    """Nobody has answered at an address; it may be good all the same."""


class Wrong(Failure):
    """An address that lets nobody in, whoever waits: another key, or a code that is none."""


def tried(address: ServiceAddress, circle: Circle | None = None) -> None:
    """Try an address before anything is kept: one that is wrong leads nowhere, for everybody.

    A service that is not there, or is closed and may let the circle in by its name, is said and
    no more. Raises `Failure` where another one answers, or the access code is refused.
    """
    mine = circle or Circle.new()
    known = {one.id: one.code for one in mine.services}
    address = replace(address, code=address.code or known.get(address.id, ""))
    try:
        _check_id(address)
        asyncio.run(_ask(address, mine))
    except Unanswered as failure:
        output.say(f"muster: warning: {failure}")
        output.say("The address is kept all the same; there nobody is met so far.")
    finally:
        if circle is None:
            mine.close()


def _check_id(address: ServiceAddress) -> None:
    found = _ask_id(address.url)
    if found != address.id:
        raise Wrong(
            f"{address.url} has another key than the address says: #{found.hex()}",
            "ask who runs it for the whole address, before you trust it",
        )


async def _ask(address: ServiceAddress, circle: Circle) -> None:
    """Make a call as a node of the circle; raises `Failure`."""
    from muster.circle.service import Service, Unproved
    from muster.errors import NotAllowed, Refused
    from muster.exchange import Unreachable

    service = Service(address, circle.member.node(circle.epoch))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await service.sync({})
    except (Refused, Unreachable, TimeoutError) as error:
        refused = error.refusal if isinstance(error, Unproved) else error
        if isinstance(refused, NotAllowed) and address.code:
            raise Wrong(
                f"the access code is none that lets in at {address.url}",
                "was it revoked, or cut off? ask who runs the service for the whole address",
            ) from None
        found = explained(error, address.url)
        raise Unanswered(found.message, found.hint) from None
    finally:
        await service.aclose()


def explained(error: Exception, url: str) -> Failure:
    """Turn what was raised on the way to a service into a failure with a hint."""
    from muster.circle.service import Unproved
    from muster.cli import hints
    from muster.errors import NotAllowed

    if isinstance(error, Unproved) and isinstance(error.refusal, NotAllowed):
        return Failure(
            f"refused: {url} is closed to circles without an access code",
            "its operator makes one with 'muster access new'; then "
            "'muster circle services add ADDRESS' with the whole address",
        )
    return hints.explain(error, url)


def called(named: str | None = None) -> str:
    """Return how this member is called: as named, MUSTER_NAME, else the user's name."""
    try:
        name = named or os.environ.get("MUSTER_NAME") or getpass.getuser()
    except (OSError, KeyError):
        name = "somebody"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise Misuse("your name is not UTF-8", "check the terminal's locale") from None
    if size > 64:
        raise Misuse(f"your name has {size} bytes, and 64 are allowed", "--name or MUSTER_NAME")
    return name


def service_address(text: str) -> tuple[ServiceAddress, bool]:
    """Read a service's address; one without its id is asked for it: True, the second time.

    Raises `Misuse`, and `Failure` where nobody answers.
    """
    try:
        if "#" in text:
            return ServiceAddress.parse(text), False
        url = exchange.service_url(text)
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None
    return ServiceAddress(url, _ask_id(url)), True


def _ask_id(url: str) -> bytes:
    """Ask a service who it is; it must prove that it has the key that it names."""
    import httpx2

    from capsules.errors import Refused
    from muster import network
    from muster.cli import hints
    from muster.exchange import Unreachable

    try:
        path = f"{url}/v2/info"
        reply = httpx2.get(path, timeout=PATIENCE_S, **network.options(path))
        told = reply.headers.get(calls.ANSWER, "")
        return calls.answered_by(told, status=reply.status_code, body=reply.content)
    except httpx2.HTTPError as error:
        found = hints.explain(Unreachable(f"cannot reach {url}: {error}"), url)
        raise Unanswered(found.message, found.hint) from None
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None
    except Refused:
        if reply.status_code >= 500:
            raise Unanswered(
                f"{url} answers with {reply.status_code}", "is the service behind it running?"
            ) from None
        raise Failure(
            f"{url} does not speak version 2",
            "an older service serves felund circles alone: muster circle new --felund",
        ) from None


def tried_address(text: str, circle: Circle | None = None) -> tuple[ServiceAddress, bool]:
    """Read a service's address as `service_address` does, and try it."""
    address, asked = service_address(text)
    tried(address, circle)
    return address, asked


def first_services(named: str | None) -> list[ServiceAddress]:
    """Return where a new circle meets: as named, from MUSTER_BASE, or at a service of here.

    A service that was not named need not be there.
    """
    text = named or os.environ.get("MUSTER_BASE")
    try:
        return [service_address(text or HERE)[0]]
    except Unanswered:
        if named:
            raise
        return []


def told(circle: Circle, name: str) -> dict[str, Any]:
    """Return a circle for programs."""
    return {
        "circle": name,
        "version": 2,
        "circle_id": circle.id.hex(),
        "circle_hint": circle.epoch.hint.hex(),
        "epoch": circle.epoch.number,
        "founder": circle.is_founder,
        "out": circle.is_out,
        "services": [f"{one.url}#{one.id.hex()}" for one in circle.services],
    }


def day(at_ms: int) -> str:
    """Write a time that somebody has told."""
    try:
        return f"{datetime.fromtimestamp(at_ms / 1000).astimezone():%Y-%m-%d %H:%M}"
    except (OverflowError, ValueError, OSError):
        return "some day"
