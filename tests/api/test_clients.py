"""Whose bucket a request is: addresses, prefixes, proxies that are believed and those that are not."""

from __future__ import annotations

import pytest

from api.clients import Clients, parse

SALT = b"0123456789abcdef"


def clients(*trusted: str) -> Clients:
    return Clients(trusted, SALT)


def test_addresses_are_told_apart_and_nothing_else() -> None:
    one = clients()
    numbers = [one.of_address(text) for text in ("10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8:0:1::1", "", "a.sock")]
    assert len(set(numbers)) == 6 and all(0 < number < 1 << 64 for number in numbers)
    assert one.of_address("10.0.0.1") == one.of_address("::ffff:10.0.0.1") == one.of_address("10.0.0.1:4711")
    assert one.of_address("10.0.0.1") != one.of_key("10.0.0.1")
    assert Clients((), b"another salt").of_address("10.0.0.1") != one.of_address("10.0.0.1")


def test_ipv6_counts_by_its_first_64_bits() -> None:
    one = clients()
    same = {one.of_address(text) for text in ("2001:db8::1", "2001:db8::2", "2001:db8::ffff:ffff:ffff:ffff", "[2001:db8::7]:80")}
    assert len(same) == 1 and one.of_address("2001:db8:0:1::1") not in same
    assert one.of_address("fe80::1%eth0") == one.of_address("fe80::2%eth1")


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("203.0.113.9", b"198.51.100.1", "203.0.113.9"),  # not a proxy of ours
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", b"198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", b"6.6.6.6, 198.51.100.1", "198.51.100.1"),  # the left one was written by the client
        ("10.0.0.1", b"6.6.6.6, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", b"198.51.100.1 ,10.0.0.2,\t192.168.7.7", "198.51.100.1"),
        ("10.0.0.1", b"198.51.100.1:5000", "198.51.100.1"),
        ("10.0.0.1", b"[2001:db8::1]:5000", "2001:db8::1"),
        ("::ffff:10.0.0.1", b"198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", b"10.0.0.3, 10.0.0.2", "10.0.0.3"),  # a request of a machine of ours
        ("10.0.0.1", b"198.51.100.1, unknown", "10.0.0.1"),  # nothing is believed beyond what cannot be read
        ("10.0.0.1", b"198.51.100.1, evil, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("10.0.0.1", b"\xff\xfe", "10.0.0.1"),
        ("10.0.0.1", b"6.6.6.6," * 500 + b"198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", b"198.51.100.1," + b"10.0.0.2," * 500 + b"10.0.0.3", "10.0.0.2"),  # no more hops than that
        ("192.168.7.1", b"198.51.100.1", "198.51.100.1"),
        ("not an address", b"198.51.100.1", "not an address"),
    ],
)
def test_forwarded_addresses(peer: str, header: bytes | None, client: str) -> None:
    one = clients("10.0.0.0/24", "192.168.7.0/24", "2001:db8:ffff::/48")
    for _ in range(2):
        assert one.of_address(peer, header) == one.of_address(client)
    assert clients().of_address(peer, header) == clients().of_address(peer), "nobody is believed"


def test_what_is_remembered_is_bounded() -> None:
    one = clients("10.0.0.0/8")
    for number in range(20_000):
        text = f"198.51.{number >> 8 & 255}.{number & 255}"
        one.of_address("10.0.0.1", text.encode())
        one.of_address("10.0.0.1", text.encode() + b" " * 1000)
        one.of_address(text)
    assert one._direct.cache_info().currsize <= 8192
    assert one._forwarded.cache_info().currsize <= 8192
    assert one._forwarded.cache_info().misses == 20_000, "long headers are not kept"


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "1.2.3.4.5", "::g", "[", "[]", ":", "1.2.3.4, 5.6.7.8", "0x7f.1"])
def test_what_is_no_address(text: str) -> None:
    assert parse(text) is None
