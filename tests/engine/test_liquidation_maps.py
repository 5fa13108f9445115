"""The liquidation engine in the core: what a minute publishes, isolation of its steps, restarts (`spec: engine`, 4.4, 18-21)."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from mpengine.config import load
from mpengine.engine.calibrator import Calibrator
from mpengine.engine.core import DocumentOut, ErrorOut, SymbolCore
from mpengine.engine.inference import Projection
from mpengine.engine.liquidation_maps import LiquidationMaps, MapOut, SaveOut
from mpengine.engine.log_records import LogOut
from mpengine.engine.self_check import self_check
from mpengine.engine.storage import state_digest
from mpengine.schemas import LevelsDocument, ZonesDocument, decode
from shm.records import Coverage, DocumentId, FrameKind, Kind, PositionSide, TakerSide, Venue, pack_event
from tests.engine.events import SECOND, T0, clock, clocks, depth, liquidation, mark, ns, open_interest, trade
from tests.engine.known_market import KnownMarket
from tests.engine.test_core import as_bytes, bars, book_start, chain, core, published
from tests.engine.test_truth import MIX

ONE_VENUE = ["venues.bybit.enabled=false", "venues.okx.enabled=false"]


def maps_of(outputs: list[Any]) -> list[MapOut]:
    return [one for one in outputs if isinstance(one, MapOut)]


def logs_of(outputs: list[Any], kind: str) -> list[dict[str, Any]]:
    return [one.record for one in outputs if isinstance(one, LogOut) and one.kind == kind]


def levels_of(one: MapOut) -> LevelsDocument:
    return decode(one.levels, LevelsDocument)


def minute(number: int, oi: float, price: float = 100_000.0, *, buy: float = 6.5, sell: float = 3.5) -> bytes:
    """A minute with a price, takers and a value of open interest; its end is the next one's first tick."""
    at = 60.0 * number
    return (
        clock(at) + mark(at + 1, price) + trade(at + 2, TakerSide.BUY, price, buy) + trade(at + 3, TakerSide.SELL, price, sell)
        + open_interest(at + 50, oi) + mark(at + 59, price) + clock(at + 60)
    )  # fmt: skip


def market(seed: int, minutes: int) -> list[bytes]:
    one = KnownMarket(seed, MIX)
    return [one.minute() for _ in range(minutes)]


def test_a_minute_publishes_frame_and_documents_of_one_state() -> None:
    one = core()
    one.on_batch(minute(0, 88_000.0) + minute(1, 88_050.0))
    one.on_batch(liquidation(121, PositionSide.LONG, 99_500.0, 2.0, 99_900.0) + minute(2, 88_050.0))
    outputs = one.outputs()
    first, second, third = maps_of(outputs)
    frame, levels = third.frame, levels_of(third)
    assert (frame.kind, frame.open_ts_ns, frame.close_ts_ns) == (FrameKind.LIQUIDATION, T0 + 120 * SECOND, T0 + 180 * SECOND)
    assert (frame.reference, frame.open_interest, frame.samples) == (100_000.0, 88_050.0, 1)
    assert (frame.norm_a, frame.total_a) == (pytest.approx(199_800.0), pytest.approx(frame.planes[(0, 2),].sum()))
    assert frame.tape_share == pytest.approx(199_800.0 / frame.planes.sum())
    assert first.frame.planes.sum() == 0.0 and Coverage.OI_MISSING in first.frame.coverage
    assert Coverage.OI_MISSING not in second.frame.coverage
    assert frame.venues == Venue.BINANCE.bit
    # The documented opening: 50 BTC at 100,000, 65 % longs.
    assert levels_of(second).long.opened_usd == pytest.approx(3_250_000.0)
    assert (levels.src, levels.minute, levels.written_ns) == (100_000.0, (T0 // (60 * SECOND)) + 2, frame.close_ts_ns)
    assert (levels.events, levels.events_in_minute, levels.inferences) == (1, 1, 1)


def test_a_venue_time_that_cannot_be_makes_no_frame_of_the_future() -> None:
    one = core()
    one.on_batch(minute(0, 88_000.0))
    ahead = ns(10**9)
    one.on_batch(pack_event(Kind.LIQUIDATION, Venue.BINANCE, PositionSide.LONG, 0, ahead, ns(61), 0, 0, 99_500.0, 1.0, 99_900.0))
    one.on_batch(minute(1, 88_050.0))
    *_, last = maps_of(one.outputs())
    assert last.frame.venue_ts_ns == last.frame.close_ts_ns


@pytest.mark.covers("A2-M8")
def test_counts_of_the_document_are_those_of_the_frame() -> None:
    one = SymbolCore("BTC", load("", {}, ONE_VENUE))
    for records in market(3, 60):
        one.on_batch(records)
        for out in maps_of(one.outputs()):
            frame, levels, zones = out.frame, levels_of(out), decode(out.zones, ZonesDocument)
            for row, side in enumerate((levels.long, levels.short)):
                tape, projected = frame.planes[row], frame.planes[2 + row]
                assert side.raw_buckets == ((tape > 0) | (projected > 0)).sum()
                assert side.tape_usd >= tape.sum() - 1e-6 and side.projected_usd >= projected.sum() - 1e-6
                assert sum(pool.notional_usd for pool in side.pools) <= (tape + projected).sum() + 1e-6
                assert len(side.shown) <= 5
            assert (levels.zones.active_long, levels.zones.active_short) == (
                sum(zone.side == "long" for zone in zones.rows), sum(zone.side == "short" for zone in zones.rows))  # fmt: skip
            assert sum(zone.weight for zone in zones.rows if zone.side == "long") == pytest.approx(
                levels.zones.weight_long, abs=0.01
            )
            assert levels.coverage == int(frame.coverage)
    assert levels.zones.created > 10 and levels.zones.swept > 0


def test_every_document_key_by_key() -> None:
    """A1-L11: what is published is what the schema says, with nothing more and nothing less."""
    one = core()
    one.on_batch(minute(0, 88_000.0) + minute(1, 88_050.0))
    *_, last = maps_of(one.outputs())
    assert list(msgspec.json.decode(last.levels)) == list(LevelsDocument.__struct_fields__)
    assert list(msgspec.json.decode(last.zones)) == list(ZonesDocument.__struct_fields__)


# regression stories ----------------------------------------------------------------------------------------------------


def test_events_before_the_first_minute_are_counted_at_once_and_learnt_from_later() -> None:
    """Story 1."""
    one = core()
    one.on_batch(clock(1) + mark(1.5, 100_000.0) + liquidation(2, PositionSide.LONG, 99_500.0, 2.0, 99_900.0))
    assert one._maps.calibrator.document().total_events == 1
    one.on_batch(minute(1, 88_000.0))
    found = one._maps.calibrator.document()
    assert found.explained + found.unexplained == 1 and found.waiting == found.dropped == 0


@pytest.mark.covers("A1-C1")
def test_a_dead_book_does_not_stop_the_minutes_of_its_own_nor_of_others() -> None:
    """Story 2: after 60 s without a book the mark makes the candle; a symbol with a book does not notice."""
    dead, alive = core(), core(symbol="ETH")
    dead.on_batch(book_start())
    for number in range(10):
        dead.on_batch(minute(number, 88_000.0 + number))
        alive.on_batch(minute(number, 88_000.0 + number, 3000.0))
    outputs = dead.outputs()
    assert len(maps_of(outputs)) == len(bars(outputs)) == 10
    assert all(Coverage.FALLBACK_PRICE in out.frame.coverage for out in maps_of(outputs)[2:])
    assert len(maps_of(alive.outputs())) == 10


@pytest.mark.covers("A1-M9")
@pytest.mark.parametrize(
    ("part", "name"), [("projection", "maps"), ("tape", "maps"), ("calibrator", "calibrator"), ("tracker", "publish")]
)
def test_a_failing_step_is_told_once_with_its_traceback_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, part: str, name: str
) -> None:
    """Story 3."""
    one, other = core(), core(symbol="ETH")
    one.on_batch(minute(0, 88_000.0))
    broken = getattr(one._maps, part)
    kind = type(broken)
    method = {"projection": "decay", "tape": "roll", "calibrator": "on_minute", "tracker": "on_minute"}[part]
    monkeypatch.setattr(kind, method, lambda *_, **__: 1 / 0)
    one.outputs()
    one.on_batch(minute(1, 88_050.0) + minute(2, 88_060.0))
    outputs = one.outputs()
    assert one.counters["errors"] == 2
    (told,) = [out for out in outputs if isinstance(out, ErrorOut)]
    assert (
        told.where == f"step.minute.{name}" and "ZeroDivisionError" in told.traceback and "test_liquidation_maps" in told.traceback
    )
    assert len(bars(outputs)) == 2  # the candle was there before the maps
    assert any(out.document is DocumentId.STATUS for out in outputs if isinstance(out, DocumentOut))
    # A minute whose maps failed on the way is not shown as a whole one.
    assert [Coverage.PARTIAL in out.frame.coverage for out in maps_of(outputs)] == {
        "maps": [True, True], "calibrator": [False, False], "publish": []
    }[name]  # fmt: skip
    monkeypatch.undo()
    one.on_batch(minute(3, 88_070.0))
    (healed,) = maps_of(one.outputs())
    assert Coverage.PARTIAL not in healed.frame.coverage and levels_of(healed).coverage == int(healed.frame.coverage)
    other.on_batch(minute(0, 88_000.0, 3000.0))
    assert other.counters["errors"] == 0


def test_a_venue_that_fails_and_returns_makes_no_delta_and_all_of_them_only_decay() -> None:
    """Story 10."""
    one = core()
    one.on_batch(minute(0, 88_000.0) + minute(1, 88_050.0))
    standing = [levels_of(maps_of(one.outputs())[-1]).long.projected_usd]
    for number in range(2, 6):  # nobody answers: marks only
        one.on_batch(mark(60 * number + 1, 100_000.0) + mark(60 * number + 58, 100_000.0) + clock(60 * number + 60))
        (out,) = maps_of(one.outputs())
        standing.append(levels_of(out).long.projected_usd)
        assert levels_of(out).inferences == 1
    assert standing[1:] == pytest.approx([standing[0] * 0.995**n for n in range(1, 5)], rel=0.02)
    one.on_batch(minute(6, 88_900.0))
    one.on_batch(open_interest(421, 50_000.0, Venue.BYBIT) + minute(7, 88_900.0))
    assert levels_of(maps_of(one.outputs())[-1]).inferences == 1
    one.on_batch(open_interest(481, 50_020.0, Venue.BYBIT) + minute(8, 88_900.0))
    assert levels_of(maps_of(one.outputs())[-1]).inferences == 2


def test_weights_handed_in_with_a_disabled_tier_project_nothing_there() -> None:
    """Story 13."""
    one = core()
    tiers = [5, 10, 20, 25, 50, 75, 100, 125, 150, 200, 250]
    one._maps.calibrator.hand_in([0.3 if tier == 10 else 0.07 for tier in tiers])
    one.on_batch(minute(0, 88_000.0) + minute(1, 88_500.0))
    outputs = one.outputs()
    assert levels_of(maps_of(outputs)[-1]).weights["10"] == 0.0
    (opening,) = [row for row in logs_of(outputs, "inference") if row["event"] == "opening"]
    assert 10 not in {row["tier"] for row in opening["rows"]}
    assert all("10" not in zone.tier_contributions for zone in decode(maps_of(outputs)[-1].zones, ZonesDocument).rows)


def test_a_new_rate_reaches_triggers_and_the_next_projection() -> None:
    """Story 22."""
    one = core()
    one.on_batch(minute(0, 88_000.0))
    before = one._maps.mmr[Venue.BINANCE]
    for n in range(40):  # bankruptcy prices 0.6 % beyond the mark
        one.on_batch(liquidation(61 + n / 10, PositionSide.LONG, 99_400.0, 0.1))
    for number in range(1, 17):
        one.on_batch(minute(number, 88_000.0 + 20 * number))
    assert before == 0.004
    assert one._maps.mmr[Venue.BINANCE] == pytest.approx(0.006)
    assert one._liquidations.rates[Venue.BINANCE] == pytest.approx(0.006)
    outputs = one.outputs()
    last = [row for row in logs_of(outputs, "inference") if row["event"] == "opening"][-1]
    twenty = next(row["bucket"] for row in last["rows"] if (row["tier"], row["side"]) == (20, "long"))
    assert twenty == round(100_000 * 0.95 / 0.994 / 20)
    assert any(isinstance(out, SaveOut) and "weights" in out.file for out in outputs)


@pytest.mark.covers("A2-M3")
def test_a_flood_of_events_is_bounded_and_counted() -> None:
    """Story 23."""
    one = core()
    one.on_batch(minute(0, 88_000.0))
    flood = [liquidation(61 + n / 400, PositionSide.LONG, 99_500.0, 0.01, 99_900.0 - n % 50) for n in range(20_000)]
    one.on_batch(b"".join(flood) + minute(2, 88_000.0))
    found = one._maps.calibrator.document()
    assert (found.total_events, found.dropped) == (20_000, 10_000)
    assert one._maps.tape.events == 20_000


def test_far_and_rejected_events() -> None:
    one = core()
    one.on_batch(minute(0, 88_000.0) + mark(60.5, 100_000.0))
    one.on_batch(
        liquidation(61, PositionSide.LONG, 96_000.0, 1.0, 96_000.0) + liquidation(62, PositionSide.LONG, 80_000.0, 1.0, 80_000.0)
    )
    outputs = one.outputs()
    found = one._maps.calibrator.document()
    assert (found.total_events, found.far, found.rejected) == (0, 1, 1)
    assert [row["far"] for row in logs_of(outputs, "tape")] == [True]
    assert [row["event"] for row in logs_of(outputs, "calibrator")] == ["event_rejected"]


@pytest.mark.parametrize("symbol", ["BTC", "ETH", "SOL"])
def test_a_calibrator_that_is_not_wired_fails_the_start(monkeypatch: pytest.MonkeyPatch, symbol: str) -> None:
    settings = load("", {})
    self_check(symbol, settings)
    for method in ("on_liquidation", "on_minute"):
        with monkeypatch.context() as patch:
            patch.setattr(Calibrator, method, lambda *_: [])
            with pytest.raises(RuntimeError, match="not wired"):
                self_check(symbol, settings)


# determinism and restarts ----------------------------------------------------------------------------------------------


def test_the_same_market_gives_the_same_bytes_whatever_the_batches_and_over_restarts() -> None:
    stream = market(7, 45)
    whole, pieces = SymbolCore("BTC", load("", {}, ONE_VENUE)), SymbolCore("BTC", load("", {}, ONE_VENUE))
    wanted, found = list[bytes](), list[bytes]()
    for number, records in enumerate(stream):
        whole.on_batch(records)
        wanted += [as_bytes(one) for one in whole.outputs()]
        for start in range(0, len(records), 64 * 7):
            pieces.on_batch(records[start : start + 64 * 7])
        found += published(pieces.outputs())
        if number % 10 == 9:
            saved = msgspec.msgpack.encode(pieces.state_of())
            pieces = SymbolCore("BTC", load("", {}, ONE_VENUE))
            pieces.restore(msgspec.msgpack.decode(saved))
            assert pieces._liquidations.rates == whole._liquidations.rates
    assert found == wanted
    assert state_digest(pieces.state_of()) == state_digest(whole.state_of())


@pytest.mark.covers("A2-L8")
def test_a_state_and_a_published_minute_do_not_change_afterwards() -> None:
    one = SymbolCore("BTC", load("", {}, ONE_VENUE))
    stream = market(8, 20)
    for records in stream[:10]:
        one.on_batch(records)
    state, outputs = one.state_of(), one.outputs()
    frozen = msgspec.msgpack.encode(state), published(outputs)
    for records in stream[10:]:
        one.on_batch(records)
    assert (msgspec.msgpack.encode(state), published(outputs)) == frozen


def test_minutes_that_are_missing_decay_in_one_go() -> None:
    one = core()
    one.on_batch(minute(0, 88_000.0) + minute(1, 88_050.0))
    before = levels_of(maps_of(one.outputs())[-1])
    one.on_batch(mark(60 * 32 + 1, 100_000.0) + mark(60 * 32 + 30, 100_000.0) + clock(60 * 33))
    after = levels_of(maps_of(one.outputs())[-1])
    assert after.long.projected_usd == pytest.approx(before.long.projected_usd * 0.995**31, rel=0.02)


def test_files_of_an_earlier_run_are_used_where_there_is_no_checkpoint() -> None:
    one = SymbolCore("BTC", load("", {}, ONE_VENUE))
    for records in market(9, 40):
        one.on_batch(records)
    saved = {out.file: out.encoded() for out in one.files()}
    assert sorted(saved) == ["liq_active_zones_BTC.json", "liq_calibrator_weights_BTC.json"]
    zones, weights = (msgspec.json.decode(saved[name]) for name in sorted(saved))
    again = SymbolCore("BTC", load("", {}, ONE_VENUE))
    assert again.load_files(weights, zones, one.now_ns + 60 * 60 * SECOND) == []
    assert again._maps.calibrator.weights == pytest.approx(one._maps.calibrator.weights, abs=1e-5)
    assert again._maps.zones.weight[0] <= 0.7403 * one._maps.zones.weight[0]
    assert sum(again._maps.zones.active) > 0


def test_weights_are_in_force_since_they_changed_not_since_the_last_update() -> None:
    one, changed, since = SymbolCore("BTC", load("", {}, ONE_VENUE)), list[int](), set[int | None]()
    weights = one._maps.calibrator.weights.tolist()
    for records in market(5, 75):
        one.on_batch(records)
        (out,) = maps_of(one.outputs())
        since.add(levels_of(out).config.weights_valid_from_ns)
        if weights != one._maps.calibrator.weights.tolist():
            weights = one._maps.calibrator.weights.tolist()
            changed.append(out.frame.close_ts_ns)
    assert len(changed) >= 2
    assert since == {T0, *(at for at in changed if at < out.frame.close_ts_ns)}
    quiet, number = core(), 0
    for number in range(40):
        quiet.on_batch(minute(number, 88_000.0 + 20 * number))
    assert quiet._maps.calibrator.updates == 2
    assert levels_of(maps_of(quiet.outputs())[-1]).config.weights_valid_from_ns == T0


def test_weights_of_a_file_are_no_update_of_the_first_minute() -> None:
    one = core()
    for number in range(18):
        one.on_batch(minute(number, 88_000.0 + 20 * number))
    assert one._maps.calibrator.updates > 0
    (weights,) = [out.encoded() for out in one.files() if "weights" in out.file]
    again = core()
    assert again.load_files(msgspec.json.decode(weights), None, T0 + 1080 * SECOND) == []
    again.on_batch(minute(18, 88_360.0))
    outputs = again.outputs()
    assert [out.file for out in outputs if isinstance(out, SaveOut)] == ["liq_active_zones_BTC.json"]
    assert levels_of(maps_of(outputs)[-1]).config.weights_valid_from_ns == T0 + 1080 * SECOND


@pytest.mark.parametrize("wait", [0, 90])
def test_zones_of_a_file_fade_until_the_first_minute_however_late_it_comes(wait: int) -> None:
    """A venue that answers nobody for hours after a start: what is shown then is as old as it is."""
    one = core()
    one.on_batch(minute(0, 88_000.0) + minute(1, 88_500.0))
    weight, zones = one._maps.zones.weight[0], one.files()[0].encoded()
    again = core()
    again.load_files(None, msgspec.json.decode(zones), T0 + 120 * SECOND)  # minute 2 is open
    if wait:
        saved = msgspec.msgpack.decode(msgspec.msgpack.encode(again.state_of()))
        again = core()
        again.restore(saved)
    first = 2 + wait
    again.on_batch(mark(60 * first + 1, 100_000.0) + clock(60 * first + 60))
    levels = levels_of(maps_of(again.outputs())[-1])
    assert levels.zones.weight_long == pytest.approx(weight * 0.995 ** (1 + wait), rel=0.03)
    again.on_batch(mark(60 * first + 61, 100_000.0) + clock(60 * first + 120))
    after = levels_of(maps_of(again.outputs())[-1])
    assert after.zones.weight_long == pytest.approx(levels.zones.weight_long * 0.995, rel=0.03)


@pytest.mark.parametrize("weights", [{}, {"schema_version": 99}, {"weights": "x"}, {"symbol": "ETH", "schema_version": 3}])
@pytest.mark.parametrize("zones", [{}, {"schema_version": 1, "symbol": "BTC", "step": 20.0}, {"symbol": "ETH"}])
def test_files_that_cannot_be_used_are_told_and_change_nothing(weights: dict[str, Any], zones: dict[str, Any]) -> None:
    one = core()
    before = state_digest(one._maps.state_of())
    assert len(one.load_files(weights, zones, T0)) == 2
    assert state_digest(one._maps.state_of()) == before


def test_a_weights_file_with_absurd_numbers_does_not_stop_a_start() -> None:
    one = core()
    saved = {**one._maps.calibrator.weights_file(T0), "calibration_count": 10**400, "bias_pct_long": 10**400}
    one.load_files(saved, None, T0)  # used or told, but never raised
    assert one._maps.calibrator.weights.sum() == pytest.approx(1.0)


def test_a_clock_that_is_set_back_keeps_what_was_learnt() -> None:
    one = core()
    tiers = [0.1] * 11
    one._maps.calibrator.hand_in(tiers)
    weights = one._maps.calibrator.weights
    one.on_batch(minute(0, 88_000.0) + minute(1, 88_050.0) + clock(7200))
    one.on_batch(clocks(121, 130) + minute(3, 88_000.0))
    assert one.counters["clock_set_back"] == 1
    assert one._maps.calibrator.weights == pytest.approx(weights, abs=1e-5)
    assert len(maps_of(one.outputs())) >= 3


def test_openings_closings_and_evictions_are_told() -> None:
    """Section 20: what the log of the projection holds, so that a person can follow each bucket."""
    one = core()
    one.on_batch(minute(0, 88_000.0) + minute(1, 88_050.0))
    one._maps.tape.sides[0].evicted = 2
    one._maps.projection.ledger[1].evicted = 3
    one.on_batch(minute(2, 88_000.0 * 0.9))
    outputs = one.outputs()
    opening, closing = logs_of(outputs, "inference")
    assert (opening["event"], opening["delta_base"], opening["previous_base"]) == ("opening", 50.0, 88_000.0)
    assert (opening["venues"], opening["opened_usd"], opening["long_share"]) == (["binance"], 5_000_000.0, 0.65)
    assert (opening["step"], opening["src"]) == (20.0, 100_000.0)
    assert opening["side_usd"] == [pytest.approx(3_250_000.0), pytest.approx(1_750_000.0)]
    assert {row["tier"]: row["usd"] for row in opening["rows"] if row["side"] == "long"}[25] == pytest.approx(695_080.97, abs=0.01)
    assert (closing["event"], closing["fraction"]) == ("closing", pytest.approx(8850.0 / 88_050.0))
    told = [row["evicted"] for row in logs_of(outputs, "cycles") if row["event"] == "minute"]
    assert told == [0, 0, 5]


def test_a_thin_book_and_ten_minute_metrics() -> None:
    one = core()
    one.on_batch(book_start() + chain(0.5, 59) + depth(59.5, 300, 300, 299, [], []))
    for number in range(1, 25):
        one.on_batch(minute(number, 88_000.0 + 20 * number))
    outputs = one.outputs()
    boosts = [row for row in logs_of(outputs, "debug") if row["event"] == "combined_zone_boost"]
    balances = [row for row in logs_of(outputs, "cycles") if row["event"] == "heatmap_balance"]
    assert len(boosts) == len(balances) >= 2
    assert boosts[-1]["total"] > 0 and boosts[-1]["boost_factor"] == 1.5 and boosts[-1]["avg_before_boost"] is None
    assert balances[-1]["inf_max_raw"] > 0.0 and balances[-1]["tape_max_raw"] == 0.0
    feed = logs_of(outputs, "plot_feed")
    assert len(feed) == 25 and feed[-1]["oi_base"] == 88_480.0
    assert all(row["ts_ns"] >= T0 for row in itertools.chain(feed, boosts, balances))
    assert isinstance(one._maps, LiquidationMaps) and isinstance(one._maps.projection, Projection)
