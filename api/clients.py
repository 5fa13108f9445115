"""Who a request comes from: the address of the connection, or the one that a proxy of ours tells, as a salted hash. Pure.

Addresses leave this module only as hashes: in shared memory and in the log there is none.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_HOPS: Final = 32
REMEMBERED: Final = 8192
REMEMBERED_BYTES: Final = 128
"""A longer `X-Forwarded-For` is looked at each time, so that nobody can fill the memory with them."""


class Clients:
    """Names clients. `trusted`: networks of proxies whose `X-Forwarded-For` is believed; `salt`: shared by all workers."""

    def __init__(self, trusted: Sequence[str], salt: bytes) -> None:
        self._trusted = [ipaddress.ip_network(text) for text in trusted]
        self._salt = salt
        self._direct = lru_cache(REMEMBERED)(self._name_direct)
        self._forwarded = lru_cache(REMEMBERED)(self._name_forwarded)
        self.of_key = lru_cache(REMEMBERED)(self._name_key)
        self.looks = bool(self._trusted)

    def of_address(self, peer: str, forwarded: bytes | None = None) -> int:
        """Number of a client by its address; `forwarded`: `X-Forwarded-For`, looked at only when `peer` is a trusted proxy."""
        if forwarded is None or not self.looks:
            return self._direct(peer)
        if len(forwarded) > REMEMBERED_BYTES:
            return self._name_forwarded(peer, forwarded)
        return self._forwarded(peer, forwarded)

    def _name_key(self, identity: str) -> int:
        """Number of a client by the id of its key."""
        return self._hash(b"key", identity.encode())

    def _name_direct(self, peer: str) -> int:
        address = parse(peer)
        return self._hash(b"text", peer.encode()) if address is None else self._of(address)

    def _name_forwarded(self, peer: str, forwarded: bytes) -> int:
        """The rightmost hop that is not a proxy of ours: what stands left of it was written by whoever it is."""
        client = parse(peer)
        if client is None or not self._is_trusted(client):
            return self._direct(peer)
        for hop in reversed(forwarded.rsplit(b",", MAX_HOPS)[-MAX_HOPS:]):
            found = parse(hop.decode("latin-1"))
            if found is None:
                break
            client = found
            if not self._is_trusted(found):
                break
        return self._of(client)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _of(self, address: Address) -> int:
        # An IPv6 customer has a /64 at least: one bucket for each of its addresses would be no limit.
        return self._hash(b"v4", address.packed) if address.version == 4 else self._hash(b"v6", address.packed[:8])

    def _hash(self, kind: bytes, data: bytes) -> int:
        digest = hashlib.blake2b(data, digest_size=8, key=self._salt, person=kind)
        return int.from_bytes(digest.digest(), "little") or 1


def parse(text: str) -> Address | None:
    """An address, with a port or brackets if it has them; IPv4 inside IPv6 is IPv4. None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if address.version == 6 else address
