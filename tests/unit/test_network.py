import pytest

from chalicelib import network


@pytest.mark.parametrize(
    ("address", "counts_as", "wider", "neighbours"),
    [
        ("203.0.113.9", "203.0.113.9", "203.0.113.9", "203.0.113.0/24"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64", "2001:db8:1::/48", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2:0::9", "2001:db8:1:2::/64", "2001:db8:1::/48", "2001:db8:1:2::/64"),
    ],
)
def test_an_address_is_counted_with_those_that_its_owner_can_have(
    address: str, counts_as: str, wider: str, neighbours: str
) -> None:
    assert network.counts_as(address) == counts_as
    assert network.wider(address) == wider
    assert network.neighbours(address) == neighbours


def test_an_ipv4_address_in_ipv6_is_that_ipv4_address() -> None:
    assert network.counts_as("::ffff:203.0.113.9") == "203.0.113.9"
    assert network.wider("::ffff:cb00:7109") == "203.0.113.9"
    assert network.neighbours("::ffff:203.0.113.9") == "203.0.113.0/24"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.7", "169.254.1.1", "100.64.0.1"),
        *("::1", "fd00::1", "fe80::1", "fe80::1%eth0"),
    ],
)
def test_in_a_private_network_every_machine_has_places_of_its_own(address: str) -> None:
    assert network.neighbours(address) == address


def test_a_limit_takes_a_private_network_of_ipv6_together_as_any_other() -> None:
    assert network.counts_as("fd00::1") == "fd00::/64"
    assert network.counts_as("fe80::1%eth0") == "fe80::/64"
    assert network.wider("fd00:1:2:3::1") == "fd00:1:2::/48"
    assert network.counts_as("10.1.2.3") == "10.1.2.3"


def test_loopback_is_one_address() -> None:
    for one in (network.counts_as, network.wider, network.neighbours):
        assert (one("::1"), one("127.0.0.1")) == ("::1", "127.0.0.1")


def test_addresses_beside_private_ones_are_everybodys() -> None:
    for outside in ("172.32.0.1", "11.0.0.1", "100.128.0.1", "192.169.0.1"):
        assert network.neighbours(outside).endswith(".0/24")


def test_a_zone_does_not_make_a_new_address_of_a_public_one() -> None:
    assert network.counts_as("2001:db8::1%a") == network.counts_as("2001:db8::1%b")


@pytest.mark.parametrize("text", ["", "unknown", "203.0.113", "1:2", "::1::", "203.0.113.09", "%"])
def test_what_is_no_address_is_counted_as_itself(text: str) -> None:
    assert network.counts_as(text) == text
    assert network.wider(text) == text
    assert network.neighbours(text) == text
