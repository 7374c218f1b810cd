"""Reference: the presence server one writes in an afternoon, with aiohttp and aiosqlite.

It checks no signature, spends no nonce and limits nobody; it parses, writes one
row, commits, and lists rows. With `--wal` its file is kept as ours is, in WAL with
synchronous=NORMAL; otherwise with SQLite's defaults, as such servers mostly do.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiosqlite
from aiohttp import web

DATABASE = web.AppKey("database", aiosqlite.Connection)

_TABLE = """CREATE TABLE IF NOT EXISTS presence (
    circle_hint TEXT NOT NULL, node_id TEXT NOT NULL, endpoints TEXT NOT NULL,
    capabilities TEXT NOT NULL, observed_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
    PRIMARY KEY (circle_hint, node_id))"""
_PUT = "INSERT OR REPLACE INTO presence VALUES (?, ?, ?, ?, ?, ?)"
_LIST = """SELECT node_id, circle_hint, endpoints, capabilities, observed_at, expires_at
    FROM presence WHERE circle_hint = ? AND expires_at > ? AND node_id != ?
    ORDER BY observed_at DESC LIMIT ?"""


async def register(request: web.Request) -> web.Response:
    """Keep where a node is."""
    body = await request.json()
    now = int(time.time())
    expires_at = now + min(max(int(body.get("ttl_s", 120)), 30), 600)
    database = request.app[DATABASE]
    await database.execute(
        _PUT,
        (
            body["circle_hint"],
            body["node_id"],
            json.dumps(body["endpoints"]),
            json.dumps(body["capabilities"]),
            now,
            expires_at,
        ),
    )
    await database.commit()
    return web.json_response({"ok": True, "server_time": now, "expires_at": expires_at})


async def peers(request: web.Request) -> web.Response:
    """List the live nodes of a circle."""
    now = int(time.time())
    wanted = (
        request.query["circle_hint"],
        now,
        request.headers.get("X-Felund-Node", ""),
        int(request.query.get("limit", "50")),
    )
    async with request.app[DATABASE].execute(_LIST, wanted) as cursor:
        rows = await cursor.fetchall()
    found = [
        {
            "node_id": node_id,
            "circle_hint": circle_hint,
            "endpoints": json.loads(endpoints),
            "capabilities": json.loads(capabilities),
            "observed_at": observed_at,
            "expires_at": expires_at,
        }
        for node_id, circle_hint, endpoints, capabilities, observed_at, expires_at in rows
    ]
    return web.json_response({"ok": True, "peers": found, "server_time": now})


def build(path: Path, *, wal: bool) -> web.Application:
    """Put the server together over a file."""

    async def database(app: web.Application) -> AsyncIterator[None]:
        async with aiosqlite.connect(path) as connection:
            if wal:
                await connection.execute("PRAGMA journal_mode = WAL")
                await connection.execute("PRAGMA synchronous = NORMAL")
            await connection.execute(_TABLE)
            app[DATABASE] = connection
            yield

    app = web.Application()
    app.cleanup_ctx.append(database)
    app.router.add_post("/v1/register", register)
    app.router.add_get("/v1/peers", peers)
    return app


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.reference", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--wal", action="store_true")
    chosen = parser.parse_args()
    app = build(chosen.data / "reference.sqlite3", wal=chosen.wal)
    web.run_app(app, host="127.0.0.1", port=chosen.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
