"""What push connections count; the push code raises these figures, `api.metrics` publishes them. Plain integers of one thread."""

from __future__ import annotations

from typing import Final

TRANSPORTS: Final = ("sse", "ws")
CLOSE_REASONS: Final = ("client", "slow", "idle", "restart", "unauthorized", "protocol", "error", "other")
"""Why a connection ended: the client went; it did not read (1013, `bye`); it was silent (1001); we stop (1012); its key is missing,
wrong, revoked or not good for this (1008); it broke the rules of the wire (1003, 1007, 1008, 1009); a fault of ours; anything else.
What is refused before it begins (403, 429) is an answer, not a connection."""


class PushCounts:
    """Counters since this process began, and the clients that are open now.

    `sent_bytes`: payload handed to transports, heads and frames included. `conflated`: messages that a slow client did not get
    because a newer one took their place.
    """

    __slots__ = ("clients", "closed", "conflated", "sent_bytes")

    def __init__(self) -> None:
        self.clients = dict.fromkeys(TRANSPORTS, 0)
        self.closed = dict.fromkeys(CLOSE_REASONS, 0)
        self.sent_bytes = 0
        self.conflated = 0

    def begin(self, transport: str) -> None:
        """A client is connected. Raises KeyError for a transport that is not in TRANSPORTS."""
        self.clients[transport] += 1

    def end(self, transport: str, reason: str) -> None:
        """It is gone; a reason that is not in CLOSE_REASONS counts as `other`. Call it once for each `begin`."""
        self.clients[transport] -= 1
        self.closed[reason if reason in self.closed else "other"] += 1
