"""F10 for every venue: what networks and exchanges do to one of them shows as a counter and a state, ends, and touches no other.

One tree with three venues for all tests; meanwhile a witness looks at prices and open interest, which must not jump or be zero.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mpengine.schemas import BookDocument, FeedsDocument, OiDocument, StatusDocument, VenueFeed, decode
from shm.board_words import VENUE_STATES, Word, venue_state_word
from shm.document import DocumentReader
from shm.errors import ShmError
from shm.records import DocumentId, Venue
from tests.chaos.rig import COMMAND, get
from tests.integration.tree import free_port
from tests.supervisor.rig import Tree, tree, until

pytestmark = pytest.mark.slow

VENUES = ("binance", "bybit", "okx")
# On the whole tree one venue shows it; the faults of the others are met in tests/ingest on sockets, their trees are long forms.
FAULTY = (pytest.param("binance", marks=pytest.mark.stress), "bybit", pytest.param("okx", marks=pytest.mark.stress))
SETTINGS = {
    "simulator.enabled": "true", "api.workers": "1", "engine.ring_units": "131072", "symbols": "{BTC = {}}",
    "ingest.open_interest_interval_s": "1.0", "ingest.reconnect_max_s": "2.0", "ingest.watchdog_scale": "0.2",
    "venues.bybit.order_book": "true", "venues.bybit.tickers": "true", "venues.okx.order_book": "true",
    "venues.okx.mark_price": "true", "supervisor.restart_budget": "20", "supervisor.hang_after_s": "3.0",
    "supervisor.start_timeout_s": "20",
}  # fmt: skip


class Rig:
    """The tree and its simulator, seen from outside."""

    def __init__(self, one: Tree, port: int) -> None:
        self.tree = one
        self._port = port

    def control(self, method: str, path: str, **values: Any) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(method, f"/control/{path}", json.dumps(values) if values else None)
            return json.loads(connection.getresponse().read() or b"null")
        finally:
            connection.close()

    def fault(self, venue: str, kind: str, **values: Any) -> None:
        """Begin a fault at the simulator."""
        reply = self.control("POST", "faults", venue=venue, fault=kind, **values)
        assert "id" in reply, reply

    def heal(self) -> None:
        """End all faults."""
        self.control("DELETE", "faults")

    def document(self, which: DocumentId, kind: type[Any]) -> Any:
        paths = self.tree.paths
        try:
            with DocumentReader.open(paths.feeds if which is DocumentId.FEEDS else paths.documents("BTC")) as reader:
                slot = reader.latest(which)
        except (ShmError, OSError):
            return None
        return None if slot is None else decode(slot.payload, kind)

    def feed(self, venue: str) -> VenueFeed:
        found: FeedsDocument = self.document(DocumentId.FEEDS, FeedsDocument)
        return found.venues[venue]

    def book(self, venue: str) -> Any:
        found: BookDocument | None = self.document(DocumentId.BOOK, BookDocument)
        return None if found is None else found.books.get(venue)

    def oi(self) -> OiDocument:
        found: OiDocument = self.document(DocumentId.OI, OiDocument)
        return found

    def healthy(self) -> bool:
        """Three venues live with every stream that may not be silent, three books synced, three values of open interest fresh."""
        feeds: FeedsDocument | None = self.document(DocumentId.FEEDS, FeedsDocument)
        interest: OiDocument | None = self.document(DocumentId.OI, OiDocument)
        status: StatusDocument | None = self.document(DocumentId.STATUS, StatusDocument)
        if status is None or status.mark is None or status.mid is None:
            return False
        if feeds is None or interest is None or set(feeds.venues) != set(VENUES):
            return False
        books = [self.book(venue) for venue in VENUES]
        return (
            all(feed.state == "LIVE" and not _silent(feed) for feed in feeds.venues.values())
            and all(book is not None and book.state == "synced" for book in books)
            and all(interest.written_ns - one.recv_ns < 5 * 10**9 for one in interest.venues.values())
            and set(interest.venues) == set(VENUES)
        )

    def trouble(self, but: str) -> dict[str, tuple[int, int, int]]:
        """What would change at the other venues if a fault touched them."""
        return {v: (self.feed(v).reconnects, self.feed(v).parse_errors, self.book(v).resyncs) for v in VENUES if v != but}


def _silent(feed: VenueFeed) -> list[str]:
    """Streams that do not deliver; liquidations may be silent for minutes."""
    may_wait = ("force", "iquidation")
    return [name for name, one in feed.streams.items() if one.state != "LIVE" and not any(part in name for part in may_wait)]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    port = free_port()
    with tree({**SETTINGS, "simulator.port": str(port)}, command=COMMAND) as one:
        one.start()
        rig = Rig(one, port)
        until("three venues are there", rig.healthy, 60)
        yield rig
        assert one.stop() == 0


@contextmanager
def witnessed(rig: Rig, venue: str) -> Iterator[None]:
    """The block leaves everything healthy; meanwhile prices and open interest stay what they are, no other venue notices."""
    until("healthy before", rig.healthy, 60)
    entered = time.time_ns()
    # What the last fault still had under way is counted in the second document from now.
    until("counters of now", lambda: rig.document(DocumentId.FEEDS, FeedsDocument).written_ns > entered + 10**9, 10)
    before, seen, stop = rig.trouble(venue), list[str](), threading.Event()
    known = {name: value.base for name, value in rig.oi().venues.items()}

    def look() -> None:
        while not stop.wait(0.05):
            status: StatusDocument | None = rig.document(DocumentId.STATUS, StatusDocument)
            interest: OiDocument | None = rig.document(DocumentId.OI, OiDocument)
            if status is not None and not (status.mark and status.mid and abs(status.mid / status.mark - 1) < 0.01):
                seen.append(f"mark {status.mark}, mid {status.mid}")
            for name, value in interest.venues.items() if interest is not None else ():
                if abs(value.base / known[name] - 1) > 0.05:
                    seen.append(f"{name}: open interest {known[name]} -> {value.base}")
                known[name] = value.base

    witness = threading.Thread(target=look)
    witness.start()
    try:
        yield
        rig.heal()
        until("healthy after", rig.healthy, 60)
    finally:
        rig.heal()
        stop.set()
        witness.join()
    assert not seen, seen[:3]
    assert rig.trouble(venue) == before, "another venue was touched"


def rises(read: Callable[[], int]) -> Callable[[], bool]:
    """Whether a counter has risen since now."""
    before = read()
    return lambda: read() > before


@pytest.mark.covers("F10", "F9")
@pytest.mark.parametrize("venue", FAULTY)
def test_a_gap_in_the_book_is_a_resync(rig: Rig, venue: str) -> None:
    with witnessed(rig, venue):
        resyncs = rises(lambda: rig.book(venue).resyncs)
        rig.fault(venue, "gap", stream="*book*BTC*", count=1)
        until("the broken chain is seen", resyncs)
        until("the book is whole again", lambda: rig.book(venue).state == "synced", 15)


@pytest.mark.covers("F9")
@pytest.mark.parametrize("venue", FAULTY)
def test_garbage_is_counted_and_costs_no_connection(rig: Rig, venue: str) -> None:
    with witnessed(rig, venue):
        errors, reconnects = rises(lambda: rig.feed(venue).parse_errors), rig.feed(venue).reconnects
        for variant in ("truncated", "nan", "wrong_types", "deep"):
            rig.fault(venue, "garbage", count=4, variant=variant)
        until("garbage is counted", errors)
        assert rig.feed(venue).reconnects == reconnects


@pytest.mark.covers("F10")
@pytest.mark.parametrize("venue", FAULTY)
def test_a_silent_stream_is_named_and_taken_anew(rig: Rig, venue: str) -> None:
    pattern = "*depth*" if venue == "binance" else "*book*BTC*"

    def silent() -> bool:
        return any(one.state != "LIVE" for name, one in rig.feed(venue).streams.items() if "book" in name or "depth" in name)

    with witnessed(rig, venue):
        rig.fault(venue, "silence", stream=pattern, seconds=60)
        until("the stream is not LIVE", silent, 40)
        assert rig.feed(venue).state == "LIVE", "the venue still speaks"
        rig.heal()
        until("it delivers again", lambda: not silent(), 40)


@pytest.mark.covers("F10")
@pytest.mark.parametrize("venue", FAULTY)
def test_half_open_sockets_are_found_out(rig: Rig, venue: str) -> None:
    with witnessed(rig, venue):
        reconnects = rises(lambda: rig.feed(venue).reconnects)
        rig.fault(venue, "half_open", seconds=2)
        until("dead sockets are opened anew", reconnects, 60)


@pytest.mark.covers("F10", "A1-M12", "S-C2")
@pytest.mark.parametrize("venue", FAULTY)
def test_an_outage_leaves_the_venue_out_and_it_comes_back(rig: Rig, venue: str) -> None:
    with witnessed(rig, venue):
        rig.fault(venue, "disconnect", seconds=8)
        until("its book is gone", lambda: rig.book(venue).state != "synced")
        assert all(rig.book(other).state == "synced" for other in VENUES if other != venue)
        until("and is back", lambda: rig.book(venue).state == "synced", 25)


@pytest.mark.covers("F10", "A1-M15", "A1-M16")
@pytest.mark.parametrize("venue", FAULTY)
def test_too_many_requests_pause_the_venues_rest_only(rig: Rig, venue: str) -> None:
    with witnessed(rig, venue):
        rig.fault(venue, "status", status=429, retry_after=3, seconds=2)
        until("REST is paused", lambda: rig.feed(venue).rest_paused_until_ms is not None)
        assert all(rig.feed(other).rest_paused_until_ms is None for other in VENUES if other != venue)
        value = rig.oi().venues[venue]
        assert value.base > 0, "the last value stays"
        until("and goes on", lambda: rig.oi().venues[venue].recv_ns > value.recv_ns, 30)


@pytest.mark.covers("F10")
def test_a_geo_block_is_marked_and_left_alone(rig: Rig) -> None:
    until("healthy before", rig.healthy, 60)
    before = rig.trouble("bybit")
    rig.fault("bybit", "status", status=451)
    until("the block is seen", lambda: rig.feed("bybit").state == "GEO_BLOCKED")
    word = venue_state_word(Venue.BYBIT)
    until("also on the board", lambda: VENUE_STATES[rig.tree.word("ingest", word)] == "GEO_BLOCKED")
    until("and in health", lambda: get(rig.tree, "/health")[1]["exchanges"]["bybit"]["state"] == "GEO_BLOCKED")
    until("and in the verdict", lambda: get(rig.tree, "/health")[1]["status"] == "degraded", 60)
    rig.heal()
    asked = rig.control("GET", "state")["requests"]
    until("the others are polled on", lambda: rig.control("GET", "state")["requests"] > asked + 10)
    assert rig.feed("bybit").state == "GEO_BLOCKED", "until the next start"
    assert rig.book("bybit").state == "synced", "sockets that work stay"
    assert rig.trouble("bybit") == before

    generation = rig.tree.word("ingest", Word.GENERATION)
    os.kill(rig.tree.child("ingest"), signal.SIGKILL)
    rig.tree.await_new_life("ingest", generation)
    until("a new start tries again", rig.healthy, 60)
