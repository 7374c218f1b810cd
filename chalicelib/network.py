"""Network: what an address is counted as, wherever an address counts.

Whoever has one IPv6 address has 2^64 of them and often 2^80, and whoever has one IPv4
address can get those beside it. Addresses come from the gateway; what is no address is
counted as itself.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_OWN = tuple(
    ip_network(block)
    for block in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
        *("127.0.0.0/8", "169.254.0.0/16", "::1/128", "fc00::/7", "fe80::/10"),
    )
)
"""Loopback, link-local and private addresses, and those that a carrier shares among customers."""


def counts_as(address: str) -> str:
    """Return what has a limit together: an IPv4 address, or the /64 of an IPv6 address."""
    return _limited(address, 64)


def wider(address: str) -> str:
    """Return what one customer may have in all: an IPv4 address, or the /48 of an IPv6 address."""
    return _limited(address, 48)


def neighbours(address: str) -> str:
    """Return who shares places in a list: the /24 of an IPv4 address, or a /64.

    In a private network every address is a machine of its own, which is counted whole.
    """
    parsed = _parsed(address)
    if parsed is None:
        return address
    if any(parsed in block for block in _OWN):
        return str(parsed)
    return _network(parsed, 24 if parsed.version == 4 else 64)


def _limited(address: str, bits: int) -> str:
    if ":" not in address:
        return address
    parsed = _parsed(address)
    if parsed is None:
        return address
    if parsed.version == 4 or parsed.is_loopback:
        return str(parsed)
    return _network(parsed, bits)


def _network(address: IPv4Address | IPv6Address, bits: int) -> str:
    """Write the network of so many bits that holds an address; a zone is left out."""
    others = address.max_prefixlen - bits
    return f"{type(address)(int(address) >> others << others)}/{bits}"


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    """Read an address; an IPv4 address that is written as IPv6 is an IPv4 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


__all__ = ["counts_as", "neighbours", "wider"]
