"""Info: `muster info`, what a service says of itself."""

from __future__ import annotations

import argparse
import asyncio
import secrets
from typing import TYPE_CHECKING

from muster.cli import hints, output
from muster.cli.base import base_url, open_client

if TYPE_CHECKING:
    from muster.felund.records import Info


def info(arguments: argparse.Namespace) -> int:
    """Print what a service says of itself."""
    base = base_url(arguments.base)
    told = asyncio.run(_info(base, arguments.timeout))
    if arguments.json:
        import msgspec

        output.dump(msgspec.to_builtins(told))
    else:
        _draw(base, told)
    return output.OK


async def _info(base: str, timeout_s: float) -> Info:
    from muster.felund.circle import Circle

    node_id = secrets.token_hex(8)
    async with open_client(base, Circle.new(), node_id, timeout_s=timeout_s) as client:
        try:
            return await client.info()
        except Exception as error:
            raise hints.explain(error, base) from None


def _draw(base: str, told: Info) -> None:
    from rich.table import Table
    from rich.text import Text

    policy = "refused" if told.unsigned == "refuse" else "allowed"
    table = Table.grid(padding=(0, 2))
    facts = {
        "service": base,
        "version": f"{told.version}, protocol {told.protocol}",
        "strangers": "are served" if told.open else "are refused: it is closed",
        "unsigned calls": policy,
        "WebSocket": told.websocket,
        **{f"{key.alg} key {key.kid}": key.verify_key for key in told.keys},
    }
    for name, value in facts.items():
        table.add_row(Text(output.name(name), style="bold"), Text(output.line(value)))
    limits = Table(box=None, pad_edge=False, title=None)
    limits.add_column("limit")
    limits.add_column("value", justify="right")
    for name, number in sorted(told.limits.items()):
        limits.add_row(output.name(name), f"{number:,}")
    output.draw(table)
    output.show("")
    output.draw(limits)
