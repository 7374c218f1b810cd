"""The app: the files of `web/app`, served under `/app/` by any host, for browsers at its address.

A checkout has its modules, which are served as they lie there. Elsewhere there is only what
`make app` has packed: its names get a digest here, so that a browser keeps those files for good,
and asks for the page, the manifest and the service worker alone whether they have changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from chalicelib import http, library, static
from chalicelib.call import Call, Reply
from chalicelib.library import Library
from muster.errors import MethodNotAllowed, NotFound

WEB = library.FOLDER.parent
"""Where the app and the library are, in a checkout, in the image and in the zip for Lambda."""

ENTRY, PAGE, WORKER, LICENCES = "main.js", "index.html", "worker.js", "vendor/LICENSES"
PACKED, PACKED_ENTRY = "packed", "app.js"
ICONS = ("icon-maskable.svg", "apple-touch-icon.png")
"""What installers alone ask for: no browser has to keep it."""

BESIDE = (PAGE, "manifest.webmanifest", "icon.svg", *ICONS, WORKER, LICENCES)
"""What goes wherever the packed files go."""

ROUTE = f"GET {http.APP}/*"
REVALIDATE = "no-cache"
FOR_GOOD = "public, max-age=31536000, immutable"

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        # Services may be anywhere; on this machine without TLS too. No policy can name [::1].
        "connect-src 'self' https: wss: http://localhost:* http://127.0.0.1:* "
        "ws://localhost:* ws://127.0.0.1:*",
        "manifest-src 'self'",
        "worker-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "object-src 'none'",
        # No text becomes markup or a script; the worker's address goes by the one policy.
        "require-trusted-types-for 'script'",
        "trusted-types muster",
    )
)
"""What the page and its worker may do: docs/security.md has the reasons."""

_PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), display-capture=(self)",
    "Referrer-Policy": "no-referrer",
}
_OURS = {"Cross-Origin-Resource-Policy": "same-origin"}
_MOVED = {"Location": "app/", "Cache-Control": REVALIDATE, "X-Content-Type-Options": "nosniff"}
"""Relative, so that it holds behind a prefix; a browser keeps the fragment, an invite's secret."""


class AppFiles:
    """Answers calls for the app and, below it, for the browser library.

    Modules go before what was packed of them, unless that is what is asked for.
    """

    def __init__(self, folder: Path, modules: Library, *, packed: bool = False) -> None:
        self._modules = modules
        made = ({} if packed else _as_modules(folder, modules)) or _as_packed(folder)
        self.files = {f"{http.APP}/{name.removeprefix('./')}": file for name, file in made.items()}

    def reply(self, call: Call) -> Reply:
        """Answer a call for a file."""
        if call.path.startswith(http.LIBRARY):
            return self._modules.reply(call)
        if call.method == "OPTIONS":
            return Reply(204, headers=dict(http.PREFLIGHT), route="OPTIONS")
        if call.method != "GET":
            raise MethodNotAllowed("this path takes GET and HEAD", allow="GET, HEAD, OPTIONS")
        if not self.files:
            raise NotFound("this service has no app; its browser library is at /app/muster/")
        if call.path == http.APP:
            return Reply(308, headers=dict(_MOVED), route=ROUTE)
        file = self.files.get(call.path)
        if file is None:
            raise NotFound("the app has no such file; load /app/ again, which names what there is")
        return file.reply(call, ROUTE)


@cache
def load(web: Path = WEB) -> AppFiles:
    """Return what this installation has; read once a process."""
    return AppFiles(web / "app", Library(web / "muster"))


def _as_modules(folder: Path, modules: Library) -> dict[str, static.File]:
    """Read the app as it is written; nothing where its entry is not there."""
    found = {
        name: body
        for name, body in static.found(folder, ".js", ".css", ".svg", ".webmanifest")
        if not name.startswith(f"{PACKED}/") and name not in (WORKER, *ICONS)
    }
    if ENTRY not in found:
        return {}
    beside = _beside(folder)
    shared = {f"muster/{path.removeprefix(http.LIBRARY)}": path for path in modules.modules}
    told = {name: modules.modules[path].body for name, path in shared.items()}
    version = _digest({**beside, **found, **told})
    return {
        **{name: _file(name, body, REVALIDATE) for name, body in found.items()},
        **_around(beside, [*found, *shared], version),
    }


def _as_packed(folder: Path) -> dict[str, static.File]:
    """Read the app as it was packed; nothing where it was not.

    One digest of everything names all the files: they may refer to each other.
    """
    packed = dict(static.found(folder / PACKED, ".js", ".css"))
    beside = _beside(folder)
    if PACKED_ENTRY not in packed or PAGE not in beside:
        return {}
    unnamed = dict.fromkeys(packed, "")
    version = _digest({name: _linked(body, unnamed) for name, body in (beside | packed).items()})
    names = {name: name.replace(".", f".{version}.") for name in packed}
    made = {names[name]: _linked(body, names) for name, body in packed.items()}
    linked = {name: _linked(body, names) for name, body in beside.items()}
    icons = [name for name in ("icon.svg", "manifest.webmanifest") if name in beside]
    return {
        **{name: _file(name, body, FOR_GOOD) for name, body in made.items()},
        **{name: _file(name, beside[name], REVALIDATE) for name in icons},
        **_around(linked, [*made, *icons], version),
    }


def _beside(folder: Path) -> dict[str, bytes]:
    """Read what is beside the code: page, manifest, icons, worker and licences."""
    return {name: (folder / name).read_bytes() for name in BESIDE if (folder / name).is_file()}


def _around(
    beside: Mapping[str, bytes], names: Iterable[str], version: str
) -> dict[str, static.File]:
    """Make what every form has: the page, its worker, icons for installers, and the licences.

    The worker is told, by a line in front of it, its version and what it is to keep.
    """
    made: dict[str, static.File] = {}
    if PAGE in beside:
        made["./"] = _file(PAGE, beside[PAGE], REVALIDATE, _PAGE_HEADERS)
    if WORKER in beside:
        told = {"version": version, "files": ["./", *(f"./{name}" for name in sorted(names))]}
        line = f"const MUSTER = {json.dumps(told, separators=(',', ':'))};\n"
        made["sw.js"] = _file(WORKER, line.encode() + beside[WORKER], REVALIDATE, _PAGE_HEADERS)
    for name in (*ICONS, LICENCES):
        if name in beside:
            made[name] = _file(name, beside[name], REVALIDATE)
    return made


def _file(
    name: str, body: bytes, cache_control: str, more: Mapping[str, str] | None = None
) -> static.File:
    kind = static.TYPES.get(Path(name).suffix, "text/plain; charset=utf-8")
    return static.File.of(
        body, {"Content-Type": kind, "Cache-Control": cache_control, **_OURS, **(more or {})}
    )


def _linked(body: bytes, names: Mapping[str, str]) -> bytes:
    """Name packed files as they are served, wherever one stands in quotes.

    The page names the entry of the modules, in whose place is the packed one.
    """
    known = {**names, ENTRY: names[PACKED_ENTRY]}
    any_of = "|".join(re.escape(name) for name in known)
    return re.sub(
        rf"""(["'`])\./({any_of})\1""".encode(),
        lambda found: found[1] + b"./" + known[found[2].decode()].encode() + found[1],
        body,
    )


def _digest(files: Mapping[str, bytes]) -> str:
    """Return what names exactly these files."""
    digest = hashlib.sha256()
    for name, body in sorted(files.items()):
        digest.update(f"{name}\n{len(body)}\n".encode() + body)
    return digest.hexdigest()[:16]
