"""Bounds: what one process of the one-machine host takes on at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from chalicelib import variables


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
    waiting_bytes: int = 64 * 1024 * 1024
    network_waiting_bytes: int = 8 * 1024 * 1024
    store_bytes: int = 2 * 1024 * 1024 * 1024
    silence_s: int = 15

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read ``MUSTER_<FIELD>`` for each field; raises `WrongValue` for what does not fit."""
        return cls(**variables.chosen(cls, environment))
