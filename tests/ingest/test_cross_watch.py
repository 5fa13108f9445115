"""A venue that keeps its liquidations to itself, on a clock made of numbers."""

from __future__ import annotations

import pytest

from mpengine.ingest.cross_watch import ENOUGH, SECOND, CrossWatch
from mpengine.ingest.feeds import NOT_SHOWN, Feed, Life
from mpengine.ingest.process import Ingest
from mpengine.ingest.watchdog import SocketWatch
from mpengine.venues.base import StreamPlan
from shm.records import Kind, Venue
from tests.ingest.rig import FakeVenue, plan

T0 = 5_000 * SECOND


class Market:
    """Totals of BTC (and ETH, which stays quiet), advanced in steps of 10 s."""

    def __init__(self, scale: float = 1.0) -> None:
        self.watch = CrossWatch(scale)
        self.own = {"ETH": 0}
        self.others = {"BTC": 7, "ETH": 3}
        self.now_ns = T0
        self.since_ns = {"BTC": T0, "ETH": T0}

    def go(self, seconds: int, shown: int = 0, own: int = 0) -> list[tuple[float, dict[str, int]]]:
        """Time passes; the liquidations come at its start. What the watch found, and when (s after the start)."""
        self.others["BTC"] += shown
        self.own["BTC"] = self.own.get("BTC", 0) + own
        found = []
        for _ in range(seconds * 4):
            self.now_ns += SECOND // 4
            if result := self.watch.look(self.own, self.others, self.now_ns, since_ns=self.since_ns):
                found.append(((self.now_ns - T0) / SECOND, result))
        return found


@pytest.mark.covers("F10")
def test_twenty_shown_by_others_and_none_here_within_ten_minutes_is_acted_on_once() -> None:
    market = Market()
    market.go(1)
    assert market.go(590, shown=ENOUGH) == []
    [(at_s, found)] = market.go(60)
    assert found == {"BTC": ENOUGH}
    assert 600 <= at_s <= 611
    assert market.go(300, shown=100) == []
    [(again_s, _)] = market.go(600)
    assert again_s - at_s >= 600


def test_one_of_its_own_is_proof_enough() -> None:
    market = Market()
    market.go(1)
    market.go(300, shown=200)
    market.go(290, own=1)
    assert market.go(100) == []


def test_nineteen_are_not_enough_and_old_ones_do_not_count() -> None:
    market = Market()
    market.go(1)
    market.go(400, shown=ENOUGH - 1)
    assert market.go(900) == []
    assert market.go(500, shown=ENOUGH - 1) == []


def test_a_young_connection_proves_nothing() -> None:
    market = Market()
    market.go(1)
    market.go(500, shown=ENOUGH)
    market.since_ns["BTC"] = market.now_ns
    assert market.go(300, shown=ENOUGH) == []
    assert market.go(290, shown=ENOUGH) == []
    [(_, found)] = market.go(30)
    assert found == {"BTC": ENOUGH}
    market.since_ns.clear()
    assert market.go(1300, shown=ENOUGH) == []


def test_the_scale_shortens_the_window() -> None:
    market = Market(scale=0.1)
    market.go(1)
    [(at_s, _)] = market.go(70, shown=ENOUGH)
    assert 60 <= at_s <= 62


class FakeKeeper:
    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.plan = feed.plans[0]
        self.again: list[str] = []

    def resubscribe(self, stream: str) -> bool:
        self.again.append(stream)
        return True


@pytest.mark.covers("F10")
def test_ingest_takes_the_silent_venues_stream_anew_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """The totals of all other venues count together; only the stream of the symbol is touched."""
    streams = [StreamPlan(f"all.{symbol}", symbol, Kind.LIQUIDATION, None, None, False) for symbol in ("BTC", "ETH")]
    silent = Feed(FakeVenue([plan(name="linear", streams=streams)], venue=Venue.BYBIT, sampling="all_500ms"))
    others = [Feed(FakeVenue([plan()], venue=venue)) for venue in (Venue.BINANCE, Venue.OKX)]
    silent.begin(Life("linear#1", silent.plans[0], T0, SocketWatch(silent.plans[0], T0, 1.0)))
    ingest = Ingest.__new__(Ingest)
    ingest._feeds = [others[0], silent, others[1]]
    keepers = [FakeKeeper(feed) for feed in ingest._feeds]
    ingest._keepers = keepers  # type: ignore[assignment]
    watch = CrossWatch()
    for second in range(0, 700, 5):
        if second == 300:
            for feed in others:
                feed.module.counters.liquidations["BTC"] = ENOUGH // 2
        ingest._compare_liquidations(silent, watch, T0 + second * SECOND)
    assert [keeper.again for keeper in keepers] == [[], ["all.BTC"], []]
    assert silent.reasons == {NOT_SHOWN: 1}
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "all.BTC: silent while other venues show 20 liquidations" in record.getMessage()
