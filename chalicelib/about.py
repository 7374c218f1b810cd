"""About: what the service tells of itself."""

from __future__ import annotations

from msgspec import UNSET

from chalicelib import access, tokens
from chalicelib.call import Call
from chalicelib.service import Service
from muster import base64url
from muster.felund import records

PROTOCOL = 1


def health(service: Service, call: Call, ask: records.Nothing) -> records.Health:
    """Say that the service lives, and what time it is."""
    return records.Health(
        version=service.settings.version,
        time=call.now,
        store_full=True if service.quotas.full else UNSET,
    )


def info(service: Service, call: Call, ask: records.Nothing) -> records.Info:
    """Tell every limit in force, and the service's public keys."""
    verify_key = service.signer(now=call.now).verify_key
    key = records.VerifyKey(
        kid=tokens.key_id(verify_key),
        verify_key=base64url.encode(verify_key),
    )
    return records.Info(
        version=service.settings.version,
        time=call.now,
        protocol=PROTOCOL,
        unsigned=service.settings.unsigned,
        limits={**service.settings.limits(), **service.host_limits},
        keys=(key,),
        websocket=service.settings.websocket_url or call.websocket_url,
        capsule_root=service.settings.capsule_root or None,
        open=not access.closed(service, call),
    )
