"""Settings: what an operator may choose, with the limits that follow from it.

Read once by the host, from the environment (``MUSTER_…``) or the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, Literal, Self, get_args

from muster import __version__
from muster.felund import frames, records, signing

Unsigned = Literal["refuse", "allow"]

DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Settings:
    """Every choice and every bound of the service; times in seconds, sizes in bytes."""

    unsigned: Unsigned = "refuse"
    websocket_url: str = ""
    version: str = __version__

    body_bytes: int = 1024 * 1024
    presence_min_ttl_s: int = 30
    presence_max_ttl_s: int = 600
    circle_members: int = 512
    pin_s: int = 30 * DAY_S

    message_bytes: int = 256 * 1024
    message_s: int = 30 * DAY_S
    mailbox_messages: int = 20_000
    mailbox_bytes: int = 64 * 1024 * 1024
    backlog_s: int = 120

    signal_max_ttl_s: int = 120
    candidate_max_ttl_s: int = 60
    signals_waiting: int = 2_000

    tickets_kept: int = 200
    tickets_listed: int = 50
    ticket_max_ttl_s: int = 3600
    ticket_again_s: int = 25
    communities: int = 1_000
    community_names: str = ""
    trusted_ticket_keys: str = ""
    revoked_ticket_keys: str = ""

    capsule_root: str = ""
    capsule_beacons: str = ""
    capsule_mirrors: str = ""

    session_min_ttl_s: int = 30
    session_max_ttl_s: int = 120
    idle_s: int = 30
    socket_s: int = 2 * 3600

    assist: str = ""
    assist_tokens: str = ""
    assist_open: Unsigned = "refuse"
    assist_body_bytes: int = 64 * 1024
    assist_min_ttl_s: int = 60
    assist_max_ttl_s: int = 3600

    address_burst: int = 2_000
    address_per_s: int = 200
    node_burst: int = 1_000
    node_per_s: int = 100
    frame_burst: int = 2_000
    frames_per_s: int = 1_000
    pushes_per_s: int = 50

    def __post_init__(self) -> None:
        if self.unsigned not in get_args(Unsigned):
            raise ValueError("unsigned must be 'refuse' or 'allow'")
        if self.assist_open not in get_args(Unsigned):
            raise ValueError("assist_open must be 'refuse' or 'allow'")
        if self.assist:
            from chalicelib.assist import plan  # where nothing was planned, nothing is loaded

            plan.read(self.assist)
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{field.name} must be at least 1")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read ``MUSTER_<FIELD>`` for each field; a value that does not fit is refused."""
        chosen: dict[str, Any] = {}
        for field in fields(cls):
            text = environment.get(f"MUSTER_{field.name.upper()}")
            if text:
                chosen[field.name] = _read(field, text)
        return cls(**chosen)

    def listed(
        self, name: Literal["trusted_ticket_keys", "revoked_ticket_keys", "community_names"]
    ) -> frozenset[str]:
        """Return a comma list as a set."""
        return frozenset(_listed(getattr(self, name)))

    def sources(self, name: Literal["capsule_beacons", "capsule_mirrors"]) -> tuple[str, ...]:
        """Return a comma list of URLs."""
        return _listed(getattr(self, name))

    def assist_tokens_given_out(self) -> tuple[str, ...]:
        """Return the tokens that the operator made for clients that sign nothing."""
        return _listed(self.assist_tokens)

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


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part for piece in text.split(",") if (part := piece.strip()))


def _read(field: Field[Any], text: str) -> object:
    if not isinstance(field.default, int):
        return text
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"MUSTER_{field.name.upper()} must be a whole number, not {text!r}"
        ) from None
