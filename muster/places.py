"""Places: by which addresses of this machine others may reach it, and who comes from elsewhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_SHOWN = 4


class Here:
    """The addresses of this machine now, and the networks that they are in."""

    def __init__(self, interfaces: Iterable[str]) -> None:
        self._interfaces = [ipaddress.ip_interface(text) for text in interfaces]

    @classmethod
    def look(cls) -> Here:
        """Ask the system."""
        import ifaddr  # only who listens needs it

        found = []
        for adapter in ifaddr.get_adapters():
            for ip in adapter.ips:
                host = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
                found.append(f"{host}/{ip.network_prefix}")
        return cls(found)

    def shown(self) -> list[str]:
        """Return the addresses to tell others: the most widely reachable first."""
        useful = [
            one.ip
            for one in self._interfaces
            if not (one.ip.is_loopback or one.ip.is_link_local or one.ip.is_unspecified)
        ]
        ordered = sorted(set(useful), key=lambda ip: (not ip.is_global, ip.version, int(ip)))
        return [str(ip) for ip in ordered][:MOST_SHOWN]

    def is_elsewhere(self, host: str) -> bool:
        """Say whether an address is neither this machine nor in a network that it is in."""
        try:
            ip = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if ip.version == 6 and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if ip.is_loopback or ip.is_link_local:
            return False
        return not any(ip in one.network for one in self._interfaces)


def is_any(host: str) -> bool:
    """Say whether a host to listen at means all addresses of the machine."""
    return host in ("", "0.0.0.0", "::")  # noqa: S104 - it is compared, not bound to
