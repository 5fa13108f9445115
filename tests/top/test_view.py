"""The text of every part: nothing overlaps, nothing is wider than its room, what is missing is a dash."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import get_args

import pytest

from mpengine.top.badge import badge
from mpengine.top.command import text_of
from mpengine.top.layout import LOWEST, NARROWEST, Part, View, places
from mpengine.top.model import Facts, FanOut, Newest, Stream
from mpengine.top.text import plain
from mpengine.top.view import ACCURACY, Look, lines_of, zone_ladder
from tests.top.samples import NOW_MS, PRICE, STATES, facts, symbol, venue, zone

SIZES = [(60, 16), (80, 24), (81, 25), (109, 30), (110, 30), (120, 40), (159, 50), (160, 50), (200, 60), (300, 100)]


def lines(part: Part, one: Facts, width: int, height: int, look: Look | None = None, now_ms: int = NOW_MS) -> list[str]:
    look = look or Look(colour=False)
    return [plain(line) for line in lines_of(part, one, badge(one, now_ms, paused=look.paused), look, now_ms, width, height)]


@pytest.mark.parametrize("view", get_args(View))
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_parts_have_their_own_room_within_the_terminal(width: int, height: int, view: View) -> None:
    for layer in ("map", "book"):
        for venues, processes in ((1, 1), (4, 9), (6, 40)):
            found = places(width, height, view, "map" if layer == "map" else "book", venues, processes)
            assert {place.part for place in found} >= {"head", "foot"}
            for place in found:
                assert place.width > 0 and place.height > 0
                assert place.x >= 0 and place.x + place.width <= width
                assert place.y >= 0 and place.y + place.height <= height
            for one, two in combinations(found, 2):
                apart_x = one.x + one.width <= two.x or two.x + two.width <= one.x
                apart_y = one.y + one.height <= two.y or two.y + two.height <= one.y
                assert apart_x or apart_y, (one, two)


def test_more_room_shows_more() -> None:
    parts = [{place.part for place in places(*size, "main", "map", 4, 8)} for size in ((80, 24), (120, 40), (200, 60))]
    assert parts[0] == {"head", "venues", "zones", "map", "liquidations", "foot"}
    assert parts[1] == parts[2] == parts[0] | {"book", "processes"}
    assert "book" in {place.part for place in places(80, 24, "main", "book", 4, 8)}
    assert places(NARROWEST - 1, 24, "main", "map", 4, 8) == places(80, LOWEST - 1, "main", "map", 4, 8) == []


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("width", "height"), [(60, 16), (80, 24), (120, 40), (200, 60)])
def test_no_line_is_wider_than_its_part(width: int, height: int, state: str) -> None:
    one = facts(**STATES[state])
    for view in get_args(View):
        for colour in (False, True):
            for place in places(width, height, view, "map", len(one.venues), len(one.processes)):
                found = lines(place.part, one, place.width, place.height, Look(view=view, colour=colour))
                assert len(found) <= place.height
                assert all(len(line) <= place.width for line in found), place.part


def test_facts_that_say_nothing_are_dashes_and_no_error() -> None:
    nothing = Facts(now_ms=NOW_MS, source="shared memory")
    for width, height in SIZES:
        for view in get_args(View):
            for place in places(width, height, view, "map", 0, 0):
                lines(place.part, nothing, place.width, place.height)
    head = lines("head", nothing, 100, 4)
    assert "STALE" in head[0] and "up -" in head[0] and "engines -" in head[0]
    assert head[1] == "▲ nothing has been heard yet" and head[3] == "no symbol"
    assert "clients -      dropped -      sent     - B/s" in lines("foot", nothing, 120, 2)[0]
    assert (
        lines("zones", nothing, 60, 9)[1] == "no zones yet" and lines("processes", nothing, 60, 9)[1] == "not told by this source"
    )


def test_the_head_says_what_runs_and_why_it_is_stale() -> None:
    head = lines("head", facts(), 110, 4)
    assert "● LIVE" in head[0] and "up 3d 04:12" in head[0] and "ingest ok  engines 3/3  api 2/2" in head[0]
    assert head[1].startswith("clients 1,213  12.4k msg/s  cpu  61 %  rss   412 M")
    assert "1 BTC 65,892.7" in head[2] and "3 SOL 179.785" in head[2]
    assert head[3].startswith("map 34 s   book 42 s   oi 12 s   zones 41    data since 20 16:40 UTC") and "estimated" in head[3]
    stale = lines("head", facts(**STATES["stale"]), 110, 4)
    assert "▲ STALE" in stale[0] and stale[1] == "▲ newest book is 200 s old"
    dead = lines("head", facts(**STATES["no-engine"]), 110, 4)
    assert "ingest dead  engines 0/3  api 0/2" in dead[0]
    assert dead[1] == "▲ the supervisor is gone; engine of BTC: dead; no venue is LIVE"


def test_a_pause_counts_what_waits() -> None:
    assert "‖ PAUSED +12" in lines("head", facts(), 100, 4, Look(paused=True, waiting=12))[0]
    assert "‖ PAUSED ▲ STALE" in lines("head", facts(**STATES["stale"]), 100, 4, Look(paused=True))[0]


def test_a_venue_says_its_state_lags_gaps_ages_and_what_its_feed_does_not_show() -> None:
    rows = lines("venues", facts(), 120, 6)
    assert rows[1].split()[:2] == ["binance", "LIVE"] and "38/120" in rows[1] and "largest_1s lb" in rows[1]
    assert "all_500ms" in rows[2] and "lb" not in rows[2]
    assert rows[3].split()[3] == "2" and "no public feed" in rows[4]
    down = lines("venues", facts(**STATES["venue-down"]), 60, 4)[2].split()
    assert down[:2] == ["bybit", "DOWN"] and "200" not in down and "3" in down  # 200 s are 3 m


def test_nothing_that_a_server_says_can_move_the_cursor() -> None:
    """Every text of the facts, wherever it is shown: a server may be anybody's."""
    evil = "\x1b[2J\x9b31m\r\n\x07x"
    one = facts(
        source=evil, instance=evil, version=evil, trouble=evil, lost=evil, shown=evil,
        processes=(replace(facts().processes[0], name=evil, state=evil, trouble={evil: 1}),),
        venues=(venue(evil, evil, note=evil, book=evil, liquidations=evil, streams=(Stream(name=evil, state=evil, messages=1),)),),
        symbols=(symbol(evil, PRICE, engine=evil, price_kind=evil, error=evil),),
        zones=(replace(zone("long", PRICE - 1), source=evil),),
        liquidations=(replace(facts().liquidations[0], venue=evil),),
    )  # fmt: skip
    for width, height in SIZES:
        for view in get_args(View):
            for place in places(width, height, view, "map", 1, 1):
                for line in lines(place.part, one, place.width, place.height, Look(view=view, note=evil)):
                    assert line.isprintable() and len(line) <= place.width, (place.part, line)
    assert text_of(one, 120, 40).replace("\n", "").isprintable()


def test_streams_that_are_not_live_come_first() -> None:
    many = tuple(Stream(name=f"s{n}", state="LIVE" if n else "STALE", messages=n) for n in range(50))
    rows = lines("streams", facts(venues=(venue("binance", streams=many[::-1]),)), 80, 10)
    assert "s0" in rows[1] and "STALE" in rows[1] and rows[-1] == "… 42 more"


def test_zones_stand_above_and_below_the_price_with_their_distance() -> None:
    ladder = zone_ladder(facts(), 9)
    prices = [one.price if one else PRICE for one in ladder]
    assert prices == sorted(prices, reverse=True) and ladder[4] is None and len(ladder) == 9
    rows = lines("zones", facts(), 44, 10)
    assert rows[0].split() == ["zones", "price", "away", "USD", "age", "P(swept)"]
    assert rows[4].split() == ["short", "66,156.3", "+0.40%", "311k", "45", "m", "-"]
    assert rows[5] == "── mark 65,892.7 ──"
    assert rows[6].split()[:4] == ["long", "65,629.1", "-0.40%", "2.2M"]


def test_one_side_without_zones_leaves_its_room_to_the_other() -> None:
    below = facts(zones=tuple(zone("long", PRICE - 10 * n) for n in range(1, 30)))
    ladder = zone_ladder(below, 10)
    assert ladder[0] is None and len(ladder) == 10
    assert [one.price for one in zone_ladder(facts(symbols=(symbol("BTC", PRICE, price_kind=None),)), 5) if one]
    unknown = replace(facts(), symbols=(replace(symbol("BTC", PRICE), price=None),))
    assert None not in zone_ladder(unknown, 10)


def test_liquidations_name_time_venue_side_usd_and_price() -> None:
    rows = lines("liquidations", facts(), 50, 8)
    assert rows[1].split() == ["18:39:53", "7.0", "s", "bybit", "long", "500", "65,892.7"]
    assert rows[2].split() == ["18:39:46", "14", "s", "binance", "short", "1.5k", "lb", "65,902.7"]
    assert rows[-1] == "… 6 more"
    assert lines("liquidations", facts(liquidations=()), 50, 8)[1] == "none so far"


def test_processes_show_restarts_cost_and_trouble() -> None:
    one = replace(facts().processes[1], restarts=3, trouble={"capture_dropped": 109}, state="BACKOFF")
    rows = lines("processes", facts(processes=(one,)), 90, 3)
    assert rows[1].split() == ["ingest", "BACKOFF", "3", "8", "%", "51.5M", "0.1", "s", "capture_dropped", "109"]


def test_the_foot_is_honest_about_accuracy_and_about_what_is_not_published() -> None:
    foot = lines("foot", facts(), 120, 2)
    assert foot[0] == f"fan-out:  clients 1,213  dropped 5      sent 84.3k B/s  http   402/s  5xx 0       {ACCURACY}"
    narrow = lines("foot", facts(fanout=FanOut()), 80, 2)[0]
    assert narrow.endswith(ACCURACY) and "clients -      dropped -" in narrow
    assert lines("foot", facts(), 120, 2, Look(note="● recording"))[0].endswith("● recording")


def test_the_whole_screen_as_text_has_every_part_in_its_place() -> None:
    text = text_of(facts(), 120, 40)
    rows = text.splitlines()
    assert len(rows) == 40 and all(len(row) <= 120 for row in rows)
    for word in ("● LIVE", "binance", "process", "map est. USD", "book USD", "P(swept)", "hyperliquid", ACCURACY):
        assert word in text
    assert "\x1b" not in text


def test_the_screen_of_the_documentation_is_what_is_drawn() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/top.md").read_text(encoding="utf-8")
    assert page.partition("```text\n")[2].partition("\n```")[0] == text_of(facts(), 110, 32)


def test_ages_tick_while_the_facts_stand_still() -> None:
    assert lines("head", facts(), 100, 4, now_ms=NOW_MS + 5_000)[3].startswith("map 39 s   book 47 s   oi 17 s")


def test_a_symbol_without_maps_or_book_says_so() -> None:
    one = facts(symbols=(symbol("BTC", PRICE, maps=False, map=None, book=Newest(seq=1, ts_ms=NOW_MS)),))
    assert lines("head", one, 100, 4)[3].startswith("no maps  book 0.0 s")
    two = facts(symbols=(symbol("BTC", PRICE, books=False, book=None, error="Missing: candles"),))
    assert lines("head", two, 100, 4)[3].startswith("▲ Missing: candles  map 34 s   no book")
