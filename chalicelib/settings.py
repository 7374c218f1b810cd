"""Settings: what an operator may choose, with the limits that follow from it.

Read once by the host, from the environment (``MUSTER_…``) or the command line; what a
`Settings` holds is right, and nobody parses it again. docs/variables.md is for operators.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, Self

from capsules.fields import COMMUNITY
from chalicelib import variables
from chalicelib.variables import WrongValue, listed, read_by
from muster import __version__
from muster.felund import frames, records, signing

if TYPE_CHECKING:
    from chalicelib.assist.plan import Plan

Unsigned = Literal["refuse", "allow"]
Access = Literal["", "open", "closed"]
"""Whether strangers are served; nothing means those whose calls come from this machine."""

DAY_S = 24 * 3600

LEAST_PIN_S = 3600
"""A pin that ends between two calls of a circle in use is an outsider's to take."""

MOST_BODY_BYTES = 2**30
MOST_URLS = 16
"""A manifest names no more (capsules.manifest.MAX_SOURCES, which a cold start does without)."""

OTHERS = frozenset(
    "MUSTER_" + name
    for name in (
        # one machine: chalicelib.local.bounds, main and certificate
        *("SOCKETS", "ADDRESS_SOCKETS", "CONNECTIONS", "ADDRESS_CONNECTIONS", "HEAD_S", "BODY_S"),
        *(
            "WAITING_BODY_BYTES",
            "WAITING_BYTES",
            "NETWORK_WAITING_BYTES",
            "SILENCE_S",
            "STORE_BYTES",
            "LOG",
            "TLS_CERT",
            "TLS_KEY",
        ),
        # AWS: chalicelib.aws.told
        *("STORE", "TABLE_PRESENCE", "TABLE_MAIL", "TABLE_GUARD", "GREET_FUNCTION", "EDGE_SECRET"),
        *("SWEEP_RULE", "PUBLISH_RULE"),
        *("CAPSULE_BUCKET", "CAPSULE_KEYS_PARAM"),
        *("REST_RATE", "SOCKET_RATE", "TABLE_READ_UNITS", "TABLE_WRITE_UNITS"),
        # the command, and what tests ask for
        *("HOME", "BASE", "NAME", "ASSIST_TOKEN", "TEST_AWS", "SCREENSHOTS"),
    )
)
"""Variables of ours that are not settings: the hosts do not know each other, nor the command."""

_KUBERNETES = re.compile(
    r"MUSTER_SERVICE_(HOST|PORT(_\w+)?)=.*"
    r"|MUSTER_PORT=\w+://.*|MUSTER_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?=.*"
)


def _plan(name: str, text: str) -> Plan:
    from chalicelib.assist import plan  # where nothing was planned, nothing is loaded

    return plan.read(text)


def _set(read: variables.Reader) -> variables.Reader:
    return lambda name, text: frozenset(read(name, text))


def _long(name: str, text: str) -> int:
    """Read a lifetime that is measured in hours, and not in seconds by mistake."""
    lifetime = variables.whole(name, text)
    if lifetime < LEAST_PIN_S:
        raise WrongValue(f"{name} must be at least {LEAST_PIN_S}; it is in seconds")
    return lifetime


_policy = variables.choice("refuse", "allow")
_community = variables.matching(
    COMMUNITY.pattern, "1 to 64 letters, digits, dots, dashes and underscores"
)
_keys = _set(listed(variables.verify_key))
_urls = listed(variables.url("https", "http"), most=MOST_URLS)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every choice and every bound of the service; times in seconds, sizes in bytes."""

    unsigned: Unsigned = read_by(_policy, "refuse")
    access: Access = read_by(variables.choice("open", "closed"), "")
    status_token: str = read_by(
        variables.matching(r"[!-~]{16,256}", "16 to 256 printable characters without spaces"),
        "",
        secret=True,
    )
    websocket_url: str = read_by(variables.url("wss", "ws"), "")
    version: str = read_by(variables.matching(r"[!-~]{1,64}", "a version"), __version__)

    body_bytes: int = read_by(variables.at_most(MOST_BODY_BYTES), 1024 * 1024)
    presence_min_ttl_s: int = 30
    presence_max_ttl_s: int = 600
    presence_bytes: int = 16 * 1024
    peers_bytes: int = 16 * 1024 * 1024
    circle_members: int = 512
    pin_s: int = read_by(_long, 30 * DAY_S)

    message_bytes: int = 1024 * 1024
    message_s: int = 30 * DAY_S
    mailbox_messages: int = 20_000
    mailbox_bytes: int = 64 * 1024 * 1024
    backlog_s: int = 120

    signal_max_ttl_s: int = 120
    candidate_max_ttl_s: int = 60
    signals_waiting: int = 2_000

    unsigned_messages: int = 5_000
    unsigned_bytes: int = 16 * 1024 * 1024
    unsigned_signals: int = 1_000
    unsigned_sockets: int = 128

    tickets_kept: int = 200
    tickets_listed: int = 50
    ticket_max_ttl_s: int = 3600
    ticket_again_s: int = 25
    network_places: int = 5
    names_kept: int = 1_000
    communities: int = 1_000
    community_names: frozenset[str] = read_by(_set(listed(_community)), frozenset())
    trusted_ticket_keys: frozenset[str] = read_by(_keys, frozenset())
    revoked_ticket_keys: frozenset[str] = read_by(_keys, frozenset())

    capsule_root: str = read_by(variables.verify_key, "")
    capsule_beacons: tuple[str, ...] = read_by(_urls, ())
    capsule_mirrors: tuple[str, ...] = read_by(_urls, ())

    session_min_ttl_s: int = 30
    session_max_ttl_s: int = 120
    idle_s: int = 30
    socket_s: int = 2 * 3600

    assist: Plan | None = read_by(_plan, None, secret=True)
    assist_tokens: tuple[str, ...] = read_by(listed(variables.token), (), secret=True)
    assist_open: Unsigned = read_by(_policy, "refuse")
    assist_body_bytes: int = read_by(variables.at_most(MOST_BODY_BYTES), 64 * 1024)
    assist_min_ttl_s: int = 60
    assist_max_ttl_s: int = 3600

    address_burst: int = 2_000
    address_per_s: int = 200
    address_burst_bytes: int = 64 * 1024 * 1024
    address_bytes_per_s: int = 4 * 1024 * 1024
    node_burst: int = 1_000
    node_per_s: int = 100
    network_circles: int = 200
    network_bytes: int = 64 * 1024 * 1024
    frame_burst: int = 2_000
    frames_per_s: int = 1_000
    pushes_per_s: int = 5

    def __post_init__(self) -> None:
        for least, most in _PAIRS:
            if getattr(self, least) > getattr(self, most):
                raise WrongValue(f"MUSTER_{least.upper()} must not be above MUSTER_{most.upper()}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read ``MUSTER_<FIELD>`` for each field; raises `WrongValue` for what does not fit."""
        return cls(**variables.chosen(cls, environment))

    def limits(self) -> dict[str, int]:
        """Return every limit in force, as `GET /v1/info` tells it."""
        from muster.felund import assist_records  # a cold start does without

        numbers = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if isinstance(getattr(self, field.name), int)
        }
        return numbers | {
            "window_s": signing.WINDOW_S,
            "batch_messages": records.MAX_BATCH,
            "endpoints": records.MAX_ENDPOINTS,
            "signal_payload_chars": records.MAX_PAYLOAD_CHARS,
            "frame_payload_bytes": records.MAX_FRAME_BYTES,
            "frame_text_bytes": frames.MAX_TEXT_BYTES,
            "assist_paths": assist_records.MAX_PATHS,
        }


_PAIRS = (
    ("presence_min_ttl_s", "presence_max_ttl_s"),
    ("session_min_ttl_s", "session_max_ttl_s"),
    ("assist_min_ttl_s", "assist_max_ttl_s"),
)

NAMES = variables.names(Settings)


def unknown(environment: Mapping[str, str]) -> str:
    """Return a sentence about a ``MUSTER_…`` that nobody reads, or nothing.

    Kubernetes adds variables of its own for a Service that is called "muster".
    """
    for name, text in sorted(environment.items()):
        if not name.startswith(variables.PREFIX) or name in NAMES | OTHERS:
            continue
        if not _KUBERNETES.fullmatch(f"{name}={text}"):
            return f"there is no variable {ascii(name)[1:-1]}{_nearest(name)}"
    return ""


def _nearest(name: str) -> str:
    from difflib import get_close_matches  # only where something is wrong

    close = get_close_matches(name, NAMES | OTHERS, 1, cutoff=0.5)
    return f"; the nearest is {close[0]}" if close else ""
