"""About: `muster info` and `muster doctor`, which look at a service from outside."""

from __future__ import annotations

import argparse
import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from muster.cli import hints, output
from muster.cli.base import base_url

if TYPE_CHECKING:
    from muster.cli.doctor import Step
    from muster.felund.circle import Circle
    from muster.felund.client import Client
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


def doctor(arguments: argparse.Namespace) -> int:
    """Let two nodes meet through a service, and say what works and what does not."""
    from muster.cli.doctor import examine

    base = base_url(arguments.base)
    seconds = arguments.timeout

    def make(circle: Circle, node_id: str) -> Client:
        return client(base, circle, node_id, timeout_s=seconds)

    if arguments.json:
        report = asyncio.run(examine(make, base=base, deadline_s=seconds))
        output.dump(report.to_json())
        return output.OK if report.ok else output.FAILED
    from muster.cli import waterfall

    with _progress() as starting:
        report = asyncio.run(examine(make, base=base, deadline_s=seconds, starting=starting))
    waterfall.draw(report)
    return output.OK if report.ok else output.FAILED


@contextmanager
def _progress() -> Iterator[Callable[[Step], None]]:
    """Say on a terminal which step is being taken; elsewhere the report is enough."""
    console = output.console()
    if not console.is_terminal:
        yield lambda step: None
        return
    with console.status("") as status:
        yield lambda step: status.update(step.what)


async def _info(base: str, timeout_s: float) -> Info:
    from muster.felund.circle import Circle

    async with client(base, Circle.new(), secrets.token_hex(8), timeout_s=timeout_s) as made:
        try:
            return await made.info()
        except Exception as error:
            raise hints.explain(error, base) from None


def client(base: str, circle: Circle, node_id: str, *, timeout_s: float) -> Client:
    """Make a client that does not try twice: what fails is what we want to see."""
    from muster.backoff import Backoff
    from muster.felund.client import Client

    return Client(base, circle, node_id, backoff=Backoff(attempts=1), timeout_s=timeout_s)


def _draw(base: str, told: Info) -> None:
    from rich.table import Table
    from rich.text import Text

    policy = "refused" if told.unsigned == "refuse" else "allowed"
    table = Table.grid(padding=(0, 2))
    facts = {
        "service": base,
        "version": f"{told.version}, protocol {told.protocol}",
        "unsigned calls": policy,
        "WebSocket": told.websocket,
        **{f"{key.alg} key {key.kid}": key.verify_key for key in told.keys},
    }
    for name, value in facts.items():
        table.add_row(Text(name, style="bold"), Text(output.clean(value)))
    limits = Table(box=None, pad_edge=False, title=None)
    limits.add_column("limit")
    limits.add_column("value", justify="right")
    for name, number in sorted(told.limits.items()):
        limits.add_row(output.clean(name), f"{number:,}")
    console = output.console()
    console.print(table)
    console.print()
    console.print(limits)
