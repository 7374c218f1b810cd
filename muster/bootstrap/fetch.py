"""Fetching from strangers: bounded in size, also when unpacked, and without redirects.

Time is bounded by whoever calls, with one deadline for everything: a bound on each read would
let a server send a byte at a time without end.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import httpx2

from capsules.errors import Reason, Refused
from muster import network

_GZIP = 16 + zlib.MAX_WBITS


class NoAnswer(Refused):
    """Nothing that could be read came back (``UNREACHABLE``).

    ``again`` says whether the same call may have an answer in a moment, and ``status`` is
    that of the answer that was no good.
    """

    def __init__(
        self,
        message: str,
        *,
        again: bool = False,
        retry_after_s: int | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(Reason.UNREACHABLE, message)
        self.again = again
        self.status = status
        self.retry_after_s = retry_after_s


def client(transport: httpx2.AsyncBaseTransport | None, agent: str) -> httpx2.AsyncClient:
    """Make an HTTP client without timeouts of its own that follows no redirect."""
    return httpx2.AsyncClient(
        transport=transport or network.Transport(),
        timeout=None,  # whoever calls has a deadline for everything
        follow_redirects=False,
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": agent},
    )


async def fetch(
    http: httpx2.AsyncClient,
    url: str,
    *,
    most: int,
    body: bytes | None = None,
    query: Mapping[str, str] | None = None,
) -> bytes:
    """Return what is at a URL, or the answer to *body*; raises `Refused`.

    The reasons: ``UNREACHABLE`` (`NoAnswer`) and ``TOO_LARGE``.
    """
    method = "GET" if body is None else "POST"
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        async with http.stream(method, url, params=query, content=body, headers=headers) as reply:
            _check(reply)
            return await _read(reply, most)
    except httpx2.HTTPError as error:
        raise NoAnswer(_why(error), again=True) from error
    except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
        raise NoAnswer(f"the URL cannot be used: {error}") from error


def _check(reply: httpx2.Response) -> None:
    if reply.is_redirect or reply.has_redirect_location:
        target = reply.headers.get("location", "")[:200]
        raise NoAnswer(
            f"it redirects to {target!r}; name that place instead", status=reply.status_code
        )
    if not reply.is_success:
        seconds = reply.headers.get("retry-after", "")
        wait_s = int(seconds) if seconds.isdecimal() and len(seconds) < 8 else None
        raise NoAnswer(
            f"it answered {reply.status_code}",
            status=reply.status_code,
            again=reply.is_server_error and wait_s is None,
            retry_after_s=wait_s,
        )


async def _read(reply: httpx2.Response, most: int) -> bytes:
    coding = reply.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", ""):
        raise NoAnswer(f"it answered in {coding[:40]!r}, which was not asked for")
    length = reply.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 15 or int(length) > most):
        raise _too_large(most)
    packed = zlib.decompressobj(_GZIP) if coding == "gzip" else None
    body = bytearray()
    async for chunk in reply.aiter_raw():
        try:
            # One byte more than may be, so that too much is noticed and never made.
            body += packed.decompress(chunk, most + 1 - len(body)) if packed else chunk
        except zlib.error:
            raise NoAnswer("what it answered cannot be unpacked") from None
        if len(body) > most or (packed and packed.unconsumed_tail):
            raise _too_large(most)
    if packed and not packed.eof:
        raise NoAnswer("what it answered breaks off", again=True)
    return bytes(body)


def _too_large(most: int) -> Refused:
    return Refused(Reason.TOO_LARGE, f"it has more than {most} bytes")


def _why(error: httpx2.HTTPError) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:200]
