"""Presence: where the nodes of a circle are, kept until it expires."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any

from chalicelib import tables
from chalicelib.call import Call, Done
from chalicelib.circle import rooms
from chalicelib.service import Service
from muster.errors import CircleFull
from muster.felund import frames, records


def register(service: Service, call: Call, ask: records.Register) -> Done:
    """Keep where the calling node is; tell it how it is seen, and the circle if it moved."""
    peer = _peer(service, call, ask)
    old = tables.presence(service.stores, ask.circle_hint, ask.node_id, now=call.now)
    if old is None:
        _admit(service, ask.circle_hint, now=call.now)
        lifetime_s = peer.expires_at - call.now
        service.quotas.add_newcomer(call.source_ip, lifetime_s=lifetime_s, clock=call.clock)
    tables.save_presence(service.stores, peer)
    moved = old is None or old.endpoints != peer.endpoints or old.capabilities != peer.capabilities
    effects = (
        rooms.tell(service, ask.circle_hint, frames.Presence(joined=(peer,)), call) if moved else ()
    )
    return Done(
        records.Registered(
            server_time=call.now,
            expires_at=peer.expires_at,
            observed_endpoint=_observed(call),
            observed_host=_observed_host(call),
        ),
        effects,
    )


def unregister(service: Service, call: Call, ask: records.Unregister) -> Done:
    """Forget where the calling node is."""
    removed = tables.drop_presence(service.stores, ask.circle_hint, ask.node_id, now=call.now)
    effects = (
        rooms.tell(service, ask.circle_hint, frames.Presence(left=(ask.node_id,)), call)
        if removed
        else ()
    )
    return Done(records.Unregistered(removed=removed), effects)


def peers(service: Service, call: Call, ask: records.ListPeers) -> dict[str, Any]:
    """List the circle's live nodes without the caller: the newest, or a page by node id."""
    found = tables.presences(
        service.stores, ask.circle_hint, limit=service.settings.circle_members, now=call.now
    )
    others = [(head, raw) for head, raw in found if head.node_id != call.node_id]
    limit = min(max(ask.limit, 1), 200)
    if ask.after is not None:
        others = sorted((kept for kept in others if kept[0].node_id > ask.after), key=_by_name)
        more = {"more": len(others) > limit}
    else:
        others.sort(key=lambda kept: kept[0].observed_at, reverse=True)
        more = {}
    listed = [raw for _, raw in others[:limit]]
    return {"ok": True, "peers": listed, "server_time": call.now, **more}


def _by_name(kept: tuple[tables.PresenceHead, Any]) -> str:
    return kept[0].node_id


def _peer(service: Service, call: Call, ask: records.Register) -> records.Peer:
    chosen = service.settings
    ttl_s = min(max(int(ask.ttl_s), chosen.presence_min_ttl_s), chosen.presence_max_ttl_s)
    return records.Peer(
        node_id=ask.node_id,
        circle_hint=ask.circle_hint,
        endpoints=ask.endpoints,
        capabilities=ask.capabilities,
        observed_at=call.now,
        expires_at=call.now + ttl_s,
    )


def _admit(service: Service, circle_hint: str, *, now: int) -> None:
    """Refuse a newcomer to a circle that is full."""
    most = service.settings.circle_members
    if len(tables.presences(service.stores, circle_hint, limit=most, now=now)) >= most:
        raise CircleFull(f"a circle may have {most} members at a time")


def _observed(call: Call) -> records.Observed | None:
    if not call.source_ip:
        return None
    return records.Observed(
        host=call.source_ip, family=_family(call.source_ip), port=call.source_port
    )


def _observed_host(call: Call) -> records.ObservedHost | None:
    if not call.source_ip:
        return None
    return records.ObservedHost(host=call.source_ip, family=_family(call.source_ip))


@lru_cache(maxsize=4096)
def _family(host: str) -> Any:
    try:
        return f"ipv{ipaddress.ip_address(host).version}"
    except ValueError:
        return "ipv4"
