"""Bounds: what one process of the one-machine host takes on at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one process takes on at once; times in seconds, sizes in bytes."""

    sockets: int = 10_000
    address_sockets: int = 1_000
    connections: int = 12_000
    address_connections: int = 2_000
    head_s: int = 10
    body_s: int = 10
    waiting_body_bytes: int = 128 * 1024 * 1024
    silence_s: int = 15

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read ``MUSTER_<FIELD>`` for each field."""
        chosen: dict[str, int] = {}
        for field in fields(cls):
            text = environment.get(f"MUSTER_{field.name.upper()}")
            if text and not (text.isdecimal() and int(text)):
                raise ValueError(f"MUSTER_{field.name.upper()} must be a whole number from 1")
            if text:
                chosen[field.name] = int(text)
        return cls(**chosen)
