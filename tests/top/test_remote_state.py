"""What a server says, as facts: ages by its clock, the newest of what was told twice, gaps and restarts. No sockets."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from mpengine.cells import u8log
from mpengine.client import Column, ColumnUpdate, EventsUpdate, Lost, Reset, StateUpdate, ZonesUpdate
from mpengine.contract import Health, Liquidation, Zone
from mpengine.contract.push import BookState, StatusState, VenueBook
from mpengine.top.badge import badge
from mpengine.top.remote_state import RemoteState
from tests.top.samples import NOW_MS

EPOCH = 3
NAMES = ("supervisor", "api-master", "api-0", "engine-BTC")


def health(now_ms: int = NOW_MS, **values: Any) -> Health:
    """Of one symbol and one venue; `values` of the symbol."""
    one: dict[str, Any] = {
        "v1_available": True, "v1_ts": 0.0, "v2_available": True, "v2_ts": 0.0, "v1_history_frames": 1, "v2_history_frames": 1,
        "engine": "live", "stale": False, "liq_seq": 10, "liq_age_s": 34.0, "depth_seq": 20, "depth_age_s": 42.0, "oi_age_s": 12.0,
        "book": "synced", "step": 20.0, "ob_step": 20.0, "base_asset": "BTC", "data_since_ms": NOW_MS - 7_200_000,
        "calibrator": {
            "enabled": True, "total_events": 0, "snapshots": 0, "minutes_since_calibration": None, "pending": 0, "dropped": 0,
        },
        "books": {"binance": "synced"}, "open_interest": {"binance": 12.0},
    } | values  # fmt: skip
    stream = {"state": "LIVE", "age_s": 0.1, "messages": (now_ms - NOW_MS) // 10, "errors": 0, "lag_ms": 38.0}
    venue = {
        "state": "LIVE", "age_s": 0.2, "reconnects": 1, "liquidations": "largest_1s", "streams": {"depth": stream},
        "canary": {"price_side": None, "return_sign": None, "alarm": False},
    }  # fmt: skip
    return msgspec.convert(
        {
            "ok": True, "version": "3.0.0", "mode": "embedded", "uptime_s": 60.0, "status": "ok", "build": "1.0", "contract": "3.1",
            "ob_buffer": {"frames_in_memory": 1, "last_ts": 0.0, "shared": True}, "config_hash": "x", "now_ms": now_ms,
            "symbols": {"BTC": one}, "exchanges": {"binance": venue}, "errors": {"http_5xx": 7}, "cross_canary": None,
            "processes": {name: {"state": "LIVE", "restarts": 0, "age_s": 0.1} for name in NAMES},
        },
        Health,
    )  # fmt: skip


def update(kind: type[Any], channel: str, seq: int, **values: Any) -> Any:
    plain = {"channel": channel, "epoch": EPOCH, "seq": seq, "way": "delta", "ts_ms": NOW_MS, "stale": False}
    return kind(**{**plain, **values})


def column(t_ms: int, usd: float = 1e6, src: float = 65_900.0) -> Column:
    cells = u8log(np.full((2, 400), usd))
    return Column(t_ms=t_ms, dt_ms=60_000, price0=62_000.0, step=20.0, src=src, flags=frozenset(), low=cells[0], high=cells[1])


def reasons(state: RemoteState, mono_ms: float) -> tuple[str, ...]:
    one = state.facts(None, 3.0, mono_ms, 0)
    return badge(one, one.now_ms).reasons


@pytest.fixture
def state() -> RemoteState:
    made = RemoteState("http://desk.example")
    made.health(health(), 1000.0)
    return made


def test_before_the_first_answer_it_is_connecting() -> None:
    one = RemoteState("http://desk.example").facts("BTC", 3.0, 0.0, NOW_MS)
    assert one.trouble == "connecting" and one.now_ms == NOW_MS and badge(one, NOW_MS).stale


def test_ages_are_times_of_the_servers_clock_which_goes_on_by_ours(state: RemoteState) -> None:
    one = state.facts(None, 3.0, 3500.0, wall_ms=5)
    assert one.now_ms == NOW_MS + 2500 and one.shown == "BTC" and one.version == "1.0" and one.since_ms == NOW_MS - 60_000
    btc = one.symbols[0]
    assert btc.map is not None and btc.book is not None
    assert (btc.map.ts_ms, btc.book.ts_ms, btc.oi_ms) == (NOW_MS - 34_000, NOW_MS - 42_000, NOW_MS - 12_000)
    assert one.venues[0].last_ms == NOW_MS - 200 and one.venues[0].oi_ms == NOW_MS - 12_000 and one.venues[0].book == "synced"
    assert [process.role for process in one.processes] == ["supervisor", "master", "api", "engine"]
    assert one.fanout.errors_5xx == 7 and one.fanout.clients is None
    assert badge(one, one.now_ms).reasons == ()


def test_silence_counts_from_the_last_thing_of_any_kind(state: RemoteState) -> None:
    assert reasons(state, 17_000.0) == ("nothing heard for 16 s",)
    state.heard(16_500.0)
    assert reasons(state, 17_000.0) == ()


def test_a_failure_is_stale_until_the_next_answer(state: RemoteState) -> None:
    state.failed("http://desk.example does not answer")
    one = state.facts(None, 3.0, 2000.0, 0)
    assert badge(one, one.now_ms).reasons == ("http://desk.example does not answer",) and one.symbols
    state.health(health(NOW_MS + 2000), 3000.0)
    assert state.facts(None, 3.0, 3000.0, 0).trouble is None


def test_messages_a_second_are_between_two_answers(state: RemoteState) -> None:
    assert state.facts(None, 3.0, 1000.0, 0).messages_s is None
    state.health(health(NOW_MS + 2000), 3000.0)
    assert state.facts(None, 3.0, 3000.0, 0).messages_s == 100.0


def test_what_is_pushed_is_newer_than_the_answer_before(state: RemoteState) -> None:
    state.item(update(ColumnUpdate, "liq.BTC", 11, column=column(NOW_MS - 60_000)), 1500.0)
    state.item(update(ColumnUpdate, "depth.BTC", 21, column=column(NOW_MS - 30_000)), 1500.0)
    one = state.facts(None, 3.0, 1500.0, 0)
    btc = one.symbols[0]
    assert btc.map is not None and btc.book is not None
    assert (btc.map.seq, btc.map.ts_ms, btc.book.seq, btc.book.ts_ms) == (11, NOW_MS, 21, NOW_MS - 30_000)
    assert one.map is not None and one.book is not None and len(one.map.columns) == 1
    assert (btc.price, btc.price_kind) == (65_900.0, "book")
    state.health(health(NOW_MS + 1000), 2000.0)  # says 34 s again
    again = state.facts(None, 3.0, 2000.0, 0).symbols[0].map
    assert again is not None and again.seq == 11


def test_the_newest_price_is_shown_with_its_kind(state: RemoteState) -> None:
    books = {
        "okx": VenueBook(state="syncing", best_bid=1.0, best_ask=2.0, total_bid_usd=0.0, total_ask_usd=0.0, last_update_ms=None),
        "binance": VenueBook(
            state="synced", best_bid=65_990.0, best_ask=65_991.0, total_bid_usd=0.0, total_ask_usd=0.0, last_update_ms=NOW_MS + 5
        ),
    }
    state.item(update(ColumnUpdate, "liq.BTC", 11, column=column(NOW_MS - 60_000)), 1500.0)
    state.item(update(StateUpdate, "book.BTC", 5, value=BookState(books=books)), 1500.0)
    btc = state.facts(None, 3.0, 1500.0, 0).symbols[0]
    assert (btc.price, btc.price_kind) == (65_990.5, "book")


def test_a_gap_is_stale_until_it_has_been_fetched(state: RemoteState) -> None:
    state.item(Lost(channel="depth.BTC", epoch=EPOCH, first=12, last=14, reason="too old"), 1200.0)
    one = state.facts(None, 3.0, 1200.0, 0)
    assert badge(one, one.now_ms).reasons == ("columns 12 to 14 of the book are missing",)
    state.item(Lost(channel="oi.BTC", epoch=EPOCH, first=1, last=2, reason="x"), 1200.0)
    assert "book" in (state.facts(None, 3.0, 1200.0, 0).lost or "")


def test_a_reset_is_a_restart_until_the_next_column(state: RemoteState) -> None:
    state.item(Reset(channel="liq.BTC", before=None, epoch=EPOCH + 1, reason="epoch"), 1200.0)
    assert state.facts(None, 3.0, 1200.0, 0).symbols[0].restarted
    state.item(update(ColumnUpdate, "liq.BTC", 0, epoch=EPOCH + 1, column=column(NOW_MS)), 1300.0)
    assert not state.facts(None, 3.0, 1300.0, 0).symbols[0].restarted


def test_liquidations_of_a_snapshot_replace_and_later_ones_come_first(state: RemoteState) -> None:
    def event(seq: int) -> Liquidation:
        return Liquidation(
            seq=seq, ts_ms=NOW_MS + seq, recv_ms=NOW_MS + seq, venue="okx", side="short", price=1.0, price_kind="fill",
            bankruptcy_price=None, qty_base=1.0, notional_usd=float(seq),
        )  # fmt: skip

    state.item(update(EventsUpdate, "liquidations.BTC", 2, way="snapshot", events=(event(1), event(2))), 1200.0)
    state.item(update(EventsUpdate, "liquidations.BTC", 3, events=(event(3),)), 1200.0)
    assert [one.usd for one in state.facts(None, 3.0, 1200.0, 0).liquidations] == [3.0, 2.0, 1.0]
    state.item(update(EventsUpdate, "liquidations.BTC", 2, way="snapshot", events=(event(2),)), 1200.0)
    assert [one.usd for one in state.facts(None, 3.0, 1200.0, 0).liquidations] == [2.0]


def test_of_thousands_of_zones_the_heaviest_are_kept_and_all_are_counted(state: RemoteState) -> None:
    zones = {
        f"L-{n}": Zone(
            price=60_000.0 + n, side="long", weight=1.0, created_at=NOW_MS, last_reinforced_at=NOW_MS, reinforcement_count=1,
            source="tape", tier_contributions={}, id=f"L-{n}", notional_usd=float(n), tape_usd=0.0, projected_usd=float(n),
            age_min=0, dominant_leverage=None,
        )
        for n in range(3000)
    }  # fmt: skip
    state.item(update(ZonesUpdate, "zones.BTC", 1, zones=zones, changed=tuple(zones), removed=()), 1200.0)
    one = state.facts(None, 3.0, 1200.0, 0)
    assert one.symbols[0].zones == 3000 and len(one.zones) == 40 and min(zone.usd for zone in one.zones) == 2960.0


def test_a_symbol_that_is_not_stale_without_maps_has_none() -> None:
    state = RemoteState("x")
    state.health(health(liq_seq=None, liq_age_s=None), 0.0)
    assert not state.facts(None, 3.0, 0.0, 0).symbols[0].maps and reasons(state, 0.0) == ()
    state.health(health(liq_seq=None, liq_age_s=None, stale=True), 0.0)
    assert reasons(state, 0.0) == ("warming up, no map yet",)


def test_what_is_not_of_a_symbol_changes_nothing(state: RemoteState) -> None:
    before = state.facts(None, 3.0, 1000.0, 0)
    state.item(update(StateUpdate, "status", 1, value=StatusState(status="ok", exchanges={}, symbols={})), 1000.0)
    assert state.facts(None, 3.0, 1000.0, 0) == before
