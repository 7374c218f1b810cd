"""Assist: `muster assist`, which asks a service how to connect and shows the advice."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
from typing import TYPE_CHECKING

from muster import urls
from muster.cli import hints, output
from muster.cli.base import base_url, open_client
from muster.cli.output import Failure, Misuse
from muster.errors import BadValue, InvalidToken
from muster.felund import assist_records as wire

if TYPE_CHECKING:
    from rich.table import Table


_TOKEN = re.compile(r"[!-~]{0,4096}")
_HOST = re.compile(r"[!-~]{1,255}")


def assist(arguments: argparse.Namespace) -> int:
    """Ask how to connect, and print the answer."""
    base = base_url(arguments.base)
    token = arguments.token or os.environ.get("MUSTER_ASSIST_TOKEN", "")
    if not _TOKEN.fullmatch(token):
        raise Misuse("the token holds what no token can", "copy it again")
    advice = asyncio.run(_ask(base, _asked(arguments), token, timeout_s=arguments.timeout))
    if arguments.json:
        import msgspec

        output.dump(msgspec.to_builtins(advice))
    else:
        _draw(base, advice)
    return output.OK


def _asked(arguments: argparse.Namespace) -> wire.AskAdvice:
    fec = None
    if arguments.mtu is not None or arguments.overhead is not None:
        fec = wire.FecHint(mtu=arguments.mtu, repair_overhead=arguments.overhead)
    if arguments.peer_hint is not None and not _HOST.fullmatch(arguments.peer_hint):
        raise Misuse("--peer-hint is not a host", "write it like relay.example.org")
    return wire.AskAdvice(
        peer_hint=arguments.peer_hint,
        paths=tuple(_path(text, number) for number, text in enumerate(arguments.path)) or None,
        prefer_reality=arguments.prefer_reality,
        fec=fec,
    )


def _path(text: str, number: int) -> wire.PathHint:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, "443"
    try:
        urls.read(f"https://{host}:{port}")
    except BadValue:
        raise Misuse(
            f"'{text}' is not a path", "write it like relay.example.org or [::1]:443"
        ) from None
    return wire.PathHint(
        address=host.strip("[]"), port=int(port), id=text[:64], priority=min(number, 255)
    )


async def _ask(base: str, ask: wire.AskAdvice, token: str, *, timeout_s: float) -> wire.Advice:
    """Ask as a member of a new circle: the advice is the same for every circle."""
    from muster.felund.circle import Circle

    node_id = secrets.token_hex(8)
    async with open_client(base, Circle.new(), node_id, timeout_s=timeout_s) as client:
        try:
            return await client.assist(ask, token=token)
        except InvalidToken as refusal:
            if not token:
                raise hints.explain(refusal, base) from None
            raise Failure(
                f"refused: {refusal}", "without a token the command asks for one by itself"
            ) from None
        except Exception as error:
            raise hints.explain(error, base) from None


def _draw(base: str, advice: wire.Advice) -> None:
    from rich.table import Table
    from rich.text import Text

    none = "no paths: the service knows of none"
    output.draw(_paths(advice) if advice.transports else none)
    output.show("")
    fec, ice = advice.multipath, advice.ice
    facts = {
        "service": base,
        "begin with": fec.primary_path or "nothing: no path is known to be alive",
        "packets": f"{fec.fec_mtu} bytes, {fec.fec_overhead:g} to repair each",
        "disguises": _disguises(advice.obfuscation),
        "ICE": f"{ice.username_fragment}, good for {ice.ttl_secs} s",
        **{f"ICE server {i}": _server(server) for i, server in enumerate(ice.servers, 1)},
        **({"ICE-lite": ice.lite_candidates[0].candidate} if ice.lite_candidates else {}),
        "Noise": f"{advice.noise.pattern}, static key {advice.noise.static_public_hex[:16]}…",
        "keys": f"identity {advice.pq.identity_public_hex[:16]}…, ML-KEM {advice.pq.key_id}",
        "answers so far": f"{advice.security.multipath_sessions:,}",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(Text(name, style="bold"), Text(output.line(value)))
    output.draw(table)


def _paths(advice: wire.Advice) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("path", "by", "leads to", "hides", "quality", "packets"):
        table.add_column(heading, overflow="fold")
    for one in advice.transports:
        segments = advice.multipath.sample_segments.get(one.path_id, wire.Segments())
        table.add_row(
            output.name(one.path_id),
            output.name(one.transport),
            output.line(f"{one.address}:{one.port}"),
            output.line(one.resistance),
            output.line(_quality(one.network_quality)),
            f"{segments.total}, {segments.repair} of them repair" if segments.total else "none",
        )
    return table


def _quality(found: wire.NetworkQuality) -> str:
    if found.probe_method == "none":
        return "nobody looked"
    if found.packet_loss_percent >= 100:
        return "does not answer"
    lost = f", {found.packet_loss_percent:g} % lost" if found.packet_loss_percent else ""
    return f"{found.quality_label}, {found.quality_score}: {found.rtt_ms} ms{lost}"


def _server(server: wire.IceServer) -> str:
    until = f", until {server.expires_at}" if server.expires_at else ""
    login = f" as {server.username}{until}" if server.username else ""
    return f"{' '.join(server.urls)}{login}"


def _disguises(told: wire.ObfuscationAdvice) -> str:
    names = {
        "domain fronting": told.domain_fronting,
        "mimicry": told.protocol_mimicry,
        "Tor": told.tor_bridge,
    }
    return ", ".join(name for name, there in names.items() if there) or "none"
