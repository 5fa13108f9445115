"""The sequence rule, channel by channel, without a socket; and a model of a server that loses, repeats and restarts."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.client import (
    ApiError,
    Column,
    ColumnUpdate,
    ContractError,
    EventsUpdate,
    Item,
    Lost,
    Position,
    Refused,
    Reset,
    Update,
)
from mpengine.client.heal import NOT_THERE, TRIES, ColumnHeal, EventHeal, Heal, holes
from mpengine.client.protocol import (
    BEATS_BEHIND,
    FRAME_BYTES,
    MISMATCHES,
    Broken,
    Closing,
    Deliver,
    Fatal,
    Fetch,
    Resubscribe,
    Session,
    Step,
    Verdict,
    judge,
)
from mpengine.client.updates import StateUpdate, ZonesUpdate
from mpengine.wire_formats import ColumnFlag
from tests.client import messages as m


def session(*channels: str, **more: Any) -> Session:
    made = Session(channels, **more)
    made.begin()
    return made


def delivered(steps: Iterable[Step]) -> list[Item]:
    found = []
    for step in steps:
        assert isinstance(step, Deliver), step
        found.append(step.item)
    return found


def feed(one: Session, *texts: str | bytes) -> list[Item]:
    return [item for text in texts for item in delivered(one.receive(text))]


def numbers(items: Iterable[Item]) -> list[tuple[int, int]]:
    assert not any(isinstance(item, Reset | Lost) for item in items)
    return [(item.epoch, item.seq) for item in items if isinstance(item, Update)]


def only(steps: list[Step], kind: type[Any]) -> Any:
    assert [type(step) for step in steps] == [kind], steps
    return steps[0]


def fetched(steps: list[Step], *bodies: bytes) -> list[Item]:
    """Items of steps; each fetch is answered with the next body."""
    waiting, found = list(bodies), []
    for step in steps:
        if isinstance(step, Deliver):
            found.append(step.item)
        else:
            assert isinstance(step, Fetch)
            found += drive(step.heal, lambda request: waiting.pop(0))
    assert not waiting, "not every answer was asked for"
    return found


def drive(heal: Heal, answer: Any) -> list[Item]:
    found: list[Item] = []
    while (request := heal.request()) is not None:
        body = answer(request)
        if body is None:
            heal.fail("no answer")
            break
        found += heal.take(request.decode(body))
    return found + heal.end()


@pytest.mark.parametrize(
    ("held", "message", "reset", "verdict"),
    [
        (None, (7, 5, 4), False, Verdict.FIRST),
        ((7, 4), (7, 5, 4), False, Verdict.NEXT),
        ((7, 4), (7, 9, 4), False, Verdict.NEXT),  # a batch, a version
        ((7, 4), (7, 9, 2), False, Verdict.NEXT),  # overlaps with what is held: nothing is missing
        ((7, 4), (7, 6, 5), False, Verdict.GAP),
        ((7, 4), (7, 4, 3), False, Verdict.OLD),
        ((7, 4), (7, 2, 1), True, Verdict.OLD),  # the same identity is the same data, whoever says reset
        ((7, 4), (6, 9, 8), False, Verdict.OLD),  # a writer that has been replaced
        ((7, 4), (6, 9, 8), True, Verdict.RESET),  # numbering began anew
        ((7, 4), (8, 1, 0), False, Verdict.RESET),
    ],
)  # fmt: skip
def test_the_sequence_rule(held: Any, message: tuple[int, int, int], reset: bool, verdict: Verdict) -> None:
    assert judge(None if held is None else Position(*held), *message, reset=reset) is verdict


def test_columns_in_order_in_both_forms() -> None:
    one = session("depth.BTC")
    ack = m.text(type="ack", id=1, channels={"depth.BTC": {"no": 3, "epoch": 7, "seq": 5}})
    assert one.receive(ack) == []
    items = feed(
        one,
        m.column(5, way="snapshot"),
        m.binary_column(3, 6),
        m.column(7, flags=("restart", "gap")),
        m.binary_column(3, 8, flags=ColumnFlag.RESTART | ColumnFlag.STALE),
    )
    assert numbers(items) == [(7, 5), (7, 6), (7, 7), (7, 8)]
    for item, seq in zip(items, range(5, 9)):
        assert isinstance(item, ColumnUpdate)
        low, high = m.cells(seq)
        column = item.column
        assert column.low.tolist() == low.tolist() and column.high.tolist() == high.tolist()
        assert (column.t_ms, column.dt_ms, item.ts_ms) == (m.column_t_ms(seq), 30_000, m.column_t_ms(seq))
        assert column.prices().tolist() == [100.0 + 20 * (seq % 3 + row) for row in range(m.ROWS)]
        assert column.rows == m.ROWS and column.usd().shape == (2, m.ROWS)
    first, _, third, fourth = items
    assert isinstance(first, ColumnUpdate) and isinstance(third, ColumnUpdate) and isinstance(fourth, ColumnUpdate)
    assert (first.way, third.way) == ("snapshot", "delta")
    assert third.column.flags == {"restart", "gap"} and fourth.column.flags == {"restart"}
    assert (first.stale, fourth.stale, one.stale("depth.BTC")) == (False, True, True)
    half = Column(0, 1, 0.0, 1.0, None, frozenset(), np.array([0.0, 1.5], "<f2"), np.array([2.0, 0.0], "<f2"), unit_usd=1024.0)
    assert half.usd().tolist() == [[0.0, 1536.0], [2048.0, 0.0]]
    expected = 100.0 * 1e7 ** ((m.cells(5)[1].astype(float) - 1) / 254)
    assert first.column.usd()[1] == pytest.approx(expected)


def test_repeated_and_late_columns_are_dropped() -> None:
    one = session("depth.BTC")
    texts = [
        m.column(1, way="snapshot"),
        m.column(2),
        m.column(2),
        m.column(1),
        m.column(3),
        m.column(2),
        m.column(3, way="snapshot"),
    ]
    assert numbers(feed(one, *texts)) == [(7, 1), (7, 2), (7, 3)]
    assert one.stats.old == 4


def test_columns_of_other_channels_are_not_ours() -> None:
    one = session("liq.BTC")
    assert feed(one, m.column(1, way="snapshot"), m.binary_column(9, 1), m.gap("depth.BTC", 1, 2), m.reset("depth.BTC", 8)) == []


def test_a_hole_between_columns_is_fetched_first() -> None:
    one = session("depth.BTC")
    feed(one, m.column(1, way="snapshot"))
    steps = one.receive(m.column(5))
    fetch = steps[0]
    assert isinstance(fetch, Fetch)
    request = fetch.heal.request()
    assert request is not None
    query = dict(request.query)
    assert request.path == "/heatmap" and query["since_ms"] == str(m.column_t_ms(2)) and query["layers"] == "depth"
    assert (query["symbol"], query["dt_s"], query["k"], query["form"], query["cell"]) == ("BTC", "30", "1", "dense", "u8log")
    items = fetched(steps, m.heatmap([2, 3, 4, 5, 6]))
    assert numbers(items) == [(7, 2), (7, 3), (7, 4), (7, 5)]
    healed = items[1]
    assert isinstance(healed, ColumnUpdate) and healed.way == "healed" and healed.column.flags == {"healed"}
    assert healed.column.low.tolist() == m.cells(3)[0].tolist() and healed.column.t_ms == m.column_t_ms(3)
    assert numbers(feed(one, m.column(3), m.column(6))) == [(7, 6)], "the late one is known by now"


def test_what_cannot_be_fetched_is_told() -> None:
    for answer, lost in ((m.heatmap([2, 4, 6]), [(3, 3), (5, 5), (7, 7)]), (m.heatmap([4], epoch=8), [(2, 7)]), (None, [(2, 7)])):
        one = session("depth.BTC")
        feed(one, m.column(1, way="snapshot"))
        steps = one.receive(m.column(8))
        assert isinstance(steps[0], Fetch)
        items = drive(steps[0].heal, lambda request, answer=answer: answer)
        assert [(item.first, item.last) for item in items if isinstance(item, Lost)] == lost
        assert numbers(feed(one, m.column(9))) == [(7, 9)]


def test_an_answer_with_more_than_is_missing_repeats_nothing() -> None:
    one = session("depth.BTC")
    feed(one, m.column(1, way="snapshot"))
    steps = one.receive(m.column(5))
    # It begins with what is known, and one frame covers two columns.
    body = m.heatmap([1, 2, 3, 4, 5], since_ms=m.column_t_ms(1), numbers={3: 2})
    items = fetched(steps, body)
    assert [item.seq for item in items if isinstance(item, ColumnUpdate)] == [2, 4, 5]
    assert [(item.first, item.last) for item in items if isinstance(item, Lost)] == [(3, 3)]


def test_heals_that_have_failed_or_do_not_get_on_ask_no_more() -> None:
    column = ColumnHeal("depth.BTC", "depth", Position(7, 1, m.column_t_ms(1)), 7, last=3, until_ms=0)
    event = EventHeal("liquidations.BTC", 1, 3, 7)
    for heal in (column, event):
        assert heal.request() is not None
        heal.fail("why")
        assert heal.request() is None
        assert [(item.first, item.last, item.reason) for item in heal.end() if isinstance(item, Lost)] == [(2, 3, "why")]
    asked = []

    def standing(request: Any) -> bytes:
        asked.append(request)
        assert len(asked) == 1, "the same page again"
        return m.page([], 1, newest=1).replace(b'"has_more":false', b'"has_more":true')

    assert [type(item) for item in drive(EventHeal("liquidations.BTC", 1, 3, 7), standing)] == [Lost]


def test_a_window_that_begins_too_late_is_asked_for_again() -> None:
    one = session("depth.BTC")
    feed(one, m.column(1, way="snapshot"))
    asked: list[int] = []

    def answer(request: Any) -> bytes:
        query = dict(request.query)
        asked.append(int(query["minutes"]))
        first = max(2, 101 - 2 * asked[-1])
        return m.heatmap(list(range(first, 101)), since_ms=m.column_t_ms(first))

    # Announced by a clock that is far behind that of the data.
    items = drive(only(one.receive(m.gap("depth.BTC", 2, 30)), Fetch).heal, answer)
    assert numbers(items) == [(7, seq) for seq in range(2, 31)] and asked == [5 + 29 // 2, 5 + 49]
    asked.clear()
    heal = ColumnHeal("depth.BTC", "depth", Position(7, 30, m.column_t_ms(30)), 7, last=31, until_ms=0)
    late = m.heatmap([31, 32], since_ms=m.column_t_ms(31) + 30_000_000)
    assert drive(heal, lambda request: asked.append(1) or late) == [Lost("depth.BTC", 7, 31, 31, NOT_THERE)]
    assert len(asked) == TRIES


def test_an_announced_gap_of_columns_is_fetched_at_once() -> None:
    one = session("liq.BTC")
    feed(one, m.column(1, kind="liq", way="snapshot"))
    items = fetched(one.receive(m.gap("liq.BTC", 2, 4)), m.heatmap([2, 3, 4, 5], kind="liq"))
    assert numbers(items) == [(7, 2), (7, 3), (7, 4)]
    assert numbers(feed(one, m.column(5, kind="liq"))) == [(7, 5)]
    assert one.receive(m.gap("liq.BTC", 2, 4)) == [], "an old gap"
    assert one.stats.gaps == 1


def test_without_healing_gaps_are_told() -> None:
    one = session("depth.BTC", "liquidations.BTC", heal=False)
    feed(one, m.column(1, way="snapshot"), m.events(1, 4, way="snapshot"))
    assert delivered(one.receive(m.gap("depth.BTC", 2, 4))) == [Lost("depth.BTC", 7, 2, 4, "conflated")]
    items = delivered(one.receive(m.events(8, 9)))
    assert items[0] == Lost("liquidations.BTC", 7, 5, 7, "conflated")
    assert numbers([*items[1:], *feed(one, m.column(5))]) == [(7, 9), (7, 5)]


def test_a_new_epoch_resets_and_columns_of_the_time_between_are_fetched() -> None:
    one = session("depth.BTC")
    feed(one, m.column(10, way="snapshot"), m.reset("depth.BTC", 8, 14))
    steps = one.receive(m.column(14, epoch=8, prev=-1, way="snapshot"))
    items = fetched(steps, m.heatmap([11, 12, 14, 15], epoch=8))
    assert items[0] == Reset("depth.BTC", Position(7, 10, m.column_t_ms(10)), 8, "epoch")
    assert numbers(items[1:]) == [(8, 11), (8, 12), (8, 14)]
    assert one.stats.resets == 1 and numbers(feed(one, m.column(15, epoch=8))) == [(8, 15)]
    # Without the word reset, and with numbers that begin anew.
    items = fetched(one.receive(m.column(17, epoch=9)), m.heatmap([16, 17], epoch=9, numbers={16: 0, 17: 1}))
    assert isinstance(items[0], Reset) and numbers(items[1:]) == [(9, 0), (9, 17)]
    assert feed(one, m.column(18, epoch=8), m.column(19, epoch=7, way="snapshot")) == [], "writers that have been replaced"


def test_a_reset_to_an_epoch_below_is_believed() -> None:
    one = session("oi.BTC")
    assert numbers(feed(one, state(9, 5, way="snapshot"))) == [(9, 5)]
    assert feed(one, state(1, 2)) == []
    items = feed(one, m.reset("oi.BTC", 1, reason="data removed"), state(1, 2, way="snapshot"))
    assert items[0] == Reset("oi.BTC", Position(9, 5), 1, "data removed") and numbers(items[1:]) == [(1, 2)]
    assert feed(one, state(1, 3))[0].epoch == 1


def test_a_snapshot_of_a_worker_that_lags_repeats_nothing() -> None:
    one = session("depth.BTC", "oi.BTC")
    assert one.stale("depth.BTC") and one.ts_ms("depth.BTC") is None
    feed(one, m.column(5, way="snapshot"), state(7, 5, way="snapshot"))
    one.begin()
    texts = [
        m.reset("depth.BTC", 7, 4),
        m.column(4, way="snapshot"),
        m.column(5),
        m.column(6),
        m.reset("oi.BTC", 7),
        state(7, 5, way="snapshot"),
    ]
    assert numbers(feed(one, *texts)) == [(7, 6)]


def test_a_reset_that_is_too_far_behind_is_healed_like_a_gap() -> None:
    one = session(
        "depth.BTC",
        "liquidations.BTC",
        positions={"depth.BTC": Position(7, 1, m.column_t_ms(1)), "liquidations.BTC": Position(7, 10)},
    )
    items = fetched(
        one.receive(m.reset("depth.BTC", 7, 4)) + one.receive(m.column(4, prev=-1, way="snapshot")), m.heatmap([2, 3, 4])
    )
    assert numbers(items) == [(7, 2), (7, 3), (7, 4)]
    items = fetched(one.receive(m.events(14, 20, way="snapshot", prev=-1)), m.page(list(range(40)), 10))
    assert [event.seq for item in items if isinstance(item, EventsUpdate) for event in item.events] == list(range(11, 21))
    assert one.stats.resets == 0


def test_a_position_without_a_time_cannot_be_healed() -> None:
    one = session("depth.BTC", positions={"depth.BTC": Position(7, 1)})
    items = fetched(one.receive(m.column(4)))
    assert items[0] == Lost("depth.BTC", 7, 2, 3, "the time of the last column is not known")
    assert numbers(items[1:]) == [(7, 4)]


def test_provisional_columns_pass_only_where_they_are_wanted() -> None:
    texts = [m.column(1, way="snapshot"), m.column(2, flags=("provisional",)), m.column(2, flags=("provisional",)), m.column(2)]
    assert numbers(feed(session("depth.BTC"), *texts)) == [(7, 1), (7, 2)]
    items = feed(session("depth.BTC", provisional=True), *texts)
    assert [item.way for item in items if isinstance(item, Update)] == ["snapshot", "provisional", "provisional", "delta"]


def test_batches_of_events() -> None:
    one = session("liquidations.BTC")
    items = feed(one, m.events(10, 12, way="snapshot"), m.events(13, 13), m.events(13, 15, prev=12), m.events(11, 14))
    assert [[event.seq for event in item.events] for item in items if isinstance(item, EventsUpdate)] == [
        [10, 11, 12],
        [13],
        [14, 15],
    ]
    assert one.stats.old == 1
    # A number that the ring does not have is no gap: what counts is prev.
    assert numbers(feed(one, m.events(18, 19, prev=15))) == [(7, 19)]


def test_a_hole_between_events_is_fetched_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpengine.client.heal.PAGE", 3)
    one = session("liquidations.BTC")
    feed(one, m.events(1, 2, way="snapshot"))
    there = [seq for seq in range(1, 30) if seq not in (5, 6)]
    asked = []

    def answer(request: Any) -> bytes:
        query = dict(request.query)
        asked.append(int(query["after"]))
        assert (query["epoch"], query["limit"], query["symbol"]) == ("7", "3", "BTC")
        return m.page(there, asked[-1], limit=3, newest=29)

    steps = one.receive(m.gap("liquidations.BTC", 3, 12))
    items = drive(only(steps, Fetch).heal, answer)
    assert [event.seq for item in items if isinstance(item, EventsUpdate) for event in item.events] == [3, 4, 7, 8, 9, 10, 11, 12]
    assert asked == [2, 7, 10]
    assert numbers(feed(one, m.events(13, 14))) == [(7, 14)]


def test_events_that_are_gone_are_told() -> None:
    def told(**answer: Any) -> list[Any]:
        one = session("liquidations.BTC")
        feed(one, m.events(1, 2, way="snapshot"))
        items = fetched(one.receive(m.gap("liquidations.BTC", 3, 12)), m.page(list(range(30)), 2, **answer))
        return [(i.first, i.last) if isinstance(i, Lost) else [e.seq for e in i.events] for i in items if not isinstance(i, Reset)]  # type: ignore[union-attr]

    assert told(oldest=10) == [(3, 9), list(range(3, 13))], "the ring has passed"
    assert told(epoch=8, reset=True) == [(3, 12)]
    assert told(epoch=8) == [(3, 12)]


def test_events_go_on_over_a_restart_of_their_writer() -> None:
    one = session("liquidations.BTC")
    feed(one, m.events(1, 10, way="snapshot"), m.reset("liquidations.BTC", 8))
    items = feed(one, m.events(5, 12, epoch=8, prev=-1, way="snapshot"), m.events(13, 13, epoch=8))
    assert isinstance(items[0], Reset) and items[0].epoch == 8
    assert [event.seq for item in items if isinstance(item, EventsUpdate) for event in item.events] == [11, 12, 13]
    # Nothing new: the epoch is another one, and that is all.
    items = feed(one, m.events(8, 13, epoch=9, prev=-1, way="snapshot"))
    assert [type(item) for item in items] == [Reset] and one.resume() == "liquidations.BTC:9:13"
    # More than the snapshot holds has come, though with what was last: the rest is fetched.
    text = m.data("liquidations.BTC", "delta", 10, 30, 20, {"items": [m.event(13), *map(m.event, range(21, 31))]})
    items = fetched(one.receive(text), m.page(list(range(40)), 13, epoch=10))
    assert [event.seq for item in items if isinstance(item, EventsUpdate) for event in item.events] == list(range(14, 31))


def test_events_whose_numbers_were_used_again_are_all_new() -> None:
    one = session("liquidations.BTC")
    feed(one, m.events(1, 10, way="snapshot"))
    again = m.events(5, 12, epoch=8, prev=-1, way="snapshot").replace('"price":110.0', '"price":111.0')
    items = feed(one, again)
    assert [event.seq for item in items if isinstance(item, EventsUpdate) for event in item.events] == list(range(5, 13))
    # What came last was fetched: who knows whether it is the same.
    fetched(one.receive(m.gap("liquidations.BTC", 13, 20, epoch=8)), m.page(list(range(30)), 12, epoch=8))
    items = feed(one, m.events(18, 21, epoch=9, prev=-1, way="snapshot"))
    assert [event.seq for item in items if isinstance(item, EventsUpdate) for event in item.events] == [18, 19, 20, 21]


def test_holes_of_a_range() -> None:
    assert holes(1, 0, []) == [] and holes(1, 3, [1, 2, 3]) == []
    assert holes(1, 9, [2, 3, 7]) == [(1, 1), (4, 6), (8, 9)]


def test_zones_by_deltas() -> None:
    one = session("zones.BTC")
    items = feed(one, m.zones_snapshot(3), m.zones_delta(3, 4), m.zones_delta(4, 6), m.zones_delta(4, 6))
    assert numbers(items) == [(7, 3), (7, 4), (7, 6)]
    for item, version in zip(items, (3, 4, 6)):
        assert isinstance(item, ZonesUpdate) and item.zones == m.zones_at(version)
    last = items[-1]
    assert isinstance(last, ZonesUpdate) and last.removed == ("S-5", "S-6", "S-7") and set(last.changed) == set(m.zones_at(6))


def test_zones_that_do_not_check_out_are_asked_for_again() -> None:
    one = session("zones.BTC", "oi.BTC")
    feed(one, m.zones_snapshot(3), m.zones_delta(3, 4))
    assert only(one.receive(m.zones_delta(4, 5, spoil=1)), Resubscribe).channels == ("zones.BTC",)
    assert "from" not in one.subscriptions(["zones.BTC"])[0] and "zones.BTC" not in one.resume()
    assert feed(one, m.zones_delta(5, 6)) == [], "still on its way"
    items = feed(one, m.zones_snapshot(6), m.zones_delta(6, 7))
    assert numbers(items) == [(7, 6), (7, 7)] and one.stats.mismatches == 1
    # The snapshot of the version that is known already gives the table back and repeats nothing.
    one.receive(m.zones_delta(7, 8, spoil=1))
    assert feed(one, m.zones_snapshot(7)) == []
    items = feed(one, m.zones_delta(7, 8))
    assert numbers(items) == [(7, 8)] and isinstance(items[0], ZonesUpdate) and items[0].zones == m.zones_at(8)


def test_zones_that_never_check_out_end_it() -> None:
    one = session("zones.BTC")
    feed(one, m.zones_snapshot(1))
    for _ in range(MISMATCHES):
        only(one.receive(m.zones_delta(1, 2, spoil=1)), Resubscribe)
        one.begin()
    assert isinstance(only(one.receive(m.zones_delta(1, 2, spoil=1)), Fatal).error, ContractError)


def test_zones_after_a_reset() -> None:
    one = session("zones.BTC")
    feed(one, m.zones_snapshot(3), m.reset("zones.BTC", 8))
    items = feed(one, m.zones_snapshot(1, epoch=8), m.zones_delta(1, 2, epoch=8))
    assert isinstance(items[0], Reset) and numbers(items[1:]) == [(8, 1), (8, 2)]


def state(epoch: int, version: int, *, way: str = "delta", ch: str = "oi.BTC", prev: int | None = None) -> str:
    oi = {
        "symbol": "BTC", "aggregated_oi": float(version), "per_exchange": {}, "ts": 1.0, "unit": "BTC", "base_asset": "BTC",
        "aggregated_oi_usd": None, "exchange_ts": {}, "stale_exchanges": [],
    }  # fmt: skip
    return m.data(ch, way, epoch, version, prev, oi)


def test_states_need_no_healing() -> None:
    one = session("oi.BTC")
    items = feed(
        one, state(7, 3, way="snapshot"), m.gap("oi.BTC", 4, 6), state(7, 7), state(7, 6), state(7, 12, way="snapshot", prev=-1)
    )
    assert numbers(items) == [(7, 3), (7, 7), (7, 12)]
    assert isinstance(items[1], StateUpdate) and items[1].value.aggregated_oi == 7.0  # type: ignore[attr-defined]


def test_beats_tell_time_heads_and_what_was_left_out() -> None:
    one = session("depth.BTC")
    assert not one.healthy
    feed(one, m.beat({"depth.BTC": (7, 1)}, now_ms=5, conflated=2), m.beat({}, conflated=3))
    assert one.beat is not None and one.beat.exchanges == {"binance": 0.1, "okx": None} and one.healthy
    assert one.stats.conflated == 3
    one.begin()
    feed(one, m.beat({}, conflated=1))
    assert one.stats.conflated == 4 and one.healthy


def test_a_lost_newest_message_is_asked_for_once() -> None:
    one = session("depth.BTC", "liq.BTC")
    feed(one, m.column(4, way="snapshot"))
    ahead = m.beat({"depth.BTC": (7, 5), "liq.BTC": (7, 9), "other": (1, 1)})
    for _ in range(BEATS_BEHIND):
        assert one.receive(ahead) == []
    assert only(one.receive(ahead), Resubscribe).channels == ("depth.BTC",)
    assert '"depth.BTC":[7,4]' in one.subscriptions(["depth.BTC"])[0]
    for _ in range(10):
        assert one.receive(ahead) == []
    assert numbers(feed(one, m.column(5))) == [(7, 5)]
    for _ in range(10):
        assert one.receive(ahead) == []


def test_subscriptions_fit_into_frames_and_carry_positions() -> None:
    names = [f"depth.S{number:04}" for number in range(1024)]
    one = session(*names, positions={name: Position(7, 2**40, 5) for name in names[::2]}, encoding="bin")
    frames = one.subscriptions()
    assert all(len(frame) <= FRAME_BYTES for frame in frames) and 5 < len(frames) < 30
    told = [msgspec.json.decode(frame) for frame in frames]
    assert [name for frame in told for name in frame["channels"]] == names
    assert {name: tuple(at) for frame in told for name, at in frame.get("from", {}).items()} == dict.fromkeys(
        names[::2], (7, 2**40)
    )
    assert len({frame["id"] for frame in told}) == len(told) and {frame["encoding"] for frame in told} == {"bin"}


def test_resuming_over_sse() -> None:
    one = session("depth.BTC", "zones.BTC", "oi.BTC", positions={"depth.BTC": Position(7, 5, 9), "zones.BTC": Position(7, 1)})
    assert one.resume() == "depth.BTC:7:5", "zones are of no use without the table"
    feed(one, m.column(6), m.zones_snapshot(2), state(7, 0, way="snapshot"))
    assert one.resume() == "depth.BTC:7:6;zones.BTC:7:2;oi.BTC:7:0"


def test_the_end_of_a_connection() -> None:
    one = session("depth.BTC")
    assert one.receive(m.text(type="bye", reason="restart", reconnect_in_ms=1500)) == [Closing("restart", 1.5)]
    assert one.receive(m.text(type="bye", reason="slow")) == [Closing("slow", None)]
    assert one.receive(m.text(type="bye", reason="restart", reconnect_in_ms=-5)) == [Closing("restart", 0.0)]
    assert isinstance(only(one.receive(m.text(type="bye", reason="unauthorized")), Fatal).error, ApiError)


def test_refusals() -> None:
    one = session("depth.BTC", "depth.XRP")
    ack = {"type": "ack", "id": 1, "channels": {"depth.BTC": {"no": 0, "epoch": None, "seq": None}}}
    error = only(one.receive(m.text(**ack, errors={"depth.XRP": "no_orderbook"})), Fatal).error
    assert isinstance(error, Refused) and error.errors == {"depth.XRP": "no_orderbook"} and "depth.XRP (no_orderbook)" in str(error)
    assert isinstance(only(one.receive(m.text(**ack, errors={"depth.XRP": "overloaded"})), Broken).error, Refused)
    assert isinstance(only(one.receive(m.text(type="error", id=None, error="rate_limited", detail="")), Broken).error, ApiError)
    for code, status in (("unauthorized", 401), ("forbidden", 403)):
        error = only(one.receive(m.text(type="error", id=1, error=code, detail="")), Fatal).error
        assert isinstance(error, ApiError) and (error.status, error.code) == (status, code)
    assert isinstance(
        only(one.receive(m.text(type="error", id=1, error="invalid_parameter", detail="")), Fatal).error, ContractError
    )
    for names in ((), ("deepth.BTC",), ("depth.BTC", "")):
        with pytest.raises(ValueError):
            Session(names)


@pytest.mark.parametrize(
    "bad",
    [
        "", "{", "[]", "nope", '{"type":1}', '{"ch":"depth.BTC"}', b"", b"MPCD", m.column(3)[:-2],
        m.column(3).replace('"rows":4', '"rows":5'), m.column(3).replace('"a":"', '"a":"*'),
        m.text(ch="depth.BTC", type="delta", epoch=7, data={}), m.column(3).replace('"seq":3,', ""),
        m.text(ch="depth.BTC", type="gap", epoch=7),
        m.data("depth.BTC", "delta", 7, 3, 2, {"t_ms": 1}), m.text(type="beat"),
    ],
)  # fmt: skip
def test_nonsense_ends_the_connection_and_changes_nothing(bad: str | bytes) -> None:
    one = session("depth.BTC")
    feed(one, m.column(1, way="snapshot"), m.column(2))
    assert isinstance(only(one.receive(bad), Broken).error, ContractError)
    assert one.stats.malformed == 1
    assert numbers(feed(one, m.column(3))) == [(7, 3)]


@given(st.one_of(st.text(max_size=60), st.binary(max_size=120)))
def test_any_input_is_a_step(data: str | bytes) -> None:
    one = session("depth.BTC")
    one.receive(m.text(type="ack", id=1, channels={"depth.BTC": {"no": 0, "epoch": None, "seq": None}}))
    assert all(isinstance(step, Broken) for step in one.receive(data))


def test_types_that_are_added_later_are_ignored() -> None:
    one = session("depth.BTC")
    assert one.receive(m.text(type="weather", data={"rain": True})) == []


class World:
    """A server with everything ever published of three channels, and connections that lose, repeat and reorder."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.epoch = 7
        self.columns = 0
        self.events = 0
        self.zones = 0
        self.got: list[Item] = []
        self.session = Session(["depth.BTC", "liquidations.BTC", "zones.BTC"], encoding="json")
        self.wire: list[str] = []
        self.sent: dict[str, int] = {}
        self.connect()
        self.deliver()

    def connect(self) -> None:
        self.session.begin()
        self.wire.clear()
        places = {part.split(":")[0]: tuple(map(int, part.split(":")[1:])) for part in self.session.resume().split(";") if part}
        for name, newest in self.heads().items():
            self.subscribe(name, newest, places.get(name))

    def heads(self) -> dict[str, int]:
        return {"depth.BTC": self.columns, "liquidations.BTC": self.events, "zones.BTC": self.zones}

    def subscribe(self, name: str, newest: int, at: tuple[int, ...] | None) -> None:
        if at is not None and at[0] == self.epoch and at[1] <= newest and newest - at[1] <= 6:
            self.sent[name] = at[1]
            if at[1] < newest and name == "zones.BTC":
                self.wire.append(m.zones_snapshot(newest, epoch=self.epoch))
                self.sent[name] = newest
            return
        if at is not None:
            self.wire.append(m.reset(name, self.epoch, newest))
        self.wire.append(self.snapshot(name, newest))
        self.sent[name] = newest

    def snapshot(self, name: str, newest: int) -> str:
        if name == "depth.BTC":
            return m.column(newest, epoch=self.epoch, prev=-1, way="snapshot")
        if name == "zones.BTC":
            return m.zones_snapshot(newest, epoch=self.epoch)
        return m.events(max(0, newest - 3), newest, epoch=self.epoch, prev=-1, way="snapshot")

    def publish(self) -> None:
        self.columns += self.random.random() < 0.6
        self.events += self.random.randint(0, 4)
        self.zones += self.random.random() < 0.5
        self.send(conflate=self.random.random() < 0.1)

    def send(self, *, conflate: bool = False) -> None:
        while (at := self.sent["depth.BTC"]) < self.columns:
            if conflate and self.columns > at + 1:
                self.wire.append(m.gap("depth.BTC", at + 1, self.columns - 1, epoch=self.epoch))
                at = self.columns - 1
            self.wire.append(m.column(at + 1, epoch=self.epoch))
            self.sent["depth.BTC"] = at + 1
        if (at := self.sent["liquidations.BTC"]) < self.events:
            if conflate:
                self.wire.append(m.gap("liquidations.BTC", at + 1, self.events - 1, epoch=self.epoch))
                at = self.events - 1
            self.wire.append(m.events(at + 1, self.events, epoch=self.epoch))
            self.sent["liquidations.BTC"] = self.events
        if (at := self.sent["zones.BTC"]) < self.zones:
            self.wire.append(m.zones_delta(at, self.zones, epoch=self.epoch))
            self.sent["zones.BTC"] = self.zones

    def restart(self) -> None:
        """Another writer, whose first messages are the newest ones from now on."""
        self.epoch += 1
        self.columns, self.events, self.zones = self.columns + 1, self.events + 1, self.zones + 1
        self.connect()

    def disturb(self) -> None:
        kind = self.random.choice(("drop", "repeat", "swap", "cut"))
        if self.wire and kind == "drop":
            self.wire.pop(self.random.randrange(len(self.wire)))
        elif self.wire and kind == "repeat":
            self.wire.insert(self.random.randrange(len(self.wire) + 1), self.random.choice(self.wire))
        elif self.wire and kind == "swap":
            self.random.shuffle(self.wire)
        elif kind == "cut":
            del self.wire[self.random.randrange(len(self.wire) + 1) :]
            self.deliver()
            self.connect()

    def deliver(self) -> None:
        while self.wire:
            for step in self.session.receive(self.wire.pop(0)):
                match step:
                    case Deliver(item):
                        self.got.append(item)
                    case Fetch(heal):
                        self.got += drive(heal, self.answer)
                    case Resubscribe(channels):
                        assert channels == ("zones.BTC",)
                        self.subscribe("zones.BTC", self.zones, None)
                    case _:
                        raise AssertionError(step)

    def answer(self, request: Any) -> bytes:
        query = dict(request.query)
        if request.path == "/heatmap":
            since_ms = int(query["since_ms"])
            there = [seq for seq in range(self.columns + 1) if m.column_t_ms(seq) >= since_ms]
            return m.heatmap(there, epoch=self.epoch, since_ms=since_ms)
        wrong = int(query["epoch"]) != self.epoch
        return m.page(list(range(self.events + 1)), int(query["after"]), epoch=self.epoch, newest=self.events, limit=3, reset=wrong)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_nothing_is_missing_and_nothing_comes_twice_whatever_the_wire_does(seed: int, restarts: bool) -> None:
    world = World(seed)
    for _ in range(60):
        world.publish()
        if world.random.random() < 0.3:
            world.disturb()
        world.deliver()
        if restarts and world.random.random() < 0.05:
            world.restart()
            world.deliver()
    # What was lost last is noticed with the next connection.
    world.connect()
    world.send()
    world.deliver()
    assert not any(isinstance(item, Lost) for item in world.got)
    for name, newest in world.heads().items():
        items = [item for item in world.got if item.channel == name]
        identities = [(item.epoch, item.seq) for item in items if isinstance(item, Update)]
        assert identities == sorted(set(identities)), "in order, none twice"
        assert identities[-1] == (world.epoch, newest)
        if name == "depth.BTC":
            places = [item.column.t_ms for item in items if isinstance(item, ColumnUpdate)]
            assert places == [m.column_t_ms(seq) for seq in range(newest + 1)], "every column, over restarts too"
            for item in items:
                if isinstance(item, ColumnUpdate):
                    assert np.array_equal(item.column.low, m.cells(item.seq)[0])
        if name == "liquidations.BTC" and not restarts:
            assert [event.seq for item in items if isinstance(item, EventsUpdate) for event in item.events] == list(
                range(newest + 1)
            )
        if name == "zones.BTC":
            for item in items:
                if isinstance(item, ZonesUpdate):
                    assert item.zones == m.zones_at(item.seq)
