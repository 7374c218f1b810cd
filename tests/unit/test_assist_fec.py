"""Is the count of sample segments what a real RaptorQ encoder makes?"""

import math
import os

import pytest

from chalicelib.assist import fec

MTUS = (
    64,
    72,
    100,
    511,
    512,
    600,
    1024,
    1151,
    1152,
    1200,
    1203,
    1400,
    1500,
    2048,
    2049,
    4096,
    9000,
)
OVERHEADS = (0.0, 0.01, 0.18, 0.2, 0.25, 0.33, 0.35, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0)


@pytest.mark.parametrize("mtu", MTUS)
def test_the_formula_counts_what_the_real_encoder_makes(mtu: int) -> None:
    raptorq = pytest.importorskip(
        "raptorq", reason="needs raptorq: there is no wheel for this machine"
    )
    sample = os.urandom(fec.sample_bytes(mtu))
    encoder = raptorq.Encoder.with_defaults(sample, mtu)
    for overhead in OVERHEADS:
        source, repair = fec.packets(fec.profile(mtu, overhead))
        made = encoder.get_encoded_packets(repair)
        assert len(encoder.get_encoded_packets(0)) == source
        assert len(made) == source + repair
        assert repair == (max(1, math.ceil(round(source * overhead, 6))) if overhead else 0)

        decoder = raptorq.Decoder.with_defaults(len(sample), mtu)
        arrived = made[repair:] if repair <= source else made[source:]
        decoded = next((data for data in map(decoder.decode, arrived) if data), None)
        assert decoded == sample, "as many packets may be lost as there are to repair"


@pytest.mark.parametrize(
    ("mtu", "overhead", "counted"),
    [
        (1200, 0.25, (3, 1)),
        (1152, 0.35, (3, 2)),
        (1200, 0.18, (3, 1)),
        (1200, 0.0, (3, 0)),
        (64, 2.0, (24, 48)),
        (9000, 1.0, (1, 1)),
    ],
)
def test_known_counts(mtu: int, overhead: float, counted: tuple[int, int]) -> None:
    assert fec.packets(fec.profile(mtu, overhead)) == counted


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ((0, 0.35), (64, 0.35)),
        ((65535, 0.35), (9000, 0.35)),
        ((1200, 100_000.0), (1200, 2.0)),
        ((1200, -3.0), (1200, 0.0)),
        ((1200, 1e308), (1200, 2.0)),
    ],
)
def test_a_profile_is_clamped(asked: tuple[int, float], told: tuple[int, float]) -> None:
    assert fec.profile(*asked) == told


def test_no_profile_makes_many_packets() -> None:
    most = max(sum(fec.packets(fec.profile(mtu, 1e6))) for mtu in range(0, 65536, 7))
    assert most <= 72


@pytest.mark.parametrize(
    ("source", "repair", "paths", "shares"),
    [
        (3, 1, 2, [(2, 0), (2, 1)]),
        (3, 1, 1, [(4, 1)]),
        (3, 2, 3, [(1, 0), (2, 1), (2, 1)]),
        (3, 1, 0, []),
        (1, 0, 3, [(1, 0), (0, 0), (0, 0)]),
    ],
)
def test_packets_are_spread_as_published(
    source: int, repair: int, paths: int, shares: list[tuple[int, int]]
) -> None:
    assert fec.spread(source, repair, paths) == shares
