"""FEC: how many packets a RaptorQ encoder makes of a sample, and how they are spread.

Counted, not encoded: the formula gives what the real encoder gives (RFC 6330, an
8-byte alignment, one source block), which tests/unit/test_assist_fec.py proves.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

MIN_MTU, MAX_MTU = 64, 9000
MAX_OVERHEAD = 2.0
ALIGNMENT = 8


class Profile(NamedTuple):
    """How packets are protected: their size, and repair packets per source packet."""

    mtu: int
    overhead: float


def profile(mtu: int, overhead: float) -> Profile:
    """Clamp what was asked for to what makes sense."""
    return Profile(min(max(mtu, MIN_MTU), MAX_MTU), min(max(overhead, 0.0), MAX_OVERHEAD))


def sample_bytes(mtu: int) -> int:
    """Return the length of the sample."""
    return 3 * min(max(mtu, 512), 2048)


def packets(chosen: Profile) -> tuple[int, int]:
    """Return how many source and repair packets the sample becomes."""
    symbol = chosen.mtu if chosen.mtu < 64 else chosen.mtu - chosen.mtu % ALIGNMENT
    source = -(-sample_bytes(chosen.mtu) // symbol)
    if chosen.overhead <= 0:
        return source, 0
    return source, max(1, math.ceil(_single(source * _single(chosen.overhead))))


def spread(source: int, repair: int, paths: int) -> list[tuple[int, int]]:
    """Return for each path how many packets go by it in all, and how many of them repair.

    Source packets go round all paths, repair packets round all but the first.
    """
    shares = [[0, 0] for _ in range(paths)]
    if paths:
        for i in range(source):
            shares[i % paths][0] += 1
        for i in range(repair):
            path = 1 + i % (paths - 1) if paths > 1 else 0
            shares[path][0] += 1
            shares[path][1] += 1
    return [(total, repairs) for total, repairs in shares]


def _single(number: float) -> float:
    """Round to single precision, in which the encoder's side counts."""
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded
