"""Doctor: `muster doctor`, which lets two nodes meet through a service and says what works."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from muster.cli import output
from muster.cli.base import base_named, base_url, open_client, whole_address

if TYPE_CHECKING:
    from muster.cli.doctor.examination import Report
    from muster.cli.doctor.visit import Step
    from muster.felund.circle import Circle
    from muster.felund.client import Client
    from muster.invites import ServiceAddress


def doctor(arguments: argparse.Namespace) -> int:
    """Examine a service, and show what works and what does not."""
    base, seconds = base_url(arguments.base), arguments.timeout
    address = whole_address(base_named(arguments.base))
    circle = _circle_of(arguments.circle) if arguments.circle else None
    if arguments.json:
        report = examined(base, timeout_s=seconds, address=address, circle=circle)
        output.dump(report.to_json())
        return output.OK if report.ok else output.FAILED
    from muster.cli.doctor import waterfall

    with _progress() as starting:
        report = examined(
            base, timeout_s=seconds, address=address, circle=circle, starting=starting
        )
    waterfall.draw(report)
    return output.OK if report.ok else output.FAILED


def examined(
    base: str,
    *,
    timeout_s: float,
    address: ServiceAddress | None = None,
    circle: Circle | None = None,
    starting: Callable[[Step], None] | None = None,
) -> Report:
    """Examine the service at a URL, without a second attempt: a failure is what we look for.

    A fresh *circle* is made up if there is none; a closed service lets only known ones in, and
    those of version 2 by the access code of its *address*.
    """
    from muster.cli.doctor.examination import examine

    def make(circle: Circle, node_id: str) -> Client:
        return open_client(base, circle, node_id, timeout_s=timeout_s)

    return asyncio.run(
        examine(
            make,
            base=base,
            address=address,
            circle=circle,
            deadline_s=timeout_s,
            starting=starting,
        )
    )


def _circle_of(name: str) -> Circle:
    from muster.cli.home import Home

    return Home.from_environment().chosen(name).circle


@contextmanager
def _progress() -> Iterator[Callable[[Step], None]]:
    """Say on a terminal which step is being taken; elsewhere the report is enough."""
    console = output.console()
    if not console.is_terminal:
        yield lambda step: None
        return
    with console.status("") as status:
        yield lambda step: status.update(step.what)
