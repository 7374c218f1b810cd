"""A community with keys of its own, whose capsules and tickets are made as tests need them."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from capsules import capsule, manifest, root, ticket
from capsules.keys import SigningKey
from capsules.manifest import Files, Publisher
from capsules.ticket import Ticket
from muster.backoff import Rim
from muster.bootstrap import sources

DAY = 86_400
COMMUNITY = "mainnet"


def key(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(f"muster test {name}".encode()).digest())


ROOT, ONLINE = key("root 1"), key("online 1")


def made(
    peer_id: str, *, now: int, signer: SigningKey | None = None, ttl_s: int = 180, user: str = ""
) -> Ticket:
    return ticket.create(
        signer or key(peer_id),
        peer_id=peer_id,
        user_id=user,
        now_ms=now * 1000,
        nonce=secrets.token_bytes(12),
        ttl_ms=ttl_s * 1000,
    )


@dataclass
class Community:
    """Who may publish here, and what time it is."""

    now: int = field(default_factory=lambda: int(time.time()))
    roots: tuple[SigningKey, ...] = (ROOT,)
    online: SigningKey = ONLINE
    serial: int = 1
    revoked: Sequence[SigningKey] = ()
    certificate: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rim(self) -> Rim:
        return Rim(now=lambda: float(self.now))

    @property
    def documents(self) -> tuple[dict[str, Any], ...]:
        chain = [root.first(self.roots[0], now=self.now - 30 * DAY)]
        for old, new in pairwise(self.roots):
            chain.append(root.rotate(chain[-1], old=old, new=new, now=self.now - 20 * DAY))
        return tuple(chain)

    @property
    def publisher(self) -> Publisher:
        terms = {
            "serial": self.serial,
            "not_before": self.now - DAY,
            "expires_at": self.now + 90 * DAY,
            **self.certificate,
        }
        signer = self.roots[-1]
        gone = [one.verify_key for one in self.revoked]
        return Publisher(
            self.online,
            root.certify(signer, self.online.verify_key, **terms),
            self.documents,
            root.revoke(signer, gone, version=1, now=self.now) if gone else None,
        )

    def ticket(self, peer_id: str, **how: Any) -> Ticket:
        return made(peer_id, **{"now": self.now, **how})

    def publish(self, *peers: str | Ticket, **how: Any) -> Files:
        tickets = [self.ticket(peer) if isinstance(peer, str) else peer for peer in peers]
        settings: dict[str, Any] = {"community": COMMUNITY, "now": self.now, **how}
        return manifest.publish(self.publisher, tickets, **settings)

    def pinned(self, *peers: str, **how: Any) -> bytes:
        settings: dict[str, Any] = {
            "community": COMMUNITY,
            "now_ms": self.now * 1000,
            "ttl_ms": 300_000,
            **how,
        }
        return capsule.build(self.online, [self.ticket(peer) for peer in peers], **settings)

    def url(self, base: str, *, first: SigningKey | None = None) -> str:
        """Return what a client is given: URL#KEY."""
        named = sources.fragment((first or self.roots[0]).verify_key)
        return f"{base}/capsules/{COMMUNITY}/peers.json#{named}"

    def pinned_url(self, base: str, path: str = "/peers.json") -> str:
        return f"{base}{path}#capsule={sources.fragment(self.online.verify_key)}"
