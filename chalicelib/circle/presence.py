"""Presence: where the nodes of a circle are, kept until it expires."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any

from chalicelib import auth, tables
from chalicelib.call import Call, Done
from chalicelib.circle import rooms
from chalicelib.service import Service
from muster.errors import CircleFull, PayloadTooLarge
from muster.felund import frames, records


def register(service: Service, call: Call, ask: records.Register) -> Done:
    """Keep where the calling node is; tell it how it is seen, and the circle if it moved."""
    peer = _peer(service, call, ask)
    _fit(service, peer)
    old = tables.presence(service.stores, ask.circle_hint, ask.node_id, now=call.now)
    if old is None:
        _admit(service, ask.circle_hint, now=call.now)
        lifetime_s = peer.expires_at - call.now
        service.quotas.add_newcomer(call.source_ip, lifetime_s=lifetime_s, clock=call.clock)
    tables.save_presence(service.stores, peer)
    if ask.signing_key is None:  # who has a key can sign
        auth.note_unsigned(service, call, ask.circle_hint)
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
    limit = min(max(ask.limit, 1), 200)
    if ask.after is None:
        found, left = _members(service, ask.circle_hint, now=call.now)
        found.sort(key=lambda kept: kept[0].observed_at, reverse=True)
    else:
        # Node ids are ASCII, and a store takes no lone surrogates. The caller may be among
        # those read, and one further says that there are more.
        after = ask.after.encode("ascii", "ignore").decode()
        found, left = _members(service, ask.circle_hint, now=call.now, after=after, limit=limit + 2)
    others = [raw for head, raw in found if head.node_id != call.node_id]
    more = {} if ask.after is None else {"more": left or len(others) > limit}
    return {"ok": True, "peers": others[:limit], "server_time": call.now, **more}


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


def _fit(service: Service, peer: records.Peer) -> None:
    """Refuse what would make every list of the circle expensive."""
    most = service.settings.presence_bytes
    if tables.presence_bytes(peer) > most:
        raise PayloadTooLarge(f"a presence may take {most} bytes: name fewer endpoints")


def _admit(service: Service, circle_hint: str, *, now: int) -> None:
    """Refuse a newcomer to a circle that is full."""
    most = service.settings.circle_members
    found, more = _members(service, circle_hint, now=now)
    if len(found) >= most:
        raise CircleFull(f"a circle may have {most} members at a time")
    if more:
        raise CircleFull("this circle's members take all the room that a circle may have")


def _members(
    service: Service, circle_hint: str, *, now: int, after: str = "", limit: int = 0
) -> tables.Presences:
    chosen = service.settings
    return tables.presences(
        service.stores,
        circle_hint,
        after=after,
        limit=min(limit or chosen.circle_members, chosen.circle_members),
        each_bytes=chosen.presence_bytes,
        most_bytes=chosen.peers_bytes,
        now=now,
    )


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
